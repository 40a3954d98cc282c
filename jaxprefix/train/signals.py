"""SIGTERM and Ctrl-C end a run at the end of a step, saved; before its first step, or asked twice, at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from jaxprefix.distributed import processes

ENDING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a run was asked to end. It looks here at the end of each step.

    Attributes:
        asked: the first signal that asked.
        working: whether a step is done, which a sudden end would lose.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.working = False

    def ask(self, number: signal.Signals) -> None:
        """Asks the run to end after the step that is under way."""
        self.asked = self.asked or number

    def at_step(self, waits: bool) -> signal.Signals | None:
        """The signal that ends the run at this step, if any. Several processes ask each other where each `waits`."""
        self.working = True
        if processes.process_count() == 1:
            return self.asked
        return (self.asked or signal.SIGTERM) if waits and processes.any_process(self.asked is not None) else None


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """A request that SIGTERM and Ctrl-C make while the context lasts. For commands: it needs the main thread.

    A signal that is ignored (`nohup`, a shell's background job) stays so.
    """
    stop = StopRequest()
    wanted = [each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers wait for the main thread, which the compiler can hold for minutes. Python writes into
    # the pipe at once, and a thread of ours reads it.
    before = {each: signal.signal(each, _nothing) for each in wanted}
    pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reading, stop), daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(pipe)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(writing)  # ends the thread
        thread.join()
        os.close(reading)


def _nothing(number: int, frame: object) -> None:
    """The thread does it."""


def _listen(reading: int, stop: StopRequest) -> None:
    while got := os.read(reading, 1):
        if got[0] not in ENDING:
            continue
        asked = signal.Signals(got[0])
        if not stop.working:
            _end(f"stopped by {asked.name} before the first step; the same command begins there again", asked)
        if stop.asked and asked == signal.SIGINT:
            _end("stopped at once; what was saved before is kept, and the same command goes on from there", asked)
        if not stop.asked:
            stop.ask(asked)
            print(f"{asked.name}: saving at the end of this step; Ctrl-C stops at once", file=sys.stderr, flush=True)


def _end(line: str, asked: signal.Signals) -> None:
    """Without waiting for the main thread: what a run writes is whole at any time."""
    Console(stderr=True).show_cursor(True)  # which the progress bar hides
    print(line, file=sys.stderr, flush=True)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(128 + asked)
