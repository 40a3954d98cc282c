"""Models and rows: they are loaded completely, or one line says where they were looked for."""

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import small
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from jaxprefix.errors import InputError
from jaxprefix.io import hub
from jaxprefix.io.rows import ENDINGS

ROWS = [{"id": "1", "text": "Grüße\u2028, 世界"}, {"id": "2", "text": "नमस्ते"}]


def hub_error(kind: type, status: int) -> Exception:
    return kind("first line\nsecond line", response=httpx.Response(status, request=httpx.Request("GET", "https://x")))


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def answers(monkeypatch):
    """Sets the hub's answer to the first request: None, or an exception."""

    def set_answer(error: Exception | None) -> None:
        def repo_info(self, repo_id, *, repo_type, revision, timeout):
            assert timeout <= 10
            if error is not None:
                raise error

        monkeypatch.setattr(HfApi, "repo_info", repo_info)

    return set_answer


# Models


def test_a_directory_is_returned_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert "has no config.json" in refusal(lambda: hub.model_directory(str(tmp_path / "org/name")))
    (tmp_path / "org" / "name" / "config.json").write_text("{}")
    assert hub.model_directory(str(tmp_path / "org/name")) == tmp_path / "org/name"
    monkeypatch.chdir(tmp_path)  # a directory precedes a hub id with the same name
    assert hub.model_directory("org/name") == Path("org/name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.model_directory("~/org/name") == tmp_path / "org/name"
    assert "is a file" in refusal(lambda: hub.model_directory(str(tmp_path / "org/name/config.json")))


@pytest.mark.parametrize("name", ["./m", "/no/m", "~/m", "a/b/c", "model", "or g/m", "org/-m", "", "../m", "org/m/"])
def test_a_name_that_can_only_be_a_path_is_not_requested_from_the_hub(name, answers):
    answers(AssertionError("asked"))
    expected = f"no such model directory: {name}; give a directory in Hugging Face layout or a Hub id such as"
    assert refusal(lambda: hub.model_directory(name)).startswith(expected)


@pytest.mark.parametrize("name, revision", [("org/m", None), ("org/m@v1.0", "v1.0")])
def test_a_hub_model_is_fetched_without_pickles_and_copies(name, revision, answers, monkeypatch, tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    asked = {}

    def snapshot_download(repository, **given):
        asked.update(given, repository=repository)
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    answers(None)
    assert hub.model_directory(name) == tmp_path
    assert (asked["repository"], asked["revision"], asked["local_files_only"]) == ("org/m", revision, False)
    wanted = """config.json generation_config.json model-00001-of-00002.safetensors model.safetensors.index.json
        tekken.json tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json
        chat_template.jinja""".split()
    unwanted = "pytorch_model.bin README.md original/tokenizer.model consolidated.safetensors x.py".split()
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(wanted + unwanted, **patterns)) == wanted


@pytest.mark.parametrize(
    "error, advice",
    [
        (
            hub_error(GatedRepoError, 403),
            "accept its licence at https://huggingface.co/org/m, then log in with `hf auth",
        ),
        (hub_error(RepositoryNotFoundError, 401), "check the name, or log in with `hf auth login`"),
        (hub_error(RevisionNotFoundError, 404), "no such revision"),
        (httpx.ConnectError("no route"), "the Hub cannot be reached (ConnectError: no route)"),
        (OfflineModeIsEnabled("offline\nmode"), "the Hub cannot be reached"),
    ],
)
def test_a_hub_model_that_cannot_be_loaded(error, advice, answers, monkeypatch):
    def nothing_cached(*_, local_files_only, **__):
        assert local_files_only  # the network is not tried again
        raise LocalEntryNotFoundError("not\ncached")

    monkeypatch.setattr(hub, "snapshot_download", nothing_cached)
    answers(error)
    line = refusal(lambda: hub.model_directory("org/m@v1"))
    assert (
        line.startswith("could not load org/m@v1: no such directory")
        and advice in line
        and "give the directory" in line
    )


def test_a_gate_that_shows_only_at_the_download(answers, monkeypatch):
    def gated(*_, **__):
        raise hub_error(GatedRepoError, 403)

    monkeypatch.setattr(hub, "snapshot_download", gated)
    answers(None)
    assert "accept its licence" in refusal(lambda: hub.model_directory("org/m"))


def test_a_cached_model_serves_without_the_hub(answers, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, local_files_only, **__: str(tmp_path))
    answers(httpx.ConnectTimeout("slow"))
    assert hub.model_directory("org/m") == tmp_path


def test_a_server_that_never_answers_times_out(tmp_path):
    """The real clients with a socket that accepts and never answers, in a new process."""
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(8)
    script = """if True:
        from jaxprefix.io import hub
        hub.PROBE_SECONDS = 0.5
        for call in (lambda: hub.model_directory("org/m"), lambda: hub.dataset_rows("org/d", "c", "test", None, None)):
            try:
                call()
            except ValueError as error:
                print(error)
    """
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if "proxy" not in name.lower()}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    silent.setblocking(False)
    with suppress(BlockingIOError):
        for _ in range(4):  # three were observed; a client with many retries would block the user for minutes
            silent.accept()[0].close()
        pytest.fail("more tries than three")
    silent.close()
    assert run.returncode == 0, run.stderr
    assert [line.split(" ")[3] for line in run.stdout.splitlines()] == ["org/m:", "org/d,"]
    assert run.stdout.count("the Hub cannot be reached (ReadTimeout") == 2


