"""A training run in its directory: `fit` with metrics.jsonl, held-out losses, checkpoints and a trace."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.terminal import progress
from jaxprefix.models.decoder import Frozen
from jaxprefix.runs.base_model import BaseModel
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.loaded import Loaded
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train.batches import Plan
from jaxprefix.train.held_out import HeldOutLoss, warn_of_harm
from jaxprefix.train.metrics import MetricsLogger, NonFiniteLoss, StepMetrics, keep_batch
from jaxprefix.train.profile import Profile, phase
from jaxprefix.train.programs import TrainPrograms
from jaxprefix.train.signals import StopRequest
from jaxprefix.train.step import State
from jaxprefix.train.trainer import Cadence, Due, fit


@dataclass(frozen=True)
class Position:
    """The progress of a run, which each checkpoint stores."""

    step: int = 0
    skipped: int = 0
    best: dict[str, Any] | None = None  # the best checkpoint: {"step", "held_out_loss"}


def resume(directory: Path, checkpoints: Checkpoints, first: State, steps: int) -> tuple[State, Position]:
    """The state of the last undamaged checkpoint, or `first`. InputError if it is beyond the `steps` of the run."""
    if checkpoints.latest is None:
        return first, Position()
    if checkpoints.latest > steps:
        raise InputError(
            f"{directory} is at step {checkpoints.latest} already, beyond the requested {steps}; "
            "choose a new --output to train less"
        )
    params, moments, saved = checkpoints.restore(first.params, first.optimizer)
    position = Position(saved["step"], saved.get("skipped", 0), saved.get("best"))
    print(f"resumed at step {position.step} of {steps}")
    step = jax.make_array_from_callback((), first.step.sharding, lambda _: np.array(position.step, np.int32))
    return State(params, moments, step, first.halted), position


class TrainingRun:
    """Trains in `directory`, from `position` to the last step of the plan.

    Attributes:
        best: the checkpoint with the lowest held-out loss, {"step", "held_out_loss"}.
    """

    def __init__(
        self,
        directory: Path,
        base: BaseModel,
        plan: Plan,
        programs: TrainPrograms,
        frozen: Frozen,
        held_out: Sequence[Encoded],
        checkpoints: Checkpoints,
        position: Position,
        loaded: Loaded | None = None,
    ) -> None:
        config = plan.config
        self.best = position.best
        self._directory, self._plan, self._pad = directory, plan, base.tokenizer.pad
        self._programs, self._frozen, self._checkpoints, self._start = programs, frozen, checkpoints, position.step
        self._held_out = HeldOutLoss(held_out, config, base, programs.mesh, loaded) if held_out else None
        self._logger = MetricsLogger(directory, config, position.step)
        self._metrics = StepMetrics(programs.learning_rate, config.on_nan, self._logger.write, position.skipped)

    def train(self, state: State, stop: StopRequest, profile: int | None, quiet: bool) -> None:
        """`profile` is the number of steps to trace. Raises Stopped, after saving, if `stop` is requested."""
        config, start, last = self._plan.config, self._start, self._plan.steps
        cadence = Cadence(config.log_every, config.eval_every, config.save_every, last)
        with closing(self._checkpoints), closing(self._logger):
            if self._held_out and not start:
                self._score_start(self._held_out, state, quiet)
            with closing(Profile(profile, self._directory, start, last)) as trace:
                state, ended = fit(
                    state,
                    self._plan.batches(start, self._pad),
                    self._programs,
                    self._frozen,
                    self._metrics,
                    cadence,
                    callback=self._after_step,
                    stop=stop,
                    profile=trace,
                    quiet=quiet,
                )
            if isinstance(ended, NonFiniteLoss):
                raise InputError(self._keep(state, ended))
            if ended:
                raise ended
        print(f"compiled the training step {self._programs.step.compilations} times")
        if self.best:
            print(f"best held-out loss of the checkpoints: {self.best['held_out_loss']:.4f}, step {self.best['step']}")
        if skipped := self._metrics.skipped:
            print(f"skipped {skipped} of {last} steps: their loss or gradient was not finite")

    def _after_step(self, step: int, state: State, due: Due) -> None:
        if due.eval and self._held_out:
            with phase("score"):
                self._score(self._held_out, step, state, due.save)
        if due.save:
            with phase("save"):
                self._save(step, state)

    def _score(self, held_out: HeldOutLoss, step: int, state: State, saves: bool) -> None:
        loss = held_out(state.params, self._frozen)
        self._logger.write({"step": step, "held_out_loss": loss})
        print(f"step {step}: held-out loss {loss:.4f}")
        if saves and math.isfinite(loss) and (self.best is None or loss < self.best["held_out_loss"]):
            self.best = {"step": step, "held_out_loss": loss}

    def _score_start(self, held_out: HeldOutLoss, state: State, quiet: bool) -> None:
        """Step 0: scores the fresh adapter and the frozen base, and warns if the fresh adapter is much worse."""
        with progress(quiet) as bar:
            bar.add_task("scoring the held-out rows", total=None, rate="")
            fresh, base = held_out.start(state.params, self._frozen)
            self._logger.write({"step": 0, "held_out_loss": fresh, "base_held_out_loss": base})
        print(f"frozen base: held-out loss {base:.4f}")
        print(f"step 0: held-out loss {fresh:.4f}")
        warn_of_harm(self._plan.config.adapter, fresh, base)

    def _save(self, step: int, state: State) -> None:
        position = asdict(Position(step, self._metrics.skipped, self.best))
        best = self.best["step"] if self.best else None
        self._checkpoints.save(step, state.params, state.optimizer, position, best)

    def _keep(self, state: State, error: NonFiniteLoss) -> str:
        """Saves the state before the step, and its batch. Returns one line for the user."""
        before = int(state.step)
        assert before == error.step - 1, "later steps must not change the state"
        if before:
            self._save(before, state)
        path = keep_batch(self._directory, error.step, next(self._plan.batches(before, self._pad)))
        return (
            f"{error.what}; step {before} is saved and the batch is in {path}: choose a smaller --lr and a new "
            "--output, or repeat the command with --on-nan skip"
        )
