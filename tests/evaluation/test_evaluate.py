"""Evaluates a run: the files that are written and kept. Batch size and mesh change no answer."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.errors import InputError
from jaxprefix.evaluation import answering, questions
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.evaluation.report.files import read_report
from jaxprefix.io.atomic import exclusive
from jaxprefix.models import adapter_init, decoder
from jaxprefix.models.adapters import LoRA, PrefixTuning
from jaxprefix.runs.base_model import load_weights, open_base
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.tasks.encoding import encode
from jaxprefix.tasks.task import Example
from jaxprefix.tasks.user_rows import own_rows_task
from jaxprefix.train.loop import train

QUESTION = {"task", "language", "id", "prompt", "references", "choices"}
COLUMNS = QUESTION | {"key", "prediction", "scores", "parse_failure", "fit"}
COLUMNS |= {"run", "step", "how", "evaluation", "selection"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows in two languages to generate and to choose, and a run of two steps."""
    folder = tmp_path_factory.mktemp("evaluate")
    small.write_model(folder / "model", scale=10)
    two = small.rows(6) + small.rows(4, language="de")
    small.write_rows(folder / "answers.jsonl", two)
    small.write_rows(folder / "colours.jsonl", [row | {"choices": list(small.COLOURS)} for row in two])
    train(configuration(folder), folder / "trained", quiet=True)
    return folder


def configuration(folder: Path, **changes: Any) -> RunConfig:
    settings = {
        "method": "prefix+lora",
        "language": "en",
        "steps": 2,
        "lr": 0.1,
        "prefix": PrefixTuning(length=3),
        "lora": LoRA(rank=2),
    }
    return small.configuration(folder / "model", folder / "answers.jsonl", **(settings | changes))


