"""An adapted model for inference: a frozen base, with one adapter or with several of one method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import decode, decoder, scoring
from jaxprefix.models.adapters import Adapter, FullFineTuning, NoAdapter, inference_form
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decode import DecodeState, PrefillBatch, SharedPrompt
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import Cache, Params
from jaxprefix.models.sampling import Sampling
from jaxprefix.runs.base_model import BaseModel, load_weights, max_text_tokens, open_base
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.saved import TrainedRun, load_run, stack_adapters

State = TypeVar("State", DecodeState, tuple[Cache, ...])


@dataclass(frozen=True)
class Programs:
    """The jitted functions of an adapted model. They are compiled for each shape of their arguments."""

    config: DecoderConfig
    end_ids: tuple[int, ...]
    adapter: Adapter
    mesh: Mesh

    @cached_property
    def init_state(self) -> Callable[..., DecodeState]:
        """(params, frozen, prompts, adapter ids of the prompts [R], length) -> a state of empty rows."""

        @partial(jax.jit, static_argnums=4)
        @partial(meshes.with_mesh, self.mesh)
        def run(
            params: Params, frozen: Frozen, prompts: PrefillBatch, prompt_adapters: jax.Array | None, length: int
        ) -> DecodeState:
            weights, hooks = self.adapter.bind(self.config, params, frozen, adapter_ids=prompt_adapters)
            return self._with_sharding(decode.init_state(self.config, weights, prompts, hooks, length))

        return run

    @cached_property
    def step(self) -> Callable[..., DecodeState]:
        """(params, frozen, state, prompts, adapter ids of the prompts [R], adapter ids of all rows [B], sampling,
        stopped [B], min_active, steps) -> the next state.

        Ends the stopped rows, inserts the prompts, and generates tokens as `decode.decode_steps` does.
        """
        config, end_ids = self.config, self.end_ids

        @partial(jax.jit, static_argnums=6, donate_argnums=2)
        @partial(meshes.with_mesh, self.mesh)
        def run(
            params: Params,
            frozen: Frozen,
            state: DecodeState,
            prompts: PrefillBatch,
            prompt_adapters: jax.Array | None,
            row_adapters: jax.Array | None,
            sampling: Sampling,
            stopped: jax.Array,
            min_active: jax.Array,
            steps: jax.Array,
        ) -> DecodeState:
            def insert(state: DecodeState) -> DecodeState:
                weights, hooks = self.adapter.bind(self.config, params, frozen, adapter_ids=prompt_adapters)
                return decode.insert(config, weights, state, prompts, hooks, end_ids, sampling)

            state = state.replace(done=state.done | stopped)  # type: ignore[attr-defined]
            state = jax.lax.cond(jnp.any(prompts.source >= 0), insert, lambda state: state, state)
            weights, hooks = self.adapter.bind(self.config, params, frozen, adapter_ids=row_adapters)
            return self._with_sharding(
                decode.decode_steps(config, weights, state, hooks, end_ids, sampling, min_active, steps)
            )

        return run

    @cached_property
    def score_choices(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """(params, frozen, batch, adapter ids of the rows, tokens of the choices [B, T], lengths [B, C], shared
        prompt or None) -> `scoring.choices`.
        """

        @jax.jit
        @partial(meshes.with_mesh, self.mesh)
        def run(
            params: Params,
            frozen: Frozen,
            batch: Batch,
            row_adapters: jax.Array | None,
            tokens: jax.Array,
            lengths: jax.Array,
            shared: SharedPrompt | None,
        ) -> tuple[jax.Array, jax.Array]:
            weights, hooks = self.adapter.bind(self.config, params, frozen, adapter_ids=row_adapters)
            return scoring.choices(self.config, weights, batch, hooks, tokens, lengths, shared)

        return run

    @cached_property
    def prefill_shared(self) -> Callable[..., tuple[Cache, ...]]:
        """(params, frozen, batch of equal rows, adapter ids of the rows) -> the cache of a shared prompt."""

        @jax.jit
        @partial(meshes.with_mesh, self.mesh)
        def run(params: Params, frozen: Frozen, batch: Batch, row_adapters: jax.Array | None) -> tuple[Cache, ...]:
            weights, hooks = self.adapter.bind(self.config, params, frozen, adapter_ids=row_adapters)
            return self._with_sharding(decode.prefill(self.config, weights, batch, hooks, free_slots=0)[2])

        return run

    def _with_sharding(self, state: State) -> State:
        """The state or cache with a fixed sharding: rows over `data`, the cache's heads over `model` if they divide.

        The compiler could otherwise choose another sharding for the output than for the input, and the next step would
        compile again.
        """
        shards_heads = self.config.kv_heads % self.mesh.shape["model"] == 0

        def constrain(leaf: jax.Array) -> jax.Array:
            spec = P() if leaf.ndim == 0 else P("data", "model") if leaf.ndim == 4 and shards_heads else P("data")
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

        return jax.tree.map(constrain, state)


@dataclass(frozen=True)
class Model:
    """An adapted model on a mesh. With several adapters, each request names its own."""

    base: BaseModel
    adapter: Adapter
    params: Params  # with a leading dimension of adapters if there are several
    frozen: Frozen
    mesh: Mesh
    max_length: int
    chat: bool
    multi_adapter: bool = False
    ends_prompts: bool = True  # with a newline, as rows are trained; False for a base without a run
    loaded: Loaded = field(default_factory=Loaded)  # what it shares with other models of this process

    @cached_property
    def inference_form(self) -> tuple[Adapter, Params]:
        """The adapter and the parameters that `programs` take. `stack_adapters` made it for several."""
        if self.multi_adapter:
            return self.adapter, self.params
        return inference_form(self.adapter, self.base.config, self.params, self.frozen)

    @cached_property
    def programs(self) -> Programs:
        """The jitted functions. Models that share `loaded` and differ only in their parameters have the same ones."""
        key = (self.base.config, self.base.tokenizer.eos, self.inference_form[0], self.mesh)
        return self.loaded.program(("inference", *key), lambda: Programs(*key))

    @property
    def compilations(self) -> int:
        """The number of shapes compiled so far, for generation, choices and shared prompts."""
        own = self.programs
        jitted: tuple[Any, ...] = (own.step, own.score_choices, own.prefill_shared)
        return sum(function._cache_size() for function in jitted)

    def shard(self, leaf: np.ndarray, dim: int = 0) -> jax.Array:
        """The array on the mesh, with the rows in dimension `dim` sharded over `data`."""
        return cast(jax.Array, meshes.shard_batch(self.mesh, leaf, dim))


def open_model(
    directories: Sequence[Path],
    mesh: str | None,
    batch: int,
    max_length: int | None = None,
    loaded: Loaded | None = None,
) -> tuple[Model, list[TrainedRun]]:
    """The runs' base and their last adapters on a mesh, for batches of `batch` rows, and the runs themselves.

    `max_length` counts the tokens of prompt and answer; None is the runs' own. InputError if the runs cannot share a
    batch, or if the mesh cannot divide one among its devices. `loaded` has what earlier models of this process loaded.
    """
    loaded = loaded or Loaded()
    device_mesh = batch_mesh(mesh, batch)
    first = load_run(directories[0], device_mesh, loaded=loaded)
    runs = [first, *(load_run(directory, device_mesh, first.base) for directory in directories[1:])]
    base, config = first.base, first.config
    # Runs that cannot share a batch are refused before the weights are loaded.
    jax.eval_shape(lambda shapes: stack_adapters(runs, shapes)[1], decoder.shapes(base.config))
    text_tokens = max_text_tokens(base.config, config.adapter, max_length or config.max_length)
    frozen = loaded.weights(base, device_mesh, config.dtype, for_inference=True)
    adapter, params = stack_adapters(runs, frozen)
    if isinstance(adapter, FullFineTuning):  # its parameters are the weights: they are converted once, not in each call
        frozen = params = jax.jit(lambda params, frozen: adapter.bind(base.config, params, frozen)[0])(params, frozen)
    several = len(runs) > 1
    options = (device_mesh, text_tokens, config.chat, several)
    return Model(base, adapter, params, frozen, *options, loaded=loaded), runs


def open_frozen(name: str, mesh: str | None, batch: int, max_length: int) -> Model:
    """The base model `name` without an adapter; otherwise as `open_model`."""
    device_mesh, base = batch_mesh(mesh, batch), open_base(name)
    text_tokens = max_text_tokens(base.config, NoAdapter(), max_length)
    frozen = load_weights(base, device_mesh, "auto", for_inference=True)
    return Model(base, NoAdapter(), {}, frozen, device_mesh, text_tokens, chat=False)


def batch_mesh(text: str | None, batch: int) -> Mesh:
    """The mesh. InputError if it cannot divide batches of `batch` rows among its devices."""
    device_mesh = meshes.make_mesh(text)
    if batch % (devices := device_mesh.shape["data"]):
        raise InputError(
            f"--batch {batch} cannot be divided among {devices} data devices; choose a multiple of {devices}"
        )
    return device_mesh
