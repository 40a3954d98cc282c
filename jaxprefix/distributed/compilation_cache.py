"""Compiled programs are kept in the user's cache directory, so that the same command starts sooner the next time."""

import hashlib
import os
import platform
from pathlib import Path

import jax

# Bytes. JAX's own limit is not used: a process that is killed while it writes breaks its list.
LIMIT = 4 * 2**30
SHORTEST = 0.1  # seconds: what takes less to compile is not kept


def enable() -> None:
    """Before anything is compiled. Leaves JAX_COMPILATION_CACHE_DIR, and what else the user has set, as it is.

    Where no directory can be made nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "jaxprefix" / "compiled" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder)
    except (OSError, RuntimeError):  # the latter is a user without a home
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def _processor() -> str:
    """Programs for CPUs are compiled for this one's instructions; a home may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(found.encode()).hexdigest()[:12]}"


def prune(folder: Path) -> None:
    """Removes the oldest programs beyond the limit."""
    files = sorted(((path, path.stat()) for path in folder.iterdir()), key=lambda each: each[1].st_mtime)
    beyond = sum(about.st_size for _, about in files) - LIMIT
    for path, about in files:
        if beyond <= 0:
            return
        path.unlink(missing_ok=True)
        beyond -= about.st_size