# Data sets


@pytest.fixture
def loads(monkeypatch):
    """Replaces datasets.load_dataset: returns rows or raises, and records its arguments."""
    import datasets.config

    asked: list[tuple] = []

    def set_result(result: Any) -> list[tuple]:
        def load_dataset(*names, **given):
            asked.append((*names, given, datasets.config.HF_HUB_OFFLINE))
            if isinstance(result, Exception):
                raise result
            return datasets.Dataset.from_list(result)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return set_result


def test_rows_come_from_the_hub_by_revision(answers, loads):
    asked = loads(ROWS)
    answers(None)
    assert hub.dataset_rows("org/d", "de", "test", "abc", None) == ROWS
    assert asked == [("org/d", "de", {"split": "test", "revision": "abc"}, False)]


def test_without_the_hub_only_the_cache_is_read(answers, loads):
    import datasets.config

    asked = loads(ROWS)
    answers(httpx.ConnectError("no route"))
    assert hub.dataset_rows("org/d", "de", "test", None, None) == ROWS
    assert asked[0][-1] is True
    assert datasets.config.HF_HUB_OFFLINE is False


def dataset_errors() -> list[tuple[Exception | None, Exception, str]]:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    gated = DatasetNotFoundError("Dataset 'org/d' is a gated dataset on the Hub.\nYou must be authenticated")
    offline = ConnectionError("Couldn't reach the Hugging Face Hub")
    unknown = hub_error(RepositoryNotFoundError, 401)
    return [
        (None, gated, "accept its licence at https://huggingface.co/datasets/org/d, then log in with `hf auth login`"),
        (httpx.ConnectError("no route"), offline, "the Hub cannot be reached (ConnectError: no route)"),
        (unknown, DatasetNotFoundError("doesn't exist"), "check the name, or log in"),
        (None, ValueError("BuilderConfig 'de' not found.\nAvailable: ['en']"), "BuilderConfig 'de' not found."),
        (None, RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer supported"),
        (None, DatasetGenerationError("An error occurred"), "An error occurred"),
        (None, httpx.ReadError("reset"), "the Hub cannot be reached (ReadError: reset)"),
    ]


@pytest.mark.parametrize("first, then, advice", dataset_errors())
def test_a_data_set_that_cannot_be_loaded(first, then, advice, answers, loads):
    loads(then)
    answers(first)
    line = refusal(lambda: hub.dataset_rows("org/d", "de", "test", None, None))
    assert line.startswith("could not load org/d, config de, split test, from the Hub: ")
    assert advice in line and line.endswith("give `--data DIR`, a mirror that has DIR/org/d/de/test.jsonl")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_mirror_is_read_in_every_format(ending, tmp_path, answers):
    answers(AssertionError("asked"))
    folder = tmp_path / "org" / "d" / "de"
    folder.mkdir(parents=True)
    write(folder / f"test.{ending}", ROWS)
    assert hub.dataset_rows("org/d", "de", "test", "abc", tmp_path) == ROWS


def test_an_error_about_a_mirror_names_what_it_has(tmp_path):
    (tmp_path / "org" / "d" / "de").mkdir(parents=True)
    write(tmp_path / "org" / "d" / "de" / "test.jsonl", ROWS)

    def line(dataset="org/d", config="de", split="test", data=tmp_path):
        return refusal(lambda: hub.dataset_rows(dataset, config, split, None, data))

    assert line(split="train") == (
        f"no {tmp_path}/org/d/de/train.{{jsonl,json,parquet,csv,tsv}}: {tmp_path}/org/d/de has test.jsonl"
    )
    download = f"to download it: hf download org/d --repo-type dataset --local-dir {tmp_path}/org/d"
    assert line(config="hi").endswith(f"org/d has no config hi; it has de; {download}")
    assert f"{tmp_path} has org/d; to download it: hf download org/e " in line(dataset="org/e")
    assert f"no directory {tmp_path}/no" in line(data=tmp_path / "no")


@small.needs_rows
@pytest.mark.parametrize(
    "dataset, config, split, count, columns",
    [
        ("google/xquad", "xquad.hi", "validation", 1190, {"id", "context", "question", "answers"}),
        ("facebook/xnli", "sw", "test", 5010, {"premise", "hypothesis", "label"}),
        ("google-research-datasets/tydiqa", "secondary_task", "train", 3696, {"id", "context", "question", "answers"}),
    ],
)
def test_real_rows_of_a_mirror(dataset, config, split, count, columns):
    rows = hub.dataset_rows(dataset, config, split, None, small.MIRROR)
    assert len(rows) == count
    assert all(columns <= row.keys() for row in rows)


# Files


def write(path: Path, rows: list[dict], start: str = "") -> None:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text(start + "\r\n\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(start + json.dumps(rows), encoding="utf-8")
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        body = "".join(f'{row["id"]}{mark}"{row["text"]}"\n' for row in rows)
        path.write_text(f"{start}id{mark}text\n{body}", encoding="utf-8")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "CSV", "tsv"])