@pytest.fixture(autouse=True)
def few_pictures(request: pytest.FixtureRequest) -> None:
    """Skips the plots, which only one test checks."""
    if request.function is not test_generated_answers:
        request.getfixturevalue("no_pictures")


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy of the run, not evaluated yet."""
    return shutil.copytree(folder / "trained", tmp_path / "run")


def evaluated(run: Path, **settings: Any) -> list[dict[str, Any]]:
    """The current rows, by task and in the order of the questions. Rows that were on disk must still be there."""
    file = settings.get("output", run) / "predictions.jsonl"
    before = file.read_bytes() if file.is_file() else b""
    evaluate(run, Evaluation(**({"batch": 4, "mesh": "1x1"} | settings)), quiet=True)
    assert file.read_bytes().startswith(before)
    return small.predictions(file.parent)


def test_generated_answers(folder: Path, run: Path, capsys: Any):
    """predictions.jsonl, report.json (design's form), report.md, report.png, and a table on the terminal."""
    rows = evaluated(run, eval_file=folder / "answers.jsonl")
    file = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [(row["language"], row["prompt"], row["references"]) for row in rows] == [
        (row["language"], row["prompt"] + "\n", [row["response"]]) for row in file
    ]
    assert all(set(row) == COLUMNS | {"answer"} and row["task"] == "answers" and row["step"] == 2 for row in rows)
    for row in rows:
        said = next((line.strip() for line in row["prediction"].split("\n") if line.strip()), "")
        assert row["scores"]["em"] == float(said.lower() == row["references"][0])
        assert row["parse_failure"] == (not said)

    report = json.loads((run / "report.json").read_text())
    assert (report["model"], report["method"], report["source"]) == ("model", "prefix+lora", "en")
    task = report["tasks"]["answers"]
    assert task["metrics"] == ["f1", "em"] and set(task["languages"]) == {"en", "de"}
    for language, count in (("en", 6), ("de", 4)):
        own = [row for row in rows if row["language"] == language]
        means = {name: np.mean([row["scores"][name] for row in own]) for name in ("f1", "em")}
        unparsed = np.mean([row["parse_failure"] for row in own])
        assert task["languages"][language] == pytest.approx(means | {"n": count, "parse_failure_rate": unparsed})
    assert set(task) == {"metrics", "languages", "source", "mean_others", "gap"}
    assert task["gap"] == pytest.approx(
        {name: task["source"][name] - task["mean_others"][name] for name in ("f1", "em")}
    )
    assert (run / "report.png").read_bytes().startswith(b"\x89PNG")
    text, printed = (run / "report.md").read_text(), capsys.readouterr().out
    assert "| en (source) |" in text and "| de |" in text and "en (source)" in printed and "report.md" in printed


def test_choices_are_those_of_the_adapted_model(folder: Path, run: Path):
    """The log-likelihoods, from the full logits of each prompt and choice with the adapter read back from disk."""
    rows = evaluated(run, eval_file=folder / "colours.jsonl")
    config, base = RunConfig.from_json(read_run(run)["config"]), open_base(str(folder / "model"))
    frozen = load_weights(base, make_mesh("1x1"), "float32")
    checkpoints = Checkpoints(run)
    like = adapter_init.abstract_params(config.adapter, base.config)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = checkpoints.restore_adapter(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like)
    )
    checkpoints.close()

    @jax.jit
    def logits(tokens: jax.Array) -> jax.Array:
        weights, hooks = config.adapter.bind(base.config, params, frozen)
        batch = decoder.Batch(tokens[None], jnp.arange(len(tokens))[None])
        return decoder.logits(weights, decoder.hidden_states(base.config, weights, batch, hooks))[0]

    task = own_rows_task(folder / "colours.jsonl")
    for row, source in zip(rows[:3], task.load("en", "file", None), strict=False):
        example = task.example(source, "en")
        assert example is not None and set(row) == COLUMNS | {"logprobs", "lengths"}
        encoded = encode(base.tokenizer, example, 96)
        assert encoded is not None
        for choice, found in zip(small.COLOURS, row["logprobs"], strict=True):
            ids = encoded.prompt + base.tokenizer.encode(choice)  # no colour begins another: no end token is scored
            scores = np.asarray(logits(jnp.array(np.pad(ids, (0, 96 - len(ids))))), np.float64)
            logprobs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
            expected = sum(logprobs[place - 1, ids[place]] for place in range(len(encoded.prompt), len(ids)))
            assert found == pytest.approx(expected, abs=1e-4)
        assert row["prediction"] == small.COLOURS[int(np.argmax(row["logprobs"]))]
        lengths = [len(base.tokenizer.encode(choice)) for choice in small.COLOURS]
        a_token = np.array(row["logprobs"]) / lengths
        assert row["scores"] == {
            "accuracy": float(row["prediction"] == example.response),
            "accuracy_norm": float(small.COLOURS[int(np.argmax(a_token))] == example.response),
        }
    base_rows = evaluated(train(configuration(folder, method="none"), run / "none"), eval_file=folder / "colours.jsonl")
    assert base_rows[0]["step"] == 0
    # The adapter changed the answers.
    assert np.abs(np.subtract(base_rows[0]["logprobs"], rows[0]["logprobs"])).max() > 0.1


@pytest.mark.parametrize("file", [pytest.param("answers.jsonl", marks=pytest.mark.slow), "colours.jsonl"])
def test_batch_size_and_mesh_change_no_answer(folder: Path, tmp_path: Path, file: str):
    """The same predictions, in batches of 3, 4 or 16, and on four devices."""
    found = []
    for number, settings in enumerate(({}, {"batch": 3}, {"batch": 16}, {"mesh": "2x2"})):
        run = shutil.copytree(folder / "trained", tmp_path / str(number))  # existing answers are not computed again
        found.append(evaluated(run, eval_file=folder / file, **settings))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert one | {"logprobs": 0, "evaluation": 0} == same | {"logprobs": 0, "evaluation": 0}
            assert one.get("logprobs", []) == pytest.approx(same.get("logprobs", []), abs=2e-5)
    assert len({str(row.get("logprobs", row["prediction"])) for row in found[0]}) > 1


