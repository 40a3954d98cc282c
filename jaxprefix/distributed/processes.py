"""Runs of several processes, one a host: how they find each other, which of them writes, and what they agree on.

Every process runs the same program on the same settings and holds its own part of the weights and of each batch. The
first one alone writes, and in a command prints; where they might differ they agree, or one would wait for ever.
"""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Thread
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxprefix.errors import InputError

T = TypeVar("T")
DAY = 24 * 60 * 60  # seconds


def initialize(text: str, seconds: int = 300) -> int | None:
    """Meets the other processes, before JAX wakes.

    Returns how many they are; None for "auto", where that cannot be known before JAX wakes.

    Args:
        text: "auto" where JAX finds the others by itself (TPU pods, SLURM, Open MPI, Kubernetes), else
            ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4, where the address is that of process 0.
        seconds: to wait for them.

    Raises:
        InputError: another text, or the processes did not meet.
    """
    match = re.fullmatch(r"(\S+:\d+),(\d+)/([1-9]\d*)", text)
    if text != "auto" and (not match or int(match[2]) >= int(match[3])):
        raise InputError(
            f"--hosts {text!r} is neither auto nor ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4"
        )
    settings: dict[str, Any] = {}
    if match:
        settings = {"coordinator_address": match[1], "process_id": int(match[2]), "num_processes": int(match[3])}
    print(f"waiting for the other processes, {seconds} s at most", file=sys.stderr)
    try:
        _initialize(seconds, **settings)
    except (RuntimeError, ValueError, TimeoutError) as error:  # JAX's own are of the first two kinds
        why = " ".join(str(error).split())[:200] or f"not all of them came within {seconds} s"
        raise InputError(
            f"--hosts {text}: the processes did not meet ({why}); start all of them with one address, "
            "whose port is free, and a number each"
        ) from error
    return int(match[3]) if match else None


def _initialize(seconds: int, **settings: Any) -> None:
    """jax.distributed.initialize; TimeoutError where the processes have not met within `seconds`.

    JAX does not raise at its own timeout: it aborts the process with a stack trace. So it gets a day, and a thread that
    this one stops waiting for.
    """
    met: Future[None] = Future()

    def initialize() -> None:
        try:
            jax.distributed.initialize(**settings, initialization_timeout=DAY)
            met.set_result(None)
        except Exception as error:
            met.set_exception(error)

    Thread(target=initialize, daemon=True).start()
    met.result(timeout=seconds)


def process_count() -> int:
    """Processes of this run. Does not wake JAX where there is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return process_count() == 1 or jax.process_index() == 0


def any_process(value: bool) -> bool:
    """Whether it is so in any process. All of them must ask."""
    return value if process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(value)).any())


def broadcast_from_main(value: int) -> int:
    """The first process's value. All of them must ask."""
    return value if process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextmanager
def enter_on_main(context: AbstractContextManager[T], others: T) -> Iterator[T]:
    """The context, entered by the first process alone; `others` is what the others go on with.

    Raises InputError in all processes where the first one is refused.
    """
    with ExitStack() as stack:
        found, refusal = others, None
        if is_main_process():
            try:
                found = stack.enter_context(context)
            except InputError as error:
                refusal = error
        if any_process(refusal is not None):
            raise refusal or InputError("the first process was refused; its own line says why")
        yield found
