"""The needs of a training step per device, and the chips that it fits on, for plan.json and the terminal."""

from dataclasses import asdict, dataclass
from typing import Any

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import parameter_counts, trainable_line
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.dry_run.chips import CHIPS, GIB, Chip
from jaxprefix.train.dry_run.limits import SHARE, LeastTime, Work, least_time

MORE = 8  # compare with this multiple of the rows and of the length, large enough to see the growth
LENGTHS = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Bytes:
    """The bytes on each device."""

    weights: int
    adapter: int
    optimizer: int
    temporary: int

    @property
    def between_steps(self) -> int:
        """The bytes that stay allocated between steps."""
        return self.weights + self.adapter + self.optimizer

    @property
    def total(self) -> int:
        return self.between_steps + self.temporary


@dataclass(frozen=True)
class Growth:
    """Temporary bytes on a device: `rest` + tokens of its micro-batch × (`token` + `square` × length of their rows)."""

    rest: float
    token: float
    square: float

    @classmethod
    def fit(cls, tokens: int, length: int, once: int, more_rows: int, longer: int, least: int = 1) -> "Growth":
        """Fits the bytes for `tokens` in rows of `length`, for MORE times the rows, and for MORE times the length.

        A token takes at least `least` bytes. A few tokens may not show beside the weights of one layer.
        """
        square = max((longer - more_rows) / (MORE * (MORE - 1) * tokens * length), 0)
        token = max((more_rows - once) / ((MORE - 1) * tokens) - square * length, least)
        return cls(max(once - tokens * (token + square * length), 0), token, square)

    def rows(self, free: float, length: int) -> int:
        """The number of rows of this length that fit into `free` bytes."""
        return max(int((free - self.rest) / (length * (self.token + self.square * length))), 0)

    def times(self, factor: float) -> "Growth":
        return Growth(factor * self.rest, factor * self.token, factor * self.square)


@dataclass(frozen=True)
class Estimate:
    """The needs of one step of a run on its mesh."""

    config: RunConfig
    sizes: DecoderConfig
    bytes: Bytes
    growth: Growth
    flops: int  # per device and step
    weight_reads: float  # bytes per device and step
    collectives: dict[str, int]  # bytes received per device and step
    topology: str | None  # the TPU slice that it was compiled for; None for an estimate on CPU
    estimated: str | None  # the reason for an estimate
    seconds: float

    @property
    def mesh(self) -> tuple[int, int]:
        return meshes.parse_mesh(self.config.mesh or "1x1")

    @property
    def flops_per_token(self) -> float:
        data, model = self.mesh
        return self.flops * data * model / (self.config.batch * self.config.max_length)

    def fits(self, chip: Chip) -> bool:
        return self.bytes.total <= chip.usable

    def rows(self, chip: Chip, length: int) -> int:
        """The approximate number of rows of this length that a micro-batch can have."""
        return self.mesh[0] * self.growth.rows(chip.usable - self.bytes.between_steps, length)

    def least_time(self, chip: Chip) -> LeastTime:
        """The least time of a step. The adapter and the state of the optimizer are read and written."""
        moved = self.weight_reads + 2 * (self.bytes.adapter + self.bytes.optimizer)
        return least_time(chip, Work(self.flops, moved, sum(self.collectives.values())))

    def tokens_per_second(self, chip: Chip) -> float:
        """The tokens per second on the whole mesh in the least time."""
        return self.config.batch * self.config.max_length / self.least_time(chip).seconds

    def as_json(self) -> dict[str, Any]:
        trainable, total = parameter_counts(self.sizes, self.config.adapter)
        return {
            "trainable_parameters": trainable,
            "total_parameters": total,
            "per_device_bytes": asdict(self.bytes),
            "flops_per_token": round(self.flops_per_token),
            "collective_bytes": self.collectives,
            "basis": "tpu-compile" if self.topology else "cpu-estimate",
            "topology": self.topology,
            "fits": {name: self.fits(chip) for name, chip in CHIPS.items()},
            "rows": {name: {length: self.rows(chip, length) for length in LENGTHS} for name, chip in CHIPS.items()},
            "least_step": {name: self._least_json(chip) for name, chip in CHIPS.items()},
            "config": self.config.as_json(),
        }

    def _least_json(self, chip: Chip) -> dict[str, Any]:
        least = self.least_time(chip)
        figures = {"seconds": least.seconds, "bound": least.bound, "tokens_per_second": self.tokens_per_second(chip)}
        return figures | asdict(least)

    def __str__(self) -> str:
        config = self.config
        basis = (
            f"compiled for {self.topology}"
            if self.topology
            else f"estimated by the compiler for CPUs; {self.estimated}"
        )
        used = {kind: size for kind, size in self.collectives.items() if size}
        lines = [
            trainable_line(self.sizes, config.adapter),
            f"step: {config.batch} rows of {config.max_length} tokens, all learnt, on {config.mesh}; micro-batches "
            f"{config.accumulate}, base {config.dtype}, remat {config.remat}",
            f"memory per device ({basis}):",
            *(f"  {name:<10} {_gib(size)}" for name, size in asdict(self.bytes).items()),
            f"  {'total':<10} {_gib(self.bytes.total)}",
            f"matrix products: {self.flops_per_token / 1e9:,.3g} GFLOP per token",
            "collectives, received per device and step: "
            + (", ".join(f"{kind} {_gib(size)}" for kind, size in used.items()) or "none"),
            f"{'chip':<9}{'usable':>10}  fits  rows of a micro-batch that fit (approximately), by length",
            f"{'':<25}  {''.join(f'{length:>8,}' for length in LENGTHS)}",
            *(self._line(chip) for chip in CHIPS.values()),
            "least time of a step at the makers' rates, of products in bfloat16, memory and links; activations are not "
            "counted",
            f"{'chip':<9}{'products':>11}{'memory':>11}{'collectives':>13}  {'bound by':<11}  "
            f"tokens/s on {config.mesh}, and at {SHARE:.0%} of that rate",
            *(self._least_line(chip) for chip in CHIPS.values()),
            f"took {self.seconds:.0f} s",
        ]
        return "\n".join(lines)

    def _line(self, chip: Chip) -> str:
        fitting = "".join(f"{self.rows(chip, length):>8,}" for length in LENGTHS)
        return f"{chip.name:<9}{_gib(chip.usable):>10}  {'yes' if self.fits(chip) else 'no':<4}  {fitting}"

    def _least_line(self, chip: Chip) -> str:
        least, tokens = self.least_time(chip), self.tokens_per_second(chip)
        times = f"{_seconds(least.products):>11}{_seconds(least.memory):>11}{_seconds(least.collectives):>13}"
        return f"{chip.name:<9}{times}  {least.bound:<11}  {tokens:,.0f}, {SHARE * tokens:,.0f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"
