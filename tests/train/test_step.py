"""The training step: the mean over all learnt tokens, updates of the adapter alone, and equal results on any mesh."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
from jax.sharding import Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, FullFineTuning, LoRA, PrefixTuning, Sum
from jaxprefix.runs.base_model import BaseModel, init_token_ids, load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train import optimizer as optimizers
from jaxprefix.train.batches import TrainBatch, buckets, collate
from jaxprefix.train.programs import TrainPrograms
from jaxprefix.train.step import State, train_step

PREFIX = PrefixTuning(length=5, layers="1:3", start="random", std=0.5)
METHODS: dict[str, tuple[Adapter, float]] = {  # with a learning rate that moves a random model within a few steps
    "prefix+lora": (Sum((("prefix", PREFIX), ("lora", LoRA()))), 0.03),
    "full": (FullFineTuning(), 0.003),
}
STEPS = 5
ROW_COUNT = 8
# The micro-batches of two rows have different numbers of learnt tokens.
LENGTHS = [(20, 1), (3, 2), (30, 12), (8, 9), (25, 1), (2, 1), (11, 6), (17, 7)]


@dataclass(frozen=True)
class Setting:
    base: BaseModel
    frozen: Any
    rows: list[Encoded]

    def batch(self, accumulate: int = 1) -> TrainBatch:
        return collate(self.rows, buckets(self.rows)[-1], ROW_COUNT, pad=0, accumulate=accumulate)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    base = open_base(str(small.write_model(tmp_path_factory.mktemp("model"), scale=5)))
    random = np.random.default_rng(3)
    rows = [
        Encoded(random.integers(2, 500, prompt).tolist(), random.integers(2, 500, response).tolist(), cut=False)
        for prompt, response in LENGTHS
    ]
    return Setting(base, load_weights(base, meshes.make_mesh("1x1"), "float32"), rows)


@dataclass(frozen=True)
class Trained:
    """States and metrics of a few steps on one batch; `frozen` is a digest before and after."""

    states: list[State]
    metrics: list[dict[str, Any]]
    frozen: tuple[str, str]


@pytest.fixture(scope="module", params=["prefix+lora", pytest.param("full", marks=pytest.mark.slow)])
def steps(request: pytest.FixtureRequest, setting: Setting) -> dict[int, Trained]:
    """The same steps in one micro-batch and in four."""
    (adapter, rate), found = METHODS[request.param], {}
    optimizer = optimizers.adamw(optax.constant_schedule(rate), weight_decay=0.02, clip=1.0)
    params = jax.jit(adapter.init, static_argnums=1)(jax.random.key(0), setting.base.config, setting.frozen)
    for accumulate in (1, 4):
        step = jax.jit(train_step(setting.base.config, adapter, optimizer, "dots", jax.random.key(0)))
        states, metrics, untouched = [State(params, optimizer.init(params), jnp.int32(0))], [], digest(setting.frozen)
        for _ in range(STEPS):
            state, figures = step(states[-1], setting.frozen, setting.batch(accumulate))
            states.append(state)
            metrics.append(jax.device_get(figures))
        found[accumulate] = Trained(states, metrics, (untouched, digest(setting.frozen)))
    return found


def digest(tree: Any) -> str:
    """Of the bytes of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return hashlib.sha256(b"".join(str(path).encode() + leaf.tobytes() for path, leaf in leaves)).hexdigest()


def test_the_loss_is_the_mean_over_learnt_tokens(
    setting: Setting, steps: dict[int, Trained], request: pytest.FixtureRequest
):
    """All tokens count equally; here from the full logits of one row at a time, without padding, in float64."""
    adapter = METHODS[request.node.callspec.params["steps"]][0]
    params, learnt = steps[4].states[0].params, sum(response for _, response in LENGTHS)

    @jax.jit
    def logits(tokens: jax.Array) -> jax.Array:
        weights, hooks = adapter.bind(setting.base.config, params, setting.frozen)
        rows = decoder.Batch(tokens[None], jnp.arange(len(tokens))[None])
        return decoder.logits(weights, decoder.hidden_states(setting.base.config, weights, rows, hooks))[0]

    total = 0.0
    for row in setting.rows:
        ids = np.array(row.prompt + row.response)
        padded = np.pad(ids, (0, 48 - len(ids)))  # after the text, which does not attend to it: one compilation
        scores = np.asarray(logits(jnp.array(padded)), np.float64)
        logprobs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        total -= sum(logprobs[place - 1, ids[place]] for place in range(len(row.prompt), len(ids)))
    assert steps[4].metrics[0]["tokens"] == learnt == 39
    assert steps[4].metrics[0]["loss"] == pytest.approx(total / learnt, rel=1e-6)
    shares = np.array([len(row.response) for row in setting.rows]).reshape(4, 2).sum(1)
    assert len(set(shares)) == 4  # a mean of the micro-batches' means would be another number


