"""--shots: which examples precede a question, which are dropped, and that scores are those of the whole prompts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import Evaluation, evaluate, evaluate_together
from jaxprefix.evaluation.selection import select_examples, select_tasks
from jaxprefix.evaluation.shots import draw_shots
from jaxprefix.inference import engine
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.tasks.task import Example
from jaxprefix.train.loop import train

CONFIG = RunConfig(model="none", task="xcopa", data=small.MIRROR)


@pytest.fixture(autouse=True)
def few_pictures(no_pictures: None) -> None:
    """Skips the plots."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a prefix and one without an adapter, trained on rows in two languages, and other rows to answer."""
    folder = tmp_path_factory.mktemp("shots")
    small.write_model(folder / "model", scale=5)
    rows = [row | {"choices": list(small.COLOURS)} for row in small.rows(30)]
    learn = [row | {"id": f"en{number}"} for number, row in enumerate(rows[:14])]
    learn += [row | {"id": f"de{number}", "language": "de"} for number, row in enumerate(rows[10:18])]
    small.write_rows(folder / "learn.jsonl", learn)
    ask = rows[18:26] + [row | {"language": "de"} for row in rows[18:21]] + [rows[3]]  # the last one is learnt too
    small.write_rows(folder / "ask.jsonl", ask)
    settings = {"language": "en", "steps": 2, "lr": 0.1, "max_length": 96, "prefix": PrefixTuning(length=3)}
    for method in ("prefix", "none"):
        chosen = settings if method == "prefix" else {"language": "en", "max_length": 96}
        config = small.configuration(folder / "model", folder / "learn.jsonl", method=method, **chosen)
        train(config, folder / method, quiet=True)
    return folder


def evaluated(folder: Path, output: Path, run: str = "prefix", **settings: Any) -> list[dict[str, Any]]:
    """The rows of an evaluation in a directory of its own."""
    file = settings.pop("eval_file", folder / "ask.jsonl")
    evaluate(folder / run, Evaluation(eval_file=file, output=output, batch=4, mesh="1x1", **settings), quiet=True)
    return small.predictions(output)


def learnt(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, (folder / "learn.jsonl").read_text().splitlines())}


def test_scores_are_those_of_the_examples_written_into_the_prompts(folder: Path, tmp_path: Path, capsys: Any):
    """The same scores, within 1e-5, as without --shots for rows whose prompts contain the text of the examples. Whole
    examples are dropped where they do not fit, and counted in the rows, in report.json, report.md and on the terminal.
    """
    rows = evaluated(folder, tmp_path / "shots", shots=4)
    examples, written = learnt(folder), []
    for row in rows:
        text = "".join(f"{examples[key]['prompt']}\n{examples[key]['response']}\n\n" for key in row["shots"])
        assert len(row["shots"]) + row["shots_dropped"] == 4 and row["fit"] == "whole"
        assert "choices" in row and row["prompt"].count("?") == 1  # the question alone: its key is that of zero-shot
        references = {"response": row["references"][0], "choices": row["choices"], "language": row["language"]}
        written.append({"prompt": text + row["prompt"], **references, "id": row["id"]})
    file = small.write_rows(tmp_path / "written.jsonl", written)
    plain = {row["id"]: row for row in evaluated(folder, tmp_path / "plain", eval_file=file)}
    for row in rows:
        np.testing.assert_allclose(row["logprobs"], plain[row["id"]]["logprobs"], atol=1.5e-5)  # of five decimals
    dropped = sum(row["shots_dropped"] for row in rows)
    assert 0 < dropped < 4 * len(rows) and len({tuple(row["shots"]) for row in rows}) > 1
    report = json.loads((tmp_path / "shots" / "report.json").read_text())["tasks"]["ask"]["languages"]
    assert sum(language["shots_dropped"] for language in report.values()) == dropped
    printed = capsys.readouterr().out
    assert f"ask: {dropped} of {4 * len(rows)} few-shot examples dropped to fit 96 tokens" in printed
    text = (tmp_path / "shots" / "report.md").read_text()
    assert "4 shots (source, seed 0)" in text and "did not fit and were dropped: " in text


