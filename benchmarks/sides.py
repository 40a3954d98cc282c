"""Two sides in turn, each in a process of its own; what is checked of them, and where the figures are kept."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BYPASS = "int mkl_serv_intel_cpu_true(void) { return 1; }"
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # by what /proc/cpuinfo calls them
KEY = ("work", "method", "device")  # of a figure: a later one takes its place


def side(arguments: list[str], python: str = sys.executable, **environment: str) -> dict[str, Any]:
    """What a side's process prints last, as JSON. RuntimeError with the end of what it said where it fails."""
    command = [python, "-W", "ignore", "-m", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bypass(place: Path) -> Path | None:
    """A library that lets MKL take its fast path on any processor; None without a C compiler.

    On AMD processors PyTorch's MKL takes a slow path otherwise.
    """
    library = place / "bypass.so"
    if not library.exists() and shutil.which("cc"):
        (place / "bypass.c").write_text(BYPASS)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, place / "bypass.c"], check=True)
    return library if library.exists() else None


def cores() -> str:
    """The processors of this machine and their widest vectors, on which the speed of products depends."""
    widest = next((f", {name}" for flag, name in VECTORS.items() if flag in _flags()), "")
    return f"{os.cpu_count()} CPU cores{widest}"


def torch_dtype() -> str:
    """The type in which PyTorch multiplies fastest here: without instructions for bfloat16 that is its slowest."""
    return "bfloat16" if "avx512_bf16" in _flags() else "float32"


def _flags() -> set[str]:
    about = Path("/proc/cpuinfo")
    return set(about.read_text().split()) if about.exists() else set()


def middle(values: list[float]) -> tuple[float, list[float]]:
    """The median, and the least and the most."""
    return statistics.median(values), [round(min(values), 3), round(max(values), 3)]


def keep(name: str, rows: list[dict[str, Any]]) -> None:
    """Writes what was measured under its date and into latest.json, in the place of older figures of the same."""
    RESULTS.mkdir(exist_ok=True)
    versions = {name: __import__(name).__version__ for name in ("jax", "torch", "transformers", "peft")}
    about: dict[str, Any] = {"date": date.today().isoformat(), "processor": platform.processor(), "versions": versions}
    dated, latest = RESULTS / f"{name}-{about['date']}.json", RESULTS / "latest.json"
    before = json.loads(dated.read_text())["rows"] if dated.is_file() else []
    dated.write_text(json.dumps(about | {"rows": _replaced(before, rows)}, indent=2) + "\n")
    before = json.loads(latest.read_text()) if latest.is_file() else []
    latest.write_text(json.dumps(_replaced(before, rows), indent=2) + "\n")


def _replaced(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    own = {tuple(row[name] for name in KEY) for row in rows}
    return [row for row in before if tuple(row[name] for name in KEY) not in own] + rows
