"""What families of decoders differ in reaches every path: loops, right padding, meshes, int8, checkpoints, config.json.

That each computes what transformers computes is in tests/reference.
"""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from real_configs import GEMMA3_270M, LOADED, gemma
from reference import hugging_face as hf
from safetensors.numpy import load_file, save_file
from test_adapter_ids import quantized
from transformers import PreTrainedConfig

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import adapter_init, config_keys, decoder, int8, loading, sharding, weights
from jaxprefix.models.adapters import IA3, LlamaAdapter, LoRA, PrefixTuning, Sum
from jaxprefix.models.config import DecoderConfig, LayerKind, Rope, notes
from jaxprefix.models.families import FAMILIES
from jaxprefix.models.layers import unstack
from jaxprefix.models.parameters import PROJECTIONS

LOCAL, WHOLE, NO_ROPE = LayerKind(Rope(50.0), 4), LayerKind(Rope(1000.0), None), LayerKind(None, None)
GEMMA = replace(
    tiny.CONFIG,
    head_norms=True,
    norms=tiny.GEMMA_NORMS,
    norm_offset=1.0,
    activation="gelu_tanh",
    embedding_scale=4.0,
    query_scale=1.5,
    tied=True,
    window=4,
    layer_kinds=(LOCAL, LOCAL, WHOLE, LOCAL),
)
QWEN2 = replace(tiny.CONFIG, qkv_biases=True)
APERTUS = replace(
    tiny.CONFIG,
    head_norms=True,
    norms=("attention_layernorm", None, "feedforward_layernorm", None),
    gated=False,
    activation="xielu",
)
SMOLLM3 = replace(tiny.CONFIG, layer_kinds=(WHOLE, NO_ROPE, WHOLE, WHOLE))
CONFIGS = {"gemma3": GEMMA, "qwen2": QWEN2, "smollm3": SMOLLM3, "apertus": APERTUS}


def few(quick: str) -> list[Any]:
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]


ADAPTER = Sum((("prefix", PrefixTuning(3, "1:4")), ("llama-adapter", LlamaAdapter(2, "2:4")), ("lora", LoRA(2))))


def states(config: DecoderConfig, frozen: Any, batch: decoder.Batch, remat: str = "full") -> jax.Array:
    params = tiny.noisy(ADAPTER, 0.3, config)
    own, hooks = ADAPTER.bind(config, params, frozen)
    return decoder.hidden_states(config, own, batch, hooks, remat)


RUN = jax.jit(states, static_argnums=(0, 3))


@pytest.mark.parametrize("name", CONFIGS)
def test_both_loops_and_right_padding_compute_the_same(name: str):
    """A stack is scanned, with the kind of each layer as a number; separate layers know theirs while tracing."""
    config, batch = CONFIGS[name], tiny.batch()
    frozen = tiny.weights(config)
    scanned = np.asarray(RUN(config, frozen, batch))[tiny.REAL]
    right = batch.replace(is_right_padded=True)  # type: ignore[attr-defined]
    for found in (RUN(config, unstack(frozen), batch), RUN(config, frozen, right)):
        np.testing.assert_allclose(np.asarray(found)[tiny.REAL], scanned, rtol=0, atol=2e-5)
    changes = {"head_norms": False} if name == "apertus" else {"layer_kinds": (), "qkv_biases": False, "window": None}
    plain = RUN(replace(config, **changes), frozen, batch)
    assert np.abs(np.asarray(plain)[tiny.REAL] - scanned).max() > 0.05  # the differences matter


def test_a_start_from_a_text_is_that_text_in_the_scale_of_gemma():
    """The hidden form, which is scaled, has the values of the kv form, which is not."""
    frozen = tiny.weights(GEMMA)
    starts = [PrefixTuning(3, "1:4", source, start="text:any") for source in ("hidden", "kv")]
    tokens, key = [5, 2, 9], jax.random.key(0)
    params = [adapter_init.init_params(start, key, GEMMA, frozen, lambda *_: tokens) for start in starts]
    bound = [start.bind(GEMMA, each, frozen)[1].prefix for start, each in zip(starts, params, strict=True)]
    assert bound[0] and bound[1]
    np.testing.assert_allclose(bound[0].values, bound[1].values, rtol=0, atol=1e-5)
    weights = 1 + np.asarray(frozen["layers"]["input_layernorm"], np.float64)[1:4]
    text = adapter_init.encode_prompt(GEMMA, frozen, jnp.array(tokens)).inputs[1:4]
    expected = text / np.sqrt((weights**2).mean(axis=1))[:, None, None]
    np.testing.assert_allclose(params[0]["hidden"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", few("gemma3"))
def test_what_remat_keeps_changes_no_gradient(name: str):
    config, frozen = CONFIGS[name], tiny.weights(CONFIGS[name])

    def loss(params: Any, remat: str) -> jax.Array:
        own, hooks = ADAPTER.bind(config, params, frozen)
        return jnp.sum(jnp.tanh(decoder.hidden_states(config, own, tiny.batch(), hooks, remat)))

    params = tiny.noisy(ADAPTER, 0.3, config)
    full, dots = (jax.jit(jax.grad(loss), static_argnums=1)(params, remat) for remat in ("full", "dots"))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4), full, dots)


