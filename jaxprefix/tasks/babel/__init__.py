"""The benchmarks of the embedded world, one file each, and the text that its model is pretrained on."""

from jaxprefix.tasks.babel.choice import BABEL_CHOICE
from jaxprefix.tasks.babel.math import BABEL_MATH
from jaxprefix.tasks.babel.nli import BABEL_NLI
from jaxprefix.tasks.babel.qa import BABEL_QA
from jaxprefix.tasks.babel.text import BABEL_TEXT

TASKS = (BABEL_QA, BABEL_NLI, BABEL_CHOICE, BABEL_MATH, BABEL_TEXT)
