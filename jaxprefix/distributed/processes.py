"""Runs of several processes, one per host: how they connect, which one writes, and how they agree on values.

All processes run the same program with the same settings; each has a part of the weights and of every batch. Only the
main process writes files and prints. They exchange values that might differ, because otherwise one could wait forever.
"""

import hashlib
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxprefix.errors import InputError

T = TypeVar("T")
Tree = TypeVar("Tree")
DAY = 24 * 60 * 60  # seconds


def initialize(text: str, seconds: int = 300) -> int | None:
    """Connects to the other processes, before JAX starts.

    Returns the number of processes; None for "auto", because only JAX knows it.

    Args:
        text: "auto" if JAX can find the others (TPU pods, SLURM, Open MPI, Kubernetes), else
            ADDRESS:PORT,PROCESS/PROCESSES with the address of process 0, such as 10.0.0.1:8476,0/4.
        seconds: the time limit.

    Raises:
        InputError: `text` is neither, or not all processes connected in time.
    """
    match = re.fullmatch(r"(\S+:\d+),(\d+)/([1-9]\d*)", text)
    if text != "auto" and (not match or int(match[2]) >= int(match[3])):
        raise InputError(
            f"--hosts {text!r} is neither auto nor ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4"
        )
    settings: dict[str, Any] = {}
    if match:
        settings = {"coordinator_address": match[1], "process_id": int(match[2]), "num_processes": int(match[3])}
        if not settings["process_id"]:
            _check_port(text, int(match[1].rpartition(":")[2]))
    print(f"waiting for the other processes, at most {seconds} s", file=sys.stderr)
    try:
        _initialize(seconds, **settings)
    except (RuntimeError, ValueError, TimeoutError) as error:  # JAX raises the first two
        why = " ".join(str(error).split())[:200] or f"not all of them connected within {seconds} s"
        raise InputError(
            f"--hosts {text}: the processes could not connect ({why}); start all of them with the same address, "
            "a free port, and different numbers"
        ) from error
    return int(match[3]) if match else None


def _check_port(text: str, port: int) -> None:
    """InputError if process 0 cannot listen on the port. JAX 0.10 ends in a segmentation fault then."""
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"--hosts {text}: cannot listen on port {port} ({why}); choose a free port") from None


def _initialize(seconds: int, **settings: Any) -> None:
    """jax.distributed.initialize. TimeoutError if the processes have not connected within `seconds`.

    JAX does not raise at its own timeout but aborts the process with a stack trace. It therefore gets a timeout of a
    day in a thread, and this thread waits for `seconds`.
    """
    connected: Future[None] = Future()

    def initialize() -> None:
        try:
            jax.distributed.initialize(**settings, initialization_timeout=DAY)
            connected.set_result(None)
        except Exception as error:
            connected.set_exception(error)

    Thread(target=initialize, daemon=True).start()
    connected.result(timeout=seconds)


def leave(seconds: float) -> bool:
    """Disconnects as soon as all other processes do. False if they have not within `seconds`."""

    def shutdown() -> None:
        with suppress(Exception):
            jax.distributed.shutdown()

    thread = Thread(target=shutdown, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def process_count() -> int:
    """The number of processes. Does not start JAX if there is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return process_count() == 1 or jax.process_index() == 0


def any_process(value: bool) -> bool:
    """Whether `value` is true in any process. All processes must call this."""
    return value if process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(value)).any())


def broadcast_from_main(value: int) -> int:
    """The value of the main process. All processes must call this."""
    return value if process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def check_same(value: str, what: str) -> None:
    """InputError in all processes unless `value` is the same in all of them. All processes must call this."""
    number = int(hashlib.sha256(value.encode()).hexdigest()[:7], 16)
    if any_process(broadcast_from_main(number) != number):
        raise InputError(f"{what} differ between the processes; give all of them the same command and the same files")


def fetch(tree: Tree) -> Tree:
    """The arrays of a tree in NumPy, whole in every process. All processes must call this."""
    return jax.device_get(tree) if process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


@contextmanager
def enter_on_main(context: AbstractContextManager[T], others: T) -> Iterator[T]:
    """Enters the context in the main process only, and yields `others` in the other processes.

    All processes raise an InputError if the main process does.
    """
    with ExitStack() as stack:
        result, error = others, None
        if is_main_process():
            try:
                result = stack.enter_context(context)
            except InputError as raised:
                error = raised
        if any_process(error is not None):
            raise error or InputError("the main process failed; its error message says why")
        yield result
