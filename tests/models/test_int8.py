"""A base in eight bits computes with its integers times their scales, and is near the original."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from published import LLAMA_31_8B

from benchmarks.decoding import generate
from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import adapter_init, decoder, int8, loading
from jaxprefix.models.adapters import IA3, Adapter, BottleneckAdapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.models.parameters import PROJECTIONS
from jaxprefix.runs.base_model import frozen_shapes, load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.dry_run import dry_run
from jaxprefix.train.dry_run.chips import CHIPS

METHODS = [
    PrefixTuning(length=4),
    LlamaAdapter(length=4),
    SoftPrompt(length=4),
    LoRA(),
    BottleneckAdapter(size=4),
    IA3(),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_base(str(small.write_model(tmp_path_factory.mktemp("model"), scale=5)))


@pytest.fixture(scope="module")
def frozen(base: Any) -> Any:
    return load_weights(base, meshes.make_mesh("1x1"), "int8")


def wide(frozen: Any) -> Any:
    """The same weights in float32."""
    layers = dict(frozen["layers"])
    for name in PROJECTIONS:
        scale = layers.pop(f"{name}_scale")
        layers[name] = layers[name] * scale.reshape(*scale.shape, *[1] * (layers[name].ndim - scale.ndim))
    return frozen | {"layers": layers}


def batch() -> Batch:
    tokens = jnp.asarray(np.random.default_rng(0).integers(2, 500, (2, 12)))
    return Batch(tokens, jnp.broadcast_to(jnp.arange(12), (2, 12)))


def test_each_weight_is_rounded_to_its_nearest(base: Any, frozen: Any):
    whole = loading.load(base.directory, base.config)
    for name in PROJECTIONS:
        numbers, scale = np.asarray(frozen["layers"][name]), np.asarray(frozen["layers"][f"{name}_scale"])
        assert numbers.dtype == np.int8 and scale.dtype == np.float32
        inputs = tuple(range(scale.ndim, numbers.ndim))
        assert (np.abs(numbers.astype(int)).max(axis=inputs) == 127).all()  # every output has its own scale
        off = np.abs(np.asarray(wide(frozen)["layers"][name]) - np.asarray(whole["layers"][name])).max(axis=inputs)
        assert (off <= scale / 2 * 1.0001).all()
    np.testing.assert_array_equal(frozen["embed_tokens"], whole["embed_tokens"])


@pytest.mark.parametrize(
    "adapter",
    [*METHODS[:1], *(pytest.param(each, marks=pytest.mark.slow) for each in METHODS[1:])],
    ids=lambda adapter: type(adapter).__name__,
)
def test_it_computes_what_its_numbers_mean(base: Any, frozen: Any, adapter: Adapter):
    """Log-probabilities and the adapter's gradients, in float32: 1e-5 of what the wide weights give."""
    params = adapter_init.init_params(
        adapter, jax.random.key(0), base.config, frozen, lambda _, length: list(range(2, 2 + length))
    )
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)  # gates and B matrices start at zero

    @jax.jit
    def loss(params: Any, frozen: Any) -> Any:
        weights, hooks = adapter.bind(base.config, params, frozen)
        states = decoder.hidden_states(base.config, weights, batch(), hooks)
        return -jnp.mean(decoder.token_logprobs(weights, states[:, :-1], batch().tokens[:, 1:]))

    one, gradients = jax.value_and_grad(loss)(params, frozen)
    other, expected = jax.value_and_grad(loss)(params, wide(frozen))
    assert abs(one - other) < 1e-5
    for mine, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_it_generates_what_its_numbers_mean(base: Any, frozen: Any):
    adapter, found = PrefixTuning(length=4, start="random", std=0.5), []
    jitted = jax.jit(generate, static_argnums=(0, 4, 5))
    params = adapter.init(jax.random.key(1), base.config, frozen)
    for tree in (frozen, wide(frozen)):
        weights, hooks = adapter.bind(base.config, params, tree)
        found.append(jitted(base.config, weights, batch(), hooks, 10, (10**6,))[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("mesh", ["4x2", "2x4", "8x1"])
def test_a_mesh_loads_the_same_numbers(base: Any, frozen: Any, mesh: str):
    """Also if the two key heads do not divide, and if a device has only a part of the inputs."""
    sharded = load_weights(base, meshes.make_mesh(mesh), "int8")
    jax.tree.map(np.testing.assert_array_equal, sharded, frozen)
    parts = [shard.data.size for shard in sharded["layers"]["down_proj"].addressable_shards]
    assert parts == [frozen["layers"]["down_proj"].size // 8] * 8


def test_outputs_of_zeros():
    weight = np.zeros((3, 4), np.float32)
    weight[1, 2] = -2.54
    scale = int8.scales(weight)
    np.testing.assert_allclose(scale, [1, 0.02, 1])
    assert int8.quantize(weight, scale).tolist() == [[0] * 4, [0, 0, -127, 0], [0] * 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "full"}, "--dtype int8 is for frozen weights, but --method full"),
        (
            {"remat": "none"},
            "--dtype int8 with --remat none would also keep every layer",
        ),
    ],
)
def test_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError) as raised:
        RunConfig(dtype="int8", **changes).check()
    assert message in str(raised.value)


@pytest.mark.slow
def test_eight_billion_on_a_chip_of_16_gb(tmp_path: Path):
    """Llama 3.1 8B, a batch of 16 × 512 in micro-batches of one row; in 16 bits it does not fit."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B))
    settings: dict[str, Any] = {"model": str(tmp_path), "task": "squad", "remat": "full", "accumulate": 16}
    assert dry_run(RunConfig(dtype="int8", **settings), None, None).fits(CHIPS["v5e"])
    assert not dry_run(RunConfig(**settings), None, None).fits(CHIPS["v5e"])


def test_it_takes_half_the_memory():
    config = DecoderConfig.parse(small.SIZES)
    sizes = {dtype: held(frozen_shapes(config, dtype, on_cpu=False)["layers"]) for dtype in ("bfloat16", "int8")}
    assert sizes["int8"] < 0.6 * sizes["bfloat16"]


def held(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