def test_a_byte_order_mark_is_not_part_of_the_rows(ending, tmp_path):
    write(path := tmp_path / f"rows.{ending}", ROWS, start="\ufeff")
    assert hub.read_rows(path) == ROWS


@pytest.mark.parametrize(
    "name, content, message",
    # mtime=0: the contents are part of the tests' names, which every test process must find equal.
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', ":3: not a JSON object: Expecting value"),
        ("a.jsonl", b"\n[1, 2]\n", ":2: not a JSON object: [1, 2]"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', ":2: not a JSON object: 'utf-8' codec"),
        ("a.jsonl", b"\n  \n", " has no rows"),
        ("a.jsonl", b"", " has no rows"),
        ("a.json", b'{"a": 1}', ": not a JSON list of objects: {'a': 1}"),
        ("a.json", b'[{"a": 1}, 2]', ": row 2 is not a JSON object: 2"),
        ("a.json", b"[", ": not a JSON list of objects: Expecting value"),
        ("a.json", b"[]", " has no rows"),
        ("a.csv", b"a,b\n1,2\n3\n", ":3: expected 2 columns, as in the header"),
        ("a.csv", b"a,b\n1,2,3\n", ":2: expected 2 columns, as in the header"),
        ("a.csv", b"a,b\n\xe9,2\n", ": not a CSV file in UTF-8"),
        ("a.csv", b'a,b\n1,"2\n', ": not a CSV file in UTF-8"),
        ("a.csv", b"a,b\n", " has no rows"),
        ("a.json", b'{"a": 1}\n{"a": \n', ":2: not a JSON object: Expecting value"),
        ("a.json", b'{"a":\n', ": not a JSON list of objects: Expecting value"),
        ("a.jsonl.gz", b'{"a": 1}\n', ": not a gzip file: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], ": not a gzip file: "),
        ("a.jsonl.gz", gzip.compress(b"\n[1]", mtime=0), ":2: not a JSON object: [1]"),
        (
            "a.gz",
            gzip.compress(b"{}", mtime=0),
            ": expected rows in a .jsonl, .json, .parquet, .csv or .tsv file, or one with",
        ),
        ("a.parquet", b"PAR1", ": not a Parquet file"),
        ("a.txt", b"{}", ": expected rows in a .jsonl, .json, .parquet, .csv or .tsv file, or one with .gz, not .txt"),
    ],
)
def test_a_malformed_file_is_refused_at_its_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(lambda: hub.read_rows(path)).startswith(f"{path}{message}")


@pytest.mark.parametrize("ending, mark", [("csv", ","), ("tsv", "\t")])
def test_a_cell_of_any_length(ending, mark, tmp_path):
    """The csv module's own limit is 131,072 characters; it stays as it is for others."""
    limit, long = csv.field_size_limit(), "世 " * 200_000
    (tmp_path / f"a.{ending}").write_text(f'id{mark}text\n1{mark}"{long}"\n2{mark}{long.strip()}\n', encoding="utf-8")
    assert hub.read_rows(tmp_path / f"a.{ending}") == [{"id": "1", "text": long}, {"id": "2", "text": long.strip()}]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_packed_file(ending, tmp_path):
    write(path := tmp_path / f"rows.{ending}", ROWS)
    (tmp_path / f"rows.{ending}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert hub.read_rows(tmp_path / f"rows.{ending}.gz") == ROWS


def test_a_json_file_of_lines(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff" + "\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    assert hub.read_rows(tmp_path / "a.json") == ROWS


def test_a_missing_file_of_rows(tmp_path):
    assert refusal(lambda: hub.read_rows(tmp_path / "a.jsonl")) == f"no such file: {tmp_path / 'a.jsonl'}"
    (tmp_path / "d.jsonl").mkdir()
    assert "no such file" in refusal(lambda: hub.read_rows(tmp_path / "d.jsonl"))