def test_existing_answers_are_not_computed_again(
    folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only new questions are answered: here the one row whose text has changed, under its old id."""
    first, asked = evaluated(run, eval_file=folder / "colours.jsonl"), []

    def predict(model: Any, task: Any, rows: Any, size: int, sampling: Any, parts: Any) -> Any:
        asked.extend(question.example.prompt for question in rows)
        return questions.predict(model, task, rows, size, sampling, parts)

    monkeypatch.setattr(answering, "predict", predict)
    before = {name: (run / name).read_bytes() for name in ("report.json", "report.md", "statistics.json")}
    lines = (run / "predictions.jsonl").read_text().splitlines()
    (run / "predictions.jsonl").write_text("\n".join(reversed(lines)))  # in any order, and without the last line break
    assert evaluated(run, eval_file=folder / "colours.jsonl") == first and not asked
    assert before == {name: (run / name).read_bytes() for name in before}
    file = tmp_path / "colours.jsonl"
    file.write_text((folder / "colours.jsonl").read_text().replace("2: The stone", "2: My stone"))
    again = evaluated(run, eval_file=file)
    assert asked and all("My stone" in prompt for prompt in asked)
    changed, kept = [row["id"] in ("3", "9") for row in first], [row for row in again if "My" not in row["prompt"]]
    assert [row for row in kept if "superseded" not in row] == [
        row for row, old in zip(first, changed, strict=True) if not old
    ]
    assert [row for row in kept if row.pop("superseded", False)] == [
        row for row, old in zip(first, changed, strict=True) if old
    ]
    assert json.loads((run / "report.json").read_text())["tasks"]["colours"]["languages"]["en"]["n"] == 6


def test_answers_are_scored_by_todays_rules(folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    """What an earlier version read from a text, and how it scored it, is computed again; the text is not."""
    first = evaluated(run, eval_file=folder / "answers.jsonl")
    path = run / "predictions.jsonl"
    old = [json.loads(line) for line in path.read_text().splitlines()]
    old[3] |= {"answer": "?", "scores": {"f1": 0.125, "em": 0.125}, "parse_failure": not old[3]["parse_failure"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    monkeypatch.setattr(answering, "predict", None)  # nothing is asked
    assert evaluated(run, eval_file=folder / "answers.jsonl") == first
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()[10:]] == [old[3]["key"]]


def test_other_tasks_and_languages_are_kept(folder: Path, run: Path):
    """Another evaluation adds rows. Rows of the adapter before further training are kept but do not count."""
    answers, colours = folder / "answers.jsonl", folder / "colours.jsonl"
    first = evaluated(run, eval_file=answers, languages="de")
    second = evaluated(run, eval_file=colours, limit=2)
    assert second[:4] == first and [row["task"] for row in second[4:]] == ["colours"] * 4
    report = json.loads((run / "report.json").read_text())
    assert set(report["tasks"]) == {"answers", "colours"} and set(report["tasks"]["answers"]["languages"]) == {"de"}
    assert report["tasks"]["answers"]["source"] is None and report["tasks"]["answers"]["gap"] is None
    third = evaluated(run, eval_file=colours, languages="en")
    assert [(row["task"], row["language"]) for row in third] == (
        [("answers", "de")] * 4 + [("colours", "en")] * 6 + [("colours", "de")] * 2
    )
    train(configuration(folder, steps=3), run, quiet=True)
    fourth = evaluated(run, eval_file=colours, limit=1)
    assert [(row["task"], row["step"]) for row in fourth] == [("colours", 3)] * 2
    languages = json.loads((run / "report.json").read_text())["tasks"]["colours"]["languages"]
    assert {code: scores["n"] for code, scores in languages.items()} == {"en": 1, "de": 1}


def test_a_baseline_is_shown_beside_the_run(folder: Path, run: Path, capsys: Any):
    """A baseline with other numbers of questions is pointed out."""
    base, file = train(configuration(folder, method="none"), run / "none"), folder / "colours.jsonl"
    with pytest.raises(InputError, match=r"has no readable report.json; evaluate that run first"):
        evaluated(run, eval_file=file, limit=2, baseline=base)
    evaluated(base, eval_file=file, limit=2)
    evaluated(run, eval_file=file, limit=2, baseline=base)
    text = (run / "report.md").read_text()
    assert "baseline accuracy %" in text and "Evaluated with at most 96 tokens, greedy." in text
    assert "not of the same questions" not in text + capsys.readouterr().out
    evaluated(run, eval_file=file, limit=3, baseline=base)
    caution = "The baseline has other numbers of rows in de, en: its scores are not of the same questions."
    assert caution in (run / "report.md").read_text() and f"colours: {caution}" in capsys.readouterr().out


def test_questions_that_do_not_fit_are_counted(folder: Path, run: Path, tmp_path: Path, capsys: Any):
    """A question that is too long for the run's length is reported and scores 0; none left is an error."""
    long = {"prompt": "long " * 200, "response": "red"}
    file = small.write_rows(tmp_path / "some.jsonl", [*small.rows(2), long])
    rows = evaluated(run, eval_file=file)
    assert rows[2]["scores"] == {"f1": 0.0, "em": 0.0} and not rows[2]["parse_failure"]
    assert [row["fit"] for row in rows] == ["whole", "whole", "none"]
    unparsed = sum(not row["answer"] for row in rows[:2]) / 3
    assert read_report(run)["tasks"]["some"]["languages"]["en"]["parse_failure_rate"] == pytest.approx(unparsed)
    assert "some: 0 contexts cut to fit; 1 questions exceed --max-length and score 0" in capsys.readouterr().out
    before = (run / "predictions.jsonl").read_bytes()
    file = small.write_rows(tmp_path / "none.jsonl", [long])
    with pytest.raises(InputError, match="none of 1 questions fits in 96 tokens; raise --max-length, to at most 1024"):
        evaluated(run, eval_file=file)
    with pytest.raises(InputError, match="--max-length 1025 is beyond the model's 1024 positions; choose less"):
        evaluated(run, eval_file=file, max_length=1025)
    assert (run / "predictions.jsonl").read_bytes() == before


def test_split_selects_another_split_and_never_the_trained_one(folder: Path, tmp_path: Path):
    """Its answers are not mixed with those of the usual split."""
    mirror = tmp_path / "mirror" / "cambridgeltl" / "xcopa" / "it"
    mirror.mkdir(parents=True)
    row = {"premise": "Piove.", "choice1": "Mi bagno.", "choice2": "Rido.", "question": "effect", "label": 0}
    for split in ("validation", "test"):
        small.write_rows(mirror / f"{split}.jsonl", [row | {"premise": f"{split} {number}"} for number in range(12)])
    config = replace(
        configuration(folder), train_file=None, task="xcopa", language="it", data=tmp_path / "mirror", max_length=256
    )
    run = shutil.copytree(folder / "trained", tmp_path / "run")
    (run / "run.json").write_text(json.dumps(read_run(run) | {"config": config.as_json(), "source": "it"}))
    with pytest.raises(InputError, match="was trained on --split validation of xcopa; choose another split"):
        evaluated(run, languages="it", split="validation")
    rows = evaluated(run, languages="it", limit=3)
    assert len(rows) == 3 and all("Premise: test" in row["prompt"] for row in rows)
    base = train(replace(config, method="none"), tmp_path / "base", quiet=True)
    (base / "run.json").write_text((base / "run.json").read_text().replace('"xcopa"', '"xnli"'))
    rows = evaluated(base, task="xcopa", languages="it", limit=3, split="validation")
    assert all("Premise: validation" in row["prompt"] for row in rows)
    with pytest.raises(InputError, match="split validation, now at most 256 tokens, greedy; give a new --output"):
        evaluated(base, task="xcopa", languages="it", limit=3)


def test_a_question_that_a_file_has_twice_counts_once(folder: Path, run: Path, tmp_path: Path):
    """Sampled answers to the two would differ, and interruptions would decide which one counts."""
    twice = [row | {"id": "same"} for row in small.rows(1)] * 2
    evaluated(run, eval_file=small.write_rows(tmp_path / "twice.jsonl", [*twice, *small.rows(2)]), temperature=1.0)
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in lines) == ["3", "4", "same"]
    assert json.loads((run / "report.json").read_text())["tasks"]["twice"]["languages"]["en"]["n"] == 3


