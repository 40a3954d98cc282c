"""The harness's tasks on rows of a local mirror: task files of the same names that read files in the hub's place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from jaxprefix.errors import InputError
from jaxprefix.io.rows import ENDINGS

OWN = Path(__file__).parent / "tasks"  # the task files that this package ships
FAMILIES = ("belebele", "mgsm", "xcopa", "xnli")  # the harness's, whose sets a mirror may hold
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def write_tasks(data: Path, directory: Path) -> int:
    """Writes into `directory` a task for each of ours and of `FAMILIES` whose DATA/<dataset>/<config> is there.

    Prompts, metrics and splits stay. Returns how many there are; InputError where there is none.
    """
    stock = Path(lm_eval.tasks.__path__[0])
    sources = [OWN, *(stock / family for family in FAMILIES)]
    found = TaskManager(include_path=list(sources), include_defaults=False).task_index
    tasks = {entry.yaml_path: entry.cfg for entry in found.values() if entry.cfg and entry.cfg.get("dataset_name")}
    held = {path: task for path, task in tasks.items() if path and _folder(data, task).is_dir()}
    if not held:
        raise InputError(
            f"--data {data} holds no rows of {', '.join(FAMILIES)} or xquad; expected DATASET/CONFIG/SPLIT.*"
        )
    for path, task in held.items():
        # JSON is YAML too.
        (directory / f"{task['task']}.yaml").write_text(json.dumps({"include": str(path), **_local(data, task)}))
    return len(held)


def _folder(data: Path, task: Mapping[str, Any]) -> Path:
    return data / task["dataset_path"] / task["dataset_name"]


def _local(data: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """What changes: where the rows are. A split that is only for few-shot examples may be missing."""
    folder = _folder(data, task).absolute()
    asked = task.get("test_split") or task["validation_split"]
    files, missing = {}, {}
    for place in (place for place in SPLITS if task.get(place)):
        split = task[place]
        paths = [path for ending in ENDINGS if (path := folder / f"{split}.{ending}").is_file()]
        if paths or split == asked:
            files[split] = str(paths[0] if paths else folder / f"{split}.jsonl")  # the latter is said to be missing
        else:
            missing[place] = None
    ending = Path(files[asked]).suffix.removeprefix(".")
    reader = "json" if ending == "jsonl" else ending
    where = {"dataset_path": reader, "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return {"task": task["task"]} | where | missing
