"""--dry-run: its figures against figures computed by hand, and against the arrays of a real run."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import small
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec as P

from benchmarks.gpu import LLAMA_8B
from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import adapter_init, products
from jaxprefix.models.adapters import FullFineTuning, LoRA, PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import frozen_shapes, load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.dry_run import COMPILER_OPTIONS, dry_run, partitioned
from jaxprefix.train.dry_run.chips import CHIPS
from jaxprefix.train.dry_run.estimate import Growth
from jaxprefix.train.dry_run.hlo import HloProgram
from jaxprefix.train.dry_run.limits import weight_reads
from jaxprefix.train.step import State

SETTINGS: dict[str, Any] = {"batch": 8, "max_length": 32, "dtype": "float32"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with only a config.json."""
    found = tmp_path_factory.mktemp("model")
    (found / "config.json").write_text(json.dumps(small.SIZES))
    return found


def program(mesh: str, function: Any, *arguments: tuple[tuple[int, ...], P]) -> HloProgram:
    made = meshes.make_mesh(mesh)
    placed = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.sharding.NamedSharding(made, spec))
        for shape, spec in arguments
    ]
    return partitioned(jax.jit(meshes.with_mesh(made, function)).lower(*placed), made)[1]


def chain(stream: Any, weights: Any) -> Any:
    """Seven products [64, 32] x [32, 32]."""
    return jax.lax.scan(lambda state, weight: (state @ weight, None), stream, weights)[0]


def test_products_are_counted_as_often_as_they_are_made():
    stream, weights = ((64, 32), P("data")), ((7, 32, 32), P())
    assert program("1x1", chain, stream, weights).flops() == 7 * 2 * 64 * 32 * 32
    assert program("4x1", chain, stream, weights).flops() == 7 * 2 * 64 * 32 * 32 // 4


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """Makes JAX cache every program."""
    settings = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    for found in (settings, before):
        for name, value in found.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if found is settings:
            yield tmp_path


def test_a_program_in_the_cache_is_partitioned_again(cache: Path):
    """A plan analyses a program that the cache has; later programs are cached again."""
    stream, weights = ((64, 32), P("data")), ((5, 32, 32), P())
    made, kept = meshes.make_mesh("4x1"), []
    for scale in (2.0, 3.0):
        jax.jit(lambda leaf, scale=scale: scale * leaf).lower(jnp.ones(3)).compile()
        kept.append(len(list(cache.iterdir())))
        shapes = [
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.sharding.NamedSharding(made, spec))
            for shape, spec in (stream, weights)
        ]
        jax.jit(meshes.with_mesh(made, chain)).lower(*shapes).compile(COMPILER_OPTIONS)
        assert program("4x1", chain, stream, weights).flops() == 5 * 2 * 64 * 32 * 32 // 4
    assert 0 < kept[0] < kept[1]


@pytest.mark.parametrize(
    ("collective", "kind", "moved"),
    [
        (lambda x: jax.lax.psum(x, "data"), "all-reduce", 2 * 3 / 4 * 4 * 64),
        (lambda x: jax.lax.all_gather(x, "data"), "all-gather", 3 * 4 * 64),
        (lambda x: jax.lax.psum_scatter(x, "data", tiled=True), "reduce-scatter", 3 / 4 * 4 * 64),
        (lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True), "all-to-all", 3 / 4 * 4 * 64),
        (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), "collective-permute", 4 * 64),
    ],
)
def test_bytes_that_a_device_takes_in(collective: Any, kind: str, moved: float):
    """Of 64 floats on each of four devices, in a loop of three."""

    def run(leaf: Any) -> Any:
        def looped(leaf: Any) -> Any:
            return jax.lax.scan(lambda total, _: (total + jnp.sum(collective(leaf + total)), None), 0.0, None, 3)[0]

        return jax.shard_map(lambda leaf: looped(leaf)[None], in_specs=P("data"), out_specs=P("data"), check_vma=False)(
            leaf
        )

    found = program("4x2", run, ((256,), P("data"))).collective_bytes(8)
    assert found[kind] == 3 * moved
    assert sum(found.values()) == found[kind]