def test_a_choice_without_a_token_is_refused():
    """Some tokenizers encode a text as no tokens; its likelihood would be that of an empty text."""

    class Deaf:
        def response_ids(self, text: str) -> list[int]:
            return [*(ord(letter) for letter in text if letter.isascii()), 0]

    tokenizer: Any = Deaf()
    example = Example("7", "de", "", "", "Was?\n", response="ja", choices=("ja", "jein"))
    assert questions.choice_ids(tokenizer, example) == ([106, 97], [106, 101, 105, 110])
    # The end token distinguishes "ja" from the beginning of the other choice.
    begins = replace(example, choices=("ja", "jawohl"))
    assert [ids[-1] for ids in questions.choice_ids(tokenizer, begins)] == [0, 0]
    with pytest.raises(InputError, match=r"question '7' \(de\): choice 'ß' has no token in the model's tokenizer"):
        questions.choice_ids(tokenizer, replace(example, choices=("ja", "ß")))


def test_another_base_is_refused(folder: Path, run: Path):
    """The weights that the run was trained on have changed on disk since."""
    model = shutil.copytree(folder / "model", run / "model")
    described = read_run(run)
    described["config"]["model"] = str(model)
    (run / "run.json").write_text(json.dumps(described))
    evaluated(run, eval_file=folder / "colours.jsonl", limit=1)
    small.write_model(model, scale=3)
    with pytest.raises(InputError, match=r"is not the base that .* was trained on, .*: its hash is"):
        evaluated(run, eval_file=folder / "colours.jsonl", limit=1)


