"""Comparison of two runs: exact differences, the p values of SciPy, excluded questions, and mistakes in one line."""

import json
import random
import statistics as exact
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxprefix.errors import InputError
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.evaluation.compare import Compare, compare, differences
from jaxprefix.evaluation.predictions import Predictions, read_answered
from jaxprefix.evaluation.report import build, summarise, write
from jaxprefix.io import terminal


def row(language, number, accuracy, task="xnli", **more):
    scores = {"accuracy": float(accuracy), "accuracy_norm": float(accuracy) / 2}
    asked = {"task": task, "language": language, "id": str(number), "prompt": f"{language} {number}?\n"}
    answered = {"prediction": "y", "scores": scores, "parse_failure": False, "run": "r", "step": 5, "how": "greedy"}
    return asked | {"references": ["y"], "choices": ["y", "n"]} | answered | more


def answers(seed, levels, count=60, task="xnli"):
    """Questions in languages of these levels. All differences of one seed and level have the same direction."""
    chance = np.random.default_rng(seed)
    hard = np.random.default_rng(0).random(count)
    return [
        row(code, number, 0.7 * hard[number] + 0.3 * chance.random() < level, task)
        for code, level in levels.items()
        for number in range(count)
    ]


def evaluated(place: Path, rows, source="en") -> Path:
    """A directory as an evaluation writes it."""
    tasks = dict.fromkeys(each["task"] for each in rows)
    parts = {name: [each for each in rows if each["task"] == name] for name in tasks}
    summaries = {name: summarise(own, ["accuracy", "accuracy_norm"], source) for name, own in parts.items()}
    write(build("tiny", "prefix", source, summaries), {}, place)
    (place / "predictions.jsonl").write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows))
    return place


LEVELS = {"de": 0.6, "en": 0.8, "zh": 0.4}
A, B = answers(1, LEVELS), answers(2, LEVELS | {"de": 0.45, "zh": 0.38})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return evaluated(Path("a"), A), evaluated(Path("b"), B)


def scores(rows, code):
    return np.array([each["scores"]["accuracy"] for each in rows if each["language"] == code])


def test_differences_are_those_of_the_rows_with_mcnemars_and_permuted_p_values():
    found = differences(list(zip(A, B, strict=True)), "accuracy", ["en", "eng_Latn"])
    assert found["source"] == "en" and list(found["languages"]) == ["de", "en", "zh"]
    columns = {code: scores(A, code) - scores(B, code) for code in LEVELS}
    p_values = []
    for code, each in found["languages"].items():
        one, other = scores(A, code), scores(B, code)
        assert (each["a"], each["b"], each["n"]) == (pytest.approx(one.mean()), pytest.approx(other.mean()), 60)
        assert each["difference"] == pytest.approx(exact.fmean(columns[code]))
        discordant = int((one != other).sum())
        mcnemar = stats.binomtest(int((one > other).sum()), discordant).pvalue if discordant else 1.0
        assert each["p"] == pytest.approx(mcnemar, abs=1e-12 if discordant <= 16 else 0.02)
        paired = stats.bootstrap((columns[code],), np.mean, method="percentile", n_resamples=9999, rng=1)
        low, high = paired.confidence_interval
        assert (each["low"], each["high"]) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
        p_values.append(each["p"])
    assert found["languages"]["de"]["p"] < 0.01 < found["languages"]["zh"]["p"]
    # SciPy has no Holm correction: the smallest p value times three, and so on.
    smallest, middle, largest = sorted(p_values)
    steps = [min(1, 3 * smallest)]
    steps.append(max(steps[0], min(1, 2 * middle)))
    steps.append(max(steps[1], largest))
    assert sorted(each["p_holm"] for each in found["languages"].values()) == pytest.approx(steps)


def test_the_mean_and_the_gap_are_tested_by_question():
    """A sign flip applies to a question in every language; SciPy tests what each question adds to the figure."""
    found = differences(list(zip(A, B, strict=True)), "accuracy", ["en", "en"])
    columns = {code: scores(A, code) - scores(B, code) for code in LEVELS}
    others = (columns["de"] + columns["zh"]) / 2
    for figure, parts in (("mean_others", others), ("gap", columns["en"] - others)):
        each = found[figure]
        assert each and each["difference"] == pytest.approx(parts.mean()) and each["p_holm"] is None
        theirs = stats.permutation_test((parts,), np.mean, permutation_type="samples", n_resamples=50_000, rng=3)
        assert each["p"] == pytest.approx(theirs.pvalue, abs=0.012)
        low, high = stats.bootstrap((parts,), np.mean, method="percentile", rng=1).confidence_interval
        assert (each["low"], each["high"]) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))
    assert found["mean_others"] and found["mean_others"]["n"] == 120


