"""The main job: a RunConfig in, a run directory with a trained adapter out. Runs again where it was stopped."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxprefix import directory as directories
from jaxprefix import mesh as meshes
from jaxprefix.base import Base, load_weights, open_base, start_tokens, text_length, trainable_line
from jaxprefix.checkpoint import Checkpoints
from jaxprefix.encoding import Encoded
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import NEVER
from jaxprefix.run import RunConfig
from jaxprefix.saved import describe
from jaxprefix.terminal import progress
from jaxprefix.train import placed
from jaxprefix.train import rows as training_rows
from jaxprefix.train.data import Bucket, TrainBatch, buckets, collate, epoch, steps_from
from jaxprefix.train.journal import Journal
from jaxprefix.train.step import State, held_out_loss

Write = Callable[[dict[str, Any]], None]  # takes a row of metrics


def train(config: RunConfig, output: Path | None = None, quiet: bool = False) -> Path:
    """Trains what `config` says and returns the run directory; a directory with this very run is gone on with.

    Raises ValueError for anything that the user can mend; nothing is written before everything has been read.
    """
    config.check()
    task = training_rows.training_task(config)
    base = open_base(config.model)
    mesh = meshes.make(config.mesh)
    check_batch(config, mesh)
    directory = directories.open_directory(output, config, f"{task.name}-{config.method}", base.fingerprint)
    check_length(config, base.config)
    about: dict[str, Any] = {
        "source": ",".join(training_rows.languages(config, task)),
        "rows": None,
        "devices": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
    }
    rows = None
    if config.method != "none":
        longest = text_length(base.config, config.adapter, config.max_length)
        rows = training_rows.load(config, task, base.tokenizer, longest)
        about["rows"] = rows.fingerprint
        directories.same_rows(directory, rows.fingerprint)
    print(f"run: {directory}")
    print(trainable_line(config=base.config, adapter=config.adapter))
    if rows is None:
        describe(directory, config, base, about | {"steps": 0, "finished": True})
        return directory
    print(rows)
    frozen = load_weights(base, mesh, config.dtype)
    plan = Plan(config, rows.learn)
    trainer = Trainer(config, base, mesh, frozen, plan)
    trainer.resume(directory)
    describe(directory, config, base, about | {"steps": plan.steps, "finished": False})
    trainer.run(directory, rows.held_out, quiet)
    describe(directory, config, base, about | {"steps": plan.steps, "finished": True})
    print(f"run: {directory}")
    return directory


@dataclass(frozen=True)
class Plan:
    """Which rows each step takes, and how many steps there are."""

    config: RunConfig
    rows: Sequence[Encoded]

    @cached_property
    def shapes(self) -> list[Bucket]:
        return buckets(self.rows)

    @cached_property
    def steps(self) -> int:
        if self.config.steps:
            return self.config.steps
        a_pass = len(epoch(self.rows, self.shapes, self.config.batch, self.config.seed, 0))
        return math.ceil((self.config.epochs or 2) * a_pass)

    def batches(self, start: int, pad: int) -> Iterator[TrainBatch]:
        """The batches of steps `start`, `start + 1`, ... up to the last."""
        config = self.config
        steps = steps_from(self.rows, self.shapes, config.batch, config.seed, start)
        for _, (bucket, chosen) in zip(range(start, self.steps), steps, strict=False):
            yield collate([self.rows[row] for row in chosen], bucket, config.batch, pad, config.accumulate)


class Trainer:
    """The compiled step and its state on a mesh."""

    def __init__(self, config: RunConfig, base: Base, mesh: Mesh, frozen: Any, plan: Plan, params: Any = None) -> None:
        """`params` are what training goes on from; without them, fresh ones. They are copied: steps donate."""
        self.config, self.base, self.mesh, self.frozen, self.plan = config, base, mesh, frozen, plan
        self.optimizer, self.rate = placed.optimizer_of(config, plan.steps)
        tokens = start_tokens(base.tokenizer, config.seed)
        self.state = placed.initial_state(
            config.adapter, self.optimizer, base.config, mesh, frozen, tokens, config.seed
        )
        if params is not None:
            self.state = self.state.replace(params=jax.tree.map(jnp.copy, params))  # type: ignore[attr-defined]
        self.step = PerShape(placed.jitted(config, base.config, self.optimizer, mesh, self.state))
        self.score = PerShape(jax.jit(meshes.traced(mesh, held_out_loss(base.config, config.adapter))))

    def resume(self, directory: Path) -> None:
        """Takes the state of the last checkpoint, if there is one."""
        self.checkpoints = Checkpoints(directory)
        if self.checkpoints.latest is None:
            return
        if self.checkpoints.latest > self.plan.steps:
            raise ValueError(
                f"{directory} is at step {self.checkpoints.latest} already, beyond the {self.plan.steps} asked for; "
                "choose a new --output to train less"
            )
        params, moments, position = self.checkpoints.restore(self.state.params, self.state.optimizer)
        self.state = State(params, moments, self._scalar(position["step"]))
        print(f"resumed at step {position['step']} of {self.plan.steps}")

    def run(self, directory: Path, held_out: Sequence[Encoded], quiet: bool) -> None:
        """Trains from where the state is to the last step."""
        journal = Journal(directory, self.config, int(self.state.step))
        try:
            self.learn(held_out, journal.write, self._save, quiet)
        finally:
            journal.close()
            self.checkpoints.close()
        print(f"compiled the training step {self.step.compilations} times")

    def learn(self, held_out: Sequence[Encoded], write: Write, save: Callable[[int], None], quiet: bool) -> None:
        """The steps themselves: `write` takes a row of metrics, `save` is called where a checkpoint is due."""
        start = int(self.state.step)
        with progress(quiet) as bar:
            self._steps(start, held_out, write, save, _advance(bar, start, self.plan.steps))

    def _save(self, step: int) -> None:
        self.checkpoints.save(step, self.state.params, self.state.optimizer, {"step": step})

    def _steps(
        self, start: int, held_out: Sequence[Encoded], write: Write, save: Callable[[int], None], advance: Callable
    ) -> None:
        config, last, began, waiting = self.config, self.plan.steps, time.monotonic(), []
        for step, batch in enumerate(self.plan.batches(start, self.base.tokenizer.pad), start + 1):
            read = int((batch.positions != NEVER).sum())
            self.state, metrics = self.step(self.state, self.frozen, placed.place(self.mesh, batch))
            waiting.append((step, read, metrics))
            saves, scores = step % config.save_every == 0 or step == last, step % config.eval_every == 0 or step == last
            if step % config.log_every == 0 or saves or scores:
                jax.block_until_ready(metrics)  # steps are dispatched ahead: the clock stops when they are done
                speed = _flush(waiting, write, self.rate, time.monotonic() - began)
                advance(step, f"loss {float(metrics['loss']):.3f} · {speed:,.0f} tokens/s")
                waiting = []
            if scores and held_out:
                loss = self.held_out_loss(held_out)
                write({"step": step, "held_out_loss": loss})
                print(f"step {step}: held-out loss {loss:.4f}")
            if saves:
                save(step)
            if not waiting:
                began = time.monotonic()

    def held_out_loss(self, rows: Sequence[Encoded]) -> float:
        """Mean -log p of the rows' learnt tokens."""
        size = self.config.batch // self.config.accumulate
        shapes = buckets(rows)
        total = count = 0.0
        for bucket, chosen in sorted(epoch(rows, shapes, size, 0, 0), key=lambda each: each[1]):
            batch = collate([rows[row] for row in chosen], bucket, size, self.base.tokenizer.pad)
            loss, learnt = self.score(self.state.params, self.frozen, placed.place(self.mesh, batch))
            total, count = total + float(loss), count + float(learnt)
        return total / count

    def _scalar(self, value: int) -> jax.Array:
        return jax.device_put(jnp.int32(value), meshes.replicated(self.mesh))


