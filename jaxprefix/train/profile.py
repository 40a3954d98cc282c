"""A trace of a few steps, for TensorBoard (XProf) and Perfetto, with named phases of the host's work."""

import sys
from pathlib import Path

import jax
from jaxtyping import PyTree

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

FOLDER = "profile"  # in the run directory; each trace has a subfolder with its time
WARMUP = 2  # steps of a command that are not traced: memory and files are still cold

# Names a part of the host's work. Without a trace it takes less than a microsecond.
phase = jax.profiler.TraceAnnotation


def step_phase(number: int) -> jax.profiler.StepTraceAnnotation:
    """Names a whole step, so that XProf groups the work of the devices by step."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)


def check(steps: int | None, method: str, output: Path | None) -> None:
    """InputError if this number of steps cannot be traced, or a file has the name of the trace directory."""
    if steps is None:
        return
    if steps < 1:
        raise InputError(f"--profile is {steps}; expected 1 or more steps, such as 5")
    if method == "none":
        raise InputError(f"--profile {steps} traces training steps, but --method none has no steps; drop it")
    if output and (output / FOLDER).is_file():
        raise InputError(f"{output / FOLDER} is a file, but --profile needs a directory there; move the file")


class Profile:
    """The trace of some steps of a command, from the third step, or the last ones if there are fewer.

    If there are several processes, only the main process writes.
    """

    def __init__(self, steps: int | None = None, directory: Path = Path(), start: int = 0, last: int = 0) -> None:
        """Traces `steps` steps (None: no trace) after the step `start` of a run that ends at step `last`."""
        self._enabled, self._tracing = steps is not None and processes.is_main_process(), False
        self._folder = directory / FOLDER
        count = min(steps or 0, last - start)
        self.first = min(start + WARMUP, last - count) + 1
        self.last = self.first + count - 1

    def begin(self, step: int) -> None:
        """Call before each step."""
        self._step = step
        if self._enabled and step == self.first:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it would record every Python call and slow the loop
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._tracing = True

    def end(self, results: PyTree[jax.Array]) -> None:
        """Call after each step with its results."""
        if self._tracing and self._step == self.last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace, even if the run ended early, and prints where it is."""
        if not self._enabled:
            return
        self._enabled = False
        if not self._tracing:
            print(f"profile: nothing is traced: the run ended before step {self.first}")
            return
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:  # the disk failed; the run continues
            print(f"profile: {self._folder} cannot be written ({' '.join(str(error).split())[:120]})", file=sys.stderr)
            return
        print(
            f"profile: steps {self.first} to {self._step} in {self._folder}; view it with tensorboard --logdir "
            f"{self._folder} (pip install tensorboard xprof), or open its .trace.json.gz in https://ui.perfetto.dev"
        )