def test_runs_of_two_sources_have_no_gap_and_neither_is_among_the_others():
    found = differences(list(zip(A, B, strict=True)), "accuracy", ["en", "de"])
    assert (found["source"], found["gap"]) == (None, None)
    assert found["mean_others"] and found["mean_others"]["a"] == pytest.approx(scores(A, "zh").mean())
    alone = [pair for pair in zip(A, B, strict=True) if pair[0]["language"] == "en"]
    assert differences(alone, "accuracy", ["en", "en"])["mean_others"] is None


def test_only_questions_that_both_answered_are_compared_and_the_others_counted(tmp_path, capsys):
    fewer = [each for each in B if each["language"] != "zh" and each["id"] != "7"] + answers(3, {"sw": 0.3})
    other_text = [each | {"prompt": "changed"} if each["id"] == "8" else each for each in fewer]
    older = [each | {"step": 4, "scores": {"accuracy": 1.0}} for each in B]
    one, two = evaluated(tmp_path / "a", A), evaluated(tmp_path / "b", other_text)
    append(two, older)
    found = compare(Compare(one, two, output=tmp_path / "new" / "figures.json"))
    printed = capsys.readouterr().out
    assert "xnli: left out because the other run has not answered them: 64 rows of A, 62 of B" in printed
    task = found["tasks"]["xnli"]
    assert task["left_out"] == {"a": 64, "b": 62} and list(task["metrics"]) == ["accuracy"]
    assert {code: each["n"] for code, each in task["metrics"]["accuracy"]["languages"].items()} == {"de": 58, "en": 58}
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == found
    assert (found["runs"], found["sources"], found["flips"]) == ([str(one), str(two)], ["en", "en"], 10_000)


def append(place, rows):
    with (place / "predictions.jsonl").open("a") as file:
        file.write("".join(json.dumps(each) + "\n" for each in rows))


def test_the_last_row_of_a_question_counts_wherever_the_others_are(runs):
    found = compare(Compare(*runs))
    random.Random(0).shuffle(mixed := list(B))
    wrong = [each | {"scores": {"accuracy": 0.0, "accuracy_norm": 0.0}} for each in mixed[:50]]
    evaluated(runs[1], [*(each | {"superseded": True} for each in B[:50]), *wrong, *mixed])
    assert compare(Compare(*runs)) == found
    append(runs[1], wrong)
    assert compare(Compare(*runs)) != found
    append(runs[1], [each | {"superseded": True} for each in B[:50]])
    assert compare(Compare(*runs))["tasks"]["xnli"]["left_out"] == {"a": 50, "b": 0}