@pytest.mark.parametrize("mesh", [pytest.param("1x1", marks=pytest.mark.slow), "4x2"])
def test_a_plan(
    directory: Path, tmp_path: Path, mesh: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Its bytes are those of the arrays of a real run, and its products those counted by hand."""
    monkeypatch.setattr(products, "FEW_TERMS", 4)  # the model is narrow: its products would be computed again
    output = tmp_path / "plan"
    needs = dry_run(RunConfig(model=str(directory), task="squad", mesh=mesh, **SETTINGS), None, output)
    found = json.loads((output / "plan.json").read_text())
    devices, sizes = (8 if mesh == "4x2" else 1), DecoderConfig.read(directory)
    real = load_weights(open_base(str(small.write_model(tmp_path / "model"))), meshes.make_mesh(mesh), "float32")
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(real))
    assert found["per_device_bytes"]["weights"] == held
    assert held <= 1.03 * sum(leaf.nbytes for leaf in jax.tree.leaves(real)) / devices
    assert found["per_device_bytes"]["adapter"] == 4 * found["trainable_parameters"]
    assert found["per_device_bytes"]["optimizer"] > 2 * found["per_device_bytes"]["adapter"]
    assert found["basis"] == "cpu-estimate" and found["fits"] == dict.fromkeys(CHIPS, True)
    assert (sum(found["collective_bytes"].values()) > 0) == (devices > 1)
    assert found["trainable_parameters"] == needs.as_json()["trainable_parameters"]
    assert found["flops_per_token"] == pytest.approx(by_hand(sizes), rel=1e-4)
    least = found["least_step"]["v5e"]
    assert least["products"] == pytest.approx(by_hand(sizes) * 8 * 32 / devices / 197e12, rel=1e-4)
    assert least["collectives"] == sum(found["collective_bytes"].values()) / 200e9
    model = 2 if devices > 1 else 1
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(real["layers"])) / model
    weights += (real["lm_head"] if "lm_head" in real else real["embed_tokens"]).nbytes / devices
    state = found["per_device_bytes"]["adapter"] + found["per_device_bytes"]["optimizer"]
    assert least["memory"] == pytest.approx(
        2 * (weights + state) / 819e9, rel=2e-3
    )  # the last norm is not counted here
    parts = {name: least[name] for name in ("products", "memory", "collectives")}
    assert least["seconds"] == max(parts.values()) == parts[least["bound"]]
    assert least["tokens_per_second"] == pytest.approx(8 * 32 / least["seconds"])
    assert f"trainable: {found['trainable_parameters']:,} of" in capsys.readouterr().out


def by_hand(sizes: DecoderConfig) -> float:
    """A step of 8 × 32 tokens: each weight forward and for the gradient of its input; scores and their mix forward, the
    scores again, and two gradients each; and the projections of ten virtual tokens per layer.
    """
    width, keys, inner = sizes.hidden_size, sizes.kv_heads * sizes.head_size, sizes.heads * sizes.head_size
    layer = 2 * width * inner + 2 * width * keys + 3 * width * sizes.intermediate_size
    attention = (2 + 1 + 4) * inner * (32 + 10)
    slots = 2 * 10 * 2 * width * keys / (8 * 32)
    return 2 * (sizes.layers * (2 * layer + attention + slots) + 2 * width * sizes.vocabulary_size)


@pytest.mark.parametrize(
    ("method", "changes", "layers"),
    [
        ({"prefix": PrefixTuning(layers="all")}, {}, 2 * 3),
        ({"prefix": PrefixTuning(layers="top:1")}, {}, 2 * 3 - 2),  # two of three are read forward alone
        ({"full": FullFineTuning()}, {"tie_word_embeddings": True}, 2 * 3),
    ],
    ids=["prefix", "a prefix on top", "full, tied"],
)
def test_weights_that_a_step_reads(method: dict[str, Any], changes: dict[str, Any], layers: int):
    """Each layer forward and, above the first adapted one, backward; full fine-tuning in float32."""
    sizes = DecoderConfig.parse(small.SIZES | {"num_hidden_layers": 3, "tie_word_embeddings": False} | changes)
    [adapter] = method.values()
    config, dtype = RunConfig().with_adapter(adapter), "bfloat16"
    frozen = frozen_shapes(sizes, dtype, on_cpu=False)
    state = State(adapter_init.abstract_params(adapter, sizes), None, jnp.int32(0))
    width, heads = sizes.hidden_size, (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
    layer = width * (heads + 3 * sizes.intermediate_size + 2)
    expected = (4 if "full" in method else 2) * (layers * layer + 2 * width * (sizes.vocabulary_size + 1))
    assert weight_reads(config, sizes, meshes.make_mesh("1x1"), frozen, state) == expected


@pytest.mark.slow
def test_the_least_time_of_8b_on_one_h100(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """LoRA of rank 16 on all projections, 16 rows of 512 tokens, by hand:

    products of a token: 4 × 6.979e9 of the layers, 6 × 0.525e9 of the head (its forward pass twice), 6 × 41.9e6 of
    LoRA, and of attention 7 × 2 × 4096 × 512 × 9/16 in each of 32 layers (eight blocks of queries see 9/16 of the keys)
    memory: 2 × 2 bytes × 7.505e9, and 41.9e6 parameters and two moments, in 4 bytes, read and written
    """
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    adapter = LoRA(16, targets="q,k,v,o,gate,up,down")
    config = RunConfig(model=str(tmp_path), task="squad", batch=16, max_length=512).with_adapter(adapter)
    least = dry_run(config, "H100", None).least_time(CHIPS["H100"])
    layers, head, lora = 6_979_584_000, 525_340_672, 41_943_040  # with their norms
    attention = 32 * 7 * 2 * 4096 * 512 * 9 / 16
    products = 8192 * (4 * layers + 6 * (head + lora) + attention)
    assert least.products == pytest.approx(products / 989e12, rel=0.005)
    assert least.memory == pytest.approx((4 * (layers + head) + 2 * 3 * 4 * lora) / 3.35e12, rel=1e-4)
    assert (least.bound, least.collectives) == ("products", 0)
    assert "least time of a step" in capsys.readouterr().out


def test_the_parts_that_grow_with_rows_and_length():
    """Rows and lengths with known bytes: 100 + 3 per token + 2 per token and length."""

    def needed(tokens: int, length: int) -> int:
        return 100 + 3 * tokens + 2 * tokens * length

    growth = Growth.fit(64, 16, needed(64, 16), needed(512, 16), needed(512, 128))
    assert (growth.rest, growth.token, growth.square) == (100, 3, 2)
    assert growth.rows(needed(5 * 8, 8), 8) == 5 and growth.rows(needed(5 * 8, 8) - 1, 8) == 4
    assert growth.rows(99, 8) == 0


def test_a_chip_that_is_too_small(tmp_path: Path):
    """A model with 70 layers of the width of 8B does not fit on one v5e, and two plans never share a file."""
    sizes = small.SIZES | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 70}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"num_attention_heads": 32, "num_key_value_heads": 8}))
    config = RunConfig(model=str(tmp_path), task="squad", method="soft-prompt", batch=2, max_length=32)
    needs = dry_run(config, "v5e", tmp_path)
    assert not needs.fits(CHIPS["v5e"]) and needs.rows(CHIPS["v5e"], 512) == 0
    assert needs.fits(CHIPS["v5p"]) and needs.rows(CHIPS["v5p"], 512) > 0
    whole = sum(asdict(needs.bytes).values())
    assert needs.bytes.temporary > 4096 * 14336  # one of a layer's matrices, out of its stack, at least
    assert needs.fits(SimpleNamespace(usable=whole)) and not needs.fits(SimpleNamespace(usable=whole - 1))
    with pytest.raises(InputError, match=r"plan\.json already exists; give a new file"):
        dry_run(config, "v5e", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "none"}, "--dry-run --method none trains nothing; choose a method"),
        ({"mesh": "3x1"}, "8 rows per micro-batch cannot be divided among 3 data devices"),
        ({"max_length": 4096}, "--max-length 4096 is beyond the model's 1024 positions"),
    ],
)
def test_refused(directory: Path, changes: dict[str, Any], message: str):
    with pytest.raises(InputError) as raised:
        dry_run(RunConfig(**({"model": str(directory), "task": "squad"} | SETTINGS | changes)), None, None)
    assert message in str(raised.value)
