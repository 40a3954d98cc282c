"""The mesh: the values of --mesh, and the sharding of every parameter, by name and without a catch-all (law 8)."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import pytest
from jax.sharding import PartitionSpec as P
from models import every, tiny

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import adapter_init, decoder, sharding
from jaxprefix.models.adapters import (
    IA3,
    METHODS,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    PrefixTuning,
    SoftPrompt,
)
from jaxprefix.models.config import DecoderConfig, Rope
from jaxprefix.models.parameters import BY_NAME

CONFIG = DecoderConfig(
    vocabulary_size=64,
    hidden_size=32,
    intermediate_size=48,
    layers=3,
    heads=8,
    kv_heads=2,
    head_size=4,
    norm_epsilon=1e-5,
    rope=Rope(1e4),
    max_positions=64,
)
SHAPES = decoder.shapes(CONFIG)


def specs(mesh: str, shapes: Any = SHAPES) -> Any:
    return jax.tree.map(lambda sharding: sharding.spec, sharding.param_shardings(meshes.make_mesh(mesh), shapes))


def leaf(name: str, *shape: int) -> Any:
    return {name: jax.ShapeDtypeStruct(shape, "float32")}


@pytest.mark.parametrize(("text", "expected"), [("4x2", (4, 2)), ("1x1", (1, 1)), ("16x4", (16, 4)), ("10x1", (10, 1))])
def test_parse(text: str, expected: tuple[int, int]):
    assert meshes.parse_mesh(text) == expected


@pytest.mark.parametrize(
    "text", ["banana", "0x2", "2x0", "-1x2", "2", "2x", "x2", "2x2x2", "2 x 2", "2X2", "02x2", "", "4x2\n"]
)
def test_parse_refuses(text: str):
    with pytest.raises(InputError) as raised:
        meshes.parse_mesh(text)
    assert str(raised.value) == f"--mesh {text!r} is not a mesh; expected DATAxMODEL, such as 4x2"


def test_make_takes_the_first_devices():
    mesh = meshes.make_mesh("2x3")
    assert mesh.axis_names == ("data", "model") and mesh.devices.shape == (2, 3)
    assert set(mesh.devices.flat) == set(jax.devices()[:6])


def test_make_without_a_mesh_takes_all_devices():
    assert meshes.make_mesh().devices.shape == (8, 1)


def test_make_refuses_what_needs_more_devices():
    with pytest.raises(InputError) as raised:
        meshes.make_mesh("3x4")
    assert str(raised.value) == "--mesh 3x4 needs 12 devices, found 8 cpu; --platform cpu emulates any mesh"


def test_shardings_of_the_weights():
    """Every weight is sharded over both axes. Norms are replicated, and the stack of layers is not divided."""
    heads, columns = P(None, "model", None, "data"), P(None, "model", "data")
    assert specs("4x2") == {
        "embed_tokens": P("model", "data"),
        "lm_head": P(("model", "data"), None),
        "norm": P(None),
        "layers": {
            "input_layernorm": P(None, None),
            "post_attention_layernorm": P(None, None),
            "q_proj": heads,
            "k_proj": heads,
            "v_proj": heads,
            "o_proj": P(None, "data", "model", None),
            "gate_proj": columns,
            "up_proj": columns,
            "down_proj": P(None, "data", "model"),
        },
    }


def test_key_heads_that_do_not_divide_are_sharded_by_their_input():
    """Two key heads cannot be divided among four devices: their input is sharded over both axes. The eight query heads
    are divided as usual.
    """
    layers = specs("2x4")["layers"]
    assert layers["k_proj"] == layers["v_proj"] == P(None, None, None, ("data", "model"))
    assert layers["q_proj"] == P(None, "model", None, "data")
    assert layers["o_proj"] == P(None, "data", "model", None)


def test_a_vocabulary_that_does_not_divide():
    """The vocabulary is sharded over `model` alone, or not at all, and the input over the remaining axes."""
    assert specs("4x2", leaf("embed_tokens", 66, 32) | leaf("lm_head", 66, 32)) == {
        "embed_tokens": P("model", "data"),
        "lm_head": P("model", "data"),
    }
    assert specs("4x2", leaf("embed_tokens", 65, 32) | leaf("lm_head", 65, 32)) == {
        "embed_tokens": P(None, ("data", "model")),
        "lm_head": P(None, ("data", "model")),
    }


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_of_the_decoder_has_a_sharding(tied: bool):
    shapes = decoder.shapes(replace(CONFIG, tied=tied))
    assert jax.tree.structure(specs("4x2", shapes)) == jax.tree.structure(shapes)


@pytest.mark.parametrize(
    "adapter",
    [
        *(PrefixTuning(source=source, mlp=mlp) for source in ("hidden", "kv") for mlp in (0, 12)),
        LlamaAdapter(),
        SoftPrompt(),
        LoRA(targets="q,k,v,o,gate,up,down"),
        BottleneckAdapter(placement="houlsby"),
        IA3("q,k,v,o,gate,up,down"),
    ],
    ids=str,
)
def test_small_adapters_are_replicated(adapter: Any):
    assert set(jax.tree.leaves(specs("4x2", adapter_init.abstract_params(adapter, CONFIG)))) == {P()}


def test_a_large_adapter_is_sharded_over_all_devices():
    """Rank 64 on 64 layers of width 4,096 is sharded at its input, never over the layers."""
    assert specs("4x2", leaf("a", 64, 64, 4096)) == {"a": P(None, None, ("data", "model"))}
    assert specs("3x1", leaf("a", 63, 64, 4096)) == {"a": P()}


def test_full_fine_tuning_is_sharded_as_the_weights():
    params = jax.eval_shape(lambda frozen: FullFineTuning().init(jax.random.key(0), CONFIG, frozen), SHAPES)
    assert specs("4x2", params) == specs("4x2")


def test_methods_agree_about_a_name_that_they_share():
    """Sharding and weight decay look leaves up by name, whatever the method."""
    leaves = {
        adapter.method: {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(params)}
        for adapter in [*every.SINGLE.values(), PrefixTuning(4, "all", mlp=5)]
        for params in [adapter_init.abstract_params(adapter, tiny.CONFIG)]
    }
    for method in METHODS:
        own = leaves.get(method.method, set())
        assert not own & set(BY_NAME)
        for other in METHODS:
            assert not (own - method.no_decay) & other.no_decay


@pytest.mark.parametrize(
    ("mesh", "shapes", "named"),
    [
        ("3x1", leaf("embed_tokens", 65, 32), ("embed_tokens [65, 32]", "by 3 (data) at its 32")),
        ("1x5", leaf("up_proj", 3, 48, 32), ("--mesh 1x5", "up_proj [3, 48, 32]", "by 5 (model) at its 48")),
        ("1x8", leaf("k_proj", 3, 2, 4, 36), ("k_proj [3, 2, 4, 36]", "by 8 (data and model) at its 36")),
        ("5x1", leaf("down_proj", 3, 32, 48), ("down_proj [3, 32, 48]", "by 5 (data) at its 32")),
    ],
)
def test_sizes_that_cannot_be_divided_are_refused_by_name(mesh: str, shapes: Any, named: tuple[str, ...]):
    with pytest.raises(InputError) as raised:
        specs(mesh, shapes)
    message = str(raised.value)
    assert "\n" not in message and all(part in message for part in (*named, "choose a divisor"))


def test_batches_are_sharded_over_data():
    mesh = meshes.make_mesh("4x2")
    assert meshes.replicated(mesh).spec == P()
    assert meshes.batch_sharding(mesh).spec == P("data")
    assert meshes.batch_sharding(mesh, 1).spec == P(None, "data")


def test_prepare_emulates_as_many_devices_as_the_mesh_needs():
    """In a new process, where JAX is not initialized yet."""
    program = """
from jaxprefix.distributed import mesh
print(mesh.configure_platform("3x4", "cpu"))
import jax
emulated = [mesh.configure_platform(text, "cpu") for text in ("1x1", None)]
print(jax.device_count(), mesh.make_mesh("3x4").devices.shape, *emulated)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "mesh 3x4: emulated by 12 CPU devices; this is slower than 1x1, and only for trying and testing",
        "12 (3, 4) None None",
    ]


def test_prepare_refuses_before_it_changes_anything():
    with pytest.raises(InputError, match="'banana' is not a mesh"):
        meshes.configure_platform("banana", None)
