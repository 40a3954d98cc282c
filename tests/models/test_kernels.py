"""Every kernel equals the XLA path, forward and in all gradients (law 9): splash interpreted, cuDNN's layout in XLA,
blocks of queries as they are; and that path equals a softmax in float64.

Real tokens alone are compared: what padding reads is never used. float32; 1e-5 for what is read and for gradients, of
which about 1e-6 was seen.
"""

from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import decoding
from jaxprefix.models import attention, decoder
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.attention import blocks, cudnn, splash
from jaxprefix.models.attention import call as calls
from jaxprefix.models.attention.call import AttentionShape
from jaxprefix.models.config import LayerKind
from jaxprefix.models.hooks import ALWAYS, NEVER, Prefix
from jaxprefix.models.scan import checkpointed

TIME = 150  # two blocks of queries and of keys
LENGTHS = (TIME, 97)
REAL = np.arange(TIME) < np.array(LENGTHS)[:, None]
POSITIONS = jnp.array(np.where(REAL, np.arange(TIME), NEVER))
SIZE = 16


@pytest.fixture
def as_on_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selects splash, in interpreted mode, with small blocks, so that there are several."""
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    monkeypatch.setattr(splash, "attend", partial(splash.attend, interpret=True))
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selects cuDNN, whose layout XLA computes."""
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "why_unsupported", lambda call: None)
    monkeypatch.setattr(cudnn, "attend", partial(cudnn.attend, implementation="xla"))


@dataclass(frozen=True)
class Case:
    """One layer's attention."""

    heads: int = 4
    kv_heads: int = 2
    slots: int = 5  # of the prefix
    rows: bool = False  # each row has a prefix of its own
    present: bool = True  # in this layer
    window: int | None = None
    dtype: Any = jnp.float32

    @property
    def arguments(self) -> tuple[jax.Array, ...]:
        """query, keys, values, and of the prefix keys and values."""
        own = (len(LENGTHS),) if self.rows else ()
        shapes = [(len(LENGTHS), TIME, n, SIZE) for n in (self.heads, self.kv_heads, self.kv_heads)]
        shapes += 2 * [(*own, self.slots, self.kv_heads, SIZE)]
        return tuple(tiny.normal(seed, *shape).astype(self.dtype) for seed, shape in enumerate(shapes))

    def attend(self, is_ordinary: bool, *arguments: jax.Array) -> jax.Array:
        query, keys, values, *slots = arguments
        positions = jnp.full(self.slots, ALWAYS if self.present else NEVER)
        prefix = Prefix(*slots, positions) if self.slots else None
        return attention.attend_prefill(query, keys, values, POSITIONS, POSITIONS, prefix, self.window, is_ordinary)


COMMON = {
    "no prefix": Case(slots=0),
    "a prefix": Case(),
    "no prefix in this layer": Case(present=False),
    "a prefix a row, one key head, a window of all": Case(heads=3, kv_heads=1, rows=True, window=TIME),
    "a window, no prefix": Case(slots=0, window=40),
}
WINDOWS = {
    "a window of one, as many key heads": Case(heads=2, window=1),
    "a window, no prefix in this layer": Case(window=40, present=False),
}

QUICK = ("a prefix", "a prefix a row, one key head, a window of all", "a window, no prefix in this layer")
NARROW = "a window of one, as many key heads"  # with a prefix, which no window hides


