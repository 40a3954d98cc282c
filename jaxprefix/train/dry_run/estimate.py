"""What a training step asks of each device, and on which chips it fits: plan.json and what the terminal shows."""

from dataclasses import asdict, dataclass
from typing import Any

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import parameter_counts, trainable_line
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.dry_run.chips import CHIPS, GIB, Chip

MORE = 8  # far enough from the run's own rows and length to see what grows
LENGTHS = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Bytes:
    """Of each device."""

    weights: int
    adapter: int
    optimizer: int
    temporary: int

    @property
    def held(self) -> int:
        """Also between steps."""
        return self.weights + self.adapter + self.optimizer

    @property
    def together(self) -> int:
        return self.held + self.temporary


@dataclass(frozen=True)
class Growth:
    """Temporary bytes of a device: at rest, for each token of its micro-batch, and for each times its row's length."""

    rest: float
    token: float
    square: float

    @classmethod
    def of(cls, tokens: int, length: int, once: int, more_rows: int, longer: int, least: int = 1) -> "Growth":
        """From the bytes at `tokens` in rows of `length`, at MORE times the rows, and at MORE times the length.

        A token takes `least` bytes: a few of them may hide behind what one layer's weights take.
        """
        square = max((longer - more_rows) / (MORE * (MORE - 1) * tokens * length), 0)
        token = max((more_rows - once) / ((MORE - 1) * tokens) - square * length, least)
        return cls(max(once - tokens * (token + square * length), 0), token, square)

    def rows(self, room: float, length: int) -> int:
        """How many rows of this length fit."""
        return max(int((room - self.rest) / (length * (self.token + self.square * length))), 0)

    def times(self, factor: float) -> "Growth":
        return Growth(factor * self.rest, factor * self.token, factor * self.square)


@dataclass(frozen=True)
class Estimate:
    """Of a run's step on its mesh."""

    config: RunConfig
    sizes: DecoderConfig
    bytes: Bytes
    growth: Growth
    flops: int  # of a device in a step
    collectives: dict[str, int]  # bytes into a device in a step
    topology: str | None  # that was compiled for; None is an estimate on CPU
    estimated: str | None  # why it is one
    seconds: float

    @property
    def mesh(self) -> tuple[int, int]:
        return meshes.parse_mesh(self.config.mesh or "1x1")

    @property
    def flops_per_token(self) -> float:
        data, model = self.mesh
        return self.flops * data * model / (self.config.batch * self.config.max_length)

    def fits(self, chip: Chip) -> bool:
        return self.bytes.together <= chip.usable

    def rows(self, chip: Chip, length: int) -> int:
        """About how many rows of this length a micro-batch may have."""
        return self.mesh[0] * self.growth.rows(chip.usable - self.bytes.held, length)

    def as_json(self) -> dict[str, Any]:
        own, total = parameter_counts(self.sizes, self.config.adapter)
        return {
            "trainable_parameters": own,
            "total_parameters": total,
            "per_device_bytes": asdict(self.bytes),
            "flops_per_token": round(self.flops_per_token),
            "collective_bytes": self.collectives,
            "basis": "tpu-compile" if self.topology else "cpu-estimate",
            "topology": self.topology,
            "fits": {name: self.fits(chip) for name, chip in CHIPS.items()},
            "rows": {name: {length: self.rows(chip, length) for length in LENGTHS} for name, chip in CHIPS.items()},
            "config": self.config.as_json(),
        }

    def __str__(self) -> str:
        config, found = self.config, self.bytes
        basis = (
            f"compiled for {self.topology}"
            if self.topology
            else f"an estimate of the compiler for CPUs; {self.estimated}"
        )
        moved = {kind: size for kind, size in self.collectives.items() if size}
        lines = [
            trainable_line(self.sizes, config.adapter),
            f"step: {config.batch} rows of {config.max_length} tokens, all learnt, on {config.mesh}; micro-batches "
            f"{config.accumulate}, base {config.dtype}, remat {config.remat}",
            f"bytes a device ({basis}):",
            *(f"  {name:<10} {_gib(size)}" for name, size in asdict(found).items()),
            f"  {'together':<10} {_gib(found.together)}",
            f"matrix products: {self.flops_per_token / 1e9:,.3g} GFLOP a token",
            "collectives, bytes into a device a step: "
            + (", ".join(f"{kind} {_gib(size)}" for kind, size in moved.items()) or "none"),
            f"{'chip':<9}{'usable':>10}  fits  rows of a micro-batch that fit, about, by length",
            f"{'':<25}  {''.join(f'{length:>8,}' for length in LENGTHS)}",
            *(self._line(chip) for chip in CHIPS.values()),
            f"took {self.seconds:.0f} s",
        ]
        return "\n".join(lines)

    def _line(self, chip: Chip) -> str:
        fitting = "".join(f"{self.rows(chip, length):>8,}" for length in LENGTHS)
        return f"{chip.name:<9}{_gib(chip.usable):>10}  {'yes' if self.fits(chip) else 'no':<4}  {fitting}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"
