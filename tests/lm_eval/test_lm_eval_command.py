"""python -m jaxprefix.lm_eval: the harness's command with our models, without torch, and the mistakes of users."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import harness
import lm_eval.tasks
import lm_eval.utils
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import small
from lm_eval.tasks import TaskManager

from jaxprefix.distributed import mesh
from jaxprefix.io import terminal
from jaxprefix.lm_eval import __main__ as command
from jaxprefix.lm_eval import xquad
from jaxprefix.lm_eval.mirror import TASKS, write_tasks
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.tasks.xquad import XQUAD

OPTIONS = [str(number) for number in range(1, 5)]


def belebele(number: int) -> dict[str, Any]:
    passage = f"The lamp is {small.COLOURS[number]}. " * 4
    answers = {f"mc_answer{option}": small.COLOURS[int(option)] for option in OPTIONS}
    return {"flores_passage": passage, "question": "Which colour?", "correct_answer_num": OPTIONS[number]} | answers


def passage(number: int) -> dict[str, Any]:
    colour = small.COLOURS[number]
    answers = {"text": [colour], "answer_start": [9]}
    return {"id": str(number), "context": f"A boat is {colour}.", "question": "Which colour?", "answers": answers}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a run, a mirror of invented rows, and a task of one's own."""
    folder = tmp_path_factory.mktemp("command")
    small.write_model(folder / "model", max_position_embeddings=256)
    harness.write_run(folder / "run", folder / "model", PrefixTuning(3))
    for where, rows in (
        ("facebook/belebele/deu_Latn/test.jsonl", [belebele(number) for number in range(3)]),
        ("google/xquad/xquad.de/validation.jsonl", [passage(number) for number in range(3)]),
        ("cambridgeltl/xcopa/it/validation.jsonl", [{"premise": "a"}]),  # the test split is missing
    ):
        (folder / "mirror" / where).parent.mkdir(parents=True)
        small.write_rows(folder / "mirror" / where, rows)
    small.write_rows(folder / "texts.jsonl", [{"context": row["prompt"]} for row in small.rows(2)])
    (folder / "tasks").mkdir()
    files = {"data_files": {"test": str(folder / "texts.jsonl")}}
    task = harness.TEXTS | {"dataset_path": "json", "dataset_kwargs": files}
    (folder / "tasks" / "texts.yaml").write_text(json.dumps(task))
    (folder / "empty").mkdir()
    return folder


# torch is there and can be found; whoever imports it leaves a trace.
WATCHED = """
import importlib.machinery, json, sys
from pathlib import Path

asked = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        assert found, "the test needs torch where it can be found"
        found.loader = self
        return found

    def create_module(self, spec):
        asked.append(spec.name)
        raise ImportError("torch is not to be imported")

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Watch())
from jaxprefix.distributed import mesh
from jaxprefix.io import terminal
from jaxprefix.lm_eval.__main__ import main
import lm_eval.tasks.manager
lm_eval.tasks.manager.__file__ = sys.argv.pop()  # the harness's own 14,000 tasks are not indexed
terminal.run(main)
autos = [name for name in sys.modules if name.startswith("transformers.models.auto")]
Path("modules.json").write_text(json.dumps([asked, "torch" in sys.modules, autos]))
"""


def test_a_run_without_torch(place: Path, tmp_path: Path):
    tasks = ["belebele_deu_Latn", "jaxprefix_xquad_de", "texts"]
    arguments = ["run", "--adapter", str(place / "run"), "--tasks", ",".join(tasks), "--data", str(place / "mirror")]
    arguments += ["--include_path", str(place / "tasks"), "--output_path", "out", "--log_samples", "--num_fewshot", "0"]
    arguments += ["--batch", "4", "--gen_kwargs", "max_gen_toks=4", "--mesh", "2x1", "--platform", "cpu"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments, str(place / "empty" / "manager.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "modules.json").read_text()) == [[], False, []]
    assert "emulated by 2 CPU devices" in done.stdout and "2 tasks read their rows there" not in done.stderr
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text())
    assert set(found["results"]) == set(tasks)
    assert set(found["results"]["jaxprefix_xquad_de"]) >= {"f1,none", "em,none", "parse_failure,none"}
    assert found["config"]["adapter"] == str(PrefixTuning(3)) and found["config"]["max_length"] == 256
    (samples,) = (tmp_path / "out").rglob("samples_jaxprefix_xquad_de_*.jsonl")
    rows = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda row: row["doc_id"])
    prompts = [XQUAD.example(passage(number), "de") for number in range(3)]
    assert [row["arguments"]["gen_args_0"]["arg_0"] for row in rows] == [each and each.prompt for each in prompts]


