"""Keeps compiled programs in the cache directory of the user, so that the same command starts faster next time."""

import hashlib
import os
import platform
from pathlib import Path

import jax

# Bytes. JAX's own limit is not used: a process that is killed while writing corrupts its index.
LIMIT = 4 * 2**30
SHORTEST = 0.1  # seconds: programs that compile faster are not kept


def enable() -> None:
    """Enables the cache; to be called before any compilation. A JAX_COMPILATION_CACHE_DIR of the user has precedence.

    Without a writable directory nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "jaxprefix" / "compiled" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder)
    except (OSError, RuntimeError):  # RuntimeError for a user without a home directory
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def _processor() -> str:
    """The kind of this CPU. Programs use its instructions, and machines of several kinds may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def prune(folder: Path) -> None:
    """Removes the oldest programs until the rest is within the limit."""
    files = sorted(((path, path.stat()) for path in folder.iterdir()), key=lambda file: file[1].st_mtime)
    excess = sum(stat.st_size for _, stat in files) - LIMIT
    for path, stat in files:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= stat.st_size
