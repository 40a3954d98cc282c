"""Runs each side of a comparison in its own process, and writes the results."""

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BYPASS = "int mkl_serv_intel_cpu_true(void) { return 1; }"
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # flag in /proc/cpuinfo -> name
KEY = ("work", "method", "device")  # a later result with the same key replaces an earlier one


def side(
    arguments: list[str], environment: Mapping[str, str] | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """The JSON that the process of a side prints last.

    RuntimeError with the end of its stderr if it fails, or takes more than `seconds` and is ended.
    """
    command = [sys.executable, "-W", "ignore", "-m", *arguments]
    variables = os.environ | dict(environment or {})
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")[-300:]
        raise RuntimeError(f"{' '.join(arguments)} was ended after {seconds:.0f} s; {said}") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bypass(folder: Path) -> Path | None:
    """A library that lets MKL take its fast path on any processor; None without a C compiler.

    Without it, PyTorch's MKL takes a slow path on AMD processors.
    """
    library = folder / "bypass.so"
    if not library.exists() and shutil.which("cc"):
        (folder / "bypass.c").write_text(BYPASS)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "bypass.c"], check=True)
    return library if library.exists() else None


def cores() -> str:
    """The number of processors and their widest vectors, which determine the speed of matrix products."""
    widest = next((f", {name}" for flag, name in VECTORS.items() if flag in _flags()), "")
    return f"{os.cpu_count()} CPU cores{widest}"


def torch_dtype() -> str:
    """The dtype of PyTorch's fastest matrix products: bfloat16 only if the processor has instructions for it."""
    return "bfloat16" if "avx512_bf16" in _flags() else "float32"


def _flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()


def middle(values: list[float]) -> tuple[float, list[float]]:
    """(median, [minimum, maximum])"""
    return statistics.median(values), [round(min(values), 3), round(max(values), 3)]


def keep(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> None:
    """Writes results into a dated file and into latest.json, where they replace earlier ones with the same KEY."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch", "transformers", "peft")}
    header: dict[str, Any] = {"date": date.today().isoformat(), "processor": platform.processor(), "versions": versions}
    dated, latest = folder / f"{name}-{header['date']}.json", folder / "latest.json"
    before = json.loads(dated.read_text())["rows"] if dated.is_file() else []
    dated.write_text(json.dumps(header | {"rows": _replaced(before, rows)}, indent=2) + "\n")
    before = json.loads(latest.read_text()) if latest.is_file() else []
    latest.write_text(json.dumps(_replaced(before, rows), indent=2) + "\n")


def _replaced(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    replaced = {tuple(row[name] for name in KEY) for row in rows}
    return [row for row in before if tuple(row[name] for name in KEY) not in replaced] + rows