def test_xquad_scores_as_our_own_evaluation():
    assert xquad.scores(passage(0), ["\n  The red!\nand more"]) == {"f1": 1.0, "em": 1.0, "parse_failure": 0.0}
    assert xquad.scores(passage(0), ["red boat"]) == {"f1": pytest.approx(2 / 3), "em": 0.0, "parse_failure": 0.0}
    assert xquad.scores(passage(0), [" \n"]) == {"f1": 0.0, "em": 0.0, "parse_failure": 1.0}
    assert xquad.answer(passage(1)) == "green"


def test_xquad_has_every_language_and_a_group():
    found = TaskManager(include_path=str(TASKS), include_defaults=False)
    names = [f"jaxprefix_xquad_{language}" for language in XQUAD.languages]
    assert set(found.all_subtasks) == set(names) and found.all_groups == ["jaxprefix_xquad"]
    assert (found.task_index["jaxprefix_xquad"].cfg or {})["task"] == names
    for language, name in zip(XQUAD.languages, names, strict=True):
        task = found.task_index[name].cfg or {}
        assert (task["dataset_path"], task["dataset_name"]) == ("google/xquad", f"xquad.{language}")
        assert task["validation_split"] == XQUAD.split
        assert task["generation_kwargs"]["max_gen_toks"] == XQUAD.max_new_tokens
        assert task["generation_kwargs"]["until"] == list(XQUAD.stop)


def test_a_mirror_changes_where_rows_are_and_nothing_else(place: Path, tmp_path: Path):
    assert write_tasks(place / "mirror", tmp_path) == 3
    stock = Path(lm_eval.tasks.__path__[0])
    before = TaskManager(include_path=[str(stock / name) for name in ("belebele", "xcopa")], include_defaults=False)
    after = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert set(after.all_subtasks) == {"belebele_deu_Latn", "xcopa_it", "jaxprefix_xquad_de"}
    one, other = (each.task_index["belebele_deu_Latn"].cfg or {} for each in (before, after))
    rows = str(place / "mirror" / "facebook/belebele/deu_Latn/test.jsonl")
    where = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": rows}}}
    assert other == one | where
    kept = (after.task_index["xcopa_it"].cfg or {})["dataset_kwargs"]["data_files"]
    assert kept["test"].endswith("cambridgeltl/xcopa/it/test.jsonl")  # the harness reports it as missing


