"""Trains an adapter from a RunConfig into a run directory, or resumes the run in it."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxprefix.distributed import processes
from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import disk_errors
from jaxprefix.io.terminal import progress
from jaxprefix.models import attention
from jaxprefix.models.adapters import IMPORTANCE, needs_importance
from jaxprefix.runs.base_model import BaseModel, max_text_tokens, trainable_line
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, check_same_data, read_run
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.lock import run_lock
from jaxprefix.runs.saved import with_chat_date, write_run_json
from jaxprefix.tasks.task import Task
from jaxprefix.train import dataset as training_rows
from jaxprefix.train.batches import Plan, check_batch, check_length
from jaxprefix.train.fisher import FisherTexts, fisher_of_run, load_texts
from jaxprefix.train.profile import check as check_profile
from jaxprefix.train.programs import TrainPrograms, load_and_compile
from jaxprefix.train.run import TrainingRun, resume
from jaxprefix.train.signals import StopRequest


def train(
    config: RunConfig,
    output: Path | None = None,
    quiet: bool = False,
    stop: StopRequest | None = None,
    profile: int | None = None,
    loaded: Loaded | None = None,
) -> Path:
    """Trains the adapter of `config` and returns the run directory. A directory with the same run is resumed.

    The directory is locked meanwhile. Nothing is written before all inputs have been read.

    Args:
        config: the settings of the run.
        output: the run directory; None is runs/TASK-METHOD-N.
        quiet: no progress bar.
        stop: a request to end early.
        profile: the number of steps to trace.
        loaded: what earlier runs of this process have loaded and compiled.

    Raises:
        InputError: anything that the user can correct, including a full disk.
        Stopped: the run ended because of `stop`, and its state is saved.
    """
    config.check()
    check_profile(profile, config.method, output)
    inputs = Inputs.open(config, loaded or Loaded())
    if output is None and processes.process_count() > 1:
        raise InputError("several processes need one run directory; give the same --output to all of them")
    lock = run_lock(output, config, f"{inputs.task.name}-{config.method}", inputs.base.fingerprint)
    with processes.enter_on_main(lock, output or Path()) as directory:
        check_length(config, inputs.base.config)
        dated, base = with_chat_date(directory, config, inputs.base)
        inputs = replace(inputs, config=dated, base=base)
        _train(directory, inputs, stop or StopRequest(), profile, quiet)
    return directory


@dataclass(frozen=True)
class Inputs:
    """What a run is trained from."""

    config: RunConfig
    task: Task
    base: BaseModel
    mesh: Mesh
    loaded: Loaded

    @classmethod
    def open(cls, config: RunConfig, loaded: Loaded) -> "Inputs":
        """Opens the inputs that `config` names. The weights and rows are not loaded."""
        task, base = training_rows.training_task(config), loaded.base(config.model)
        inputs = cls(config, task, base, make_mesh(config.mesh), loaded)
        check_batch(config, inputs.mesh)
        return inputs

    def load_rows(self) -> training_rows.Rows | None:
        """The encoded rows; None for method none, which learns nothing."""
        if self.config.method == "none":
            return None
        longest = max_text_tokens(self.base.config, self.config.adapter, self.config.max_length)
        return self.loaded.rows(
            training_rows.rows_key(self.config, self.base, longest),
            lambda: training_rows.load_rows(self.config, self.task, self.base.tokenizer, longest),
        )

    def load_fisher_texts(self) -> FisherTexts | None:
        """The texts of EWC's Fisher information; None if the penalty does not need it."""
        if not needs_importance(self.config.adapter):
            return None
        longest = min(self.config.max_length, self.base.config.max_positions)
        return load_texts(Path(self.config.full.fisher_text or ""), self.base, longest)

    def write_run_json(self, directory: Path, rows: training_rows.Rows | None, **progress: object) -> None:
        values = {
            "source": ",".join(training_rows.languages(self.config, self.task)),
            "rows": rows.fingerprint if rows else None,
            "devices": f"{self.mesh.size} {self.mesh.devices.flat[0].device_kind}",
        }
        write_run_json(directory, self.config, self.base, values | progress)


def _train(directory: Path, inputs: Inputs, stop: StopRequest, profile: int | None, quiet: bool) -> None:
    config, base = inputs.config, inputs.base
    rows = inputs.load_rows()
    if rows:
        check_same_data(directory, rows.fingerprint)
    texts = inputs.load_fisher_texts()
    print(f"run: {directory}")
    if config.chat_date:
        print(f"the chat template writes the date {config.chat_date}; {RUN_FILE} keeps it")
    if config.model is None:
        print("model: the small one of this package, which knows invented text alone; --model MODEL takes another")
    print(trainable_line(config=base.config, adapter=config.adapter))
    if rows is None:
        with disk_errors(directory):
            inputs.write_run_json(directory, rows, steps=0, finished=True)
        return
    print(rows)
    plan = Plan(config, rows.learn)
    print("loading the weights and compiling the step", flush=True)
    with progress(quiet) as bar:
        bar.add_task("loading and compiling", total=None, rate="")
        start = Checkpoints(directory).latest or 0
        frozen, programs = load_and_compile(config, base, inputs.mesh, plan, start, inputs.loaded)
    print(attention_line(config, base, plan, programs))
    checkpoints = Checkpoints(directory, config.keep)
    fisher = None
    if texts:
        fisher = fisher_of_run(directory, texts, config.adapter, base, frozen, inputs.mesh, quiet)
        frozen = frozen | {IMPORTANCE: fisher.importance}
    state, position = resume(directory, checkpoints, programs.init(frozen), plan.steps)
    counts = {"steps": plan.steps, "earlier_steps": _earlier_steps(directory, position.step, plan.steps)}
    counts |= {"fisher": fisher.description} if fisher else {}
    with disk_errors(directory):
        # First of all: a directory with other files and without run.json would be refused.
        inputs.write_run_json(directory, rows, **counts, finished=False, best=position.best)
        if fisher:
            fisher.write(directory)
        run = TrainingRun(directory, base, plan, programs, frozen, rows.held_out, checkpoints, position, inputs.loaded)
        run.train(state, stop, profile, quiet)
        inputs.write_run_json(directory, rows, **counts, finished=True, best=run.best)
    print(f"run: {directory}")


def _earlier_steps(directory: Path, step: int, steps: int) -> list[int]:
    """The numbers of steps that the run had before it was resumed with others, in order. A new change is printed.

    The learning rate of a step depends on the number of steps: a change stretches the rest of the schedule.
    """
    run_json = read_run(directory) if step else {}
    earlier = list(run_json.get("earlier_steps") or [])
    if step and run_json["steps"] != steps:
        earlier.append(run_json["steps"])
        print(
            f"steps: {steps}, before {run_json['steps']}; "
            f"from step {step + 1} on the learning rate is that of a schedule of {steps} steps"
        )
    return earlier


def attention_line(config: RunConfig, base: BaseModel, plan: Plan, programs: TrainPrograms) -> str:
    """The line that names the attention kernels and, if one is not the fastest of the platform, the reason."""
    params, frozen = programs.state.params, programs.frozen
    hooks = jax.eval_shape(lambda params, frozen: config.adapter.bind(base.config, params, frozen)[1], params, frozen)
    rows, lengths = config.batch // config.accumulate, [shape.seq_len for shape in plan.shapes]
    return attention.kernel_line(base.config, programs.mesh, rows, lengths, frozen["embed_tokens"].dtype.name, hooks)
