"""Tensors in a safetensors file, read in parts and straight into the caller's array.

The library's own slices take 1.5 to 6 times as long and map the whole file. The format is the length of a JSON header
in eight bytes, the header, and the tensors' bytes, little-endian and by rows
(https://github.com/huggingface/safetensors). The library checks the header first.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from jaxprefix.errors import InputError

DTYPES: dict[str, Any] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
ALIGNMENT = 64
BLOCK = 2**23  # bytes per read, where a conversion or a selection of columns is needed


@dataclass(frozen=True)
class Stored:
    """One tensor, which is not read yet."""

    path: Path
    offset: int  # the first byte in the file
    shape: tuple[int, ...]
    dtype: str  # as in the header

    def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray:
        """Reads a part of the tensor, or all of it (`[:]`), in its own dtype."""
        slices = index if isinstance(index, tuple) else (index,)
        slices = (*slices, *[slice(None)] * (len(self.shape) - len(slices)))
        sizes = [len(range(*part.indices(size))) for part, size in zip(slices, self.shape, strict=True)]
        content = np.empty(sizes, DTYPES[self.dtype])
        self.read(slices, content)
        return content

    def read(self, index: tuple[slice, ...], into: np.ndarray) -> None:
        """Reads the part `index` of a tensor of one or two dimensions into a contiguous array of any dtype."""
        dtype, width = DTYPES[self.dtype], self.shape[-1] if len(self.shape) > 1 else 1
        start, stop, _ = index[0].indices(self.shape[0])  # type: ignore[misc]
        columns = slice(*index[1].indices(width)) if len(self.shape) > 1 else slice(0, 1)
        rows = into.reshape(stop - start, columns.stop - columns.start)
        assert np.shares_memory(rows, into) or not into.size
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * width * dtype.itemsize)
            if dtype == into.dtype and columns == slice(0, width, 1):
                return _fill(file, rows)
            step = max(BLOCK // max(width * dtype.itemsize, 1), 1)
            block = np.empty((min(step, stop - start), width), dtype)
            for first in range(0, stop - start, step):
                part = block[: min(step, stop - start - first)]
                _fill(file, part)
                rows[first : first + len(part)] = part[:, columns]


def aligned_empty(shape: list[int], dtype: DTypeLike) -> np.ndarray:
    """An empty array, aligned so that JAX on CPU uses it without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def stored(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name. The library must have checked the header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: Stored(path, 8 + length + about["data_offsets"][0], tuple(about["shape"]), about["dtype"])
        for name, about in header.items()
        if name != "__metadata__"
    }


def same(one: Stored, other: Stored) -> bool:
    """Whether two tensors of one or two dimensions have the same numbers, read a block at a time."""
    if one.shape != other.shape or not {one.dtype, other.dtype} <= set(DTYPES) or len(one.shape) not in (1, 2):
        return False
    step = max(BLOCK // max(math.prod(one.shape[1:]) * 4, 1), 1)
    blocks = (slice(start, start + step) for start in range(0, one.shape[0], step))
    return all(np.array_equal(one[part].astype(np.float32), other[part].astype(np.float32)) for part in blocks)


def _fill(file: Any, into: np.ndarray) -> None:
    """Reads until the array is full: one read may return less."""
    left = memoryview(into.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    while len(left):
        got = file.readinto(left)
        if not got:
            raise InputError(f"{file.name} became shorter during reading; download it again")
        left = left[got:]
