"""Zero-shot scores in many languages. `evaluate` is here the function: its module has the same name."""

from jaxprefix.evaluation.evaluate import evaluate
from jaxprefix.evaluation.settings import Evaluation

__all__ = ["Evaluation", "evaluate"]
