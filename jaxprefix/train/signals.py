"""SIGTERM and Ctrl-C end a run at the end of a step, saved; before its first step, or asked twice, at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

ENDING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a run was asked to end; it looks here at the end of each step."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.working = False  # whether a step was done, which a sudden end would lose


@contextmanager
def stoppable() -> Iterator[Stop]:
    """A Stop that SIGTERM and Ctrl-C ask, as long as the context lasts. For commands: it needs the main thread.

    A signal that is ignored (`nohup`, a shell's background job) stays so.
    """
    stop = Stop()
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


def _listen(reading: int, stop: Stop) -> None:
    while got := os.read(reading, 1):
        if got[0] not in ENDING:
            continue
        asked = signal.Signals(got[0])
        if not stop.working:
            _end(f"stopped by {asked.name} before the first step; the same command begins there again", asked)
        if stop.asked and asked == signal.SIGINT:
            _end("stopped at once; what was saved before is kept, and the same command goes on from there", asked)
        if not stop.asked:
            stop.asked = asked
            print(f"{asked.name}: saving at the end of this step; Ctrl-C stops at once", file=sys.stderr, flush=True)


def _end(line: str, asked: signal.Signals) -> None:
    """Without waiting for the main thread: what a run writes is whole at any time."""
    Console(stderr=True).show_cursor(True)  # which the progress bar hides
    print(line, file=sys.stderr, flush=True)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(128 + asked)
