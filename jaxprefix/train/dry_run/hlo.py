"""Counts the matrix products and collectives of a partitioned program in its HLO text.

Loops must have the form of `lax.scan`: the condition compares a counter with a constant.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS: tuple[str, ...] = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"(?:ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(
    r"\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"(?P<type>[a-z]+\d*)\[(?P<dims>[\d,]*)\]")
_CALLED = re.compile(r"(?:condition|body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Array:
    """An array on one device."""

    type: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        bits = re.search(r"\d+", self.type)  # pred has none
        return self.size * (int(bits[0]) if bits else 8) // 8


@dataclass(frozen=True)
class Instruction:
    name: str
    kind: str
    arrays: tuple[Array, ...]  # its results
    rest: str  # its operands and attributes

    @property
    def operands(self) -> list[str]:
        return re.findall(r"[\w.\-]+", self.rest.partition("), ")[0])


@dataclass
class HloProgram:
    """The computations of a module by name, and the name of its entry."""

    entry: str
    computations: dict[str, list[Instruction]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "HloProgram":
        program, name = cls(""), ""
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                name = header["name"]
                program.computations[name] = []
                if line.startswith("ENTRY"):
                    program.entry = name
            elif name and (match := _INSTRUCTION.match(line)):
                program.computations[name].append(
                    Instruction(match["name"], match["kind"], _arrays(match["shape"]), match["rest"])
                )
        return program

    @property
    def times(self) -> Counter[str]:
        """How often each computation runs."""
        counts: Counter[str] = Counter()

        def run(name: str, times: int) -> None:
            counts[name] += times
            for instruction in self.computations[name]:
                trips = self._trips(instruction) if instruction.kind == "while" else 1
                for called in _called(instruction.rest):
                    run(called, times * trips)

        run(self.entry, 1)
        return counts

    def _trips(self, loop: Instruction) -> int:
        if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        assert condition, loop
        limits = [item.rest for item in self.computations[condition[1]] if item.kind == "constant"]
        assert len(limits) == 1, f"not a scan: {condition[1]}"
        return int(limits[0].partition(")")[0])

    def instructions(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction and how often it runs."""
        times = self.times
        for name, instructions in self.computations.items():
            for instruction in instructions:
                yield instruction, times[name]

    def flops(self) -> int:
        """The FLOPs of the matrix products on one device. A multiplication and an addition are two."""
        total = 0
        for name, times in self.times.items():
            shapes = {instruction.name: instruction.arrays for instruction in self.computations[name]}
            for instruction in self.computations[name]:
                if instruction.kind == "dot":
                    left = shapes[instruction.operands[0]][0].dims
                    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
                    assert contracted, instruction
                    inner = math.prod(left[int(dim)] for dim in contracted[1].split(",") if dim)
                    total += 2 * inner * instruction.arrays[0].size * times
        return total

    def collective_bytes(self, devices: int) -> dict[str, int]:
        """The bytes that one device receives, by kind of collective. All are rings, which move the fewest bytes."""
        total = dict.fromkeys(KINDS, 0)
        for instruction, times in self.instructions():
            kind = instruction.kind
            if kind in KINDS:
                group = _group_size(instruction.rest, devices)
                size = sum(array.nbytes for array in instruction.arrays)
                factors = {"all-reduce": 2 * (group - 1) / group, "collective-permute": 1, "reduce-scatter": group - 1}
                total[kind] += round(size * factors.get(kind, (group - 1) / group)) * times
        return total


def _arrays(shape: str) -> tuple[Array, ...]:
    return tuple(
        Array(match["type"], tuple(int(dim) for dim in match["dims"].split(",") if dim))
        for match in _ARRAY.finditer(shape)
    )


def _called(rest: str) -> list[str]:
    branches = _BRANCHES.search(rest)
    names = [name.strip().lstrip("%") for name in branches[1].split(",")] if branches else []
    return _CALLED.findall(rest) + names


def _group_size(rest: str, devices: int) -> int:
    """The number of devices in a collective, from any of the three notations of its groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    if product := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(product[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return devices
