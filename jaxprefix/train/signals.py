"""SIGTERM and Ctrl-C: a run saves and ends after the current step.

It ends at once before its first step, or on a second Ctrl-C.
"""

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
    """A request to end a run, which the run checks after each step.

    Attributes:
        asked: the first signal, or None without a request.
        working: whether a step is done. Ending at once would lose it.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.working = False

    def ask(self, number: signal.Signals) -> None:
        """Requests the end of the run after the current step."""
        self.asked = self.asked or number

    def at_step(self, waits: bool) -> signal.Signals | None:
        """The signal that ends the run at this step, or None. Several processes agree on it at steps that wait."""
        self.working = True
        if processes.process_count() == 1:
            return self.asked
        return (self.asked or signal.SIGTERM) if waits and processes.any_process(self.asked is not None) else None


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """A StopRequest that SIGTERM and Ctrl-C set inside the context. It needs the main thread, as in a command.

    A signal that is ignored (`nohup`, a background job of a shell) stays ignored.
    """
    stop = StopRequest()
    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's handlers wait for the main thread, which can be in the compiler for minutes. Python writes to the wakeup
    # pipe at once, and the listener thread reads it.
    handlers = {number: signal.signal(number, _ignore) for number in handled}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reading, stop), daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread
        thread.join()
        os.close(reading)


def _ignore(number: int, frame: object) -> None:
    """No-op: the listener thread reads the wakeup pipe."""


def _listen(reading: int, stop: StopRequest) -> None:
    while byte := os.read(reading, 1):
        if byte[0] not in ENDING:
            continue
        asked = signal.Signals(byte[0])
        if not stop.working:
            _end(f"stopped by {asked.name} before the first step; repeat the command to start again", asked)
        if stop.asked and asked == signal.SIGINT:
            _end("stopped at once; repeat the command to resume from the last checkpoint", asked)
        if not stop.asked:
            stop.ask(asked)
            print(f"{asked.name}: saving at the end of this step; Ctrl-C stops at once", file=sys.stderr, flush=True)


def _end(line: str, asked: signal.Signals) -> None:
    """Ends the process without waiting for the main thread. All files are written atomically."""
    Console(stderr=True).show_cursor(True)  # the progress bar hides it
    print(line, file=sys.stderr, flush=True)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(128 + asked)
