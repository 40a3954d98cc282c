"""The figures of one adapted model beside the frozen base: by language and, where a probe has them, by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.inference.model import Model
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.states import LayerStates
from jaxprefix.probe import language_identity
from jaxprefix.probe.alignment import cka, mexa_hits
from jaxprefix.probe.lens_prompts import LensPrompts, lens_prompts
from jaxprefix.probe.neurons import specific_neurons
from jaxprefix.probe.reading import read_states
from jaxprefix.probe.sampled import Sampled, means
from jaxprefix.probe.settings import OF_VECTORS, Probe
from jaxprefix.probe.texts import Texts
from jaxprefix.runs.config import RunConfig

ALL = "all"  # in place of a language
CONTROL = "shuffled labels"  # the control of language-id, in place of a language

# probe -> figure -> language -> {"layers", "mean", ...}; probes.json has the models between figure and language.
Figures = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Readings:
    """The states of all sentences of one model."""

    states: LayerStates
    languages: Sequence[str]

    @property
    def vectors(self) -> Float[np.ndarray, "M J n D"]:
        return self.by_language(self.states.vectors)

    def by_language(self, leaf: Any) -> np.ndarray:
        """`[M, B, ...]` as `[M, J, n, ...]`."""
        return leaf.reshape(leaf.shape[0], len(self.languages), -1, *leaf.shape[2:])


class Measure:
    """Measures one model after another on the same texts. The first is the frozen base."""

    def __init__(self, settings: Probe, texts: Texts, ids: Sequence[list[int]], config: RunConfig, quiet: bool):
        self.settings, self.texts, self.quiet, self.config = settings, texts, quiet, config
        self.ids = ids
        self.chosen = settings.chosen
        self._base: Readings | None = None
        self._base_loss: Sampled | None = None
        self._base_neurons: np.ndarray | None = None
        self._prompts: LensPrompts | None = None

    def __call__(self, model: Model, name: str) -> Figures:
        """The figures of a model. `name` is for the progress bar."""
        hooks = bound_hooks(model) if "attention" in self.chosen else Hooks()
        states = read_states(
            *(model, self.ids, self.settings.batch, name, self.quiet),
            pooling=self.settings.pooling if set(OF_VECTORS) & set(self.chosen) else None,
            attention=has_virtual_tokens(hooks),
            loss="forgetting" in self.chosen,
            neurons="neurons" in self.chosen,
            groups=np.repeat(np.arange(len(self.texts.languages)), self.texts.count),
        )
        readings = Readings(states, self.texts.languages)
        compute: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
            "mexa": lambda: self._mexa(readings.vectors),
            "cka": lambda: self._cka(readings.vectors),
            "language-id": lambda: self._language_id(readings.vectors),
            "attention": lambda: self._attention(hooks, readings),
            "lens": lambda: self._lens(model, name),
            "forgetting": lambda: self._forgetting(readings),
            "neurons": lambda: self._neurons(readings),
        }
        figures = {probe: compute[probe]() for probe in self.chosen}
        self._base = self._base or readings
        return figures

    def _by_language(self, sampled: Sampled) -> dict[str, Any]:
        """The layers and their mean of each language, from a statistic of [J, M]."""
        return {code: _layers(sampled[index]) for index, code in enumerate(self.texts.languages)}

    def _mexa(self, vectors: Float[np.ndarray, "M J n D"]) -> dict[str, dict[str, Any]]:
        """For all languages but the pivot; "max" is the best layer, as "mean" one of the two poolings of the paper."""
        others = self.texts.languages[1:]
        hits = np.array([[mexa_hits(layer[0], other) for other in layer[1:]] for layer in vectors])  # [M, J-1, n]
        sampled = means(np.transpose(hits, (2, 1, 0)))
        best = sampled.map(lambda scores: scores.max(axis=-1)).estimates()
        figures = {code: _layers(sampled[index]) | {"max": best[index]} for index, code in enumerate(others)}
        average = sampled.map(lambda scores: scores.mean(axis=-2))
        figures[ALL] = _layers(average) | {"max": average.map(lambda scores: scores.max(axis=-1)).estimates()}
        return {"score": figures}

    def _cka(self, vectors: Float[np.ndarray, "M J n D"]) -> dict[str, dict[str, Any]]:
        """Each language against the pivot and, for an adapted model, against the same language in the base."""
        codes = self.texts.languages
        pairs = {"to pivot": {code: (vectors[:, 0], vectors[:, j]) for j, code in enumerate(codes) if j}}
        if self._base is not None:
            base = self._base.vectors
            pairs["to base"] = {code: (base[:, j], vectors[:, j]) for j, code in enumerate(codes)}
        figures: dict[str, dict[str, Any]] = {}
        for figure, by_code in pairs.items():
            layers = (zip(*pair, strict=True) for pair in by_code.values())
            sampled = _stack([_stack([cka(*vectors) for vectors in pairs]) for pairs in layers])  # [M, J]
            average = _layers(sampled.map(lambda values: values.mean(axis=-1)))
            sampled = sampled.map(lambda values: np.moveaxis(values, -1, -2))
            figures[figure] = {code: _layers(sampled[index]) for index, code in enumerate(by_code)} | {ALL: average}
        return figures

    def _language_id(self, vectors: Float[np.ndarray, "M J n D"]) -> dict[str, dict[str, Any]]:
        right, control = zip(*(language_identity.held_out(layer) for layer in vectors), strict=True)  # [M, m, J]
        accuracy, chance = (means(np.transpose(np.array(hits), (1, 2, 0))) for hits in (right, control))
        whole = {ALL: accuracy, CONTROL: chance}
        average = {name: sampled.map(lambda scores: scores.mean(axis=-2)) for name, sampled in whole.items()}
        return {"accuracy": self._by_language(accuracy) | {name: _layers(each) for name, each in average.items()}}

    def _attention(self, hooks: Hooks, readings: Readings) -> dict[str, dict[str, Any]]:
        """The share of virtual tokens, or the gates of those with a softmax of their own; nothing without either."""
        figures: dict[str, dict[str, Any]] = {}
        if has_virtual_tokens(hooks):
            share = readings.by_language(readings.states.share)  # [L, J, n, N]
            uniform = readings.by_language(readings.states.uniform_share)
            figures["share"] = self._by_language(means(np.transpose(share.mean(axis=-1), (2, 1, 0))))
            figures["uniform share"] = self._by_language(means(np.transpose(uniform, (2, 1, 0))))
            heads = np.transpose(share.mean(axis=2), (1, 0, 2))
            figures["share by head"] = {
                code: {"heads": heads[index].tolist()} for index, code in enumerate(self.texts.languages)
            }
        if hooks.gated is not None:
            gate = np.asarray(hooks.gated.gate, float)
            figures["gate"] = {ALL: {"heads": gate.tolist(), "mean": _exact(np.abs(gate).mean())}}
        return figures

    def _lens(self, model: Model, name: str) -> dict[str, dict[str, Any]]:
        if self._prompts is None:
            self._prompts = lens_prompts(model, self.settings, self.config, self.texts.languages)
        prompts = self._prompts
        tokens = prompts.tokens.reshape(-1, 2)
        states = read_states(model, prompts.ids, self.settings.batch, f"{name}, lens", self.quiet, lens_tokens=tokens)
        readings = Readings(states, self.texts.languages)
        lens, entropy = readings.by_language(states.lens), readings.by_language(states.entropy)
        values = {"p(pivot)": lens[..., 0], "p(language)": lens[..., 1], "entropy": entropy}
        counts = prompts.counted.T.astype(float)
        figures: dict[str, dict[str, Any]] = {}
        for figure, leaf in values.items():
            sampled = means(np.transpose(leaf, (2, 1, 0)) * counts[..., None], counts)
            figures[figure] = {
                code: {
                    "layers": sampled[index].estimates(),
                    "last": sampled[index].map(lambda x: x[..., -1]).estimates(),
                }
                for index, code in enumerate(self.texts.languages)
            }
        return figures

    def _forgetting(self, readings: Readings) -> dict[str, dict[str, Any]]:
        """The mean loss per token, and for an adapted model what it is above the base's."""
        shape = len(self.texts.languages), -1
        loss = np.asarray(readings.states.loss, float).reshape(shape).T
        tokens = np.array([len(row) - 1 for row in self.ids], float).reshape(shape).T
        sampled = means(loss, tokens)
        figures = {"loss": sampled}
        if self._base_loss is None:
            self._base_loss = sampled
        else:
            figures["added loss"] = sampled.minus(self._base_loss)
        return {
            figure: {code: {"mean": each[index].estimates()} for index, code in enumerate(self.texts.languages)}
            | {ALL: {"mean": each.map(lambda losses: losses.mean(axis=-1)).estimates()}}
            for figure, each in figures.items()
        }

    def _neurons(self, readings: Readings) -> dict[str, dict[str, Any]]:
        """The neurons that are specific to each language, and how many of them the base has as well (Jaccard)."""
        codes = self.texts.languages
        tokens = np.array([len(row) for row in self.ids]).reshape(len(codes), -1).sum(axis=1)
        neurons = specific_neurons(np.asarray(readings.states.active), tokens)
        counts = neurons.sum(axis=-1)
        figures = {
            "count": {
                code: {
                    "layers": [_exact(count) for count in counts[index]],
                    "sum": _exact(counts[index].sum()),
                    "neurons": np.argwhere(neurons[index]).tolist(),
                }
                for index, code in enumerate(codes)
            }
        }
        if self._base_neurons is None:
            self._base_neurons = neurons
        else:
            base = self._base_neurons
            both, either = ((base & neurons).sum(axis=(1, 2)), (base | neurons).sum(axis=(1, 2)))
            overlap = both / np.maximum(either, 1)
            figures["overlap with base"] = {code: {"mean": _exact(overlap[index])} for index, code in enumerate(codes)}
        return figures