class PerShape:
    """A jitted function compiled once for each shape of its last argument; counts the compilations."""

    def __init__(self, function: Any) -> None:
        self.function, self.programs = function, {}

    @property
    def compilations(self) -> int:
        return len(self.programs)

    def __call__(self, *arguments: Any) -> Any:
        shape = tuple(leaf.shape for leaf in jax.tree.leaves(arguments[-1]))
        if shape not in self.programs:
            self.programs[shape] = self.function.lower(*arguments).compile()
        return self.programs[shape](*arguments)


def check_batch(config: RunConfig, mesh: Mesh) -> None:
    """ValueError where the rows of a micro-batch cannot be divided among the mesh's data devices."""
    rows, data = config.batch // config.accumulate, mesh.shape["data"]
    if rows % data:
        raise ValueError(
            f"{rows} rows a micro-batch cannot be divided among {data} data devices; "
            f"choose --batch a multiple of {data * config.accumulate}"
        )


def check_length(config: RunConfig, sizes: DecoderConfig) -> None:
    """ValueError where rows are longer than the model has positions."""
    if config.max_length > sizes.max_positions:
        positions = sizes.max_positions
        raise ValueError(f"--max-length {config.max_length} is beyond the model's {positions} positions; choose less")


def _flush(waiting: list, write: Write, rate: Callable, seconds: float) -> float:
    """Writes a row a step; returns tokens per second. A loss that is not finite ends the run here."""
    speed = sum(read for _, read, _ in waiting) / max(seconds, 1e-9)
    for step, _, metrics in waiting:
        row = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(row["loss"] + row["gradient_norm"]):
            raise ValueError(
                f"the loss is {row['loss']} and its gradient {row['gradient_norm']} at step {step}, "
                f"learning rate {float(rate(step - 1)):g}; "
                "choose a smaller --lr and a new --output"
            )
        write({"step": step} | row | {"learning_rate": float(rate(step - 1)), "tokens_per_second": round(speed, 1)})
    return speed


def _advance(bar: Any, start: int, steps: int) -> Callable[[int, str], None]:
    task = bar.add_task("training", total=steps, completed=start, rate="compiling")
    return lambda step, rate: bar.update(task, completed=step, rate=rate)
