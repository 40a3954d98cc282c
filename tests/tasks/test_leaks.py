"""The data of benchmarks is never trained on: neither whole, nor in slices, nor in a sum with training data."""

from dataclasses import replace
from pathlib import Path

import pytest

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks import TASKS, find
from jaxprefix.train.dataset import languages, load_rows, training_task

LEAKS = [
    ("gsm8k", "test", "MGSM translates its first 250 rows"),
    ("squad", "validation", "XQuAD translates a part of it"),
    ("xnli", "test", "evaluation uses it"),
    ("tydiqa", "validation", "evaluation uses it"),
    ("mlqa", "test", "evaluation uses it"),
    ("xcopa", "test", "evaluation uses it"),
    ("xlsum", "test", "evaluation uses it"),
    ("flores", "devtest", "evaluation uses it"),
    ("babel-qa", "test", "evaluation uses it"),
]


@pytest.mark.parametrize("form", ["{}", "{}[:100]", "{}[250:]", "{}[:10%]", "train+{}", "train[:9]+{}[:9]", "all"])
@pytest.mark.parametrize(("task", "split", "reason"), LEAKS)
def test_it_is_refused_with_the_reason(task: str, split: str, reason: str, form: str):
    given = form.format(split)
    with pytest.raises(InputError) as error:
        training_task(RunConfig(model="m", task=task, split=given))
    line = str(error.value)
    assert line.startswith(f"--split {given} of {task} must not be trained on: {reason}") and "\n" not in line


def test_every_leak_of_a_benchmark_is_above():
    assert {(task.name, split) for task in TASKS for split in task.forbidden_splits} < {
        (task, split) for task, split, _ in LEAKS
    }


@pytest.mark.parametrize(
    ("task", "split"),
    [("gsm8k", None), ("gsm8k", "train[:100]"), ("squad", "train"), ("xnli", "validation"), ("mlqa", None)],
)
def test_what_may_be_trained_on_is_accepted(task: str, split: str | None):
    assert training_task(RunConfig(model="m", task=task, split=split)).name == task


@pytest.mark.parametrize(
    ("task", "trained"), [("mgsm", "gsm8k"), ("belebele", "belebele-mix"), ("xquad", "squad, tydiqa")]
)
def test_a_benchmark_is_refused_with_the_tasks_that_train_for_it(task: str, trained: str):
    with pytest.raises(InputError) as error:
        training_task(RunConfig(model="m", task=task))
    assert str(error.value) == f"task {task} is only for evaluation; train on {trained}"


def test_a_benchmark_without_training_data_is_refused_with_all_tasks_for_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "TASKS", (*TASKS, replace(find("xquad"), name="alone")))
    with pytest.raises(InputError, match=r"^task alone is only for evaluation; train on squad, tydiqa, .*, flores"):
        training_task(RunConfig(model="m", task="alone"))


@pytest.mark.parametrize(
    ("task", "language", "split"),
    [
        ("xnli", "de", "train"),
        ("tydiqa", "ko", "train"),
        ("xcopa", "sw", "validation"),
        ("mlqa", "de", "validation"),
        ("xlsum", "sw", "train"),
        ("flores", "deu_Latn", "dev"),
        ("babel-qa", "de", "train"),
        ("gsm8k", None, "train"),
        ("belebele-mix", None, "train"),
        ("mnli", None, "train"),
    ],
)
def test_training_reads_the_training_split_in_any_language_of_the_task(
    task: str, language: str | None, split: str, monkeypatch: pytest.MonkeyPatch
):
    config = RunConfig(model="m", task=task, language=language, data=Path("mirror"))
    asked = []

    def no_rows(*given: object) -> list:
        asked.append(given)
        return []

    found = find(task)
    monkeypatch.setitem(vars(found), "load", no_rows)
    with pytest.raises(InputError, match="no row of the training split has an answer"):
        load_rows(config, found, None, 96)  # type: ignore[arg-type]
    assert asked == [(language or "en", split, Path("mirror"))]


@pytest.mark.parametrize(("task", "first"), [("xcopa", "et, ht"), ("flores", "acm_Arab, afr_Latn")])
def test_a_task_without_english_needs_a_language(task: str, first: str):
    config = RunConfig(model="m", task=task)
    with pytest.raises(InputError, match=f"task {task} has no English; give --language: {first}"):
        languages(config, training_task(config))