def test_a_run_without_a_checkpoint_is_refused(folder: Path, run: Path):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match=r"no checkpoint in .*; repeat the training command"):
        evaluated(run, eval_file=folder / "colours.jsonl")


@pytest.mark.slow
@small.needs_rows
def test_real_rows_of_two_tasks_at_once(folder: Path, tmp_path: Path):
    """XQuAD is generated and XNLI is chosen; both are in one report, with the text of each language."""
    run = train(configuration(folder, method="none", max_length=768), tmp_path / "run", quiet=True)
    rows = evaluated(run, task="xquad, xnli,", languages="de, zh", data=small.MIRROR, limit=2)
    assert sorted((row["task"], row["language"]) for row in rows) == [
        (task, language) for task in ("xnli", "xquad") for language in ("de", "zh") for _ in range(2)
    ]
    assert rows[4]["references"] and "Passage: " in rows[4]["prompt"] and len(rows[0]["logprobs"]) == 3
    tasks = json.loads((run / "report.json").read_text())["tasks"]
    assert tasks["xquad"]["metrics"] == ["f1", "em"] and tasks["xnli"]["metrics"] == ["accuracy", "accuracy_norm"]
    assert tasks["xnli"]["languages"]["zh"]["n"] == 2
    assert "92% in zh" in (run / "report.md").read_text()


def test_the_default_benchmark_is_that_of_the_trained_task(folder: Path, tmp_path: Path):
    """Without --task the benchmark is that of the trained task; the user's own rows have none."""
    run = train(configuration(folder, method="none"), tmp_path / "own", quiet=True)
    with pytest.raises(InputError, match="choose the benchmark: --eval-file FILE or --task xquad"):
        evaluated(run)
    run = train(replace(configuration(folder, method="none"), train_file=None, task="mnli"), tmp_path / "mnli")
    with pytest.raises(InputError, match="xnli"):
        evaluated(run, data=tmp_path)


def test_a_smaller_limit_loses_no_answer(folder: Path, run: Path, capsys: Any):
    """Earlier answers stay in the report, and languages with other numbers of rows are pointed out."""
    evaluated(run, eval_file=folder / "answers.jsonl", limit=2)
    caution = "answers: Languages have 2 (en) to 4 (de) rows: their scores are not of the same questions."
    assert caution not in capsys.readouterr().out
    more = evaluated(run, eval_file=folder / "answers.jsonl", languages="de")
    fewer = evaluated(run, eval_file=folder / "answers.jsonl", limit=1)
    assert sorted(map(str, fewer)) == sorted(map(str, more)) and len(more) == 6
    assert capsys.readouterr().out.count(caution) == 2 and caution[9:] in (run / "report.md").read_text()
    languages = json.loads((run / "report.json").read_text())["tasks"]["answers"]["languages"]
    assert {code: scores["n"] for code, scores in languages.items()} == {"en": 2, "de": 4}


