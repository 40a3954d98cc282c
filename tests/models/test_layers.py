"""Weights of layers in stacks and in tuples: the same numbers, from disk to answers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

import jaxprefix
from benchmarks import decoding
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, FullFineTuning, LlamaAdapter, LoRA, PrefixTuning
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.layers import stack, unstack
from jaxprefix.runs.base_model import frozen_shapes, load_weights, open_base

WIDE = replace(tiny.CONFIG, hidden_size=128, intermediate_size=256, layers=8)  # its weights exceed its activations
METHODS = [
    PrefixTuning(3, "1:3"),
    PrefixTuning(3, softmax="split"),
    LlamaAdapter(3, "top:2"),
    LoRA(2),
    LoRA(2, dora=True),
    FullFineTuning(),
]


@pytest.mark.parametrize("adapter", METHODS, ids=str)
def test_a_loop_over_arrays_computes_what_the_scan_computes(adapter: Adapter):
    params = tiny.noisy(adapter, 0.1)

    def states(frozen: Any) -> jax.Array:
        weights, hooks = adapter.bind(tiny.CONFIG, params, frozen)
        return decoder.hidden_states(tiny.CONFIG, weights, tiny.batch(), hooks, token_indices=jnp.array([[3, 5]] * 2))

    scanned, unrolled = jax.jit(states)(tiny.FROZEN), jax.jit(states)(unstack(tiny.FROZEN))
    np.testing.assert_allclose(scanned, unrolled, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "mesh"), [("float32", "1x1"), ("bfloat16", "4x2"), ("int8", "1x1"), ("int8", "2x2")])
def test_both_forms_are_loaded_alike(tmp_path: Path, dtype: str, mesh: str):
    base, made = open_base(str(small.write_model(tmp_path / "model"))), meshes.make_mesh(mesh)
    stacked, apart = load_weights(base, made, dtype), load_weights(base, made, dtype, for_inference=True)
    for name, weight in stacked["layers"].items():
        assert isinstance(apart["layers"][name], tuple) and len(apart["layers"][name]) == base.config.layers
        np.testing.assert_array_equal(weight, stack(apart["layers"][name]))
        shares = [part.addressable_shards[0].data.size for part in apart["layers"][name]]
        assert sum(shares) == weight.addressable_shards[0].data.size, name


def test_int8_weights_are_never_all_converted_at_once():
    """A scheduler that converts the weights of all layers before the first layer needs several times the memory."""
    shapes = jax.eval_shape(unstack, frozen_shapes(WIDE, "int8", on_cpu=True))
    batch = decoder.Batch.right_padded(jnp.zeros((1, 8), jnp.int32), jnp.full(1, 8))

    def generate(frozen: Any) -> Any:
        return decoding.generate(WIDE, frozen, batch, Hooks(), 8, ends=(1,))

    memory = jax.jit(generate).lower(shapes).compile().memory_analysis()
    projections = sum(leaf.size for leaf in jax.tree.leaves(shapes["layers"]) if leaf.dtype == jnp.int8)
    assert memory is not None and memory.temp_size_in_bytes < 4 * projections / 3


def test_a_language_model_keeps_one_form_at_a_time():
    """It converts the weights when it answers after training, and back; the numbers stay."""
    model = jaxprefix.load_model(dtype="float32", mesh="1x1")
    before = {name: np.asarray(weight) for name, weight in model.frozen["layers"].items()}
    answer = model.generate("Who is here?", max_new_tokens=4)
    held = model._frozen["layers"]
    assert all(isinstance(weight, tuple) for weight in held.values())
    after = model.frozen["layers"]
    assert not any(isinstance(weight, tuple) for weight in held.values())
    for name, weight in before.items():
        np.testing.assert_array_equal(weight, after[name])
    assert model.generate("Who is here?", max_new_tokens=4) == answer


def test_a_step_of_generation_copies_neither_caches_nor_adapters():
    """The loop over tokens of the compiled program: each step would copy the cache of every layer, if it were written
    before it is read, and slice every layer's adapters from their stack.
    """
    config, adapter, rows = replace(tiny.CONFIG, layers=2), LoRA(5, targets="q,down"), 6
    params = jax.eval_shape(lambda: adapter.init(jax.random.key(0), config, decoder.init(jax.random.key(0), config)))
    several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), params)
    batch = decoder.Batch.right_padded(jnp.zeros((rows, 21), jnp.int32), jnp.full(rows, 21))

    def generate(frozen: Any, params: Any, ids: jax.Array) -> Any:
        weights, hooks = adapter.bind(config, params, frozen, adapter_ids=ids)
        return decoding.generate(config, weights, batch, hooks, 9, ends=(1,))

    shapes = jax.eval_shape(unstack, decoder.shapes(config))
    text = jax.jit(generate).lower(shapes, several, jnp.zeros(rows, jnp.int32)).compile().as_text()
    assert text is not None
    bodies = re.findall(r"body=%([\w.\-]+)", text)
    loops = "".join(part for part in re.split(r"\n(?=%|ENTRY)", text) if part[1:].startswith(tuple(bodies)))
    slots = 21 + 9 - 1
    for size in ((config.head_size, slots), (slots, config.head_size)):
        cache = f"f32[{rows},{config.kv_heads},{size[0]},{size[1]}]"
        assert cache in loops and not re.search(rf"= {re.escape(cache)}\S* copy\(", loops)
    for _, layers, *shape in (leaf.shape for leaf in jax.tree.leaves(several)):
        for leading in (layers, rows), (layers, 3):
            assert f"f32[{','.join(map(str, (*leading, *shape)))}]" not in loops
