"""The steps of a run: each batch to the devices, figures read a step late, held-out losses and checkpoints between."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.terminal import Stopped, progress
from jaxprefix.models import attention
from jaxprefix.models.adapters import Adapter, NoAdapter, Sum
from jaxprefix.models.hooks import NEVER
from jaxprefix.runs.base_model import Base, start_tokens
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train.batches import Plan, TrainBatch, buckets, collate, epoch
from jaxprefix.train.metrics import Figures, Journal, NotFinite, Write, keep_batch
from jaxprefix.train.profile import Profile, phase, step_phase
from jaxprefix.train.programs import PerShape, Programs
from jaxprefix.train.signals import Stop
from jaxprefix.train.step import State, held_out_loss

HARMFUL = 2  # times the base's held-out loss: a fresh adapter above it is warned of


class Trainer:
    """The compiled step and its state on a mesh."""

    def __init__(
        self,
        config: RunConfig,
        base: Base,
        mesh: Mesh,
        frozen: Any,
        plan: Plan,
        params: Any = None,
        programs: Programs | None = None,
    ) -> None:
        """`params` are what training goes on from; without them, fresh ones. They are copied: steps donate.

        `programs` are the run's, some of which may be compiled already.
        """
        self.config, self.base, self.mesh, self.frozen, self.plan = config, base, mesh, frozen, plan
        if programs is None:
            tokens = start_tokens(base.tokenizer, config.seed)
            programs = Programs(config, base.config, mesh, frozen, tokens, plan.steps)
        self.figures = Figures(programs.rate, config.on_nan)
        self.best: dict[str, Any] | None = None  # of the checkpoints: {"step", "held_out_loss"}
        self.stop, self.profile = Stop(), Profile()
        self.state = programs.initial(frozen)
        if params is not None:
            self.state = self.state.replace(params=jax.tree.map(jnp.copy, params))  # type: ignore[attr-defined]
        self.step = programs.step
        self.score = self._scorer(config.adapter)

    def _scorer(self, adapter: Adapter) -> PerShape:
        score = held_out_loss(self.base.config, adapter)
        return PerShape(jax.jit(meshes.traced(self.mesh, score), out_shardings=meshes.replicated(self.mesh)))

    def attention_line(self) -> str:
        """Which kernels compute attention, and where not the platform's fastest one, why."""
        config, frozen = self.config, self.frozen
        hooks = jax.eval_shape(lambda params: config.adapter.bind(params, frozen)[1], self.state.params)
        rows, times = config.batch // config.accumulate, [shape.time for shape in self.plan.shapes]
        return attention.line(self.base.config, self.mesh, rows, times, frozen["embed_tokens"].dtype.name, hooks)

    def resume(self, directory: Path) -> None:
        """Takes the state of the last checkpoint that is whole, if there is one."""
        self.checkpoints = Checkpoints(directory, self.config.keep)
        if self.checkpoints.latest is None:
            return
        if self.checkpoints.latest > self.plan.steps:
            raise InputError(
                f"{directory} is at step {self.checkpoints.latest} already, beyond the {self.plan.steps} asked for; "
                "choose a new --output to train less"
            )
        params, moments, position = self.checkpoints.restore(self.state.params, self.state.optimizer)
        self.state = State(
            params, moments, self._scalar(np.array(position["step"], np.int32)), self._scalar(np.array(False))
        )
        self.figures.skipped, self.best = position.get("skipped", 0), position.get("best")
        print(f"resumed at step {position['step']} of {self.plan.steps}")

    def run(self, directory: Path, held_out: Sequence[Encoded], quiet: bool, profile: int | None) -> None:
        """Trains from where the state is to the last step."""
        start = int(self.state.step)
        self.profile = Profile(profile, directory, start, self.plan.steps)
        with closing(self.checkpoints), closing(Journal(directory, self.config, start)) as journal:
            if not start and held_out:
                with progress(quiet) as bar:
                    bar.add_task("scoring the held-out rows", total=None, rate="")
                    fresh, base = self._score_start(held_out, journal.write)
                self._say_start(fresh, base)
            try:
                with closing(self.profile):
                    self.learn(held_out, journal.write, self._save, quiet)
            except NotFinite as error:
                raise InputError(self._keep(directory, error)) from None
        print(f"compiled the training step {self.step.compilations} times")
        if self.best:
            print(f"best held-out loss of the checkpoints: {self.best['held_out_loss']:.4f}, step {self.best['step']}")

    def learn(self, held_out: Sequence[Encoded], write: Write, save: Callable[[int], None], quiet: bool) -> None:
        """The steps themselves: `write` takes a row of metrics, `save` is called where a checkpoint is due."""
        start = int(self.state.step)
        with progress(quiet) as bar:
            self._steps(start, held_out, write, save, _advance(bar, start, self.plan.steps))

    def _save(self, step: int) -> None:
        position = {"step": step, "skipped": self.figures.skipped, "best": self.best}
        best = self.best["step"] if self.best else None
        self.checkpoints.save(step, self.state.params, self.state.optimizer, position, best)

    def _keep(self, directory: Path, error: NotFinite) -> str:
        """Saves the state before the step, and its batch; what happened and what to do, in a line."""
        before = int(self.state.step)
        assert before == error.step - 1, "later steps change nothing"
        if before:
            self._save(before)
        path = keep_batch(directory, error.step, next(self.plan.batches(before, self.base.tokenizer.pad)))
        return (
            f"{error.what}; step {before} is saved and the batch is in {path}: choose a smaller --lr and a new "
            "--output, or the same command with --on-nan skip"
        )

    def _steps(
        self, start: int, held_out: Sequence[Encoded], write: Write, save: Callable[[int], None], advance: Callable
    ) -> None:
        config, last, began, figures = self.config, self.plan.steps, time.monotonic(), self.figures
        batches = self.plan.batches(start, self.base.tokenizer.pad)
        step, following = start, self._placed(batches)
        while following:
            step, (batch, read) = step + 1, following
            self.profile.begin(step)
            with step_phase(step):
                self.state, metrics = self.step(self.state, self.frozen, batch)
                following = self._placed(batches)  # made before anything is waited for: the devices compute meanwhile
                with phase("wait"):
                    figures.add(step, read, metrics)
                self.stop.working = True
                scores = step % config.eval_every == 0 or step == last
                reads = step % config.log_every == 0 or step % config.save_every == 0 or scores
                ends = self._ends(reads)
                saves = step % config.save_every == 0 or step == last or ends is not None
                if reads or saves:
                    with phase("wait"):
                        jax.block_until_ready(metrics)  # steps are dispatched ahead: the clock stops when they are done
                    speed = figures.write(write, time.monotonic() - began)
                    advance(step, f"loss {float(metrics['loss']):.3f} · {speed:,.0f} tokens/s")
                if scores and held_out:
                    with phase("score"):
                        self._score(step, held_out, write, saves)
                if saves:
                    with phase("save"):
                        save(step)
            self.profile.end(metrics)
            if ends and step < last:
                line = f"stopped by {ends.name} at step {step} of {last}; it is saved, and the same command goes on"
                raise Stopped(line, ends)
            if not figures.waiting:
                began = time.monotonic()

    def _placed(self, batches: Iterator[TrainBatch]) -> tuple[TrainBatch, int] | None:
        """The next batch, on the devices, and how many tokens it has."""
        with phase("batch"):
            batch = next(batches, None)
        if batch is None:
            return None
        with phase("put"):
            return meshes.put(self.mesh, batch, dim=1), int((batch.positions != NEVER).sum())

    def _ends(self, reads: bool) -> signal.Signals | None:
        """The signal that ends the run at this step. Several processes ask each other where they wait anyway."""
        asked = self.stop.asked
        if processes.count() == 1:
            return asked
        return (asked or signal.SIGTERM) if reads and processes.any_of(asked is not None) else None

    def _score(self, step: int, held_out: Sequence[Encoded], write: Write, saves: bool) -> None:
        loss = self.held_out_loss(held_out)
        write({"step": step, "held_out_loss": loss})
        print(f"step {step}: held-out loss {loss:.4f}")
        if saves and math.isfinite(loss) and (self.best is None or loss < self.best["held_out_loss"]):
            self.best = {"step": step, "held_out_loss": loss}

    def _score_start(self, held_out: Sequence[Encoded], write: Write) -> tuple[float, float]:
        """Step 0: the held-out losses of the fresh adapter and of the frozen base."""
        fresh = base = self.held_out_loss(held_out)
        if not self.config.adapter.starts_as_base:
            base = self._mean_loss(held_out, self._scorer(NoAdapter()), {})
        write({"step": 0, "held_out_loss": fresh, "base_held_out_loss": base})
        return fresh, base

    def _say_start(self, fresh: float, base: float) -> None:
        """Prints both, and warns of a fresh adapter that does harm."""
        adapter = self.config.adapter
        print(f"frozen base: held-out loss {base:.4f}")
        print(f"step 0: held-out loss {fresh:.4f}")
        if not adapter.starts_as_base and not fresh <= HARMFUL * base:
            times = f"{fresh / base:.1f} times"
            print(f"warning: the fresh adapter's loss is {times} the frozen base's; {_advice(adapter)}")

    def held_out_loss(self, rows: Sequence[Encoded]) -> float:
        """Mean -log p of the rows' learnt tokens."""
        return self._mean_loss(rows, self.score, self.state.params)

    def _mean_loss(self, rows: Sequence[Encoded], score: PerShape, params: Any) -> float:
        size = self.config.batch // self.config.accumulate
        shapes = buckets(rows)
        total = count = 0.0
        for bucket, chosen in sorted(epoch(rows, shapes, size, 0, 0), key=lambda each: each[1]):
            batch = collate([rows[row] for row in chosen], bucket, size, self.base.tokenizer.pad)
            loss, learnt = score(params, self.frozen, meshes.put(self.mesh, batch, dim=1))
            total, count = total + float(loss), count + float(learnt)
        return total / count

    def _scalar(self, value: np.ndarray) -> jax.Array:
        whole = meshes.replicated(self.mesh)
        return jax.make_array_from_callback(value.shape, whole, lambda _: value)


def _advice(adapter: Adapter) -> str:
    """The flags that decide where the parameters start."""
    members = [member for _, member in adapter.members] if isinstance(adapter, Sum) else [adapter]
    flags = [f"--{member.method}" for member in members if not member.starts_as_base]  # type: ignore[attr-defined]
    return "choose " + " and ".join(f"another {flag}.start or a smaller {flag}.std" for flag in flags)


def _advance(bar: Any, start: int, steps: int) -> Callable[[int, str], None]:
    task = bar.add_task("training", total=steps, completed=start, rate="compiling")
    return lambda step, rate: bar.update(task, completed=step, rate=rate)