def drawn(folder: Path, run: str = "prefix", **settings: Any) -> dict[str, list[str]]:
    """The ids of the examples for each language."""
    chosen, described = Evaluation(eval_file=folder / "ask.jsonl", **settings), read_run(folder / run / "run.json")
    config = RunConfig.from_json(described["config"])
    selected = select_tasks([config], chosen)
    shots = draw_shots(selected, select_examples(selected, chosen, config), chosen, [config], [described["source"]])
    return {language: [example.id for example in part] for (_, language), part in shots.items()}


def test_runs_and_questions_share_the_examples(folder: Path):
    """Another method has the same ones; another seed has others; fewer are the first of more."""
    four = drawn(folder, shots=4)
    assert set(four) == {"en", "de"} and four["en"] == four["de"] and len(set(four["en"])) == 4
    assert all(key.startswith("en") for key in four["en"])
    assert drawn(folder, "none", shots=4, limit=2, languages="de") == {"de": four["de"]}
    assert drawn(folder, shots=2)["en"] == four["en"][:2]
    assert drawn(folder, shots=4, seed=1)["en"] != four["en"]
    target = drawn(folder, shots=2, shots_language="target")
    assert {language: {key[:2] for key in ids} for language, ids in target.items()} == {"en": {"en"}, "de": {"de"}}
    assert drawn(folder, shots=2, shots_language="de")["en"] == target["de"]
    assert drawn(folder) == {}


def test_an_example_is_never_a_question(folder: Path):
    """Row 3 is learnt and asked in English. All others are examples, and one more is refused. In German it is not
    asked.
    """
    thirteen = drawn(folder, shots=13, languages="en", limit=1)["en"]
    assert sorted(thirteen) == sorted(f"en{number}" for number in range(14) if number != 3)
    line = r"--shots 14: learn has 13 examples in en that are not questions of ask \(en\); choose at most as many"
    with pytest.raises(InputError, match=line):
        drawn(folder, shots=14, languages="en")
    assert len(drawn(folder, shots=14, languages="de")["de"]) == 14


def test_shots_in_the_directory_of_other_answers_are_refused(folder: Path, tmp_path: Path):
    evaluated(folder, tmp_path / "out", limit=1)
    with pytest.raises(InputError, match=r"answered with .*greedy, now .*, 2 shots \(source, seed 0\); give a new"):
        evaluated(folder, tmp_path / "out", limit=1, shots=2)