@pytest.mark.parametrize("name", few("gemma3"))
def test_on_a_mesh(name: str):
    config = CONFIGS[name]
    mesh, frozen = meshes.make_mesh("2x2"), tiny.weights(config)
    placed = jax.device_put(frozen, sharding.param_shardings(mesh, decoder.shapes(config)))
    found = jax.jit(meshes.with_mesh(mesh, lambda frozen: states(config, frozen, tiny.batch())))(placed)
    expected = RUN(config, frozen, tiny.batch())
    np.testing.assert_allclose(np.asarray(found)[tiny.REAL], np.asarray(expected)[tiny.REAL], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", few("gemma3"))
def test_int8_is_what_its_numbers_mean(name: str):
    config = CONFIGS[name]
    small = quantized(tiny.weights(config))
    wide = dict(small["layers"])
    for projection in [name for name in PROJECTIONS if name in wide]:
        scale = wide.pop(int8.scale_name(projection))
        wide[projection] = wide[projection] * scale.reshape(*scale.shape, *[1] * (wide[projection].ndim - scale.ndim))
    found, expected = RUN(config, small, tiny.batch()), RUN(config, {**small, "layers": wide}, tiny.batch())
    np.testing.assert_allclose(np.asarray(found)[tiny.REAL], np.asarray(expected)[tiny.REAL], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_initial_weights_are_neutral(name: str):
    """Norms multiply by one, and biases add nothing."""
    frozen = decoder.init(jax.random.key(0), CONFIGS[name])
    for path, leaf in jax.tree_util.tree_leaves_with_path(frozen):
        if "norm" in path[-1].key:
            assert bool((leaf == 1 - CONFIGS[name].norm_offset).all())
        if "bias" in path[-1].key:
            assert not leaf.any()


PARTS = {"transformers 4": ("language_model.model.", ""), "transformers 5": ("model.language_model.", "model.")}


@pytest.mark.parametrize("parts", PARTS)
def test_a_text_model_beside_an_image_encoder(tmp_path: Path, parts: str):
    """Its tensors are read by their names there, and those of images are ignored."""
    pair = hf.make(hf.KINDS["gemma3 with images"], tmp_path / "plain")
    inner, outer = PARTS[parts]
    tensors = load_file(pair.directory / "model.safetensors")
    renamed = {inner + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    images = {outer + name: np.zeros(3, np.float32) for name in ("vision_tower.x.weight", "multi_modal_projector.y")}
    (tmp_path / "whole").mkdir()
    save_file(renamed | images, tmp_path / "whole" / "model.safetensors")
    found = loading.load(tmp_path / "whole", pair.config)
    jax.tree.map(np.testing.assert_array_equal, found, pair.frozen)
    save_file(tensors | images, tmp_path / "whole" / "model.safetensors")
    with pytest.raises(InputError, match="is unknown"):
        loading.load(tmp_path / "whole", pair.config)


def test_a_model_beside_an_image_encoder_is_its_text_model(tmp_path: Path):
    values = LOADED["Gemma 3 1B"][0]
    inner = {name: value for name, value in values.items() if name != "architectures"}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": inner}
    assert DecoderConfig.parse(whole) == DecoderConfig.parse(values)
    (tmp_path / "config.json").write_text(json.dumps(whole))
    (first, *_) = notes(tmp_path)
    assert first.endswith("Gemma3ForConditionalGeneration: its text model is read, and images are not")
    minimal = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "model_type": "gemma3_text"}
    more = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 1024}
    config = DecoderConfig.parse(whole | {"text_config": minimal | more})  # as google/gemma-3-4b-pt has it
    assert (config.heads, config.kv_heads, config.head_size, config.tied) == (8, 4, 256, True)
    assert config.kinds == (LayerKind(Rope(1e4), 1024), LayerKind(Rope(1e6, "linear", 8.0), None))
    assert config.kind_of_layer == tuple(int((layer + 1) % 6 == 0) for layer in range(34))


def test_a_window_of_qwen_begins_at_its_layer():
    values = LOADED["Qwen2.5 0.5B"][0] | {"use_sliding_window": True}
    assert [kind.window for kind in DecoderConfig.parse(values).layer_kinds] == [None] * 21 + [32768] * 3
    assert DecoderConfig.parse(values | {"use_sliding_window": False}).window is None


def test_layers_of_smollm3_without_rotation():
    values = LOADED["SmolLM3 3B"][0]
    listed = DecoderConfig.parse(values)
    assert [kind.rope is None for kind in listed.layer_kinds] == [(layer + 1) % 4 == 0 for layer in range(36)]
    assert DecoderConfig.parse({name: value for name, value in values.items() if name != "no_rope_layers"}) == listed


GEMMA_VALUES = gemma(262144, 640, 2048, 18, 4, 1, **GEMMA3_270M)
REFUSED = {
    "soft cap of scores": (GEMMA_VALUES | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not supp"),
    "soft cap of logits": (GEMMA_VALUES | {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
    "both directions": (GEMMA_VALUES | {"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
    "another activation": (GEMMA_VALUES | {"hidden_activation": "gelu"}, "expected 'gelu_pytorch_tanh'"),
    "too few types": (
        GEMMA_VALUES | {"layer_types": ["full_attention"]},
        "expected full_attention or sliding_attention",
    ),
    "an unknown type": (GEMMA_VALUES | {"layer_types": ["chunked_attention"] * 18}, "for each of 18 layers"),
    "no window": (GEMMA_VALUES | {"sliding_window": 0}, "sliding_window is 0"),
    "rope of layers that are no object": (
        GEMMA_VALUES | {"rope_parameters": {"full_attention": 3}},
        "rope_parameters: full_attention is 3",
    ),
    "a text model that is missing": (
        {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"},
        "text_config is missing; expected an object",
    ),
    "too few rotations": (
        LOADED["SmolLM3 3B"][0] | {"no_rope_layers": [1, 0]},
        "no_rope_layers is [1, 0]; expected 0 or",
    ),
    "a layer that is no number": (LOADED["Qwen2.5 7B"][0] | {"max_window_layers": "a"}, "max_window_layers is 'a'"),
    "biases of Qwen3": (LOADED["Qwen3 8B"][0] | {"attention_bias": True}, "attention_bias is true"),
    "key heads that are missing": (
        LOADED["Qwen2.5 7B"][0] | {"num_key_value_heads": None},
        "num_key_value_heads is missing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    values, why = REFUSED[name]
    with pytest.raises(InputError) as raised:
        DecoderConfig.parse(values)
    assert why in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_keys_that_are_read_are_those_of_transformers(name: str):
    """Every field of its class is read, or known not to matter."""
    cls = next(config for config, model in hf.CLASSES.values() if model.__name__ == name)
    fields = {field.name for field in dataclasses.fields(cls)} - {
        field.name for field in dataclasses.fields(PreTrainedConfig)
    }
    assert fields <= config_keys.READ | config_keys.INERT | set(FAMILIES[name].read)


def test_the_table_of_weights_is_the_checkpoint_of_transformers(tmp_path: Path):
    for kind in ("qwen2", "qwen3", "gemma3", "apertus"):
        pair = hf.make(hf.KINDS[kind], tmp_path / kind)
        tensors = load_file(pair.directory / "model.safetensors")
        constants = {name: value.shape for name, value in weights.constants(pair.config).items()}
        shapes = weights.disk_shapes(pair.config) | constants
        assert {name: tensor.shape for name, tensor in tensors.items()} == shapes


def test_what_is_saved_of_apertus_is_read_by_transformers(tmp_path: Path):
    """Its activation has buffers that are not weights. Without them in the file transformers computes noise."""
    pair = hf.make(hf.KINDS["apertus"], tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    weights.save(pair.frozen, pair.config, tmp_path / "ours")
    shutil.copyfile(pair.directory / "config.json", tmp_path / "ours" / "config.json")
    rows = hf.rows("right")
    again = hf.read(type(pair.torch), tmp_path / "ours")
    np.testing.assert_array_equal(hf.torch_logits(again, rows), hf.torch_logits(pair.torch, rows))
    tensors = load_file(tmp_path / "ours" / "model.safetensors")
    name = "model.layers.1.mlp.act_fn.beta"
    save_file(tensors | {name: np.array(0.7, np.float32)}, tmp_path / "ours" / "model.safetensors")
    with pytest.raises(InputError, match=f"tensor {name} is not 0.5"):
        loading.load(tmp_path / "ours", pair.config)


@pytest.mark.parametrize("adapter", [LoRA(targets="q,gate"), IA3("gate")])
def test_a_target_that_the_model_has_not(adapter: Any):
    with pytest.raises(InputError, match="targets: this model has no gate_proj; leave gate out of them"):
        adapter.init(jax.random.key(0), APERTUS, decoder.shapes(APERTUS))
