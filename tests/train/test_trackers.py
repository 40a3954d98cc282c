"""The copies of metrics.jsonl for experiment trackers: the same figures, and one record of a resumed run.

The trackers are modules with the public signatures of wandb 0.20 and trackio 0.43. Where trackio is installed, a slow
test reads its own database.
"""

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jaxprefix.runs.config import RunConfig
from jaxprefix.train import metrics

ROWS = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan"), "learning_rate": 0.1}, {"step": 3, "loss": 0.25}]


class Tracker:
    """Runs by name, as `init` of a tracker makes or resumes them, with what they were given."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int | None, dict[str, Any]]]] = {}
        self.settings: list[dict[str, Any]] = []
        self.finished = 0

    def open(self, name: str, resume: str, **settings: Any) -> Any:
        assert resume == "allow" or name not in self.runs
        logged, tracker = self.runs.setdefault(name, []), self
        self.settings.append(settings)

        class Run:
            def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
                logged.append((step, metrics))

            def finish(self) -> None:
                tracker.finished += 1

        return Run()


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tracker]:
    found = {"wandb": Tracker(), "trackio": Tracker()}

    def wandb_init(*, project: str, name: str, id: str, resume: str, dir: Path, config: dict[str, Any]) -> Any:
        return found["wandb"].open(id, resume, project=project, config=config)

    def trackio_init(
        project: str,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        resume: str = "never",
        embed: bool = True,
    ) -> Any:
        assert name and not embed  # a dashboard in each cell of a notebook would be in the way
        return found["trackio"].open(name, resume, project=project, config=config)

    for module, init in (("wandb", wandb_init), ("trackio", trackio_init)):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        monkeypatch.setattr(sys.modules[module], "init", init, raising=False)
    return found


def write(directory: Path, config: RunConfig, step: int) -> None:
    """Logs the rows after a step, as a run that is resumed there."""
    directory.mkdir(parents=True, exist_ok=True)
    logger = metrics.MetricsLogger(directory, config, step)
    for row in ROWS[step:]:
        logger.write(row)
    logger.close()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_has_the_rows_of_the_file(name: str, trackers: dict[str, Tracker], tmp_path: Path):
    tracker, config = trackers[name], RunConfig(**{name: "mine"})
    write(tmp_path / "run", config, 0)
    ((run, logged),) = tracker.runs.items()
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    finite = [{key: value for key, value in row.items() if value is not None} for row in written]
    assert [step for step, _ in logged] == [row["step"] for row in written] == [1, 2, 3]
    assert [{"step": step} | row for step, row in logged] == finite
    assert all(("step" in row) == (name == "wandb") for _, row in logged)  # trackio reserves this name
    assert tracker.settings == [{"project": "mine", "config": config.as_json()}] and tracker.finished == 1
    write(tmp_path / "run", config, 2)
    assert list(tracker.runs) == [run] and [step for step, _ in tracker.runs[run]] == [1, 2, 3, 3]
    write(tmp_path / "other" / "run", config, 0)
    assert len(tracker.runs) == 2  # another directory of the same name is another run


def test_without_a_project_no_tracker_is_imported(trackers: dict[str, Tracker], tmp_path: Path):
    write(tmp_path, RunConfig(), 0)
    assert not any(tracker.runs for tracker in trackers.values())


PROGRAM = """
from pathlib import Path
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.metrics import MetricsLogger

for step, last in ((0, 2), (2, 3)):
    logger = MetricsLogger(Path("run"), RunConfig(trackio="mine"), step)
    for number in range(step + 1, last + 1):
        logger.write({"step": number, "loss": 1 / number})
    logger.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is an extra that tests do not need")
def test_trackio_itself(tmp_path: Path):
    (tmp_path / "run").mkdir()
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "database")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "database" / "mine.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    database.close()
    assert len({run for run, _, _ in rows}) == 1
    assert [(step, json.loads(row)["loss"]) for _, step, row in rows] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
