"""Measures the representations of runs beside their frozen base, on the same parallel texts."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxprefix.errors import InputError
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.report.files import json_text
from jaxprefix.inference.model import Model, batch_mesh
from jaxprefix.io.atomic import exclusive, write_atomically
from jaxprefix.models import decoder
from jaxprefix.models.adapters import NoAdapter
from jaxprefix.probe.lost_scores import lost_scores
from jaxprefix.probe.measure import Figures, Measure, has_virtual_tokens, merge
from jaxprefix.probe.plots import draw
from jaxprefix.probe.settings import Probe
from jaxprefix.probe.tables import tables
from jaxprefix.probe.texts import Texts, parallel_texts
from jaxprefix.runs.base_model import BaseModel, max_text_tokens
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, read_run
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.saved import TrainedRun, load_run

FILE = "probes.json"
BASE = "frozen base"  # its name among the models


def probe(
    runs: Sequence[str | Path], settings: Probe, quiet: bool = False, loaded: Loaded | None = None
) -> dict[str, Any]:
    """Measures, prints a table per figure, and writes probes.json and the plots.

    `loaded` has what earlier runs of this process loaded.

    Returns:
        the content of probes.json, of all runs together

    Raises:
        InputError: invalid settings, texts that are not parallel, or runs that do not share a base.
    """
    settings.check()
    directories = [Path(run) for run in runs]
    configs = [RunConfig.from_json(read_run(directory / RUN_FILE)["config"]) for directory in directories]
    _check_same(directories, configs)
    texts = parallel_texts(settings, configs[0].model is None, configs[0].data)
    labels, lost = _labels(directories, configs), {}
    if settings.forgetting_task:
        by_label = dict(zip(labels, directories, strict=True))
        lost = lost_scores(by_label, settings, settings.output or directories[0], quiet)
    with ExitStack() as locks:
        for directory in [settings.output] if settings.output else directories:
            locks.enter_context(exclusive(directory))
        result = _measure(directories, texts, settings, quiet, loaded or Loaded())
        result["probes"].get("forgetting", {}).update(lost)
        Console().print(*tables(result))
        if settings.output:
            _write(result, settings.output)
        else:
            for label, directory in zip(labels, directories, strict=True):
                _write(_only(result, label), directory)
    return result


def _check_same(directories: Sequence[Path], configs: Sequence[RunConfig]) -> None:
    """InputError if the runs would need different frozen weights or prompts."""
    for directory, config in zip(directories, configs, strict=True):
        for flag in ("dtype", "chat"):
            one, other = getattr(configs[0], flag), getattr(config, flag)
            if one != other:
                raise InputError(f"{directories[0]} has --{flag} {one}, {directory} {other}; probe them separately")


def _labels(directories: Sequence[Path], configs: Sequence[RunConfig]) -> list[str]:
    """The names of the runs: their methods, or their directories if two have the same method."""
    methods = [config.method for config in configs]
    return methods if len(set(methods)) == len(methods) else list(map(str, directories))


def _measure(directories: Sequence[Path], texts: Texts, settings: Probe, quiet: bool, loaded: Loaded) -> dict[str, Any]:
    mesh = batch_mesh(settings.mesh, settings.batch)
    first = load_run(directories[0], mesh, loaded=loaded)
    trained = [first, *(load_run(directory, mesh, first.base) for directory in directories[1:])]
    base, config = first.base, first.config
    if "attention" in settings.chosen and not any(_has_slots(run) for run in trained):
        methods = ", ".join(run.config.method for run in trained)
        raise InputError(f"--probes attention: no run has virtual tokens ({methods}); give a run of prefix, or drop it")
    adapters = [run.config.adapter for run in trained]
    longest = min(max_text_tokens(base.config, adapter, settings.max_length) for adapter in adapters)
    frozen = loaded.weights(base, mesh, config.dtype)
    labels = _labels(directories, [run.config for run in trained])
    options = (frozen, mesh, longest, config.chat)

    def measured_base() -> tuple[Measure, Figures]:
        measure = Measure(settings, texts, _encode(base, texts, longest), config, quiet)
        return measure, measure(Model(base, NoAdapter(), {}, *options, loaded=loaded), BASE)

    # A study probes its runs one by one, and measures the base once.
    key = ("probe", replace(settings, output=None), mesh, longest, config.data, config.chat, config.dtype)
    measure, of_base = loaded.program(key, measured_base)
    figures = {BASE: of_base}
    for label, run in zip(labels, trained, strict=True):
        figures[label] = measure(Model(base, run.config.adapter, run.params, *options, loaded=loaded), label)
    described: dict[str, Any] = {BASE: {"run": None, "method": "none", "step": 0}}
    for label, directory, run in zip(labels, directories, trained, strict=True):
        described[label] = {"run": str(directory), "method": run.config.method, "step": run.step}
    languages = list(texts.languages)
    return {
        "base": base.name,
        "layers": base.config.layers,
        "models": described,
        "texts": {"name": texts.name, "sentences": texts.count, "languages": languages, "pivot": texts.pivot},
        "pooling": settings.pooling,
        "confidence": statistics.CONFIDENCE,
        "probes": merge(figures),
    }


def _has_slots(run: TrainedRun) -> bool:
    """Whether the adapter has virtual tokens, in the softmax of the text or in one of their own."""
    adapter, shapes = run.config.adapter, decoder.shapes(run.base.config)
    hooks = jax.eval_shape(lambda params, frozen: adapter.bind(run.base.config, params, frozen)[1], run.params, shapes)
    return has_virtual_tokens(hooks) or hooks.gated is not None


def _encode(base: BaseModel, texts: Texts, longest: int) -> list[list[int]]:
    """The ids of all sentences of the first language, then of the next. Long ones are cut, and counted in a line."""
    ids = [base.tokenizer.prompt_ids(text) for sentences in texts.by_language.values() for text in sentences]
    if cut := sum(len(row) > longest for row in ids):
        print(f"{cut:,} of {len(ids):,} texts have more than {longest} tokens and are cut")
    return [row[:longest] for row in ids]


def _only(result: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The result with the base and this run alone."""

    def kept(by_model: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values for name, values in by_model.items() if name in (BASE, label)}

    probes = {
        probe: {figure: kept(by_model) for figure, by_model in figures.items() if kept(by_model)}
        for probe, figures in result["probes"].items()
    }
    return {**result, "models": kept(result["models"]), "probes": probes}


def _write(result: Mapping[str, Any], directory: Path) -> None:
    write_atomically(directory / FILE, json_text(result).encode())
    pictures = draw(result, directory)
    print(f"figures: {directory / FILE} · pictures: {', '.join(map(str, pictures)) or 'none'}")