def test_micro_batches_make_the_same_step(steps: dict[int, Trained]):
    """Also with unequal numbers of learnt tokens: the parameters after the step agree to 1e-6."""
    for figure in ("loss", "gradient_norm", "tokens"):
        assert steps[1].metrics[0][figure] == pytest.approx(steps[4].metrics[0][figure], rel=1e-5)
    before, whole, split = steps[1].states[0], steps[1].states[1], steps[4].states[1]
    moved = jax.tree.map(lambda old, new: np.abs(new - old).max(), before.params, whole.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    moments = whole.optimizer[1][0].mu
    for one, other, moment in zip(*map(jax.tree.leaves, (whole.params, split.params, moments)), strict=True):
        # AdamW divides a gradient by its own size: where that is rounding, so is the update's direction.
        sure = (np.abs(moment) > 1e-7) | (moment == 0)
        assert sure.mean() > 0.9
        np.testing.assert_allclose(one[sure], other[sure], rtol=0, atol=1e-6)


def test_the_base_stays_and_the_adapter_learns(steps: dict[int, Trained], setting: Setting):
    """Every byte of the frozen weights, also for `full`, whose parameters start as their copy."""
    for found in steps.values():
        assert found.frozen[0] == found.frozen[1] == digest(setting.frozen)
        assert digest(found.states[0].params) != digest(found.states[-1].params)
        assert found.metrics[-1]["loss"] < found.metrics[0]["loss"] - 0.05


@dataclass(frozen=True)
class OnMesh:
    """The result of a few steps of a run on a mesh."""

    losses: list[float]
    state: State
    frozen: Any
    mesh: Mesh


def trained(setting: Setting, method: str, mesh: str, steps: int = 8) -> OnMesh:
    config = RunConfig(
        method=method,
        mesh=mesh,
        batch=ROW_COUNT,
        steps=steps,
        lr={"full": METHODS["full"][1], "llama-adapter": 0.3}.get(method, METHODS["prefix+lora"][1]),  # its gate opens
        prefix=PREFIX,
        dtype="float32",
    )
    made = meshes.make_mesh(mesh)
    frozen = load_weights(setting.base, made, config.dtype)
    tokens = init_token_ids(setting.base.tokenizer, config.seed)
    programs = TrainPrograms(config, setting.base.config, made, frozen, tokens, steps)
    batch = jax.device_put(setting.batch(), meshes.batch_sharding(made, dim=1))
    state, losses, untouched = programs.init(frozen), [], digest(frozen)
    for _ in range(steps):
        state, metrics = programs.step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert programs.step.compilations == 1 and digest(frozen) == untouched
    return OnMesh(losses, state, frozen, made)


EVERY_MESH = ("4x2", "8x1", "2x4")
SLOW = [
    pytest.param(method, EVERY_MESH, marks=pytest.mark.slow)
    for method in ("prefix+lora", "prefix", "llama-adapter", "soft-prompt", "lora", "bottleneck")
]


@pytest.mark.parametrize(("method", "others"), [("prefix+lora", ("4x2",)), *SLOW])
def test_losses_do_not_depend_on_the_mesh(setting: Setting, method: str, others: tuple[str, ...]):
    """Eight steps as on one device, up to rounding: the largest measured difference was 1e-6 of 6.2."""
    alone = trained(setting, method, "1x1").losses
    assert alone[-1] < alone[0] - 0.05  # the loss changes, otherwise any mesh would pass
    for mesh in others:
        spread = trained(setting, method, mesh)
        print(
            f"{method} {mesh}: largest difference {np.abs(np.subtract(spread.losses, alone)).max():.1e}"
        )  # pytest -rP
        np.testing.assert_allclose(spread.losses, alone, rtol=0, atol=5e-6)
        assert_sharded(spread)


def assert_sharded(spread: OnMesh) -> None:
    """Each of eight devices holds an eighth of every matrix; the adapter and its moments are replicated."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(spread.frozen):
        parts = [shard.data.size for shard in leaf.addressable_shards]
        whole = "norm" in path[-1].key
        assert parts == [leaf.size if whole else leaf.size // 8] * 8, path
        assert len({str(shard.index) for shard in leaf.addressable_shards}) == (1 if whole else 8), path
    layers, shape = spread.frozen["layers"], dict(spread.mesh.shape)
    down = layers["down_proj"].addressable_shards[0].data.shape
    assert down == (3, 32 // shape["data"], 64 // shape["model"])
    for leaf in jax.tree.leaves((spread.state.params, spread.state.optimizer)):
        assert [shard.data.shape for shard in leaf.addressable_shards] == [leaf.shape] * 8


def test_full_fine_tuning_shards_what_it_learns(setting: Setting):
    """Its parameters and moments are sharded as the weights are: a copy on every device would not fit."""
    spread = trained(setting, "full", "4x2", steps=1)
    moments: Any = spread.state.optimizer[1]
    for tree in (spread.state.params, moments[0].mu, moments[0].nu):
        same = jax.tree.map(lambda leaf, base: leaf.sharding == base.sharding, tree, spread.frozen)
        assert all(jax.tree.leaves(same))


def test_full_fine_tuning_starts_from_a_copy(setting: Setting):
    """A training loop donates its buffers; the base survives, even if it is float32 already."""
    params = FullFineTuning().init(jax.random.key(0), setting.base.config, setting.frozen)
    assert digest(params) == digest(setting.frozen)
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(setting.frozen))


def test_the_base_on_disk_stays(setting: Setting, tmp_path: Path):
    assert open_base(str(setting.base.directory)).fingerprint == setting.base.fingerprint
