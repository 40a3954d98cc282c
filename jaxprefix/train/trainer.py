"""The training loop. One step is always dispatched ahead of the step whose metrics are read."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxprefix.io.terminal import Stopped, progress
from jaxprefix.models.decoder import Frozen
from jaxprefix.train.batches import TrainBatch
from jaxprefix.train.metrics import NonFiniteLoss, StepMetrics
from jaxprefix.train.profile import Profile, phase, step_phase
from jaxprefix.train.programs import TrainPrograms
from jaxprefix.train.signals import StopRequest
from jaxprefix.train.step import State


class Due(NamedTuple):
    """What is due after a step. Evaluating and saving wait for the step, so they include logging."""

    log: bool
    eval: bool
    save: bool


@dataclass(frozen=True)
class Cadence:
    """The numbers of steps between logging, evaluating and saving. All are due after the last step."""

    log: int
    eval: int
    save: int
    last: int

    def due(self, step: int) -> Due:
        evaluates, saves = (step == self.last or step % every == 0 for every in (self.eval, self.save))
        return Due(evaluates or saves or step % self.log == 0, evaluates, saves)


def fit(
    state: State,
    batches: Iterator[TrainBatch],
    programs: TrainPrograms,
    frozen: Frozen,
    metrics: StepMetrics,
    cadence: Cadence,
    *,
    callback: Callable[[int, State, Due], None] | None = None,
    stop: StopRequest | None = None,
    profile: Profile | None = None,
    quiet: bool = False,
) -> tuple[State, Stopped | NonFiniteLoss | KeyboardInterrupt | None]:
    """Takes one step for each batch. `state` is donated: use the returned one.

    An early end is returned, not raised, so that the caller can save the state before raising it. The returned state is
    that of the last step, or at a loss that is not finite that of the step before.

    Args:
        batches: the batches of the steps after `state.step`.
        callback: called with the step, the state and what is due, if anything is due.
        stop: a request to end after the current step. The callback is then called to save.
        profile: the trace to write.
        quiet: no progress bar.
    """
    stop, profile = stop or StopRequest(), profile or Profile()
    step, began, placed = int(state.step), time.monotonic(), _placed(batches, programs)
    try:
        with progress(quiet) as bar:
            task = bar.add_task("training", total=cadence.last, completed=step, rate="compiling")
            following = next(placed, None)
            while following:
                step, (batch, tokens) = step + 1, following
                profile.begin(step)
                with step_phase(step):
                    state, values = programs.step(state, frozen, batch)
                    following = next(placed, None)  # before waiting, so that the devices compute meanwhile
                    metrics.add(step, tokens, values)
                    due = cadence.due(step)
                    if signal := stop.at_step(due.log):
                        due = Due(log=True, eval=due.eval, save=True)
                    if due.log:
                        loss, speed = metrics.write(began)
                        bar.update(task, completed=step, rate=f"loss {loss:.3f} · {speed:,.0f} tokens/s")
                        if callback:
                            callback(step, state, due)
                profile.end(values)
                if signal and step < cadence.last:
                    line = f"stopped by {signal.name} at step {step} of {cadence.last}"
                    return state, Stopped(f"{line}; it is saved: repeat the command to resume", signal)
                if due.log:
                    began = time.monotonic()
    except (NonFiniteLoss, KeyboardInterrupt) as error:
        return state, error
    return state, None


def _placed(batches: Iterator[TrainBatch], programs: TrainPrograms) -> Iterator[tuple[TrainBatch, int]]:
    """Each batch on the devices, and its number of tokens."""
    while True:
        with phase("batch"):
            batch = next(batches, None)
        if batch is None:
            return
        with phase("put"):
            placed = programs.place(batch), int(batch.lengths.sum())
        yield placed
