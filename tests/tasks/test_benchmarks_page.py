"""Runs docs/benchmarks.md: its file becomes a task, and its rows become the prompt that it shows."""

import json
import re
from pathlib import Path

import pytest

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.languages import find_language
from jaxprefix.tasks.task import Task
from jaxprefix.train.dataset import training_task

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """The one code block of a kind on the page."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def task() -> Task:
    found: dict = {}
    exec(compile(block("python"), "docs/benchmarks.md", "exec"), found)
    return found["PAWSX"]


def test_the_example_is_about_forty_lines():
    assert len(block("python").splitlines()) <= 50


def test_the_rows_become_the_prompt(task: Task, tmp_path: Path):
    (place,) = re.findall(r"MIRROR/(google\S+?)`", PAGE)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(block("json"), encoding="utf-8")
    examples = [task.example(row, "de") for row in task.load("de", "test", tmp_path)]
    assert [example.response for example in examples if example] == ["yes", "no"]
    assert examples[0] is not None and examples[0].prompt == block("text")
    assert task.score("yes", examples[0]) == {"accuracy": 1}
    (tmp_path / place).write_text(json.dumps({"sentence1": "a", "label": 0}), encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.jsonl:1: no 'sentence2'; its columns: id, sentence1, label"):
        task.example(task.load("de", "test", tmp_path)[0], "de")


def test_once_listed_it_trains_and_refuses_its_leak(task: Task, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "TASKS", (*tasks.TASKS, task))
    assert training_task(RunConfig(model="m", task="paws-x")) is task
    with pytest.raises(InputError, match="--split test of paws-x must not be trained on: evaluation uses it"):
        training_task(RunConfig(model="m", task="paws-x", split="test"))


def test_its_languages_are_in_the_table(task: Task):
    assert None not in [find_language(code) for code in task.languages]


def test_what_the_page_names_is_there():
    for name in re.findall(r"`(jaxprefix/[\w/.]+|tests/[\w/.]+)`", PAGE):
        assert name.endswith("pawsx.py") or (Path(__file__).parents[2] / name).exists(), name
    for field in (
        "max_new_tokens",
        "stop",
        "answer",
        "corpus_metrics",
        "train_split",
        "forbidden_splits",
        "eval_tasks",
    ):
        assert f"`{field}`" in PAGE and field in Task.__dataclass_fields__
