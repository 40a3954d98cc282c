"""A long run of tiny steps; memory, threads and seconds every 1,000 of them: python soak.py MODEL ROWS OUTPUT STEPS."""

import json
import os
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import small

from jaxprefix.train.loop import train
from jaxprefix.train.metrics import MetricsLogger
from jaxprefix.train.programs import CompiledByShape

EVERY = 1000


def main(model: Path, rows: Path, output: Path, steps: int) -> None:
    config = small.configuration(
        model, rows, method="lora", steps=steps, batch=2, save_every=500, eval_every=500, log_every=10, max_length=64
    )
    out, began, programs = sys.stdout, time.process_time(), list[CompiledByShape]()
    made, written = CompiledByShape.__init__, MetricsLogger.write

    def make(self: CompiledByShape, function: Any) -> None:
        made(self, function)
        programs.append(self)

    def write(self: MetricsLogger, row: dict[str, Any]) -> None:
        nonlocal began
        written(self, row)
        if row["step"] % EVERY == 0 and "loss" in row:
            now = time.process_time()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            found = {"step": row["step"], "megabytes": round(resident / 2**20, 1), "seconds": round(now - began, 1)}
            found |= {"threads": threading.active_count(), "programs": sum(each.compilations for each in programs)}
            print(json.dumps(found), file=out, flush=True)
            began = now

    CompiledByShape.__init__, MetricsLogger.write = make, write  # type: ignore[method-assign]
    with redirect_stdout(sys.stderr):
        train(config, output, quiet=True)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]), int(sys.argv[4]))
