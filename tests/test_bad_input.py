"""Every mistake of a user is one line that says what was given and expected, with code 2, and nothing is written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from jaxprefix.distributed import mesh
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.io import terminal
from jaxprefix.text.tokenizer import load_tokenizer
from jaxprefix.train import __main__ as training
from jaxprefix.train import dataset as training_rows
from jaxprefix.train.loop import train

MAINS = {"train": training.main, "evaluation": evaluation.main}
TRAIN = "train --model model --train-file rows.jsonl --batch 4 --steps 2 --max-length 96 --mesh 1x1 --output new"
MNLI = "train --model model --task mnli --mesh 1x1 --output new"
BY_TASK = "train --model model --task tydiqa --mesh 1x1 --output new --data mirror"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows, a run of one step, a directory of other files, and a mirror that lacks nearly everything."""
    folder = tmp_path_factory.mktemp("bad")
    small.write_model(folder / "model")
    small.write_rows(folder / "rows.jsonl", small.rows(12))
    config = small.configuration(folder / "model", folder / "rows.jsonl", steps=1, held_out=0)
    train(config, folder / "run", quiet=True)
    (folder / "files").mkdir()
    (folder / "files" / "thesis.tex").write_text("years of work")
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "malformed.jsonl").write_text('{"prompt": "a", "response": "b"}\n\n{"prompt": "a", "respo\n')
    (folder / "lacking.jsonl").write_text('{"prompt": "a", "response": "b"}\n\n{"prompt": "a"}\n')
    (folder / "rows.txt").write_text("a b")
    rows = folder / "mirror" / "google-research-datasets" / "tydiqa" / "secondary_task"
    rows.mkdir(parents=True)
    row = {"id": "english-1", "context": "c", "question": "q", "answers": {"text": ["c"]}}
    small.write_rows(rows / "train.jsonl", [row] * 4)
    (rows / "validation.jsonl").write_text('{"id": "arabic-1"}\n')
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current directory."""
    shutil.copytree(template, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(directory.rglob("*"))}


def refused(command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    """What stderr says of a command that ends with code 2 and leaves every file as it was."""
    name, *arguments = command.split()
    before = files(place)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        terminal.run(MAINS[name])
    assert ended.value.code == 2
    assert files(place) == before
    return capsys.readouterr().err


CASES = {
    f"{TRAIN} --lr nan": "--lr is nan; expected more than 0",
    f"{TRAIN} --weight-decay inf": "--weight-decay is inf; expected 0 or more",
    f"{TRAIN} --max-length 4096": "--max-length 4096 is beyond the model's 1024 positions; choose less",
    "train --split test": "--split test of babel-qa must not be trained on: evaluation uses it",
    f"{TRAIN} --mesh banana": "--mesh 'banana' is not a mesh; expected DATAxMODEL, such as 4x2",
    f"{TRAIN} --mesh 0x1": "--mesh '0x1' is not a mesh",
    f"{TRAIN} --method banana": "'banana' is unknown; expected none, prefix, llama-adapter, soft-prompt, lora, bottle",
    f"{TRAIN} --method prefix+full": "full cannot be part of a sum",
    f"{TRAIN} --method lora --prefix.length 3": "--prefix.length belongs to method prefix, but --method is lora",
    f"{TRAIN} --prefix.length 2 --prefix.start text:What_colour_is_the_boat?": "tokens for 2 virtual tokens; shorten",
    f"{TRAIN} --method lora --llama-adapter.length 3": "--llama-adapter.length belongs to method llama-adapter, but",
    f"{TRAIN} --method llama-adapter --llama-adapter.layers top:4": "layers 'top:4' of a model of 3; expected all, top",
    f"{TRAIN} --method prefix+llama-adapter --prefix.softmax split": "use the decoder's seam 'gated'; at most one may",
    f"{TRAIN} --prefix.layers 2:9": "layers '2:9' of a model of 3; expected all, top, top:N or FIRST:END",
    f"{TRAIN} --epochs 2": "--steps 2 and --epochs 2.0 both say how long to train; give one",
    f"{TRAIN} --task squad": "--task squad and --train-file rows.jsonl both say what to train on; give one",
    f"{TRAIN} --lr 0": "--lr is 0.0; expected more than 0",
    f"{TRAIN} --seed -1": "--seed is -1; expected 0 or more",
    f"{TRAIN} --batch 0": "--batch is 0; expected more than 0",
    f"{TRAIN} --accumulate 3": "--batch 4 cannot be split into --accumulate 3 equal micro-batches",
    f"{TRAIN} --chat": "--chat: the model has no chat template",
    f"{TRAIN} --language de": "has no language 'de'; it has en",
    f"{TRAIN} --split test": "rows.jsonl has no split 'test'",
    f"{TRAIN} --max-length 4": "none of 11 rows fits --max-length 4, even without context; raise it",
    f"{TRAIN} --train-file empty.jsonl": "empty.jsonl has no rows",
    f"{TRAIN} --train-file malformed.jsonl": "malformed.jsonl:3: not a JSON object",
    f"{TRAIN} --train-file lacking.jsonl": (
        'lacking.jsonl:3: no "response" in prompt; a row needs {"prompt", "response"}'
    ),
    f"{TRAIN} --train-file rows.txt": "rows.txt: expected rows in a .jsonl, .json, .parquet, .csv or .tsv file",
    f"{TRAIN} --train-file nowhere.jsonl": "no such file: nowhere.jsonl",
    f"{TRAIN} --eval-file malformed.jsonl": "malformed.jsonl:3: not a JSON object",
    f"{TRAIN} --model nowhere": "no such model directory: nowhere; give a directory in Hugging Face layout or a Hub id",
    f"{TRAIN} --model rows.jsonl": "rows.jsonl is a file; give a model directory",
    f"{TRAIN} --model files": "files is not a model in Hugging Face layout: it has no config.json",
    f"{TRAIN} --output files": "--output files holds other files and no run.json; choose a new directory",
    f"{TRAIN} --output rows.jsonl": "rows.jsonl is a file; give a new directory",
    f"{TRAIN} --output rows.jsonl/new": "rows.jsonl is a file; give a new directory",
    f"{TRAIN} --output run": "--output run holds another run: its",
    "train --config nowhere.json": "nowhere.json is not a run: it has no readable run.json",
    "train --config files": "files is not a run: it has no readable run.json",
    "train --config rows.jsonl": "rows.jsonl is not JSON: Extra data: line 2 column 1",
    "train --config": "--config needs the run.json of an earlier run",
    "train --model model": "--model without a task; give --task (squad, tydiqa, mnli, belebele-mix, gsm8k",
    f"{MNLI} --task banana": "no task 'banana'; for training: squad, tydiqa, mnli",
    f"{MNLI} --task mgsm": "task mgsm is only for evaluation; train on gsm8k",
    f"{MNLI} --task gsm8k --split test": "--split test of gsm8k must not be trained on: MGSM",
    f"{MNLI} --task squad --split validation": "--split validation of squad must not be trained on: XQuAD",
    f"{MNLI} --data nowhere": "there is no directory nowhere",
    f"{MNLI} --data mirror": "mirror has google-research-datasets/tydiqa",
    f"{BY_TASK} --language sw": "none of its 4 rows has an id that begins with 'swahili-'",
    f"{BY_TASK} --language hi": "task tydiqa has no language 'hi'; it has ar, bn, en",
    f"{BY_TASK} --split validation": "--split validation of tydiqa must not be trained on: evaluation uses it",
    f"{BY_TASK} --split test": "has train.jsonl, validation.jsonl",
    "evaluation nowhere": "nowhere is not a run: it has no readable run.json; give the directory that training printed",
    "evaluation model": "model is not a run",
    "evaluation run": "the run was trained on your own rows; choose the benchmark",
    "evaluation run --task banana": "no task 'banana'",
    "evaluation run --task squad": "task squad is for training; evaluate on xquad",
    "evaluation run --task xquad --languages xx": "task xquad has no language 'xx'; it has ar, de, el",
    "evaluation run --task xquad --languages ,": "',' names nothing; expected names, comma-separated",
    "evaluation run --task xquad --languages de --data mirror": "mirror has google-research-datasets/tydiqa",
    "evaluation run --task xquad --eval-file rows.jsonl": "both name a benchmark; give one",
    "evaluation run --eval-file malformed.jsonl": "malformed.jsonl:3: not a JSON object",
    "evaluation run --eval-file rows.jsonl --batch 0": "--batch is 0; expected at least 1",
    "evaluation run --eval-file rows.jsonl --mesh 2": "--mesh '2' is not a mesh",
    "evaluation run --eval-file rows.jsonl --baseline model": "model has no readable report.json; evaluate that run",
}


@pytest.mark.parametrize("command", CASES)
def test_one_line_code_2_and_nothing_written(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    message = refused(command, place, monkeypatch, capsys)
    assert message.startswith("error: ") and message.count("\n") == 1 and message.endswith("\n")
    assert CASES[command] in message


BOXES = {  # the argument parser's own
    f"{TRAIN} --bath 4": "--batch",
    f"{TRAIN} --batch four": "--batch",
    f"{TRAIN} --platform banana": "cpu",
    f"{TRAIN} --prefix.length 0": "expected at least 1",
    f"{TRAIN} --method lora --lora.targets q,x": "lora targets are 'q,x'",
    f"{TRAIN} --method lora --lora.rank 0": "lora rank is 0; expected at least 1",
    f"{TRAIN} --method soft-prompt --soft-prompt.length 0": "soft-prompt length is 0; expected at least 1",
    f"{TRAIN} --method llama-adapter --llama-adapter.length 0": "llama-adapter length is 0",
    f"{TRAIN} --method bottleneck --bottleneck.size 0": "bottleneck size is 0; expected at least 1",
    f"{TRAIN} --prefix.start words": "prefix start is 'words'",
    "evaluation": "RUN[,RUN...]",
    "evaluation run --platform banana": "cpu",
}


@pytest.mark.parametrize("command", BOXES)
def test_errors_of_the_argument_parser(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert BOXES[command] in refused(command, place, monkeypatch, capsys)


def rewrite(**changes: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        values = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(values | changes))

    return change


def tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def rewrite(model: Path) -> None:
        found = load_file(model / "model.safetensors")
        change(found)
        save_file(found, model / "model.safetensors")

    return rewrite


def truncate(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def outside(model: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def add_token(model: Path) -> None:
    """As Alpaca's recipe without its resized embedding."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    rewrite(vocab_size=tokenizer.get_vocab_size())(model)
    tokenizer.add_special_tokens(["[PAD]"])
    tokenizer.save(str(model / "tokenizer.json"))


