"""Which dtypes the processor multiplies without a conversion."""

from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"bfloat16": {"amx_bf16", "avx512_bf16"}, "int8": {"amx_int8", "avx512_vnni", "avx_vnni"}}


@cache
def has_instructions(dtype: str) -> bool:
    """Whether the processor has instructions for products of "bfloat16" or "int8". Where Linux does not say, False."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not INSTRUCTIONS[dtype].isdisjoint(flags.split())