def test_tasks_and_metrics_are_chosen_and_shown_in_tables_of_80_columns(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    more = answers(4, LEVELS, task="mine")
    evaluated(runs[0], A + more)
    evaluated(runs[1], B + more)
    found = compare(Compare(*runs, metric="accuracy_norm,accuracy"))
    assert {name: list(each["metrics"]) for name, each in found["tasks"].items()} == {
        "xnli": ["accuracy_norm", "accuracy"],
        "mine": ["accuracy_norm", "accuracy"],
    }
    same = found["tasks"]["mine"]["metrics"]["accuracy"]
    assert all((each["difference"], each["p"], each["p_holm"]) == (0, 1, 1) for each in same["languages"].values())
    assert found["tasks"]["xnli"]["metrics"]["accuracy_norm"]["gap"]["difference"] == pytest.approx(
        found["tasks"]["xnli"]["metrics"]["accuracy"]["gap"]["difference"] / 2
    )
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "xnli accuracy: A a, B b" in printed
    text = " ".join("".join(" " if "─" <= letter <= "╿" else letter for letter in printed).split())
    each = found["tasks"]["xnli"]["metrics"]["accuracy"]["languages"]["de"]
    figures = [100 * each["a"], 100 * each["b"]], [100 * each[name] for name in ("difference", "low", "high")]
    line = "de {:.1f} {:.1f}".format(*figures[0]) + " {:+.1f} {:+.1f}..{:+.1f} ".format(*figures[1])
    assert f"{line}{each['p']:.4f} {each['p_holm']:.4f}* 60" in text
    assert list(compare(Compare(*runs, task="mine"))["tasks"]) == ["mine"]


DAMAGES = {
    '{"task": "xnli"': "predictions.jsonl:2: not a JSON object",
    "[]": "predictions.jsonl:2: not a JSON object",
    "{}": "predictions.jsonl:2: task is missing; expected a text; restore the file, or move it away and evaluate again",
    json.dumps(row("de", 1, 1) | {"scores": []}): "predictions.jsonl:2: scores is []",
    json.dumps(row("de", 1, 1) | {"scores": {}}): "predictions.jsonl:2: scores is empty; expected at least one",
    json.dumps(row("de", 1, 1) | {"scores": {"f1": 2}}): "predictions.jsonl:2: the score f1 is 2, expected 0..1",
    json.dumps(row("de", 1, 1) | {"scores": {"f1": None}}): "the score f1 is None, expected 0..1",
    json.dumps(row("de", 1, 1) | {"id": 3}): "predictions.jsonl:2: id is 3; expected a text",
    json.dumps({name: value for name, value in row("de", 1, 1).items() if name != "step"}): "step is missing; expected",
}


@pytest.mark.parametrize("line", DAMAGES, ids=list(DAMAGES.values()))
def test_a_damaged_row_is_named_by_its_line(line, tmp_path):
    (tmp_path / "predictions.jsonl").write_text(json.dumps(row("de", 0, 1)) + f"\n{line}\n")
    with pytest.raises(InputError) as refused:
        read_answered(tmp_path)
    assert DAMAGES[line] in str(refused.value) and "\n" not in str(refused.value)


def test_a_text_may_hold_any_line_break(tmp_path):
    odd = row("de", 1, 1) | {"prompt": "a\u2028b\x85c\r\nd"}
    (tmp_path / "predictions.jsonl").write_bytes((json.dumps(odd, ensure_ascii=False) + "\n").encode())
    (found,) = read_answered(tmp_path).values()
    assert {name: value for name, value in found.items() if name != "key"} == odd


@pytest.mark.parametrize("cut", [0, 1, 2, 40, 200], ids="whole no-end cut-1 cut-39 cut-199".split())
def test_only_a_last_line_that_was_cut_off_does_not_count(cut, tmp_path):
    """A last line without its line break is an answer; later rows are on lines of their own."""
    path, lines = tmp_path / "predictions.jsonl", [json.dumps(row("de", n, 1), ensure_ascii=False) for n in range(3)]
    content = "".join(f"{line}\n" for line in lines[:2]).encode()
    path.write_bytes(content[: len(content) - cut])
    left = 1 if cut > 1 else 2
    assert [each["id"] for each in read_answered(tmp_path).values()] == ["0", "1"][:left]
    held = Predictions(tmp_path, {"run": "r", "step": 5, "how": "greedy"})
    assert [each["id"] for each in held.rows.values()] == ["0", "1"][:left]
    held.append([json.loads(lines[2]) | {"key": "2"}])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [*["0", "1"][:left], "2"]


MISTAKES = {
    "compare a a": "a and a are the same run; give two",
    "compare a ./a": "are the same run",
    "compare a nowhere": "nowhere has no readable report.json; evaluate that run first",
    "compare a unasked": "unasked has no predictions.jsonl; evaluate it: python -m jaxprefix.evaluation unasked",
    "compare a mine": "the runs have no task in common: a has xnli; mine has mine; evaluate both on the same task",
    "compare a other": "a and other have no answered question in common; evaluate both",
    "compare a b --task xquad": "--task xquad: the runs do not both have 'xquad': a has xnli; b has xnli",
    "compare a b --metric accuracy,f1": "--metric accuracy,f1: xnli has no 'f1'; it has accuracy, accuracy_norm",
    "compare a b --output a": "a already exists; give a new file",
    "compare a b --output a/report.json/new": "a/report.json is a file; give a new directory",
    "compare a mixed": "mixed/predictions.jsonl holds answers of another run; move it away",
    "compare a nothing": "nothing/predictions.jsonl has no answers to current questions; evaluate again",
    "compare a empty": "empty/predictions.jsonl has no answers to current questions; evaluate again",
    "compare a copied": "copied/predictions.jsonl holds answers of another run; move it away",
    "compare a b --task ,": "',' names nothing; expected names, comma-separated",
    "./compare": "compare is not a run: it has no readable run.json",
    "./seeds": "seeds is not a run: it has no readable run.json",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_one_line_and_code_2(command, runs, monkeypatch, capsys):
    write(build("m", "n", "en", {}), {}, Path("unasked"))
    evaluated(Path("mine"), answers(4, LEVELS, task="mine"))
    evaluated(Path("other"), [each | {"prompt": "another"} for each in A])
    evaluated(Path("mixed"), [*A[1:], A[0] | {"run": "s"}])
    evaluated(Path("nothing"), [each | {"superseded": True} for each in A])
    (evaluated(Path("empty"), A) / "predictions.jsonl").write_text("")
    described = {"config": {"method": "none"}, "base": "b", "source": "en", "rows": None, "finished": True, "steps": 0}
    (evaluated(Path("copied"), A) / "run.json").write_text(json.dumps(described))
    monkeypatch.setattr("sys.argv", ["main", *command.split()])
    with pytest.raises(SystemExit) as ended:
        terminal.run(evaluation.main)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and MISTAKES[command] in message


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("--help", ["compare RUN_A RUN_B", "seeds", "./compare", "RUN[,RUN...]", "--limit"]),
        ("compare --help", ["RUN_A", "RUN_B", "--task", "--metric", "--output"]),
        ("seeds --help", ["RUN,RUN[,RUN...]", "--output"]),
    ],
)
def test_help_shows_all_three_commands(command, texts, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["main", *command.split()])
    with pytest.raises(SystemExit) as ended:
        evaluation.main()
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [text for text in texts if text not in printed] == []
