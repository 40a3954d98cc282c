"""The harness's tasks on rows of a local mirror: task files of the same names that read local files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from jaxprefix.errors import InputError
from jaxprefix.io.rows import ENDINGS

TASKS = Path(__file__).parent / "tasks"  # the task files of this package
FAMILIES = ("belebele", "mgsm", "xcopa", "xnli")  # the families of the harness that a mirror can serve
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def write_tasks(data: Path, directory: Path) -> int:
    """Writes a task file for each task, ours or of `FAMILIES`, whose DATA/<dataset>/<config> exists.

    Prompts, metrics and splits do not change. Returns the number of tasks; InputError if there are none.
    """
    harness_tasks = Path(lm_eval.tasks.__path__[0])
    sources = [TASKS, *(harness_tasks / family for family in FAMILIES)]
    entries = TaskManager(include_path=list(sources), include_defaults=False).task_index.values()
    tasks = {entry.yaml_path: entry.cfg for entry in entries if entry.cfg and entry.cfg.get("dataset_name")}
    mirrored = {path: task for path, task in tasks.items() if path and _folder(data, task).is_dir()}
    if not mirrored:
        raise InputError(
            f"--data {data} has no rows of {', '.join(FAMILIES)} or xquad; expected DATASET/CONFIG/SPLIT.*"
        )
    for path, task in mirrored.items():
        # YAML includes JSON.
        (directory / f"{task['task']}.yaml").write_text(json.dumps({"include": str(path), **_local(data, task)}))
    return len(mirrored)


def _folder(data: Path, task: Mapping[str, Any]) -> Path:
    return data / task["dataset_path"] / task["dataset_name"]


def _local(data: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that read local rows. A split that only serves few-shot examples may be missing."""
    folder = _folder(data, task).absolute()
    evaluated = task.get("test_split") or task["validation_split"]
    files, missing = {}, {}
    for key in (key for key in SPLITS if task.get(key)):
        split = task[key]
        paths = [path for ending in ENDINGS if (path := folder / f"{split}.{ending}").is_file()]
        if paths or split == evaluated:
            files[split] = str(paths[0] if paths else folder / f"{split}.jsonl")  # the harness reports it as missing
        else:
            missing[key] = None
    ending = Path(files[evaluated]).suffix.removeprefix(".")
    reader = "json" if ending == "jsonl" else ending
    dataset = {"dataset_path": reader, "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return {"task": task["task"]} | dataset | missing
