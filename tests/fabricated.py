"""A study whose runs are invented: all their files, and its study.json, without a model."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxprefix.evaluation import report
from jaxprefix.evaluation.evaluate import build
from jaxprefix.evaluation.predictions import description, origin
from jaxprefix.runs.directory import write_run
from jaxprefix.study.folder import Folder
from jaxprefix.study.plan import Cell, Plan, plan
from jaxprefix.study.results import results
from jaxprefix.study.specification import parse
from jaxprefix.tasks import find
from jaxprefix.tasks.task import Example

Answer = Callable[[Cell, Example, bool], str]  # the text of an answer that is right or wrong

SMALL = """
about = "Small & <quick>."
[run]
task = "babel-qa"
[evaluation]
languages = "en,ar,de,sw"
[[table]]
name = "Methods"
baseline = { method = "none" }
note = "A note </script> with <b>markup</b>."
[[table.grid]]
run = { method = ["none", "prefix", "lora"], seed = [0, 1] }
[[table]]
name = "Ranks"
kind = "line"
x = "lora.rank"
[[table.grid]]
run = { method = "lora", lora.rank = [4, 8] }
[[table.grid]]
run = { method = "prefix" }
[[table]]
name = "Sources"
kind = "matrix"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["none", "lora"], language = ["en", "ar"] }
"""
# 62 cells in 20 languages.
LARGE = """
about = "Every method in every language of the embedded world, with invented answers."
[run]
task = "babel-qa"
[[table]]
name = "Methods"
baseline = { method = "none" }
[[table.grid]]
run.method = ["none", "prefix", "lora", "soft-prompt", "llama-adapter", "bottleneck", "full"]
run.seed = [0, 1, 2, 3]
[[table]]
name = "Ranks"
kind = "line"
x = "lora.rank"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["lora", "prefix+lora"], lora.rank = [1, 2, 8, 16, 32], seed = [0, 1] }
[[table.grid]]
run = { method = ["none", "prefix"] }
[[table]]
name = "Sources"
kind = "matrix"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["none", "lora", "prefix"], language = ["en", "ar", "de", "hi", "ru", "sw", "zh", "tr"] }
"""


def plain(cell: Cell, example: Example, right: bool) -> str:
    return example.response if right else "something else"


def study(root: Path, text: str = SMALL, questions: int = 6, answer: Answer = plain) -> tuple[Plan, Folder]:
    """Writes a study's directory. Methods differ in how often they are right, and languages too."""
    planned, folder = plan(parse(text.encode(), "invented")), Folder(root)
    folder.open(planned)
    for cell in planned.cells():
        write(cell, folder, questions, answer)
    (root / "study.json").write_text(report.files.json_text(results(planned, folder)), encoding="utf-8")
    return planned, folder


def write(cell: Cell, folder: Folder, questions: int, answer: Answer) -> None:
    """The files of one cell."""
    config, chance = cell.config, random.Random(cell.name)
    run: dict[str, Any] = {"config": config.as_json(), "base": "b", "rows": "r", "source": config.language or "en"}
    run |= {
        "finished": True,
        "steps": 400,
        "trainable_parameters": 1000 + len(cell.name),
        "versions": {"jaxprefix": "1"},
    }
    folder.run(cell).mkdir(parents=True, exist_ok=True)
    write_run(folder.run(cell), run)
    if config.method != "none":
        pace = 40 + 120 * chance.random()
        losses = [{"step": step, "loss": 3 / (1 + step / pace) + chance.random() / 3} for step in range(1, 401)]
        held_out = [{"step": step, "held_out_loss": 3 / (1 + step / pace) + 0.1} for step in range(0, 401, 50)]
        lines = sorted(losses + held_out, key=lambda row: row["step"])
        (folder.run(cell) / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    task = find(cell.tasks[0])
    languages = cell.evaluation.languages.split(",") if cell.evaluation.languages else task.languages
    rows = []
    for language in languages:
        level = chance.random() * 0.4 + 0.1 + 0.35 * (config.method != "none") + 0.1 * (language == run["source"])
        for values in task.load(language, "test", None)[:questions]:
            example = task.example(values, language)
            assert example
            text = answer(cell, example, chance.random() < level)
            rows.append(
                description(task, example)
                | {"prediction": text, "answer": text, "scores": task.score(text, example), "parse_failure": not text}
                | origin(run, 400, "greedy")
            )
    directory = folder.evaluation(cell)
    directory.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "predictions.jsonl").write_text(lines, encoding="utf-8")
    summary, statistics = build(config, run["source"], rows, {task.name: task})
    report.write(summary, {}, directory, None, statistics)
    folder.write_state(cell, "evaluate", {"languages": {task.name: list(languages)}, "missing": {}})
