"""What several runs of one process share: the opened base, one set of its weights, rows, and compiled programs."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from jax.sharding import Mesh

from jaxprefix.io.hub import expanded
from jaxprefix.models.decoder import Frozen
from jaxprefix.runs.base_model import BaseModel, load_weights, open_base

Value = TypeVar("Value")


class Loaded:
    """Keeps what the last run has loaded and compiled, for the next one.

    Of weights and rows only the last are kept: those for training and those for inference are never in memory together.
    Programs are kept until another base is opened.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Hashable, Any]] = {}
        self._programs: dict[Hashable, Any] = {}

    def base(self, model: str | None, path: str | None = None) -> BaseModel:
        """`open_base`. Another base than the last one drops the weights and programs of that one."""
        here = expanded(model).absolute() if model and expanded(model).is_dir() else model
        key = path or (here and str(here))
        if "base" in self._last and self._last["base"][0] != key:
            self._last.clear()
            self._programs.clear()
        return self._keep_last("base", key, lambda: open_base(model, path))

    def weights(self, base: BaseModel, mesh: Mesh, dtype: str, for_inference: bool = False) -> Frozen:
        """`load_weights`."""
        key = (base.fingerprint, mesh, dtype, for_inference)
        return self._keep_last("weights", key, lambda: load_weights(base, mesh, dtype, for_inference))

    def rows(self, key: Hashable, load: Callable[[], Value]) -> Value:
        """The encoded rows of this key, which names everything that they depend on."""
        return self._keep_last("rows", key, load)

    def program(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The programs of this key, which names everything that they depend on but the base."""
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def _keep_last(self, kind: str, key: Hashable, load: Callable[[], Value]) -> Value:
        if kind not in self._last or self._last[kind][0] != key:
            self._last.pop(kind, None)  # frees the memory before the new value needs it
            self._last[kind] = key, load()
        return self._last[kind][1]
