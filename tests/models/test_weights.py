"""Weights on disk: what is saved is loaded again, on any mesh; what is not whole or not right is refused by name."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import decoder, loading, sharding, weights
from jaxprefix.models.checkpoint_files import ignored_file
from jaxprefix.models.config import DecoderConfig, Rope

# Sizes that 2x4 and 4x2 divide; on 2x4 the two key heads do not go round, and their input is divided by both axes.
CONFIG = replace(tiny.CONFIG, vocabulary_size=64, head_size=8)
FROZEN = tiny.weights(CONFIG)
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"

NAMES = {
    "model.embed_tokens.weight": (64, 16),
    "model.norm.weight": (16,),
    "lm_head.weight": (64, 16),
} | {
    f"model.layers.{layer}.{name}.weight": shape
    for layer in range(4)
    for name, shape in {
        "input_layernorm": (16,),
        "post_attention_layernorm": (16,),
        "self_attn.q_proj": (32, 16),
        "self_attn.k_proj": (16, 16),
        "self_attn.v_proj": (16, 16),
        "self_attn.o_proj": (16, 32),
        "mlp.gate_proj": (24, 16),
        "mlp.up_proj": (24, 16),
        "mlp.down_proj": (16, 24),
    }.items()
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint in a single file."""
    weights.save(FROZEN, CONFIG, tmp_path)
    (tmp_path / "config.json").write_text("{}")  # which only the fingerprint reads
    return tmp_path


def rewrite(directory: Path, **changes: Any) -> None:
    """Saves the file again with tensors changed; None takes one out."""
    tensors = load_file(directory / FILE) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, directory / FILE)


def shard(directory: Path, parts: int = 3) -> list[str]:
    """The single file as `parts` files and an index."""
    tensors, places = load_file(directory / FILE), {}
    for number in range(parts):
        name = f"model-{number + 1:05d}-of-{parts:05d}.safetensors"
        own = dict(list(tensors.items())[number::parts])
        save_file(own, directory / name)
        places |= dict.fromkeys(own, name)
    (directory / FILE).unlink()
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return sorted(set(places.values()))