NORM = "model.norm.weight"
MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "architecture": (rewrite(architectures=["GPT2LMHeadModel"]), "expected LlamaForCausalLM, MistralForCausalLM"),
    "two numbers of layers": (rewrite(num_layers=99), "num_layers 99 contradicts num_hidden_layers 3"),
    "rope": (rewrite(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "'dynamic' is not supported"),
    "missing": (tensors(lambda found: found.pop(NORM)), f"tensor {NORM} is missing"),
    "extra": (tensors(lambda found: found.update(spare=np.zeros(3, np.float32))), "tensor spare is unknown"),
    "misshapen": (tensors(lambda found: found.update({NORM: np.zeros(3, np.float32)})), "has shape [3]"),
    "integers": (tensors(lambda found: found.update({NORM: np.zeros(32, np.int32)})), "is I32"),
    "truncated": (truncate, "is not a whole safetensors file"),
    "pickled": (pickled, "holds only pickled weights (pytorch_model.bin), which can run code"),
    "outside": (outside, "points to '../model.safetensors'; expected a .safetensors file beside it"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer"),
    "small head": (rewrite(vocab_size=100), "tokens, the model 100, so these have no embedding: "),
    "a token beyond the head": (add_token, "no embedding: [PAD]; remove them from the tokenizer's files, or add rows"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    change, expected = MODELS[name]
    change(place / "model")
    message = refused(TRAIN, place, monkeypatch, capsys)
    assert message.startswith("error: ") and message.count("\n") == 1 and expected in message


MESHES = {
    f"{TRAIN} --mesh 4x4": "--mesh 4x4 needs 16 devices, found 8 cpu; --platform cpu emulates any mesh",
    f"{TRAIN} --mesh 3x1": "cannot be divided among 3 data devices; choose --batch a multiple of 3",
    f"{TRAIN} --mesh 1x3": "cannot be divided by 3 (data and model) at its 32; choose a divisor",
    "evaluation run --eval-file rows.jsonl --mesh 9x1": "--mesh 9x1 needs 9 devices, found 8 cpu",
    "evaluation run --eval-file rows.jsonl --mesh 5x1": "among 5 data devices; choose a multiple of 5",
}


@pytest.mark.parametrize("command", MESHES)
def test_a_mesh_of_accelerators(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With accelerators, a mesh is emulated only if the user requests it."""
    monkeypatch.setattr(mesh, "_has_accelerator", lambda: True)
    message = refused(command, place, monkeypatch, capsys)
    assert message.startswith("error: ") and message.count("\n") == 1 and MESHES[command] in message


@pytest.mark.parametrize("flag", ["--tensorboard", "--wandb mine", "--trackio mine"])
def test_an_extra_that_is_not_installed(
    flag: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(f"{TRAIN} {flag}", place, monkeypatch, capsys)
    name = flag.split()[0]
    assert message.startswith(f"error: {name}") and f"needs an extra: pip install 'jaxprefix[{name[2:]}]'\n" in message


def test_an_output_without_write_permission(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = refused(TRAIN, place, monkeypatch, capsys)
    assert "is not writable; give another directory" in message and message.count("\n") == 1


def test_rows_that_cannot_fit_are_counted_and_skipped(place: Path):
    long = {"prompt": "x", "response": "long " * 100}
    file = small.write_rows(place / "some.jsonl", [*small.rows(9), long])
    config = small.configuration(place / "model", file, held_out=0)
    rows = training_rows.load_rows(config, training_rows.training_task(config), load_tokenizer(place / "model"), 96)
    assert len(rows.learn) == 9 and rows.skipped == 1
    assert str(rows) == "data: 9 rows to learn, 0 held out; 1 rows skipped: too long for --max-length"


PROCESSES = {
    "train --model jaxprefix-tests/nothing --task tydiqa --data mirror": "nothing: no such directory",
    "train --model model --task squad": "could not load rajpurkar/squad, config plain_text, split train",
    "train --model model --task tydiqa --data mirror --platform tpu": "JAX cannot use tpu here",
    "evaluation model": "model is not a run",
}


FEW = ("train --model jaxprefix-tests/nothing --task tydiqa --data mirror",)


@pytest.mark.parametrize(
    "command", [each if each in FEW else pytest.param(each, marks=pytest.mark.slow) for each in PROCESSES]
)
def test_as_a_process(command: str, place: Path, tmp_path: Path):
    """Without a network: requests to the hub fail, and the line says what to do."""
    name, *arguments = command.split()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    before = files(place)
    done = subprocess.run(
        [sys.executable, "-m", f"jaxprefix.{name}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ") and PROCESSES[command] in done.stderr
    assert files(place) == before