@pytest.mark.parametrize("ending", ["jsonl.gz", "parquet", "tsv"])
def test_a_mirror_as_the_hub_writes_it(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Several parts, which the harness reads itself."""
    folder = tmp_path / "mirror" / "facebook/xnli/de"
    folder.mkdir(parents=True)
    rows = pyarrow.table({"premise": ["a\tb", "c", "d"], "hypothesis": ["e", "f", "g"], "label": [0, 1, 2]})
    for number, part in enumerate([rows[:2], rows[2:]]):
        path = folder / f"validation-0000{number}-of-00002.{ending}"
        if ending == "parquet":
            pyarrow.parquet.write_table(part, path)
        elif ending == "tsv":
            pyarrow.csv.write_csv(part, path, pyarrow.csv.WriteOptions(delimiter="\t"))
        else:
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, part.to_pylist())).encode()))
    (tmp_path / "tasks").mkdir()
    assert write_tasks(tmp_path / "mirror", tmp_path / "tasks") == 1
    task = json.loads((tmp_path / "tasks" / "xnli_de.yaml").read_text())
    read = datasets.load_dataset(task["dataset_path"], cache_dir=str(tmp_path / "cache"), **task["dataset_kwargs"])
    assert read["validation"].to_list() == rows.to_pylist() and task["training_split"] is None


def refused(arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with code 2."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["lm_eval", *arguments.split()])
    monkeypatch.setattr(lm_eval.utils, "is_torch_available", lm_eval.utils.is_torch_available)  # put back afterwards
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda: None)
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(place / "empty" / "manager.py"))
    with pytest.raises(SystemExit) as ended:
        terminal.run(command.main)
    assert ended.value.code == 2
    return capsys.readouterr().err


ASK = "run --tasks belebele_deu_Latn"
CASES = {
    ASK: "expected either --adapter RUN or --model MODEL, given neither",
    f"{ASK} --model model --adapter run": "given both --adapter run and --model model; a run names its own base",
    f"{ASK} --adapter model": "model is not a run: it has no readable run.json",
    f"{ASK} --adapter nothing": "nothing is not a run",
    f"{ASK} --model model --batch 0": "--batch is 0; expected at least 1",
    f"{ASK} --model model --max-length 0": "--max-length is 0; expected at least 1",
    f"{ASK} --model model --device cuda:0": "--device is for other models of the harness; use --platform",
    f"{ASK} --model model --model_args=dtype=float32": "--model_args is for other models of the harness",
    f"{ASK} --model model --mesh 2": "--mesh '2' is not a mesh",
    f"{ASK} --model model --data empty": "--data empty has no rows of belebele, mgsm, xcopa, xnli or xquad",
    f"{ASK} --model model --log_samples": "Specify --output_path if providing --log_samples",
    "run --tasks nothing --model model": "Tasks not found: nothing",
    "run --tasks xcopa_it --model model --data mirror --mesh 1x1": "cambridgeltl/xcopa/it/test.jsonl",
    "run --tasks jaxprefix_xquad_hi --model model --data mirror --mesh 1x1": (
        "; --data mirror has no such rows, expected mirror/DATASET/CONFIG/SPLIT.{jsonl,json,parquet,csv,tsv}"
    ),
    "run --tasks jaxprefix_xquad_hi --model model --mesh 1x1": "use --data DIR",
    f"{ASK} --model model --data mirror --batch 4 --mesh 3x1": "--batch 4 cannot be divided among 3 data devices",
    f"{ASK} --model model --data mirror --mesh 1x1 --apply_chat_template": "the model has no chat template",
}


@pytest.mark.parametrize("arguments", CASES)
def test_one_line_and_code_2(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # what is not there is not there, at once
    monkeypatch.setattr(mesh, "_has_accelerator", lambda: True)  # JAX has started, so devices can no longer be emulated
    lines = refused(arguments, place, monkeypatch, capsys).splitlines()
    message = [line for line in lines if line and "split: " not in line]  # a bar of the harness is no message
    assert len(message) == 1 and message[0].startswith("error: ") and CASES[arguments] in message[0]


def test_an_error_of_a_file_says_nothing_of_data_sets(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def execute(*_: object) -> None:
        (place / "texts.jsonl" / "below").mkdir()

    monkeypatch.setattr("lm_eval._cli.HarnessCLI.execute", execute)
    message = refused(f"{ASK} --model model --data mirror --mesh 1x1", place, monkeypatch, capsys)
    assert message == f"error: [Errno 20] Not a directory: '{place / 'texts.jsonl' / 'below'}'\n"


def test_without_the_extra(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    message = refused(ASK, place, monkeypatch, capsys)
    assert message == "error: jaxprefix.lm_eval needs an extra: pip install 'jaxprefix[lm-eval]'\n"


def test_the_list_of_tasks_has_ours(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["lm_eval", "ls", "groups"])
    monkeypatch.setattr(lm_eval.utils, "is_torch_available", lm_eval.utils.is_torch_available)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda: None)
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(place / "empty" / "manager.py"))
    command.main()
    assert "jaxprefix_xquad" in capsys.readouterr().out
