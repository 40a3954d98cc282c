"""The main job on real rows: TyDiQA's English trains, XQuAD and XNLI in other languages measure; real tokenizers."""

import json
import re
from pathlib import Path

import pytest
import sentencepiece
import small

from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.tydiqa import TYDIQA
from jaxprefix.train.loop import train

pytestmark = small.needs_rows

SETTINGS = {"task": "tydiqa", "data": small.MIRROR, "batch": 16, "max_length": 256, "lr": 1e-2, "held_out": 100}
LANGUAGES = {"xquad": "de,hi,zh", "xnli": "de,sw"}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The training rows as they are asked."""
    rows = TYDIQA.load("en", "train", small.MIRROR)
    assert len(rows) == 3696
    examples = [passage_question(row, "en") for row in rows]
    return [example.prompt for example in examples if example]


@pytest.fixture(scope="module")
def model(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a byte-level BPE tokenizer trained on those rows."""
    return small.write_model(tmp_path_factory.mktemp("bpe"), texts, scale=6, vocab_size=1024)


@pytest.fixture(scope="module")
def piece_model(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a sentencepiece `tokenizer.model`, with a byte for every character that it lacks, as Llama 2's."""
    directory = small.write_model(tmp_path_factory.mktemp("piece"), texts[:20], scale=3, vocab_size=1024)
    (directory / "tokenizer.json").unlink()
    (directory / "text").write_text("\n".join(line for text in texts[:500] for line in text.splitlines()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "text"),
        model_prefix=str(directory / "tokenizer"),
        model_type="bpe",
        vocab_size=1024,
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
    )
    return directory


def trained(model: Path, output: Path, **changes: object) -> tuple[RunConfig, list[float]]:
    config = small.configuration(model, None, **(SETTINGS | changes))
    train(config, output, quiet=True)
    return config, [row["held_out_loss"] for row in small.metrics(output) if "held_out_loss" in row]


def assert_evaluated(run: Path, limit: int) -> None:
    """A score for each language, and predictions that are in that language."""
    for task, languages in LANGUAGES.items():
        evaluate(run, Evaluation(task=task, languages=languages, limit=limit, batch=8, mesh="1x1"), quiet=True)
    tasks = json.loads((run / "report.json").read_text())["tasks"]
    found = {task: {code: scores["n"] for code, scores in tasks[task]["languages"].items()} for task in tasks}
    assert found == {"xquad": {"de": limit, "hi": limit, "zh": limit}, "xnli": {"de": limit, "sw": limit}}
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 5 * limit and all(0 <= value <= 1 for row in rows for value in row["scores"].values())
    hindi = next(row for row in rows if row["language"] == "hi")
    assert any("\u0900" <= letter <= "\u097f" for letter in hindi["prompt"])  # Devanagari


def test_prefix_on_a_few_rows(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Trains, then the languages."""
    _, losses = trained(model, tmp_path / "run", limit=120, steps=6, eval_every=3)
    assert "contexts cut to fit" in capsys.readouterr().out and losses[-1] < losses[0]
    assert_evaluated(tmp_path / "run", limit=1)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_a_whole_one(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, _ = trained(model, tmp_path / "whole", limit=160, steps=10, save_every=5, eval_every=5)
    stopped = tmp_path / "stopped"
    small.train_until(7, config, stopped)
    train(config, stopped, quiet=True)
    assert "resumed at step 5 of 10" in capsys.readouterr().out
    assert small.metrics(stopped) == small.metrics(tmp_path / "whole")


def test_a_sentencepiece_tokenizer(piece_model: Path, tmp_path: Path):
    """Of the base alone, in a language whose letters it has not seen."""
    config = small.configuration(piece_model, None, **(SETTINGS | {"method": "none"}))
    run = train(config, tmp_path / "run", quiet=True)
    report = evaluate(run, Evaluation(task="xnli", languages="sw,zh", limit=1, batch=8, mesh="1x1"), quiet=True)
    assert set(report["tasks"]["xnli"]["languages"]) == {"sw", "zh"}


@pytest.mark.slow
def test_lora_with_a_sentencepiece_tokenizer(piece_model: Path, tmp_path: Path):
    _, losses = trained(piece_model, tmp_path / "run", method="lora", limit=80, steps=4, eval_every=2)
    assert losses[-1] < losses[0]
    assert_evaluated(tmp_path / "run", limit=2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prefix", "lora"])
def test_all_rows(model: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]):
    """3,696 rows, a pass over them, and what a reader of the run is told."""
    # Long enough for every question in Hindi, whose letters are three tokens each in this English vocabulary.
    changes = {"method": method, "max_length": 384, "steps": None, "epochs": 1, "eval_every": 100, "log_every": 50}
    config, losses = trained(model, tmp_path / "run", **changes)
    line = re.search(
        r"data: (\S+) rows to learn, (\d+) held out; .* cut to fit; (\d+) rows skipped", capsys.readouterr().out
    )
    assert line and sum(int(number.replace(",", "")) for number in line.groups()) == 3696
    assert int(line[3]) < 10 and losses[-1] < losses[0]
    assert read_run(tmp_path / "run")["steps"] == len({row["step"] for row in small.metrics(tmp_path / "run")})
    assert config.epochs == 1
    assert_evaluated(tmp_path / "run", limit=20)
