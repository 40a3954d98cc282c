"""Runs of several processes, one a host: how they find each other, which of them writes, and what they agree on.

Every process runs the same program on the same settings and holds its own part of the weights and of each batch. The
first one alone writes and prints; where they might differ they agree, or one would wait for ever.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxprefix.distributed import meeting
from jaxprefix.errors import InputError

T = TypeVar("T")


def join(text: str, seconds: int = 300) -> int | None:
    """Meets the other processes, before JAX wakes; all but the first fall silent.

    Returns how many they are; None for "auto", where that cannot be known before JAX wakes.

    Args:
        text: "auto" where JAX finds the others by itself (TPU pods, SLURM, Open MPI, Kubernetes), else
            ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4, where the address is that of process 0.
        seconds: to wait for them.

    Raises:
        InputError: another text, or nobody there.
    """
    match = re.fullmatch(r"(\S+:\d+),(\d+)/([1-9]\d*)", text)
    if text != "auto" and (not match or int(match[2]) >= int(match[3])):
        raise InputError(
            f"--hosts {text!r} is neither auto nor ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4"
        )
    settings: dict[str, Any] = {}
    if match:
        address, process, processes = match[1], int(match[2]), int(match[3])
        settings = {"coordinator_address": address, "process_id": process, "num_processes": processes}
        try:
            if process:
                meeting.wait_for_first(address, process, processes, seconds)
            else:
                meeting.wait_for_others(int(address.rpartition(":")[2]), processes, seconds)
        except InputError as error:
            raise InputError(f"--hosts {text}: {error}") from None
    try:
        jax.distributed.initialize(**settings, initialization_timeout=seconds)
    except (RuntimeError, ValueError) as error:  # JAX's own are of both kinds
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"--hosts {text}: the processes did not meet ({why}); start all of them, with one address and a number each"
        ) from error
    if not (int(match[2]) == 0 if match else first()):
        sys.stdout = open(os.devnull, "w")  # to the end of the process
    return int(match[3]) if match else None


def count() -> int:
    """Processes of this run. Does not wake JAX where there is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def first() -> bool:
    """Whether this is the process that writes."""
    return count() == 1 or jax.process_index() == 0


def any_of(value: bool) -> bool:
    """Whether it is so in any process. All of them must ask."""
    return value if count() == 1 else bool(multihost_utils.process_allgather(np.bool_(value)).any())


def of_first(value: int) -> int:
    """The first process's value. All of them must ask."""
    return value if count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextmanager
def first_enters(context: AbstractContextManager[T], others: T) -> Iterator[T]:
    """The context, entered by the first process alone; `others` is what the others go on with.

    Raises InputError in all processes where the first one is refused.
    """
    with ExitStack() as stack:
        found, refusal = others, None
        if first():
            try:
                found = stack.enter_context(context)
            except InputError as error:
                refusal = error
        if any_of(refusal is not None):
            raise refusal or InputError("the first process was refused; its own line says why")
        yield found
