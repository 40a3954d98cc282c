"""The scores of a run in the form of the Hub, `.eval_results/*.yaml` (https://huggingface.co/docs/hub/eval-results).

There is one entry per language, for the main metric, in percent. Scores on the user's own rows and on the embedded
world have no data set on the Hub, so they have none.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from jaxprefix.evaluation.report import Report, read_report
from jaxprefix.tasks import flores, xlsum

# The data set of each benchmark, and its configuration for a language. That of TyDi QA has all languages.
DATASETS: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "xquad": ("google/xquad", "xquad.{0}".format),
    "tydiqa": ("google-research-datasets/tydiqa", "secondary_task.{0}".format),
    "xnli": ("facebook/xnli", str),
    "belebele": ("facebook/belebele", str),
    "mgsm": ("juletxara/mgsm", str),
    "xcopa": ("cambridgeltl/xcopa", str),
    "mlqa": ("facebook/mlqa", "mlqa.{0}.{0}".format),
    "xlsum": ("csebuetnlp/xlsum", xlsum.CONFIGS.__getitem__),
    "flores": (flores.DATASET, lambda language: flores.RENAMED.get(language, language)),
}


def eval_results(run: Path) -> str | None:
    """The content of the file; None if the run has no report with scores of these benchmarks."""
    if not (run / "report.json").is_file():
        return None
    entries = _entries(read_report(run))
    return yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else None


def _entries(report: Report) -> list[EvalResultEntry]:
    entries = []
    for name, task in report["tasks"].items():
        if name not in DATASETS:
            continue
        dataset, config_of = DATASETS[name]
        metric = task["metrics"][0]
        for language, scores in task["languages"].items():
            notes = f"{metric} in percent, {scores['n']:,} rows; adapter trained in {report['source']}, with jaxprefix"
            value = round(100 * scores[metric], 2)
            entries.append(EvalResultEntry(dataset, config_of(language), value, notes=notes))
    return entries
