"""Compiled programs are kept in the user's cache directory, within a size limit, or in the directory that the user has
set.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxprefix.distributed import compilation_cache

# Prints what JAX logs about each program: found in the cache, or compiled.
ASK = """
import jax, sys
from jaxprefix.distributed import mesh
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
mesh.make_mesh("1x1")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x @ x)(jax.numpy.ones((4, 4)))
print(sum(name.endswith("cache_hits") for name in found), sum(name.endswith("cache_misses") for name in found))
"""


def ask(**changes: str) -> tuple[int, int]:
    """Runs a process and returns (programs found, programs compiled)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu"} | changes
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, made = map(int, done.stdout.split())
    return found, made


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_second_process_compiles_nothing(tmp_path: Path):
    first = ask(XDG_CACHE_HOME=str(tmp_path))
    assert first[0] == 0 and first[1] > 0
    assert ask(XDG_CACHE_HOME=str(tmp_path)) == (first[1], 0)
    assert files(tmp_path / "jaxprefix" / "compiled")
    assert ask(HOME=str(tmp_path / "home"))[0] == 0 and files(tmp_path / "home" / ".cache" / "jaxprefix")


def test_settings_of_the_user_are_kept(tmp_path: Path):
    ask(XDG_CACHE_HOME=str(tmp_path / "xdg"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert files(tmp_path / "own") and not (tmp_path / "xdg").exists()
    ask(XDG_CACHE_HOME=str(tmp_path / "off"), JAX_ENABLE_COMPILATION_CACHE="false")
    assert not files(tmp_path / "off")


def test_without_a_directory_nothing_is_cached(tmp_path: Path):
    (tmp_path / "file").write_text("a file, where a directory is wanted")
    assert ask(XDG_CACHE_HOME=str(tmp_path / "file"))[0] == 0


def test_the_oldest_entries_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation_cache, "LIMIT", 250)
    for age, name in enumerate(("newest", "middle", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (10**9 - age, 10**9 - age))
    compilation_cache.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "newest"]


# Folding this sum while it compiles takes XLA seconds, and it logs an error after one.
SLOW = """
import jax, sys
from jaxprefix.distributed import mesh
from jaxprefix.io import terminal
def main():
    mesh.make_mesh("1x1")
    add = lambda: jax.lax.reduce_window(jax.lax.iota("float32", 3000), 0.0, jax.lax.add, (3000,), (1,), "SAME")
    jax.jit(add).lower().compile()
terminal.run(main) if sys.argv[1:] == ["command"] else main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "level", "logged"), [("library", "1", True), ("command", "1", False), ("command", "0", True)]
)
def test_a_slow_compilation_is_not_an_error(tmp_path: Path, whose: str, level: str, logged: bool):
    """Commands hide XLA's banner, unless the user has set a level for XLA's log."""
    hidden = ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level != "1" else {}
    done = subprocess.run([sys.executable, "-c", SLOW, whose], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and ("Constant folding" in done.stderr) == logged, done.stderr
