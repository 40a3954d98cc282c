"""The memory of one device, read from the compiled programs of training, scoring and generation."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decoding
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import adapter_init, decoder, scoring, sharding
from jaxprefix.models.adapters import IA3, Adapter, BottleneckAdapter, FullFineTuning, LlamaAdapter, LoRA, PrefixTuning
from jaxprefix.models.config import DecoderConfig, Rope
from jaxprefix.models.layers import unstack
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import programs
from jaxprefix.train.dry_run import full_batch
from jaxprefix.train.dry_run.hlo import HloProgram

# Twelve layers, so that a stack's own eighth is larger than one layer gathered; no two sizes are alike.
SIZES = DecoderConfig(
    vocabulary_size=1536,
    hidden_size=128,
    intermediate_size=320,
    layers=12,
    heads=8,
    kv_heads=8,
    head_size=24,
    norm_epsilon=1e-5,
    rope=Rope(1e4),
    max_positions=64,
)
ROWS, LENGTH = 8, 4  # few tokens: activations are small beside a layer's weights
MESHES = ("8x1", "1x8", "4x2", "2x4")
METHODS: list[Adapter] = [
    PrefixTuning(length=5),
    LlamaAdapter(length=5),
    LoRA(targets="q,k,v,o,gate,up,down"),
    LoRA(targets="q,k,v,o,gate,up,down", dora=True),
    BottleneckAdapter(size=8),
    IA3("q,k,v,o,gate,up,down"),
    FullFineTuning(),
]


def abstract(mesh: Any, sizes: DecoderConfig = SIZES, for_inference: bool = False) -> Any:
    shapes = decoder.shapes(sizes)
    shapes = jax.eval_shape(unstack, shapes) if for_inference else shapes
    return programs.abstract(shapes, sharding.param_shardings(mesh, shapes))


def tokens(mesh: Any, *shape: int, dim: int = 0) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=meshes.batch_sharding(mesh, dim))


def prompts(mesh: Any) -> tuple[Any, Any]:
    """Ids and positions."""
    return tokens(mesh, ROWS, LENGTH), tokens(mesh, ROWS, LENGTH)


def training(mesh: Any, adapter: Adapter, sizes: DecoderConfig = SIZES) -> Any:
    config = replace(RunConfig(batch=ROWS).with_adapter(adapter), remat="dots")
    found = programs.TrainPrograms(config, sizes, mesh, abstract(mesh, sizes), lambda _, n: [0] * n, 10)
    return found.lower(full_batch(replace(config, max_length=LENGTH))).compile()


def scores(mesh: Any, adapter: Adapter) -> Any:
    params = adapter_init.abstract_params(adapter, SIZES)
    params = programs.abstract(params, sharding.param_shardings(mesh, params))

    def run(params: Any, frozen: Any, ids: Any, places: Any, choices: Any, lengths: Any) -> Any:
        weights, hooks = adapter.bind(SIZES, params, frozen)
        return scoring.choices(SIZES, weights, decoder.Batch(ids, places), hooks, choices, lengths)

    asked = (*prompts(mesh), tokens(mesh, ROWS, 8), tokens(mesh, ROWS, 3))
    return jax.jit(meshes.with_mesh(mesh, run)).lower(params, abstract(mesh, for_inference=True), *asked).compile()


def generation(mesh: Any, adapter: Adapter) -> Any:
    params = adapter_init.abstract_params(adapter, SIZES)
    params = programs.abstract(params, sharding.param_shardings(mesh, params))

    def run(params: Any, frozen: Any, ids: Any, places: Any) -> Any:
        weights, hooks = adapter.bind(SIZES, params, frozen)
        return decoding.generate(SIZES, weights, decoder.Batch(ids, places), hooks, 8, ends=(1,))

    frozen = abstract(mesh, for_inference=True)
    return jax.jit(meshes.with_mesh(mesh, run)).lower(params, frozen, *prompts(mesh)).compile()


def assert_shared(compiled: Any, mesh: Any) -> None:
    """No array is larger than a device's share of the largest stack, or than the gathered weight of one layer."""
    shapes = decoder.shapes(SIZES)
    wholes = [leaf.size for leaf in jax.tree.leaves(shapes) if leaf.size > SIZES.layers * SIZES.hidden_size]
    shares = [
        int(np.prod(place.shard_shape(leaf.shape)))
        for leaf, place in zip(
            jax.tree.leaves(shapes), jax.tree.leaves(sharding.param_shardings(mesh, shapes)), strict=True
        )
    ]
    layer = SIZES.intermediate_size * SIZES.hidden_size // mesh.shape["model"]
    limit = max(*shares, layer)
    assert limit < min(wholes) / 3
    program = HloProgram.parse(compiled.as_text())
    instructions = [each for computation in program.computations.values() for each in computation]
    found = [(array.size, each) for each in instructions for array in each.arrays]
    assert len(found) > 1000
    assert max(found, key=lambda pair: pair[0])[0] <= limit, max(found, key=lambda pair: pair[0])


QUICK = {("PrefixTuning", "4x2"), ("PrefixTuning", "8x1"), ("FullFineTuning", "4x2")}
CASES = [
    pytest.param(mesh, adapter, marks=[] if (name, mesh) in QUICK else pytest.mark.slow, id=f"{name}-{mesh}")
    for adapter in METHODS
    for mesh in MESHES
    for name in [type(adapter).__name__]
]


@pytest.mark.parametrize(("mesh", "adapter"), CASES)
def test_training_never_holds_a_whole_weight(mesh: str, adapter: Adapter):
    made = meshes.make_mesh(mesh)
    assert_shared(training(made, adapter), made)


SLOW = [pytest.param(mesh, marks=pytest.mark.slow) for mesh in ("8x1", "1x8", "2x4")]


@pytest.mark.parametrize("mesh", ["4x2", *SLOW])
@pytest.mark.parametrize("work", [scores, generation])
def test_answering_never_holds_a_whole_weight(mesh: str, work: Any):
    made = meshes.make_mesh(mesh)
    assert_shared(work(made, PrefixTuning(length=5)), made)
