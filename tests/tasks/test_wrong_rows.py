"""A wrong row is refused in one line: its file and line, or its data set and number, and the column."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from jaxprefix.errors import InputError
from jaxprefix.io import hub
from jaxprefix.tasks import TASKS, find

OPTIONS = {f"mc_answer{number}": f"option {number}" for number in (1, 2, 3, 4)}
ANSWERS = {f"answer{number}": f"option {number}" for number in (1, 2, 3, 4)}
PASSAGE = {"id": "english-1", "context": "c", "question": "q", "answers": {"text": ["c"]}}
PAIR = {"premise": "p", "hypothesis": "h", "label": 0}
# A correct row of each task, and the path of its file in a mirror.
RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "squad": ("rajpurkar/squad/plain_text/train", PASSAGE),
    "tydiqa": ("google-research-datasets/tydiqa/secondary_task/validation", PASSAGE),
    "xquad": ("google/xquad/xquad.en/validation", PASSAGE),
    "mlqa": ("facebook/mlqa/mlqa.en.en/test", PASSAGE),
    "mnli": ("nyu-mll/multi_nli/default/train", PAIR),
    "xnli": ("facebook/xnli/en/test", PAIR),
    "belebele": (
        "facebook/belebele/eng_Latn/test",
        {"flores_passage": "p", "question": "q", "correct_answer_num": "1", **OPTIONS},
    ),
    "belebele-mix": (
        "facebook/belebele/belebele_training_set",
        {"split": "dev", "passage": "p", "question": "q", "correct_answer_num": "1", **ANSWERS},
    ),
    "gsm8k": ("openai/gsm8k/main/test", {"question": "q", "answer": "1 + 1 = 2\n#### 2"}),
    "mgsm": ("juletxara/mgsm/en/test", {"question": "q", "answer": None, "answer_number": 2}),
    "xcopa": (
        "cambridgeltl/xcopa/it/test",
        {"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 1},
    ),
    "xlsum": ("csebuetnlp/xlsum/english/test", {"id": "1", "text": "t", "summary": "s"}),
    "flores": ("openlanguagedata/flores_plus/deu_Latn/devtest", {"id": 1, "text": "t"}),
}
LANGUAGES = {"belebele": "eng_Latn", "xcopa": "it", "flores": "deu_Latn"}
TEXT = "expected text"
WRONG = [
    ("squad", {"question": None}, f"'question' is None; {TEXT}"),
    ("squad", {"context": 7}, f"'context' is 7; {TEXT}"),
    ("squad", {"question": ...}, "no 'question'; its columns: id, context, answers"),
    ("squad", {"answers": ...}, "no 'answers'; its columns: id, context, question"),
    ("squad", {"answers": "c"}, "'answers' is 'c'; expected {\"text\": [...]}"),
    ("squad", {"answers": {"text": "c"}}, "'answers' is {'text': 'c'}; expected {\"text\": [...]}"),
    ("xquad", {"answers": {"text": [1]}}, "'answers' is {'text': [1]}; expected {\"text\": [...]}"),
    ("mlqa", {"answers": {}}, "'answers' is {}; expected {\"text\": [...]}"),
    ("tydiqa", {"context": ["c"]}, f"'context' is ['c']; {TEXT}"),
    ("mnli", {"label": 3}, "'label' is 3; expected one of 0, 1, 2, -1"),
    ("mnli", {"label": True}, "'label' is True; expected one of 0, 1, 2, -1"),
    ("xnli", {"label": None}, "'label' is None; expected one of 0, 1, 2, -1"),
    ("xnli", {"label": ...}, "no 'label'; its columns: id, premise, hypothesis"),
    ("xnli", {"hypothesis": None}, f"'hypothesis' is None; {TEXT}"),
    ("belebele", {"correct_answer_num": "5"}, "'correct_answer_num' is '5'; expected one of 1, 2, 3, 4"),
    ("belebele", {"correct_answer_num": 0}, "'correct_answer_num' is 0; expected one of 1, 2, 3, 4"),
    ("belebele", {"correct_answer_num": "B"}, "'correct_answer_num' is 'B'; expected one of 1, 2, 3, 4"),
    ("belebele", {"mc_answer3": " "}, f"'mc_answer3' is blank; {TEXT}"),
    ("belebele", {"flores_passage": None}, f"'flores_passage' is None; {TEXT}"),
    ("belebele-mix", {"correct_answer_num": "0.5"}, "'correct_answer_num' is '0.5'; expected one of 1, 2, 3, 4"),
    ("belebele-mix", {"answer2": " "}, f"'answer2' is blank; {TEXT}"),
    ("gsm8k", {"answer": "It is 2."}, "'answer' does not end with a line \"#### NUMBER\""),
    ("gsm8k", {"answer": "1 + 1\n#### two"}, "'answer' does not end with a line \"#### NUMBER\""),
    ("mgsm", {"answer_number": None}, "'answer_number' is None; expected a number"),
    ("mgsm", {"answer_number": "many"}, "'answer_number' is 'many'; expected a number"),
    ("mgsm", {"answer_number": True}, "'answer_number' is True; expected a number"),
    ("xcopa", {"choice2": ""}, f"'choice2' is blank; {TEXT}"),
    ("xcopa", {"question": "reason"}, "'question' is 'reason'; expected one of cause, effect"),
    ("xcopa", {"label": 2}, "'label' is 2; expected one of 0, 1"),
    ("xlsum", {"summary": " \n"}, f"'summary' is blank; {TEXT}"),
    ("flores", {"text": ""}, f"'text' is blank; {TEXT}"),
    ("flores", {"id": 9}, "no sentence of eng_Latn has the id 9"),
]


def write(root: Path, place: str, rows: list[dict]) -> Path:
    file = root / f"{place}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    # A blank line: lines are counted, and rows are not lines.
    file.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def changed(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """The correct row of the task with other columns, without those that are `...`."""
    return {column: value for column, value in {**RIGHT[name][1], **change}.items() if value is not ...}


def ask(name: str, data: Path | None) -> None:
    task, language = find(name), LANGUAGES.get(name, "en")
    place = RIGHT[name][0]
    split = "validation" if name == "belebele-mix" else place.rpartition("/")[2]
    for row in task.load(language, split, data):
        task.example(row, language)


def test_every_benchmark_has_a_right_row_here(tmp_path: Path):
    assert set(RIGHT) == {task.name for task in TASKS}
    write(tmp_path, "openlanguagedata/flores_plus/eng_Latn/devtest", [{"id": 1, "text": "e"}])
    for name, (place, row) in RIGHT.items():
        write(tmp_path, place, [row])
        ask(name, tmp_path)


@pytest.mark.parametrize(("name", "change", "complaint"), WRONG)
def test_a_wrong_row_is_named_by_its_file_and_line(name: str, change: dict, complaint: str, tmp_path: Path):
    place, row = RIGHT[name]
    write(tmp_path, "openlanguagedata/flores_plus/eng_Latn/devtest", [{"id": 1, "text": "e"}])
    file = write(tmp_path, place, [row, changed(name, change)])
    with pytest.raises(InputError) as error:
        ask(name, tmp_path)
    assert str(error.value) == f"{file}:3: {complaint}"


def test_a_wrong_row_of_the_hub_is_named_by_its_set_and_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "_probe", lambda *_: None)
    rows = [RIGHT["xcopa"][1], changed("xcopa", {"choice1": " "})]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    with pytest.raises(InputError) as error:
        ask("xcopa", None)
    line = "cambridgeltl/xcopa, config it, split test: row 2: 'choice1' is blank; expected text"
    assert str(error.value) == line


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_a_wrong_row_of_another_file_is_named_by_its_number(ending: str, tmp_path: Path):
    place, row = RIGHT["xcopa"]
    file = tmp_path / f"{place}.{ending}"
    file.parent.mkdir(parents=True)
    rows = datasets.Dataset.from_list([row, row, changed("xcopa", {"label": 7})])
    if ending == "json":
        rows.to_json(file, lines=False)
    elif ending == "csv":
        rows.to_csv(file)
    else:
        rows.to_parquet(file)
    found = "'7'" if ending == "csv" else "7"
    with pytest.raises(InputError) as error:
        ask("xcopa", tmp_path)
    assert str(error.value) == f"{file}: row 3: 'label' is {found}; expected one of 0, 1"


@pytest.mark.parametrize("name", RIGHT)
def test_an_unknown_split_is_refused_with_the_existing_ones(name: str, tmp_path: Path):
    write(tmp_path, RIGHT[name][0], [RIGHT[name][1]])
    with pytest.raises(InputError) as error:
        find(name).load(LANGUAGES.get(name, "en"), "tset", tmp_path)
    line, there = str(error.value), RIGHT[name][0].rpartition("/")[2]
    assert "tset" in line and "\n" not in line
    assert line.endswith("it has train, validation" if name == "belebele-mix" else f"has {there}.jsonl")
