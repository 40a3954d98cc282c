"""The start and the end of a command that several processes run: one of them prints, and if one dies, all end."""

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

import jax
from jaxlib import utils  # type: ignore[attr-defined]

from jaxprefix.distributed import mesh as meshes
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

LOST = "error: this process or another one of --hosts has died; run the same command in all of them again"
# Prints LOST unless it reads a line before the process ends. A shell can outlive the process, however it dies.
WATCHER = ("sh", "-c", 'read line || echo "$0" >&2', LOST)
HIDE_ALL = 4  # a level of Abseil's log, above the messages with which JAX aborts
PATIENCE = 10  # seconds that a process which fails waits for the others


@contextmanager
def started(mesh: str | None, platform: str | None, hosts: str | None) -> Iterator[str | None]:
    """Starts the platform of a command and connects it to the other processes of --hosts.

    Only the main process prints inside the context. Yields its line about emulated devices, if there is one. The
    process is disconnected at the end.
    """
    emulated = meshes.configure_platform(mesh, platform, hosts)
    if hosts is None:
        yield emulated
        return
    meshes.start_jax()
    with ExitStack() as stack:
        if not processes.is_main_process():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            emulated = None
        stack.enter_context(_ends_with_others())
        yield emulated


@contextmanager
def _ends_with_others() -> Iterator[None]:
    """Ends this process, with the line LOST, if another one has died.

    JAX aborts the process as soon as its service notices. Collectives may raise an error before that.
    """
    utils.absl_set_min_log_level(HIDE_ALL)
    watcher = subprocess.Popen(WATCHER, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
        jax.distributed.shutdown()  # when all processes have come to their end
    except BaseException as error:
        if "Gloo" in str(error):  # the collectives of CPUs; on accelerators JAX aborts the process
            sys.stdout.flush()
            os._exit(1)
        watcher.communicate(b"failed\n")  # with a message of its own
        if not processes.leave(PATIENCE):  # the others wait for this one: at its end they notice
            code = 2 if isinstance(error, InputError) else getattr(error, "code", 1)
            atexit.register(os._exit, code)  # before JAX's own handler, which would wait for the others
        raise
    watcher.communicate(b"finished\n")
