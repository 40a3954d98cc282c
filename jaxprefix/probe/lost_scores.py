"""The scores that adaptation loses on tasks that it was not trained on, from ordinary evaluations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxprefix.evaluation.compare import Difference, differences
from jaxprefix.evaluation.evaluate import evaluate
from jaxprefix.evaluation.predictions import read_answered
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.models.adapters import NoAdapter
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, read_run
from jaxprefix.runs.saved import write_run_json

FOLDER = "frozen-base"  # a run of method none, in the directory of the figures
OTHERS = "mean of others"  # in place of a language: all but the source of the training

Lost = dict[str, dict[str, dict[str, Any]]]  # figure -> model -> language -> figures


def lost_scores(runs: Mapping[str, Path], settings: Probe, directory: Path, quiet: bool) -> Lost:
    """Evaluates the frozen base and the runs, by label, on --forgetting-task. Existing answers are not repeated.

    The absolute loss is the base's score minus the run's. The relative one divides it by the base's score.
    """
    evaluation = Evaluation(
        task=settings.forgetting_task,
        languages=settings.languages,
        data=settings.data,
        limit=settings.limit,
        batch=settings.batch,
        mesh=settings.mesh,
        platform=settings.platform,
    )
    base = _base_run(next(iter(runs.values())), directory / FOLDER)
    tasks = evaluate(base, evaluation, quiet)["tasks"]
    before, lost = read_answered(base), Lost()
    for label, run in runs.items():
        evaluate(run, evaluation, quiet)
        after, source = read_answered(run), read_run(run)["source"]
        for task in names(settings.forgetting_task or ""):
            pairs = [(row, after[key]) for key, row in before.items() if row["task"] == task and key in after]
            metric = tasks[task]["metrics"][0]
            found = differences(pairs, metric, [source, source])
            by_language = dict(found["languages"]) | ({OTHERS: found["mean_others"]} if found["mean_others"] else {})
            figures = {code: _figures(part) for code, part in by_language.items() if part}
            lost.setdefault(f"lost {task} {metric}", {})[label] = figures
    return lost


def _base_run(run: Path, directory: Path) -> Path:
    """A run of method none with the settings and the base of `run`."""
    if not (directory / RUN_FILE).is_file():
        run_json = read_run(run)
        config = RunConfig.from_json(run_json["config"])
        base = open_base(config.model, run_json.get("model_path"))
        progress = {"source": run_json["source"], "rows": None, "steps": 0, "finished": True}
        write_run_json(directory, config.with_adapter(NoAdapter()), base, progress)
    return directory


def _figures(part: Difference) -> dict[str, Any]:
    relative = part["difference"] / part["a"] if part["a"] else None
    return {
        "mean": Estimate(value=part["difference"], low=part["low"], high=part["high"]),
        "relative": None if relative is None else Estimate(value=relative, low=None, high=None),
        "base": part["a"],
        "p": part["p"],
    }