def shapes(dtype: Any) -> Any:
    """Of the weights, in this dtype."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), decoder.shapes(CONFIG))


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b), jax.tree_util.keystr(path)


def test_names_and_shapes_on_disk_are_those_of_hugging_face(saved: Path):
    assert {name: tensor.shape for name, tensor in load_file(saved / FILE).items()} == NAMES


def test_what_is_saved_is_loaded(saved: Path):
    assert_same(loading.load(saved, CONFIG), FROZEN)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_saved_and_loaded(tmp_path: Path, dtype: Any):
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), FROZEN)
    weights.save(half, CONFIG, tmp_path)
    assert_same(loading.load(tmp_path, CONFIG, shapes(dtype)), half)
    assert_same(loading.load(tmp_path, CONFIG), jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half))


def test_float32_is_rounded_to_bfloat16(saved: Path):
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), FROZEN)
    assert_same(loading.load(saved, CONFIG, shapes(jnp.bfloat16)), expected)


@pytest.mark.parametrize(("limit", "files"), [(None, 1), (100_000, 1), (4000, None), (1, len(NAMES))])
def test_what_is_written_in_shards_is_loaded(tmp_path: Path, limit: int | None, files: int | None):
    """Files in the order of the tensors, no more than needed; a tensor that is larger than a file has its own."""
    tensors = weights.on_disk(FROZEN, CONFIG)
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    written = weights.write(sizes, tensors.__getitem__, tmp_path, limit)
    held = [list(load_file(tmp_path / name).values()) for name in written]
    assert files in (None, len(written)) and set(written) == {path.name for path in tmp_path.glob("*.safetensors")}
    sums = [sum(tensor.nbytes for tensor in part) for part in held]
    assert all(len(part) == 1 or total <= (limit or 10**9) for part, total in zip(held, sums, strict=True))
    assert all(first + second > (limit or 0) for first, second in itertools.pairwise(sums))
    assert (tmp_path / INDEX).exists() == (len(written) > 1)
    if len(written) > 1:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(sizes.values()) and list(index["weight_map"]) == list(sizes)
    assert_same(loading.load(tmp_path, CONFIG), FROZEN)


def test_a_shard_is_written_before_the_next_one_is_read(tmp_path: Path):
    """So that a model larger than memory can be written."""
    tensors, read = weights.on_disk(FROZEN, CONFIG), []

    def tensor(name: str) -> np.ndarray:
        done = {key for path in tmp_path.glob("*.safetensors") for key in load_file(path)}
        waiting = set(read) - done
        assert sum(tensors[key].nbytes for key in waiting) + tensors[name].nbytes <= 8000 or not waiting
        read.append(name)
        return tensors[name]

    weights.write({name: each.nbytes for name, each in tensors.items()}, tensor, tmp_path, 8000)
    assert read == list(tensors)


@pytest.mark.parametrize("mesh", ["1x1", "4x2", "2x4", "8x1"])
@pytest.mark.parametrize("files", [1, 3])
def test_loaded_onto_a_mesh(saved: Path, mesh: str, files: int):
    if files > 1:
        shard(saved, files)
    shardings = sharding.param_shardings(meshes.make_mesh(mesh), decoder.shapes(CONFIG))
    found = loading.load(saved, CONFIG, shardings=shardings)
    assert_same(found, FROZEN)
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == shardings
    share = found["layers"]["o_proj"].addressable_shards[0].data.size
    assert share * len(shardings["norm"].device_set) == FROZEN["layers"]["o_proj"].size


TIED = replace(CONFIG, tied=True)
TIED_FROZEN = {name: leaf for name, leaf in FROZEN.items() if name != "lm_head"}


def test_a_tied_head_that_is_stored_too_must_be_the_embedding(saved: Path):
    """Then it follows from the rest; else transformers uses the stored head, and so does `with_stored_head`."""
    assert weights.with_stored_head(TIED, saved) == CONFIG
    assert weights.with_stored_head(CONFIG, saved) == CONFIG
    message = "tie_word_embeddings is true, but tensor lm_head.weight is not equal to model.embed_tokens.weight"
    assert_refused(saved, message, config=TIED)
    rewrite(saved, **{"lm_head.weight": load_file(saved / FILE)["model.embed_tokens.weight"]})
    assert weights.with_stored_head(TIED, saved) == TIED
    assert_same(loading.load(saved, TIED), TIED_FROZEN)


def test_a_tied_head_that_differs_in_one_number_of_another_dtype_is_seen(saved: Path):
    embedding = np.asarray(load_file(saved / FILE)["model.embed_tokens.weight"], ml_dtypes.bfloat16)
    wide = embedding.astype(np.float32)
    rewrite(saved, **{"lm_head.weight": wide, "model.embed_tokens.weight": embedding})
    assert weights.with_stored_head(TIED, saved) == TIED
    wide[-1, -1] = np.nextafter(wide[-1, -1], 9)
    rewrite(saved, **{"lm_head.weight": wide})
    assert weights.with_stored_head(TIED, saved) == CONFIG


@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
def test_one_of_two_tied_tensors_is_enough(saved: Path, name: str):
    """transformers swaps them if only the head is stored."""
    tensors = load_file(saved / FILE)
    other = next(other for other in ("lm_head.weight", "model.embed_tokens.weight") if other != name)
    rewrite(saved, **{name: None})
    assert weights.with_stored_head(TIED, saved) == TIED
    found = loading.load(saved, TIED)
    np.testing.assert_array_equal(found["embed_tokens"], tensors[other])
    assert_same(found, TIED_FROZEN | {"embed_tokens": jnp.asarray(tensors[other])})
    hint = "tie_word_embeddings true" if name == "lm_head.weight" else "config.json asks for it"
    assert_refused(saved, f"tensor {name} is missing (1 in all); config.json asks for it", hint)


def frequencies(theta: float) -> np.ndarray:
    """As transformers 4.30 stored them."""
    return (1.0 / theta ** (np.arange(0, 8, 2, dtype=np.float32) / 8)).astype(np.float32)


INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rotary_frequencies_of_old_checkpoints_follow_from_the_configuration(saved: Path, dtype: Any):
    rewrite(saved, **{INV_FREQ: frequencies(CONFIG.rope.theta).astype(dtype)})
    assert_same(loading.load(saved, CONFIG), FROZEN)
    linear = replace(CONFIG, rope=Rope(CONFIG.rope.theta, "linear", 4.0))
    loading.load(saved, linear)
    rewrite(saved, **{INV_FREQ: (frequencies(CONFIG.rope.theta) / 4).astype(dtype)})
    loading.load(saved, linear)
    assert_refused(saved, INV_FREQ)


@pytest.mark.parametrize(
    "wrong", [frequencies(5e5), frequencies(1e4)[:3], np.zeros(4), np.zeros(4, np.int32), np.zeros((2, 2), np.float32)]
)
def test_other_rotary_frequencies_are_refused(saved: Path, wrong: np.ndarray):
    rewrite(saved, **{INV_FREQ: wrong})
    assert_refused(saved, f"tensor {INV_FREQ} does not follow from rope_theta 100 and head_dim 8; the model was")


def test_fingerprint(saved: Path):
    first = weights.fingerprint(saved, CONFIG)
    assert len(first) == 64 and weights.fingerprint(saved, CONFIG) == first
    norm = load_file(saved / FILE)["model.norm.weight"]
    rewrite(saved, **{"model.norm.weight": np.nextafter(norm, 2)})
    second = weights.fingerprint(saved, CONFIG)
    (saved / "config.json").write_text("{ }")
    assert len({first, second, weights.fingerprint(saved, CONFIG)}) == 3


def assert_refused(directory: Path, *parts: str, config: DecoderConfig = CONFIG) -> None:
    with pytest.raises(InputError) as raised:
        loading.load(directory, config)
    message = str(raised.value)
    assert "\n" not in message
    for part in (str(directory), *parts):
        assert part in message


WRONG = {
    "missing": ({"model.layers.2.mlp.up_proj.weight": None}, "tensor model.layers.2.mlp.up_proj.weight is missing"),
    "extra": (
        {"model.layers.4.mlp.up_proj.weight": np.zeros(1)},
        "tensor model.layers.4.mlp.up_proj.weight is unknown",
    ),
    "a bias": ({"model.layers.0.self_attn.q_proj.bias": np.zeros(32)}, "self_attn.q_proj.bias is unknown"),
    "misshapen": (
        {"model.layers.1.self_attn.k_proj.weight": np.zeros((32, 16), np.float32)},
        "tensor model.layers.1.self_attn.k_proj.weight has shape [32, 16]; config.json asks for [16, 16]",
    ),
    "turned": ({"lm_head.weight": np.zeros((16, 64), np.float32)}, "has shape [16, 64]; config.json asks for [64, 16]"),
    "of another vocabulary": (
        {"model.embed_tokens.weight": np.zeros((65, 16), np.float32)},
        "tensor model.embed_tokens.weight has shape [65, 16]",
    ),
    "of whole numbers": ({"model.norm.weight": np.zeros(16, np.int32)}, "tensor model.norm.weight is I32"),
    "of eight bits": (
        {"model.norm.weight": np.zeros(16, ml_dtypes.float8_e4m3fn)},
        "tensor model.norm.weight is F8_E4M3; expected one of F32, BF16, F16",
    ),
    "of double precision": ({"model.norm.weight": np.zeros(16)}, "tensor model.norm.weight is F64"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tensor_is_refused(saved: Path, name: str):
    changes, message = WRONG[name]
    rewrite(saved, **changes)
    assert_refused(saved, message)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "harm",
    [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"<html>not a model</html>" * 9)],
    ids=["truncated", "empty", "a page of the web"],
)
def test_a_broken_file_is_refused(saved: Path, harm: Callable[[Path], None]):
    harm(saved / FILE)
    assert_refused(saved, f"{saved / FILE} is not a whole safetensors file")


def test_a_broken_shard_is_refused(saved: Path):
    name = shard(saved)[1]
    truncate(saved / name)
    assert_refused(saved, f"{saved / name} is not a whole safetensors file")


def test_a_missing_shard_is_refused(saved: Path):
    name = shard(saved)[1]
    (saved / name).unlink()
    assert_refused(saved, str(saved / INDEX), f"names {name}, which is not there")


@pytest.mark.parametrize("place", ["../model.safetensors", "/model.safetensors", "deeper/model.safetensors", "..", ""])
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, place: str):
    """Even where a file is there."""
    directory = tmp_path / "model"
    (directory / "deeper").mkdir(parents=True)
    for target in (tmp_path, directory, directory / "deeper"):
        weights.save(FROZEN, CONFIG, target)
    (directory / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(NAMES, place)}))
    assert_refused(directory, str(directory / INDEX), f"points to {place!r}; expected a .safetensors file beside it")


def test_an_index_that_points_to_pickled_weights_is_refused(saved: Path):
    (saved / "model.bin").write_bytes(b"")
    (saved / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(NAMES, "model.bin")}))
    assert_refused(saved, "points to 'model.bin'")


NO_INDEX = ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": []}}']


@pytest.mark.parametrize("text", NO_INDEX)
def test_a_malformed_index_is_refused(saved: Path, text: str):
    (saved / INDEX).write_text(text)
    assert_refused(saved, str(saved / INDEX))


def test_a_tensor_in_two_shards_must_be_the_same(saved: Path):
    """Which of two others would count is written nowhere; transformers takes the last one."""
    first, second, _ = shard(saved)
    name, tensor = next(iter(load_file(saved / first).items()))
    save_file(load_file(saved / second) | {name: tensor}, saved / second)
    assert_same(loading.load(saved, CONFIG), FROZEN)
    save_file(load_file(saved / second) | {name: np.nextafter(tensor, 9)}, saved / second)
    assert_refused(saved, f"{saved / second}: tensor {name} is in {first} too, with other numbers")


def test_an_index_that_names_the_wrong_shard_is_no_matter(saved: Path):
    """As for transformers, which reads the shards and not the map."""
    names = shard(saved)
    (saved / INDEX).write_text(
        json.dumps({"weight_map": {"a.weight": names[0], "b.weight": names[1], "model.norm.weight": names[2]}})
    )
    assert_same(loading.load(saved, CONFIG), FROZEN)


def half_of(tensors: dict[str, Any]) -> dict[str, Any]:
    return dict(list(tensors.items())[::2])


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("stale", ["missing shard", "damaged shard", "too few tensors"])
def test_a_whole_file_beside_a_stale_index_is_read(saved: Path, stale: str):
    whole = (saved / FILE).read_bytes()
    first, *_ = shard(saved)
    (saved / FILE).write_bytes(whole)
    if stale == "missing shard":
        (saved / first).unlink()
    elif stale == "damaged shard":
        damage(saved / first)
    else:
        save_file(half_of(load_file(saved / first)), saved / first)
    files = weights.files_of(saved, CONFIG)
    assert files == [saved / FILE]
    assert ignored_file(saved, files) == f"{saved}: ignored {INDEX}, which is out of date; {FILE} has the whole model"
    assert_same(loading.load(saved, CONFIG), FROZEN)


@pytest.mark.parametrize("harm", ["too few tensors", "damaged"])
def test_whole_shards_beside_a_file_that_is_not_whole_are_read(saved: Path, harm: str):
    whole = load_file(saved / FILE)
    shard(saved)
    save_file(half_of(whole) if harm == "too few tensors" else whole, saved / FILE)
    if harm == "damaged":
        damage(saved / FILE)
    files = weights.files_of(saved, CONFIG)
    assert len(files) == 3 and ignored_file(saved, files) == (
        f"{saved}: ignored {FILE}, which lacks tensors that the shards of {INDEX} have"
    )
    assert_same(loading.load(saved, CONFIG), FROZEN)


def test_two_whole_checkpoints_are_both_named(saved: Path):
    """transformers would read the single file; others read the index."""
    whole = (saved / FILE).read_bytes()
    shard(saved)
    (saved / FILE).write_bytes(whole)
    assert_refused(saved, f"two whole checkpoints, {FILE} and the shards of {INDEX}; move away the one")


def test_two_checkpoints_of_which_none_is_whole_are_both_named(saved: Path):
    whole = load_file(saved / FILE)
    first, *_ = shard(saved)
    (saved / first).unlink()
    save_file(half_of(whole), saved / FILE)
    assert_refused(saved, f"{FILE} and {INDEX}, but neither has all tensors")


def test_an_index_of_the_single_file_is_no_other_checkpoint(saved: Path):
    """Some programs write both."""
    (saved / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(NAMES, FILE)}))
    files = weights.files_of(saved, CONFIG)
    assert files == [saved / FILE] and ignored_file(saved, files) is None
    assert_same(loading.load(saved, CONFIG), FROZEN)
    rewrite(saved, **{"model.norm.weight": None})
    assert_refused(saved, "tensor model.norm.weight is missing (1 in all)")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"")
    assert_refused(tmp_path, f"holds only pickled weights ({name}), which can run code; convert them to safetensors")


def test_no_weights(tmp_path: Path):
    assert_refused(tmp_path, "no weights in")
