"""The training loop, with steps that only count: what is due when, the order of events, and an early end."""

import math
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxprefix.io.terminal import Stopped
from jaxprefix.train.metrics import NonFiniteLoss, StepMetrics
from jaxprefix.train.signals import StopRequest
from jaxprefix.train.step import State
from jaxprefix.train.trainer import Cadence, Due, fit


def test_what_is_due():
    """Logs every 2 steps, evaluates every 3 and saves every 5, and logs each time. All are due after the last step."""
    cadence = Cadence(log=2, eval=3, save=5, last=11)
    found = {step: cadence.due(step) for step in range(1, 12)}
    assert [step for step, due in found.items() if due.log] == [2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert [step for step, due in found.items() if due.eval] == [3, 6, 9, 11]
    assert [step for step, due in found.items() if due.save] == [5, 10, 11]


class Recorded:
    """Programs, metrics and a callback that record the calls. A state has the number of its step."""

    def __init__(self, last: int, losses: dict[int, float] | None = None) -> None:
        self.events: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.last, self.losses = last, losses or {}
        self.metrics = StepMetrics(lambda step: 0.1 * step, "stop", self.rows.append)

    def batches(self) -> Iterator[Any]:
        for number in range(1, self.last + 1):
            yield SimpleNamespace(number=number, lengths=np.array([2]))

    def place(self, batch: Any) -> Any:
        self.events.append(f"place {batch.number}")
        return batch

    def step(self, state: State, frozen: str, batch: Any) -> tuple[State, dict[str, Any]]:
        assert batch.number == state.step + 1 and frozen == "frozen"
        self.events.append(f"step {batch.number}")
        return state_of(batch.number), {"loss": Computed(self, batch.number), "gradient_norm": 1.0}

    def due(self, step: int, state: State, due: Due) -> None:
        assert step == state.step
        self.events.append(f"due {step}{' eval' if due.eval else ''}{' save' if due.save else ''}")

    def fit(self, cadence: Cadence, **options: Any) -> tuple[Any, Any]:
        programs: Any = self
        options = {"callback": self.due, "quiet": True} | options
        state, ended = fit(state_of(0), self.batches(), programs, "frozen", self.metrics, cadence, **options)
        return state.step, ended


def state_of(step: int) -> State:
    return State(None, None, step)  # type: ignore[arg-type]


class Computed:
    """A loss that records when it is waited for and read."""

    def __init__(self, run: Recorded, step: int) -> None:
        self.run, self.number = run, step

    def block_until_ready(self) -> "Computed":
        self.run.events.append(f"wait {self.number}")
        return self

    def __float__(self) -> float:
        return self.run.losses.get(self.number, 1.0)


def test_a_step_and_its_next_batch_come_before_any_waiting():
    """One step is dispatched ahead. If something is due, the devices already have the next batch."""
    run = Recorded(last=4)
    state, ended = run.fit(Cadence(log=3, eval=10, save=4, last=4))
    assert (state, ended) == (4, None)
    assert run.events == [
        *("place 1", "step 1", "place 2"),
        *("step 2", "place 3", "wait 1"),
        *("step 3", "place 4", "wait 2", "wait 3", "due 3"),
        *("step 4", "wait 4", "due 4 eval save"),
    ]
    assert [(row["step"], row["loss"], row["learning_rate"]) for row in run.rows] == [
        (1, 1.0, 0.0),
        (2, 1.0, pytest.approx(0.1)),
        (3, 1.0, pytest.approx(0.2)),
        (4, 1.0, pytest.approx(0.3)),
    ]
    assert all(row["tokens_per_second"] > 0 for row in run.rows)


def test_a_request_to_stop_saves_at_once():
    """A stop logs the steps that were not due to be logged; after the last step nothing is cut short."""
    run, stop = Recorded(last=6), StopRequest()
    stop.ask(signal.SIGTERM)
    state, ended = run.fit(Cadence(log=5, eval=5, save=5, last=6), stop=stop)
    assert state == 1 and run.events[-1] == "due 1 save" and stop.working
    assert isinstance(ended, Stopped) and ended.code == 143
    assert str(ended) == "stopped by SIGTERM at step 1 of 6; it is saved: repeat the command to resume"
    assert Recorded(last=1).fit(Cadence(5, 5, 5, last=1), stop=stop) == (1, None)


def test_the_first_signal_counts():
    stop = StopRequest()
    assert stop.at_step(waits=True) is None and stop.working
    stop.ask(signal.SIGINT)
    stop.ask(signal.SIGTERM)
    assert stop.asked == stop.at_step(waits=False) == signal.SIGINT


def test_a_loss_that_is_not_finite_is_returned_with_the_state():
    """Its row is written; later steps that were dispatched change nothing, as train_step promises."""
    run = Recorded(last=6, losses={2: math.nan})
    state, ended = run.fit(Cadence(log=3, eval=9, save=9, last=6))
    assert state == 3 and isinstance(ended, NonFiniteLoss) and ended.step == 2
    assert [row["step"] for row in run.rows] == [1, 2] and "due 3" not in run.events


@pytest.mark.parametrize("where", ["place", "due"])
def test_ctrl_c_keeps_the_state(where: str, monkeypatch: pytest.MonkeyPatch):
    """Wherever it is raised: the earlier state was donated, so only the loop has one."""

    def interrupt(run: Recorded, value: Any, *_: Any) -> Any:
        if getattr(value, "number", value) == 3:  # a batch or a step
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(Recorded, where, interrupt)
    state, ended = Recorded(last=6).fit(Cadence(log=1, eval=9, save=9, last=6))
    assert isinstance(ended, KeyboardInterrupt) and state == (2 if where == "place" else 3)


def test_any_other_error_is_raised():
    def broken(*_: Any) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        Recorded(last=3).fit(Cadence(log=1, eval=9, save=9, last=3), callback=broken)
