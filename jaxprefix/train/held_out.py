"""The held-out loss of the adapter during training and, before the first step, of the frozen base."""

from collections.abc import Iterator, Sequence

import jax
from jax.sharding import Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models.adapters import Adapter, NoAdapter, Sum
from jaxprefix.models.decoder import Frozen
from jaxprefix.models.hooks import Params
from jaxprefix.runs.base_model import BaseModel
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.loaded import Loaded
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train.batches import TrainBatch, buckets, collate, epoch
from jaxprefix.train.programs import CompiledByShape
from jaxprefix.train.step import held_out_loss

HARMFUL = 2  # warn if a fresh adapter has more than this multiple of the base's loss


class HeldOutLoss:
    """(params, frozen) -> the mean -log p over the learnt tokens of the rows, with the adapter of `config`."""

    def __init__(
        self, rows: Sequence[Encoded], config: RunConfig, base: BaseModel, mesh: Mesh, loaded: Loaded | None = None
    ) -> None:
        self.rows, self.config, self.base, self.mesh, self.loaded = rows, config, base, mesh, loaded or Loaded()
        score = jax.jit(
            meshes.with_mesh(mesh, held_out_loss(base.config, config.adapter)), out_shardings=meshes.replicated(mesh)
        )
        key = ("held-out loss", base.config, mesh, config.adapter, config.dtype)
        self.score = CompiledByShape(score, self.loaded.program(key, dict))

    def __call__(self, params: Params, frozen: Frozen) -> float:
        total = count = 0.0
        for batch in self._batches():
            loss, learned = self.score(params, frozen, meshes.shard_batch(self.mesh, batch, dim=1))
            total, count = total + float(loss), count + float(learned)
        return total / count

    def start(self, params: Params, frozen: Frozen) -> tuple[float, float]:
        """The losses of the fresh adapter and of the frozen base."""
        fresh = self(params, frozen)
        if self.config.adapter.starts_as_base:
            return fresh, fresh
        base_config = self.config.with_adapter(NoAdapter())
        return fresh, HeldOutLoss(self.rows, base_config, self.base, self.mesh, self.loaded)({}, frozen)

    def _batches(self) -> Iterator[TrainBatch]:
        """The batches of the rows, always in the same order."""
        size = self.config.batch // self.config.accumulate
        for bucket, indices in sorted(epoch(self.rows, buckets(self.rows), size, 0, 0), key=lambda step: step[1]):
            yield collate([self.rows[index] for index in indices], bucket, size, self.base.tokenizer.pad)


def warn_of_harm(adapter: Adapter, fresh: float, base: float) -> None:
    """Prints a warning if the fresh adapter's loss is far above the base's."""
    if adapter.starts_as_base or fresh <= HARMFUL * base:
        return
    members = [member for _, member in adapter.members] if isinstance(adapter, Sum) else [adapter]
    flags = [f"--{member.method}" for member in members if not member.starts_as_base]  # type: ignore[attr-defined]
    advice = " and ".join(f"another {flag}.start or a smaller {flag}.std" for flag in flags)
    print(f"warning: the fresh adapter's loss is {fresh / base:.1f} times the frozen base's; choose {advice}")
