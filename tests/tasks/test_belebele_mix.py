"""Belebele's training set: the table as pandas writes it, and the message if it is missing."""

from pathlib import Path

import pandas
import pytest

from jaxprefix.errors import InputError
from jaxprefix.tasks.belebele_mix import BELEBELE_MIX, TABLE

COLUMNS = """dataset split passage_id question_id passage question answer1 answer2 answer3 answer4 correct_answer
             correct_answer_num""".split()
# As the program warns, there are line breaks, tabs and quotes in it; columns with a gap hold 3.0 for 3.
ROWS = [
    [
        "RACE",
        "train",
        "high1.txt",
        0,
        'He said:\n"No,\tnever."\n\nThen he left.',
        "Who's he?",
        "a",
        "b",
        "c",
        "d",
        "c",
        3,
    ],
    ["SciQ", "dev", 7, 1, "Water boils.", "When?", "soon", "late", "never", "once", "late", 2.0],
    [
        "MCTest_500",
        "train",
        "31",
        "4",
        "A story.",
        "What?",
        "x",
        None,
        "y",
        "z",
        "x",
        1,
    ],  # pandas takes "None" for a gap
]


def written(root: Path, ending: str = "tsv") -> Path:
    file = root / f"{TABLE}.{ending}"
    file.parent.mkdir(parents=True)
    table = pandas.DataFrame(ROWS, columns=COLUMNS)
    table.to_csv(file, sep="\t") if ending == "tsv" else table.to_csv(file)
    return file


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_the_table_is_read(tmp_path: Path, ending: str):
    written(tmp_path, ending)
    rows = BELEBELE_MIX.load("en", "train", tmp_path)
    examples = [BELEBELE_MIX.example(row, "en") for row in rows]
    assert [row["id"] for row in rows] == ["0", "2"]
    assert examples[1] is None  # a question whose answers are not all there
    assert examples[0] is not None
    assert examples[0].context == 'He said:\n"No,\tnever."\n\nThen he left.'
    assert (examples[0].response, examples[0].id) == ("C", "0")
    (held,) = BELEBELE_MIX.load("en", "validation", tmp_path)
    example = BELEBELE_MIX.example(held, "en")
    assert example is not None and (example.response, example.context) == ("B", "Water boils.")


def test_without_the_table_the_error_says_how_to_get_it(tmp_path: Path):
    way = f"write DIR/{TABLE}.tsv with assemble_training_set.py of https://github.com/facebookresearch/belebele"
    for data, sought in (
        (None, "give --data DIR"),
        (tmp_path, f"no {tmp_path / TABLE}.{{jsonl,json,parquet,csv,tsv}}"),
    ):
        with pytest.raises(InputError) as error:
            BELEBELE_MIX.load("en", "train", data)
        assert str(error.value) == f"task belebele-mix is not on the Hub: {sought}; {way}"


def test_only_its_own_splits_are_known(tmp_path: Path):
    written(tmp_path)
    with pytest.raises(InputError, match="task belebele-mix has no split 'dev'; it has train, validation"):
        BELEBELE_MIX.load("en", "dev", tmp_path)


def test_a_table_of_other_columns_is_refused(tmp_path: Path):
    file = written(tmp_path)
    pandas.DataFrame([["train", "p"]], columns=["split", "passage"]).to_csv(file, sep="\t")
    (row,) = BELEBELE_MIX.load("en", "train", tmp_path)
    with pytest.raises(InputError) as error:
        BELEBELE_MIX.example(row, "en")
    assert str(error.value).startswith(f"{file}: row 1: no 'answer1'; its columns: ")
