"""A trace of a few steps, for TensorBoard (XProf) and Perfetto, in which the host's own work has its names."""

import sys
from pathlib import Path
from typing import Any

import jax

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

FOLDER = "profile"  # of the run directory; each trace lies in a folder of its own there, named after its time
BEFORE = 2  # steps of a command that are left out: they find memory and files cold

# A part of the host's work. Where no trace is on, a name takes less than a microsecond.
phase = jax.profiler.TraceAnnotation


def step_phase(number: int) -> Any:
    """A step as a whole, by which XProf sorts what the devices do."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)


def check(steps: int | None, method: str, output: Path | None) -> None:
    """InputError where so many steps cannot be traced, or something else is in the place of the traces."""
    if steps is None:
        return
    if steps < 1:
        raise InputError(f"--profile {steps} is no number of steps; expected 1 or more, such as 5")
    if method == "none":
        raise InputError(f"--profile {steps} traces training steps, and --method none has none; drop it")
    if output and (output / FOLDER).is_file():
        raise InputError(f"{output / FOLDER} is a file, where --profile makes a directory; move it away")


class Profile:
    """The trace of some of a command's steps, from its third on; of its last ones where there are no more.

    Of several processes the first one writes.
    """

    def __init__(self, steps: int | None = None, directory: Path = Path(), start: int = 0, last: int = 0) -> None:
        """`steps` of them are traced, None is no trace; `start` are done already, `last` are those of the whole run."""
        self.wanted, self.on = steps is not None and processes.is_main_process(), False
        self.place = directory / FOLDER
        count = min(steps or 0, last - start)
        self.first = min(start + BEFORE, last - count) + 1
        self.last = self.first + count - 1

    def begin(self, step: int) -> None:
        """Before each step."""
        self.reached = step
        if self.wanted and step == self.first:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # which names every call, and slows the loop that is looked at
            jax.profiler.start_trace(self.place, profiler_options=options)
            self.on = True

    def end(self, results: Any) -> None:
        """Behind each step, with what the devices made in it."""
        if self.on and self.reached == self.last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace, also of a run that ends within it, and says where it lies."""
        if not self.wanted:
            return
        self.wanted = False
        if not self.on:
            print(f"profile: nothing is traced, the run ended before step {self.first}")
            return
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:  # JAX's own, of the disk; the run need not end of it
            print(f"profile: {self.place} cannot be written to ({' '.join(str(error).split())[:120]})", file=sys.stderr)
            return
        print(
            f"profile: steps {self.first} to {self.reached} in {self.place}; look with tensorboard --logdir "
            f"{self.place} (pip install tensorboard xprof), or open its .trace.json.gz in https://ui.perfetto.dev"
        )
