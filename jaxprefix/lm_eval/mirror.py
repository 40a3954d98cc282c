"""The harness's tasks on rows of a local mirror: task files of the same names that read local files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from jaxprefix.errors import InputError
from jaxprefix.io.mirror import split_files
from jaxprefix.io.rows import split_name

TASKS = Path(__file__).parent / "tasks"  # the task files of this package
FAMILIES = ("belebele", "mgsm", "xcopa", "xnli")  # the families of the harness that a mirror can serve
OPTIONS = {"tsv": {"delimiter": "\t"}}  # of the reader, by the ending of the files
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def write_tasks(data: Path, directory: Path) -> int:
    """Writes a task file for each task, ours or of `FAMILIES`, that the mirror has rows of.

    Prompts, metrics and splits do not change. Returns the number of tasks; InputError if there are none.
    """
    harness_tasks = Path(lm_eval.tasks.__path__[0])
    sources = [TASKS, *(harness_tasks / family for family in FAMILIES)]
    entries = TaskManager(include_path=list(sources), include_defaults=False).task_index.values()
    tasks = {entry.yaml_path: entry.cfg for entry in entries if entry.cfg and entry.cfg.get("dataset_name")}
    mirrored = {path: task for path, task in tasks.items() if path and _is_mirrored(data, task)}
    if not mirrored:
        raise InputError(
            f"--data {data} has no rows of {', '.join(FAMILIES)} or xquad; expected DATASET/CONFIG/SPLIT.*"
        )
    for path, task in mirrored.items():
        # YAML includes JSON.
        (directory / f"{task['task']}.yaml").write_text(json.dumps({"include": str(path), **_local(data, task)}))
    return len(mirrored)


def _is_mirrored(data: Path, task: Mapping[str, Any]) -> bool:
    return (data / task["dataset_path"] / task["dataset_name"]).is_dir() or bool(_files(data, task, _evaluated(task)))


def _evaluated(task: Mapping[str, Any]) -> str:
    """The split that the task is evaluated on."""
    return task.get("test_split") or task["validation_split"]


def _files(data: Path, task: Mapping[str, Any], split: str) -> list[Path]:
    return split_files(data / task["dataset_path"], task["dataset_name"], split)


def _local(data: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that read local rows. A split that only serves few-shot examples may be missing."""
    evaluated = _evaluated(task)
    # The harness reports an evaluated split without files as missing.
    files = {evaluated: [data / task["dataset_path"] / task["dataset_name"] / f"{evaluated}.jsonl"]}
    unused = {}
    for key in (key for key in SPLITS if task.get(key)):
        if found := _files(data, task, task[key]):
            files[task[key]] = found
        elif task[key] != evaluated:
            unused[key] = None
    _, ending = split_name(files[evaluated][0])
    paths = {split: [str(path.absolute()) for path in found] for split, found in files.items()}
    kwargs = {"data_files": {split: found[0] if len(found) == 1 else found for split, found in paths.items()}}
    reader = {"jsonl": "json", "tsv": "csv"}.get(ending, ending)
    dataset = {"dataset_path": reader, "dataset_name": None, "dataset_kwargs": kwargs | OPTIONS.get(ending, {})}
    return {"task": task["task"]} | dataset | unused