def test_generated_answers_follow_the_examples(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same texts with shared prompts as without; the room for an answer is kept free."""
    lines = [json.loads(line) for line in (folder / "ask.jsonl").read_text().splitlines()]
    for row in lines:
        del row["choices"]
    file = small.write_rows(tmp_path / "free.jsonl", lines)
    rows = evaluated(folder, tmp_path / "shared", eval_file=file, shots=3, max_length=128)
    assert len({row["shots_dropped"] for row in rows}) > 1
    monkeypatch.setattr(engine._SharedPrompts, "of", unshared)
    monkeypatch.setattr("jaxprefix.evaluation.questions._with_shared_prompts", list)
    alone = evaluated(folder, tmp_path / "alone", eval_file=file, shots=3, max_length=128)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in alone]
    assert len({row["prediction"] for row in rows}) > 3


def unshared(self: engine._SharedPrompts, rows: list, length: int, size: int) -> None:
    assert length == 0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"shots": -1}, "--shots is -1; expected 0 or more"),
        ({"shots_language": "target"}, "about --shots, which is 0; give --shots 4"),
        ({"shots": 1, "shots_language": "sw"}, "no training data for ask in sw: learn has en, de; choose other"),
        ({"shots": 1, "shots_split": "train"}, "learn.jsonl has no split 'train'"),
    ],
)
def test_wrong_settings(folder: Path, tmp_path: Path, settings: dict[str, Any], line: str):
    with pytest.raises(InputError, match=line):
        evaluated(folder, tmp_path / "out", **settings)


def test_runs_without_common_examples(folder: Path):
    """Their sources differ, or the files that they were trained on."""
    task = tasks.find("xcopa")
    settings = Evaluation(shots=1)
    asked = {("xcopa", "zh"): [Example("0", "zh", "", "", "?\n", "a", choices=("a", "b"))]}
    with pytest.raises(InputError, match="the runs were trained in it,sw; name one language: --shots-language en, or"):
        draw_shots([task], asked, settings, [CONFIG, CONFIG], ["it", "sw"])
    with pytest.raises(InputError, match="no training data for xcopa in de: xcopa has et, ht"):
        draw_shots([task], asked, settings, [CONFIG], ["de"])
    own = replace(settings, eval_file=folder / "ask.jsonl")
    for configs in ([CONFIG], [replace(CONFIG, train_file=folder / name) for name in ("ask.jsonl", "learn.jsonl")]):
        with pytest.raises(InputError, match="takes the examples from the --train-file of the run; the runs have none"):
            draw_shots([task], asked, own, configs, ["en"])
    with pytest.raises(InputError, match="--split validation of xcopa has the few-shot examples; choose another"):
        draw_shots([task], asked, replace(settings, split="validation"), [CONFIG], ["it"])
    with pytest.raises(InputError, match="--shots-split test of xcopa must not be trained on: evaluation uses it"):
        draw_shots([task], asked, replace(settings, shots_split="test"), [CONFIG], ["it"])


@small.needs_rows
def test_parallel_languages_have_the_same_examples(tmp_path: Path):
    """XCOPA's validation rows are parallel; MGSM has no training data of its own, and takes GSM8K's."""
    settings = Evaluation(shots=3, shots_language="target", languages="it,zh,sw", data=small.MIRROR)
    xcopa, mgsm = tasks.find("xcopa"), tasks.find("mgsm")
    shots = draw_shots([xcopa], select_examples([xcopa], settings, CONFIG), settings, [CONFIG], ["it"])
    assert len({tuple(example.id for example in part) for part in shots.values()}) == 1
    assert [{example.language for example in part} for part in shots.values()] == [{"it"}, {"zh"}, {"sw"}]
    settings = replace(settings, languages="de,bn", shots_language="en")
    shots = draw_shots([mgsm], select_examples([mgsm], settings, CONFIG), settings, [CONFIG], ["it"])
    assert shots["mgsm", "de"] == shots["mgsm", "bn"] and "The answer is" in shots["mgsm", "de"][0].response
    with pytest.raises(InputError, match="no training data for mgsm in de: gsm8k has en; choose other --languages or"):
        target = replace(settings, shots_language="target")
        draw_shots([mgsm], select_examples([mgsm], target, CONFIG), target, [CONFIG], ["it"])


@pytest.mark.slow
def test_runs_are_evaluated_together(folder: Path, tmp_path: Path):
    """Two adapters in the same batches have the scores that each has alone."""
    config = small.configuration(
        folder / "model", folder / "learn.jsonl", method="prefix", language="en", seed=5, max_length=96,
        prefix=PrefixTuning(length=3), steps=2, lr=0.1,
    )  # fmt: skip
    train(config, folder / "other", quiet=True)
    alone = [evaluated(folder, tmp_path / run, run, shots=2) for run in ("prefix", "other")]
    directories = [folder / "prefix", folder / "other"]
    settings = Evaluation(eval_file=folder / "ask.jsonl", shots=2, batch=4, mesh="1x1")
    evaluate_together(directories, settings, quiet=True)
    for directory, rows in zip(directories, alone, strict=True):
        for row, other in zip(small.predictions(directory), rows, strict=True):
            np.testing.assert_allclose(row["logprobs"], other["logprobs"], atol=2e-5)