def few(*names: str) -> list[Any]:
    """All cases, of which only these are quick."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in COMMON | WINDOWS]


def assert_equal_to_xla(case: Case, atol: float = 1e-5, relative: float = 0.0) -> None:
    """What real tokens read, and the gradients of a random function of it; `relative` to the largest of a gradient."""
    direction = tiny.normal(9, len(LENGTHS), TIME, case.heads, SIZE) * REAL[..., None, None]

    def run(is_ordinary: bool) -> Any:
        def function(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
            read = case.attend(is_ordinary, *arguments).astype(jnp.float32)
            return jnp.sum(read * direction), read

        return jax.jit(jax.value_and_grad(function, range(5), has_aux=True))(*case.arguments)

    ((_, found), gradients), ((_, wanted), wanted_gradients) = run(True), run(False)
    assert not np.array_equal(found, wanted), "the kernel was not used"
    np.testing.assert_allclose(found[REAL], wanted[REAL], rtol=0, atol=atol)
    for name, *both in zip("qkvKV", gradients, wanted_gradients, strict=True):
        one, other = (np.asarray(leaf, np.float32) for leaf in both)
        largest = np.abs(other).max(initial=0)
        np.testing.assert_allclose(one, other, rtol=0, atol=max(atol, relative * largest), err_msg=name)
        assert np.any(other) == (name in "qkv" or (case.slots > 0 and case.present))


@pytest.mark.parametrize("most", [pytest.param(3, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("name", few(*QUICK, NARROW))
def test_blocks(name: str, most: int, monkeypatch: pytest.MonkeyPatch):
    """Rows with 50 and with 19 queries."""
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(blocks, "BLOCKS", most)
    assert_equal_to_xla((COMMON | WINDOWS)[name])


@pytest.mark.parametrize("hidden", ["nothing", "some", "all of a query"])
@pytest.mark.parametrize(
    ("heads", "kv_heads"),
    [(4, 2), pytest.param(3, 3, marks=pytest.mark.slow), pytest.param(3, 1, marks=pytest.mark.slow)],
)
def test_xla_is_a_softmax(heads: int, kv_heads: int, hidden: str):
    """Beside NumPy's float64: what is read, and its gradients along a random direction by central differences."""
    shapes = [(2, 7, heads, SIZE), (2, 9, kv_heads, SIZE), (2, 9, kv_heads, SIZE)]
    arguments = [tiny.normal(seed, *shape) for seed, shape in enumerate(shapes)]
    mask = None if hidden == "nothing" else np.random.default_rng(0).random((2, 7, 9)) < 0.6
    if hidden == "all of a query":
        assert mask is not None
        mask[1, 4] = False

    def softmax(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        keys, values = (np.repeat(each, heads // kv_heads, axis=2) for each in (keys, values))
        scores = np.einsum("btnh,bsnh->bnts", query, keys) / SIZE**0.5
        scores = scores if mask is None else np.where(mask[:, None], scores, -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), values)

    found, pull_back = jax.vjp(
        lambda *each: attention.attention(*each, None if mask is None else jnp.asarray(mask)), *arguments
    )
    wide = [np.asarray(each, np.float64) for each in arguments]
    np.testing.assert_allclose(found, softmax(*wide), rtol=0, atol=1e-6)
    direction = np.asarray(tiny.normal(9, *found.shape), np.float64)
    for place, gradient in enumerate(pull_back(jnp.float32(direction))):
        step = 1e-5 * np.asarray(tiny.normal(10 + place, *shapes[place]), np.float64)
        ahead, behind = (
            softmax(*(each + sign * step if number == place else each for number, each in enumerate(wide)))
            for sign in (1, -1)
        )
        wanted = np.sum((ahead - behind) * direction) / 2
        assert np.sum(np.asarray(gradient, np.float64) * step) == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", few(*QUICK))
@pytest.mark.usefixtures("as_on_tpu")
def test_splash(name: str):
    assert_equal_to_xla((COMMON | WINDOWS)[name])


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.usefixtures("as_on_gpu")
def test_the_layout_for_cudnn(name: str):
    assert_equal_to_xla(COMMON[name])


def mesh(data: int, model: int) -> Mesh:
    return Mesh(np.array(jax.devices()[: data * model]).reshape(data, model), calls.AXES, (AxisType.Auto,) * 2)


TOKENS = np.random.default_rng(0).integers(0, tiny.CONFIG.vocabulary_size, REAL.shape)
ROWS = decoder.Batch.right_padded(jnp.asarray(TOKENS, jnp.int32), jnp.asarray(REAL.sum(1), jnp.int32))
METHOD = PrefixTuning(4, "1:3", "kv")  # no prefix in layers 0 and 3 of 4
WINDOWED = replace(tiny.CONFIG, window=40)
MIXED = replace(WINDOWED, layer_kinds=tuple(LayerKind(tiny.CONFIG.rope, window) for window in (40, None, 40, None)))


def adapted(params: Any, batch: decoder.Batch, remat: str = "dots", config: Any = WINDOWED) -> jax.Array:
    """States `[B, T, D]` under METHOD."""
    weights, hooks = METHOD.bind(tiny.CONFIG, params, tiny.FROZEN)
    return decoder.hidden_states(config, weights, batch, hooks, remat)


@pytest.mark.parametrize(
    ("config", "remat", "shape"),
    [
        (WINDOWED, "dots", (2, 2)),
        (MIXED, "dots", None),
        pytest.param(WINDOWED, "none", None, marks=pytest.mark.slow),
        pytest.param(MIXED, "none", (2, 2), marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("as_on_tpu")
def test_splash_within_the_loop_over_layers(config: Any, remat: str, shape: tuple[int, int] | None):
    """The decoder's states, and gradients of a prefix that some layers have, through scan and checkpoint, on a mesh:
    each device takes its own rows and heads, and the prefix, the same for all rows, gets the gradients of all.
    """
    direction = tiny.normal(8, *REAL.shape, tiny.CONFIG.hidden_size) * REAL[..., None]

    def run(right_padded: bool, where: Mesh | None) -> Any:
        def function(params: Any, rows: decoder.Batch) -> tuple[jax.Array, jax.Array]:
            states = adapted(params, rows, remat, config)
            return jnp.mean(states * direction), states

        arguments = tiny.noisy(METHOD), replace(ROWS, is_right_padded=right_padded)
        compiled = jax.jit(jax.value_and_grad(function, has_aux=True))
        if where is None:
            return compiled(*arguments)
        whole, shared = NamedSharding(where, P()), NamedSharding(where, P("data"))
        with jax.sharding.use_abstract_mesh(where.abstract_mesh):
            return compiled(jax.device_put(arguments[0], whole), jax.device_put(arguments[1], shared))

    ((_, wanted), wanted_gradients) = run(False, None)
    ((_, found), gradients) = run(True, mesh(*shape) if shape else None)
    assert np.abs(found - wanted)[~REAL].max() > 0.01, "the kernel was not used: what padding reads is the same"
    np.testing.assert_allclose(found[REAL], wanted[REAL], rtol=0, atol=1e-4)
    for name, other in wanted_gradients.items():
        assert np.abs(other).max() > 1e-5
        np.testing.assert_allclose(gradients[name], other, rtol=0, atol=1e-3 * np.abs(other).max())


def test_generation_uses_a_kernel_for_its_prompts_alone(monkeypatch: pytest.MonkeyPatch):
    """New tokens attend to a cache, whose slots are at any positions."""
    asked = []

    def kernel(call: AttentionShape) -> tuple[str, str]:
        asked.append((call.time, call.slots))
        return "xla", ""

    monkeypatch.setattr(attention, "kernel", kernel)
    weights, hooks = METHOD.bind(tiny.CONFIG, tiny.noisy(METHOD), tiny.FROZEN)
    jax.eval_shape(lambda: decoding.generate(WINDOWED, weights, ROWS, hooks, 5, (0,)))
    assert set(asked) == {(TIME, 0), (TIME, METHOD.length)}


CALL = AttentionShape(rows=8, time=512, heads=32, kv_heads=8, size=128, dtype=jnp.bfloat16, slots=10, window=None)
"""Every case of the choice: platform, changes to CALL, mesh, and the kernel with the reason against another."""
CHOICES: list[tuple[str, dict[str, Any], tuple[int, int], str, str]] = [
    ("tpu", {}, (2, 2), "splash", ""),
    ("tpu", {"dtype": jnp.float32, "size": 80, "window": 100}, (2, 2), "splash", ""),
    ("tpu", {"time": 127}, (1, 1), "xla", "fewer tokens than a block of 128"),
    ("tpu", {"rows": 3}, (2, 2), "xla", "3 rows and 8 key heads cannot be divided by the mesh 2x2"),
    ("tpu", {"kv_heads": 1}, (2, 2), "xla", "8 rows and 1 key heads cannot be divided by the mesh 2x2"),
    ("gpu", {}, (2, 2), "cudnn", ""),
    ("gpu", {"dtype": jnp.float32}, (1, 1), "xla", "cuDNN needs half precision, not float32"),
    ("gpu", {"time": 64}, (1, 1), "xla", "fewer tokens than a block of 128"),
    ("gpu", {"window": 511}, (1, 1), "xla", "cuDNN's window of 511 would hide the prefix"),
    ("gpu", {"window": 512}, (1, 1), "cudnn", ""),
    ("gpu", {"window": 100, "slots": 0}, (1, 1), "cudnn", ""),
    ("gpu", {"size": 129}, (1, 1), "xla", "head size 129 is not a multiple of 8 up to 256"),
    ("gpu", {"rows": 5}, (4, 1), "xla", "5 rows and 8 key heads cannot be divided by the mesh 4x1"),
    ("cpu", {}, (2, 2), "xla", "cpu has no other kernel"),
]


@pytest.mark.parametrize(("platform", "changes", "shape", "name", "why"), CHOICES)
def test_the_choice(
    platform: str,
    changes: dict[str, Any],
    shape: tuple[int, int],
    name: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(attention, "platform", lambda: platform)
    monkeypatch.setattr(cudnn, "capability", lambda: 9.0)
    with jax.sharding.use_abstract_mesh(mesh(*shape).abstract_mesh):
        assert attention.kernel(replace(CALL, **changes)) == (name, why)


def test_the_line_that_a_run_prints(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    hooks = METHOD.bind(tiny.CONFIG, tiny.noisy(METHOD), tiny.FROZEN)[1]
    found = attention.kernel_line(tiny.CONFIG, mesh(2, 2), 4, [64, 96, 512], "bfloat16", hooks)
    assert found == "attention: xla at 64, 96 (fewer tokens than a block of 128); splash at 512"
    assert attention.kernel_line(tiny.CONFIG, mesh(2, 2), 4, [512], "bfloat16", hooks) == "attention: splash"
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "capability", lambda: 9.0)
    line = "attention: xla at 512 (cuDNN's window of 40 would hide the prefix); cudnn at 512"
    assert attention.kernel_line(replace(MIXED, head_size=64), mesh(1, 1), 4, [512], "bfloat16", hooks) == line


@pytest.mark.parametrize(("remat", "times"), [("dots", 1), ("full", 2)])
def test_what_dots_keeps_of_cudnn(remat: str, times: int, monkeypatch: pytest.MonkeyPatch):
    """The program for CUDA, which needs no GPU as long as it is not compiled."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)

    def loss(query: jax.Array) -> jax.Array:
        return jnp.sum(checkpointed(lambda states: cudnn.attend(states, states, states, None, None), remat)(query))

    program = (
        jax.jit(jax.value_and_grad(loss))
        .trace(jnp.zeros((2, 256, 4, 64), jnp.bfloat16))
        .lower(lowering_platforms=("cuda",))
    )
    assert program.as_text().count("__cudnn$fmhaSoftmax(") == times


@pytest.mark.skipif(
    find_spec("libtpu") is None, reason="needs libtpu, whose compiler wants no TPU: pip install jax[tpu]"
)
@pytest.mark.parametrize("remat", ["full", "dots", "none"])
def test_splash_is_compiled_for_a_tpu(remat: str, monkeypatch: pytest.MonkeyPatch):
    """For four chips that are not here: two layers' worth of kernels, forward, again in the backward pass unless it is
    kept, and backward twice (for queries, for keys and values); the layer below the prefix has one.
    """
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # it would ask the cloud about this machine
    devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    where = Mesh(np.array(devices).reshape(2, 2), calls.AXES, (AxisType.Auto,) * 2)

    def at(tree: Any, spec: P) -> Any:
        place = NamedSharding(where, spec)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

    def loss(params: Any, frozen: Any, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        weights, hooks = METHOD.bind(tiny.CONFIG, params, frozen)
        rows = decoder.Batch(tokens, positions, is_right_padded=True)
        return jnp.sum(decoder.hidden_states(WINDOWED, weights, rows, hooks, remat).astype(jnp.float32))

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.FROZEN)
    with jax.sharding.use_abstract_mesh(where.abstract_mesh):
        assert calls.platform() == "tpu"
        rows = at((ROWS.tokens, ROWS.positions), P("data"))
        lowered = jax.jit(jax.grad(loss)).lower(at(tiny.noisy(METHOD), P()), at(half, P()), *rows)
    text = lowered.compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == {"full": 5, "dots": 4, "none": 4}[remat]


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU of NVIDIA: JAX_PLATFORMS=cuda pytest -m gpu")
@pytest.mark.parametrize("name", COMMON)
def test_cudnn(name: str):
    """In bfloat16, to its accuracy: 8 bits of what is read, and of the largest gradient."""
    case = replace(COMMON[name], dtype=jnp.bfloat16)
    call = AttentionShape(len(LENGTHS), TIME, case.heads, case.kv_heads, SIZE, case.dtype, case.slots, case.window)
    assert attention.kernel(call) == ("cudnn", "")
    assert_equal_to_xla(case, atol=0.02, relative=0.02)
