"""Runs with several seeds: their spread against NumPy, and runs with other differences are refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxprefix.errors import InputError
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.evaluation.report import build, summarise, write
from jaxprefix.evaluation.seeds import Seeds, seeds, spread
from jaxprefix.io import terminal
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.config import RunConfig

CODES = ("de", "en", "zh")


def run(place, seed, count=20, codes=CODES, task="mine", source="en", base="abc", finished=True, **settings):
    """A directory as training and evaluation write it."""
    chance = np.random.default_rng(seed)
    rows = [
        {"language": code, "id": str(number), "scores": dict(zip(("f1", "em"), chance.random(2), strict=True))}
        for code in codes
        for number in range(count)
    ]
    config = RunConfig(**({"model": "m", "train_file": Path("mine.jsonl"), "seed": seed} | settings))
    report = summarise([each | {"parse_failure": False} for each in rows], ["f1", "em"], source)
    write(build("m", "prefix", source, {task: report}), {}, place)
    described = {"base": base, "source": source, "rows": f"{seed}", "finished": finished, "steps": 5}
    (place / "run.json").write_text(json.dumps({"config": config.as_json(), **described}))
    return report


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """The reports of three runs a0, a1 and a2, in the current directory."""
    monkeypatch.chdir(tmp_path)
    return [run(Path(f"a{seed}"), seed) for seed in range(3)]


def test_the_spread_is_numpys(reports, capsys):
    found = seeds(Seeds("a0,a1,a2", output=Path("figures.json")))
    task = found["tasks"]["mine"]
    for metric in ("f1", "em"):
        parts = {code: [each["languages"][code][metric] for each in reports] for code in CODES}
        parts |= {name: [each[name][metric] for each in reports] for name in ("mean_others", "gap")}
        for name, values in parts.items():
            own = (task["languages"].get(name) or task[name])[metric]
            expected = {"mean": np.mean(values), "sd": np.std(values, ddof=1), "min": min(values), "max": max(values)}
            assert own == pytest.approx(expected)
    assert (found["runs"], found["seeds"], found["source"]) == (["a0", "a1", "a2"], [0, 1, 2], "en")
    assert json.loads(Path("figures.json").read_text()) == found
    printed = capsys.readouterr().out
    text = " ".join("".join(" " if "─" <= letter <= "╿" else letter for letter in printed).split())
    own, other = (task["languages"]["en"][metric] for metric in ("f1", "em"))
    line = "en (source) {mean:.1f} {sd:.1f} {min:.1f}..{max:.1f}".format(**{key: 100 * own[key] for key in own})
    assert "mine: m, prefix, 3 seeds" in text
    assert line + f" {100 * other['mean']:.1f} {100 * other['sd']:.1f}" in text
    assert max(map(len, printed.splitlines())) <= 80


def test_without_the_source_there_is_no_gap(reports):
    found = spread([summary | {"gap": None, "source": None} for summary in reports])
    assert found["gap"] is None and found["mean_others"] is not None


def test_settings_that_change_no_figure_may_differ(reports):
    run(Path("b"), 7, mesh="2x1", platform="cpu", data=Path("elsewhere"), log_every=3, model="/copy/of/m")
    assert seeds(Seeds("a0,b"))["seeds"] == [0, 7]


OTHER = {
    "another method": ({"method": "lora"}, "method: a0 has 'prefix', b has 'lora'"),
    "another setting of it": ({"prefix": PrefixTuning(length=3)}, "prefix: a0 has {'length': 10"),
    "another base": ({"base": "xyz"}, "base (its hash): a0 has 'abc', b has 'xyz'"),
    "another rate": ({"lr": 0.5}, "lr: a0 has None, b has 0.5"),
    "other steps": ({"steps": 9}, "steps: a0 has None, b has 9"),
    "other rows learnt": ({"train_file": Path("x.jsonl")}, "train-file: a0 has 'mine.jsonl', b has 'x.jsonl'"),
    "another source": ({"source": "de"}, "source language: a0 has 'en', b has 'de'"),
    "another task": ({"task": "xquad"}, "tasks: a0 has ['mine'], b has ['xquad']"),
    "other languages": ({"codes": ("de", "en")}, "rows of mine by language: a0 has {'de': 20, 'en': 20, 'zh': 20}"),
    "fewer rows": ({"count": 19}, "rows of mine by language: a0 has {'de': 20"),
    "unfinished": ({"finished": False}, "run b is not finished; finish it, or leave it out"),
    "the same seed": ({"seed": 0}, "a0 and b have the same seed, 0; leave one out"),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_runs_are_refused_by_name(case, reports):
    settings, message = OTHER[case]
    run(Path("b"), **{"seed": 9, **settings})
    with pytest.raises(InputError) as refused:
        seeds(Seeds("a0,a1,b"))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("seeds a0", "a0 is one run; a spread needs several"),
        ("seeds a0,a0", "names no run, or one twice"),
        ("seeds a0,nowhere", "nowhere is not a run: it has no readable run.json"),
        ("seeds a0,unasked", "unasked has no readable report.json; evaluate that run first"),
        ("seeds a0,a1 --output a2", "a2 already exists; give a new file"),
    ],
)
def test_one_line_and_code_2(command, message, reports, monkeypatch, capsys):
    run(Path("unasked"), 8)
    Path("unasked/report.json").unlink()
    monkeypatch.setattr("sys.argv", ["main", *command.split()])
    with pytest.raises(SystemExit) as ended:
        terminal.run(evaluation.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and message in error