def test_the_first_rows_of_an_earlier_version_are_not_mixed_with_others(folder: Path, run: Path, tmp_path: Path):
    """Their rows do not say how they were selected. All rows of a file are the same however they were selected."""
    file = small.write_rows(tmp_path / "many.jsonl", small.rows(12))
    evaluated(run, eval_file=file)
    path = run / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = sorted(({k: v for k, v in row.items() if k != "selection"} for row in rows), key=lambda row: int(row["id"]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(evaluated(run, eval_file=file, limit=3)) == 12  # they are all there
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    message = r"has answers to the first rows of many \(en\), and --limit now selects rows that are spread over"
    with pytest.raises(InputError, match=message):
        evaluated(run, eval_file=file, limit=3)
    assert len(path.read_text().splitlines()) == 3
    selected = evaluated(run, eval_file=file, limit=3, output=tmp_path / "new")
    assert [row["id"] for row in selected] != ["1", "2", "3"]
    more = evaluated(run, eval_file=file, limit=5, output=tmp_path / "new")
    assert len(more) == 5 and all(row in more for row in selected)
    assert len(evaluated(run, eval_file=file)) == 12


def test_files_with_the_same_name_are_kept_apart(
    folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another file with the same name and other questions: the report is about these, and the earlier answers are found
    again with the first file. The name of a benchmark is refused.
    """
    first = evaluated(run, eval_file=folder / "answers.jsonl")
    other = small.write_rows(tmp_path / "answers.jsonl", [small.rows(1)[0] | {"language": "fr"}])
    both = evaluated(run, eval_file=other)
    assert [row["language"] for row in both if not row.get("superseded")] == ["fr"] and len(both) == 11
    evaluated(run, eval_file=folder / "colours.jsonl", limit=1)
    tasks = json.loads((run / "report.json").read_text())["tasks"]
    assert set(tasks["answers"]["languages"]) == {"fr"} and set(tasks) == {"answers", "colours"}
    monkeypatch.setattr(answering, "predict", None)  # nothing is computed
    again = evaluated(run, eval_file=folder / "answers.jsonl")
    assert [row for row in again if row["task"] == "answers" and not row.get("superseded")] == first
    with pytest.raises(InputError, match="has the name of the task xquad; rename the file"):
        evaluated(run, eval_file=small.write_rows(tmp_path / "xquad.jsonl", small.rows(1)))


def test_one_evaluation_at_a_time_in_a_directory(folder: Path, run: Path, tmp_path: Path):
    """The second one would overwrite the answers of the first."""
    file = folder / "answers.jsonl"
    for place in ({}, {"output": tmp_path / "new"}):
        with (
            exclusive(place.get("output", run)),
            pytest.raises(InputError, match=r"another process writes to .*; wait"),
        ):
            evaluated(run, eval_file=file, **place)
    evaluate(run, Evaluation(eval_file=file, limit=1, batch=4, mesh="1x1", output=tmp_path / "new"), quiet=True)


def test_a_directory_without_write_permission_is_refused(folder: Path, run: Path, tmp_path: Path):
    """The error comes before the model is loaded."""
    for place in (file := folder / "answers.jsonl", file / "new"):
        with pytest.raises(InputError, match=r"answers.jsonl is a file; give a new directory"):
            evaluated(run, eval_file=file, output=place)


def test_settings_of_a_notebook(folder: Path, run: Path):
    """Paths may be strings; a wrong type is refused in one line."""
    settings = Evaluation(eval_file=str(folder / "colours.jsonl"), batch=4, mesh="1x1", limit=1)  # type: ignore[arg-type]
    assert set(evaluate(str(run), settings, quiet=True)["tasks"]) == {"colours"}
    for wrong in ({"languages": ["de"]}, {"task": 3}, {"limit": "10"}, {"batch": 2.5}):
        (name, value), *_ = wrong.items()
        with pytest.raises(InputError, match=rf"{name} is {re.escape(repr(value))}; expected "):
            evaluate(run, replace(settings, **wrong))


def test_the_source_is_the_language_that_was_trained(folder: Path, tmp_path: Path):
    german = small.write_rows(tmp_path / "de.jsonl", [row | {"language": "de"} for row in small.rows(8)])
    settings = small.configuration(folder / "model", german, method="none")
    run = train(settings, tmp_path / "run", quiet=True)
    evaluated(run, eval_file=german, limit=1)
    report = json.loads((run / "report.json").read_text())
    assert report["source"] == "de" and report["tasks"]["de"]["source"]["language"] == "de"
