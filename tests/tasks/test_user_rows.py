"""A user's own rows become a task, or one line says which row of which file is wrong, and what was expected."""

import json
from pathlib import Path

import pytest

from jaxprefix.errors import InputError
from jaxprefix.tasks.user_rows import own_rows_task


def write(folder: Path, *rows: object) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_rows_with_responses_are_generated(tmp_path: Path):
    file = write(
        tmp_path,
        {"prompt": "Capital of Peru?", "response": " Lima "},
        {"prompt": "Hauptstadt von Peru?\n", "response": "Lima", "language": "de", "id": "peru-de"},
        {"prompt": "Capital of Chad?\n\n", "response": "N'Djamena", "language": None},
    )
    task = own_rows_task(file)
    assert (task.name, task.languages, task.metrics) == ("mine", ("en", "de"), ("f1", "em"))
    english = [task.example(row, "en") for row in task.load("en", task.split, None)]
    german = [task.example(row, "de") for row in task.load("de", task.split, None)]
    assert [example.prompt for example in english] == ["Capital of Peru?\n", "Capital of Chad?\n\n"]
    assert [example.prompt for example in german] == ["Hauptstadt von Peru?\n"]
    assert [example.id for example in english + german] == ["1", "3", "peru-de"]
    assert [example.context for example in english] == ["", ""]  # a user's prompt is never cut
    assert (english[0].response, english[0].references, english[0].choices) == ("Lima", ("Lima",), ())
    assert task.score(task.answer("Lima\nand so on"), english[0]) == {"f1": 1.0, "em": 1.0}
    assert task.train_split == task.split  # every reader reads the whole file
    assert task.note == ""


def test_rows_with_choices_are_scored_by_the_most_likely_choice(tmp_path: Path):
    task = own_rows_task(write(tmp_path, {"prompt": "2+2?", "response": "4", "choices": ["3", "4"]}))
    assert (task.metrics, task.max_new_tokens) == (("accuracy",), 0)
    example = task.example(task.load("en", task.split, None)[0], "en")
    assert (example.choices, example.references) == (("3", "4"), ())
    assert task.score("4", example) == {"accuracy": 1.0}
    assert task.score("3", example) == {"accuracy": 0.0}


@pytest.mark.parametrize(("length", "tokens"), [(3, 32), (100, 100), (1000, 256)])
def test_an_answer_may_be_as_long_as_the_longest_response(tmp_path: Path, length: int, tokens: int):
    rows = [{"prompt": "p", "response": "x"}, {"prompt": "p", "response": "x" * length}]
    assert own_rows_task(write(tmp_path, *rows)).max_new_tokens == tokens


def test_a_response_with_several_lines_is_learnt_whole_and_compared_by_its_first(tmp_path: Path):
    task = own_rows_task(write(tmp_path, {"prompt": "p", "response": "one\ntwo"}))
    example = task.example(task.load("en", task.split, None)[0], "en")
    assert (example.response, example.references) == ("one\ntwo", ("one",))
    assert "first lines" in task.note


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "p"}, 'no "response" in prompt; a row needs {"prompt", "response"}'),
        ({"response": "r"}, 'no "prompt" in response; a row needs {"prompt", "response"}'),
        ({"prompt": "p", "response": ""}, '"response" is empty; a row needs {"prompt", "response"}'),
        ({"prompt": "p", "response": 4}, '"response" is 4; expected text'),
        ({"prompt": ["p"], "response": "r"}, "\"prompt\" is ['p']; expected text"),
        ({"prompt": "p", "response": " "}, "\"response\" is ' '; expected text"),
        ({"prompt": "p", "response": "r", "language": 1}, '"language" is 1; expected text'),
        (
            {"prompt": "p", "response": "r", "choices": "r"},
            "\"choices\" is 'r'; expected a list of texts that are not blank",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r", 1]},
            "\"choices\" is ['r', 1]; expected a list of texts that are not blank",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r", " "]},
            "\"choices\" is ['r', ' ']; expected a list of texts that are not blank",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["", "r"]},
            "\"choices\" is ['', 'r']; expected a list of texts that are not blank",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["a", "b"]},
            "\"choices\" is ['a', 'b']; expected two or more different texts, one of them the response",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r", "r "]},
            "\"choices\" is ['r', 'r']; expected two or more different texts, one of them the response",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r", "s", "s"]},
            "\"choices\" is ['r', 's', 's']; expected two or more different texts, one of them the response",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r"]},
            "\"choices\" is ['r']; expected two or more different texts, one of them the response",
        ),
        (
            {"prompt": "p", "response": "r", "choices": ["r", "s"]},
            'expected "choices" in every row or in none; row 1 differs',
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict, complaint: str):
    file = write(tmp_path, {"prompt": "p", "response": "r"}, row)
    with pytest.raises(InputError) as error:
        own_rows_task(file)
    assert str(error.value) == f"{file}:2: {complaint}"


def test_a_wrong_row_is_named_by_its_line_after_blank_lines(tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    file.write_text('\n{"prompt": "p", "response": "r"}\n\n\n{"prompt": "p"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.jsonl:5: no"):
        own_rows_task(file)


def test_rows_of_a_csv_file(tmp_path: Path):
    file = tmp_path / "mine.csv"
    file.write_text("prompt,response,language\nWer?,Ich,de\nWho?,Me,\n", encoding="utf-8")
    task = own_rows_task(file)
    assert task.languages == ("de", "en")
    file.write_text("prompt,response\nWho?,Me\nWho?,\n", encoding="utf-8")
    with pytest.raises(InputError, match=r'mine\.csv: row 2: "response" is empty'):
        own_rows_task(file)


def test_a_file_has_no_splits_and_no_other_languages(tmp_path: Path):
    task = own_rows_task(write(tmp_path, {"prompt": "p", "response": "r"}))
    with pytest.raises(InputError, match="has no split 'validation'"):
        task.load("en", "validation", None)
    with pytest.raises(InputError, match="task mine has no language 'de'; it has en"):
        task.load("de", task.split, None)


def test_empty_and_other_files_are_refused(tmp_path: Path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "p", "response": "r"}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(InputError, match=r"empty\.jsonl"):
        own_rows_task(empty)
    with pytest.raises(InputError, match=r"broken\.jsonl:2"):
        own_rows_task(broken)
