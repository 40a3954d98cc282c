"""One batch with several adapters: with `adapter_ids`, each row has the output of its own adapter alone."""

from typing import Any

import every
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import decoder, int8, sharding
from jaxprefix.models.adapters import IA3, Adapter, BottleneckAdapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt, Sum
from jaxprefix.models.parameters import PROJECTIONS, input_dims

PREFIXES = {
    f"{source} {softmax} mlp {mlp}": PrefixTuning(3, "1:3", source, softmax, mlp=mlp)
    for source in ("hidden", "kv")
    for softmax in ("joint", "split")
    for mlp in (0, 5)
}
GATED = {f"gate of a {gate}": LlamaAdapter(3, "top:3", gate) for gate in ("head", "layer")}
SOFT = every.SOFT
SUMS: dict[str, Adapter] = {
    "prefix+soft-prompt": Sum((("prefix", PrefixTuning(3, "top:1")), ("soft-prompt", SOFT))),
    "prefix+llama-adapter": Sum((("prefix", PrefixTuning(3, "all")), ("llama-adapter", LlamaAdapter(2)))),
    "all three": Sum(
        (("soft-prompt", SOFT), ("prefix", PrefixTuning(3, "1:3", "kv", mlp=5)), ("llama-adapter", LlamaAdapter(2)))
    ),
}
SMALL: dict[str, Adapter] = {
    "lora": LoRA(2, targets=every.ALL_SEVEN),
    "dora": LoRA(2, targets=every.ALL_SEVEN, dora=True),
    "pfeiffer": BottleneckAdapter(3),
    "houlsby": BottleneckAdapter(3, "houlsby"),
    "lora+bottleneck": Sum((("lora", LoRA(2)), ("bottleneck", BottleneckAdapter(3, "houlsby")))),
    "ia3": IA3(every.ALL_SEVEN),
    "all at once": every.ALL_AT_ONCE,
}
CASES: dict[str, Adapter] = PREFIXES | GATED | {"soft-prompt": SoftPrompt(3, start="random")} | SUMS | SMALL


@pytest.mark.parametrize("name", CASES)
def test_each_row_has_its_own_adapter(name: str):
    adapter: Any = CASES[name]
    several = tiny.several(adapter, 3)
    found = tiny.adapted(adapter, tiny.together(several), adapter_ids=jnp.array([2, 0]))
    for row, chosen in enumerate((2, 0)):
        real = tiny.REAL[row]
        alone = tiny.adapted(adapter, several[chosen])[row]
        np.testing.assert_allclose(found[row][real], alone[real], rtol=0, atol=5e-5)
        for other in {0, 1, 2} - {chosen}:
            assert np.abs(tiny.adapted(adapter, several[other])[row] - alone)[real].max() > 0.1


EIGHT = 8
IDS = np.array([3, 0, 7, 5, 1, 6, 2, 4])
ROWS = tiny.batch(
    np.random.default_rng(3).integers(0, tiny.CONFIG.vocabulary_size, (EIGHT, 12)), np.tile(np.arange(12), (EIGHT, 1))
)


def quantized(frozen: Any) -> Any:
    """The weights with int8 projections."""
    layers = dict(frozen["layers"])
    for name in layers.keys() & set(PROJECTIONS):
        weight = np.asarray(layers[name])
        outputs = weight.shape[: -input_dims(name)]
        scale = int8.scales(weight.reshape(np.prod(outputs), -1)).reshape(outputs)
        layers |= {name: jnp.asarray(int8.quantize(weight, scale)), int8.scale_name(name): jnp.asarray(scale)}
    return frozen | {"layers": layers}


def run(adapter: Adapter, params: Any, frozen: Any, ids: Any = None) -> Any:
    weights, hooks = adapter.bind(tiny.CONFIG, params, frozen, adapter_ids=ids)
    return decoder.logits(weights, decoder.hidden_states(tiny.CONFIG, weights, ROWS, hooks))


ALONE = jax.jit(run, static_argnums=0)
MESHED: dict[str, Adapter] = {name: SMALL[name] for name in ("lora", "dora", "houlsby", "ia3", "lora+bottleneck")}


MIXED = ("1x1", "int8"), ("4x2", "float32")


@pytest.mark.parametrize(
    ("mesh", "base"),
    [("1x1", "float32"), ("4x2", "int8"), *(pytest.param(*each, marks=pytest.mark.slow) for each in MIXED)],
)
@pytest.mark.parametrize("name", MESHED)
def test_eight_rows_with_eight_adapters_are_each_alone(name: str, mesh: str, base: str):
    """To 1e-6 of the largest logit, on one device; to rounding on a mesh, whose sums have another order."""
    adapter, frozen = MESHED[name], tiny.FROZEN if base == "float32" else quantized(tiny.FROZEN)
    several = [tiny.noisy(adapter, 0.1, seed=100 * number) for number in range(EIGHT)]
    devices = meshes.make_mesh(mesh)
    program = jax.jit(meshes.with_mesh(devices, lambda *values: run(adapter, *values)))
    placed = jax.device_put(frozen, sharding.param_shardings(devices, frozen))
    ids = jax.device_put(IDS, meshes.batch_sharding(devices))
    found = np.asarray(program(tiny.together(several), placed, ids))
    alone = np.stack([ALONE(adapter, several[chosen], frozen)[row] for row, chosen in enumerate(IDS)])
    off = np.abs(found - alone).max() / np.abs(alone).max()
    assert off < (1e-6 if mesh == "1x1" else 1e-5)
    wrong = ALONE(adapter, several[0], frozen)
    assert np.abs(wrong - alone).max(axis=(1, 2))[IDS != 0].min() > 0.01 * np.abs(alone).max()


@pytest.mark.parametrize(("name", "size"), [("lora", 2), ("houlsby", 3)])
def test_a_device_has_the_weights_of_its_own_rows_only(name: str, size: int):
    """Eight rows on 8x1: the compiled program has the weights of one row, and nowhere those of all eight."""
    adapter: Any = MESHED[name]
    devices = meshes.make_mesh("8x1")
    params = tiny.together([tiny.noisy(adapter, seed=number) for number in range(3)])
    program = jax.jit(meshes.with_mesh(devices, lambda *values: run(adapter, *values)))
    ids = jax.device_put(IDS % 3, meshes.batch_sharding(devices))
    frozen = jax.device_put(tiny.FROZEN, sharding.param_shardings(devices, tiny.FROZEN))
    text = program.lower(params, frozen, ids).compile().as_text()
    layers, width = tiny.CONFIG.layers, tiny.CONFIG.hidden_size
    assert f"f32[{layers},1,{size},{width}]" in text
    for whole in (f"[{layers},8,{size},{width}]", f"[8,{size},{width}]", f"[1,8,{size},{width}]"):
        assert f"f32{whole}" not in text
