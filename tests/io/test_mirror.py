"""Mirrors as `hf download` writes them, against the `datasets` library on the same directory."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jaxprefix.errors import InputError
from jaxprefix.io.hub import dataset_rows
from jaxprefix.io.mirror import split_files

ROWS = [{"id": f"{index}", "text": text} for index, text in enumerate(["Grüße, 世界", 'a "quoted"\tcell', "नमस्ते", "x"])]
CARD = """---
license: mit
configs:
- config_name: de
  data_files:
  - split: train
    path: "text/deu/train-*"
  - split: test
    path: [text/deu/test.jsonl]
- config_name: hi
  data_files: text/hin/*.jsonl
---
# A card
"""


def content(rows: list[dict[str, Any]], ending: str) -> bytes:
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink := pyarrow.BufferOutputStream())
        return sink.getvalue().to_pybytes()
    if ending in ("csv", "tsv"):
        mark = {"csv": ",", "tsv": "\t"}[ending]
        cells = [[f'"{cell}"' for cell in (row["id"], row["text"].replace('"', '""'))] for row in rows]
        return "".join(f"{mark.join(line)}\n" for line in [["id", "text"], *cells]).encode()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(dataset: Path, files: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in files.items():
        path = dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = name.removesuffix(".gz")
        data = content(rows, plain.rpartition(".")[2])
        path.write_bytes(gzip.compress(data) if plain != name else data)
    cache = dataset / ".cache" / "huggingface" / "download" / "de"
    cache.mkdir(parents=True)
    (cache / "train.parquet.metadata").write_text("x")


def read(data: Path, config: str, split: str) -> list[dict[str, Any]]:
    return [dict(row) for row in dataset_rows("org/d", config, split, None, data)]


FIRST, SECOND, THIRD = ROWS[:2], ROWS[2:3], ROWS[3:]
LAYOUTS: dict[str, tuple[str, dict[str, list[dict[str, Any]]]]] = {
    "one part": ("de", {"de/train-00000-of-00001.parquet": ROWS}),
    "several parts": (
        "de",
        {
            "de/train-00002-of-00003.parquet": THIRD,
            "de/train-00000-of-00003.parquet": FIRST,
            "de/train-00001-of-00003.parquet": SECOND,
            "de/test-00000-of-00001.parquet": FIRST,
        },
    ),
    "parts with hashes": (
        "de",
        {
            "de/train-00000-of-00002-a09b74b3ef9c3b56.parquet": FIRST,
            "de/train-00001-of-00002-0cae12b34e57d1f2.parquet": SECOND + THIRD,
        },
    ),
    "packed": ("de", {"de/train.jsonl.gz": ROWS}),
    "packed parts": ("de", {"de/train-00000-of-00002.csv.gz": FIRST, "de/train-00001-of-00002.csv.gz": SECOND + THIRD}),
    "json lines": ("de", {"de/train.json": ROWS}),
    "tsv": ("de", {"de/train.tsv": ROWS}),
    "data in the config": ("de", {"de/data/train-00000-of-00001.parquet": ROWS}),
    "the config in data": ("de", {"data/de/train.jsonl": ROWS, "data/hi/train.jsonl": FIRST}),
    "a folder of the split": ("de", {"de/train/0000.parquet": FIRST, "de/train/0001.parquet": SECOND + THIRD}),
    "one config": ("default", {"data/train-00000-of-00001.parquet": ROWS, "data/test.parquet": FIRST}),
    "no folder": ("default", {"train-00000-of-00001.parquet": ROWS, "README.md": []}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_of_the_hub(name: str, tmp_path: Path):
    config, files = LAYOUTS[name]
    write(tmp_path / "org" / "d", files)
    assert read(tmp_path, config, "train") == ROWS


def test_rows_name_the_part_that_they_are_in(tmp_path: Path):
    write(tmp_path / "org" / "d", LAYOUTS["several parts"][1])
    rows = dataset_rows("org/d", "de", "train", None, tmp_path)
    assert rows[2].location == f"{tmp_path}/org/d/de/train-00001-of-00003.parquet: row 1"


@pytest.mark.parametrize("config, split", [("de", "train"), ("de", "test"), ("hi", "train")])
def test_the_card_says_where_the_rows_are(config: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reference is the `datasets` library, on the same directory."""
    import datasets

    parts = {f"text/deu/train-0000{n}-of-00003.jsonl": rows for n, rows in enumerate([FIRST, SECOND, THIRD])}
    others = {"text/deu/test.jsonl": SECOND, "text/hin/b.jsonl": SECOND, "text/hin/a.jsonl": THIRD}
    write(dataset := tmp_path / "org" / "d", parts | others)
    (dataset / "README.md").write_text(CARD)
    theirs = datasets.load_dataset(str(dataset), config, split=split, cache_dir=str(tmp_path / "cache")).to_list()
    assert read(tmp_path, config, split) == theirs


def test_what_a_card_does_not_list(tmp_path: Path):
    write(dataset := tmp_path / "org" / "d", {"text/deu/train-00001-of-00002.jsonl": ROWS})
    (dataset / "README.md").write_text(CARD)
    assert split_files(dataset, "de", "dev") == split_files(dataset, "sw", "train") == []
    with pytest.raises(InputError, match=r"README.md: part 00000 is missing; download the data set again"):
        split_files(dataset, "de", "train")
    (dataset / "README.md").write_text("no card")
    assert split_files(dataset, "de", "train") == []


@pytest.mark.parametrize("card", ["configs: 5", "configs:\n- config_name: de", "[", "configs: [5]"])
def test_a_card_that_cannot_be_read(card: str, tmp_path: Path):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(InputError) as raised:
        split_files(tmp_path, "de", "train")
    assert str(raised.value).startswith(f"{tmp_path}/README.md: its list of configs cannot be read: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
            "-*-of-00003.parquet: part 00001 is mis",
        ),
        (["train-00000-of-00002.jsonl"], "train-*-of-00002.jsonl: part 00001 is missing"),
        (
            ["train-00000-of-00001-a09b74b3ef9c3b56.jsonl", "train-00000-of-00001-0cae12b34e57d1f2.jsonl"],
            "part 00000 is there twice",
        ),
        (["train.jsonl", "train-00000-of-00001.jsonl"], "has train-*-of-00001.jsonl and train.jsonl; expected one"),
        (["train.jsonl", "train.jsonl.gz"], "has train.jsonl and train.jsonl.gz; expected one of them"),
        (["train.jsonl", "train.parquet"], "has train.jsonl and train.parquet; expected one of them"),
        (["train.jsonl", "train/0000.jsonl"], "has train/ and train.jsonl; expected one of them"),
    ],
)
def test_half_a_split_or_two_are_refused(names: list[str], message: str, tmp_path: Path):
    write(tmp_path / "org" / "d", {f"de/{name}": FIRST for name in names})
    with pytest.raises(InputError) as raised:
        read(tmp_path, "de", "train")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_rows_of_another_config_are_not_taken(tmp_path: Path):
    """Files without a folder belong to a data set of one config."""
    write(tmp_path / "org" / "d", {"data/train.jsonl": ROWS, "train.jsonl": ROWS})
    with pytest.raises(InputError, match=r"mirror of org/d has no config de; it has data, train\.jsonl; to download"):
        read(tmp_path, "de", "train")