def _exact(value: float) -> Estimate:
    """A figure without an interval."""
    return Estimate(value=float(value), low=None, high=None)


def bound_hooks(model: Model) -> Hooks:
    """The hooks of the adapter, in NumPy."""
    bind = jax.jit(lambda params, frozen: model.adapter.bind(model.base.config, params, frozen)[1])
    return jax.device_get(bind(model.params, model.frozen))


def has_virtual_tokens(hooks: Hooks) -> bool:
    """Whether a softmax over text has virtual tokens."""
    return hooks.prefix is not None or hooks.prompt is not None


def _layers(sampled: Sampled) -> dict[str, Any]:
    """The estimate of each layer, and of their mean without those that do not exist."""
    return {"layers": sampled.estimates(), "mean": sampled.map(_mean).estimates()}


def _mean(layers: np.ndarray) -> np.ndarray:
    present = ~np.isnan(layers)
    return np.where(present, layers, 0).sum(axis=-1) / np.where(present.any(axis=-1), present.sum(axis=-1), np.nan)


def _stack(parts: Sequence[Sampled]) -> Sampled:
    """Several statistics as one, in a new last dimension."""
    value = np.stack([part.value for part in parts], axis=-1)
    return Sampled(value, np.stack([part.replicates for part in parts], axis=-1), parts[0].is_jackknife)


def merge(figures: Mapping[str, Figures]) -> dict[str, dict[str, dict[str, Any]]]:
    """model -> probe -> figure -> ... as probe -> figure -> model -> ..."""
    merged: dict[str, dict[str, dict[str, Any]]] = {}
    for model, probes in figures.items():
        for probe, by_figure in probes.items():
            by_model = merged.setdefault(probe, {})
            for figure, values in by_figure.items():
                by_model.setdefault(figure, {})[model] = values
    return merged
