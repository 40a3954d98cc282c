"""The command on runs of a tiny model: its figures against naive computations, its files, and mistakes of users."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import small
import torch
from formulas import naive_cka, naive_lape, naive_mexa
from models import tiny
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from jaxprefix import tasks
from jaxprefix.distributed import mesh as meshes
from jaxprefix.evaluation.selection import spread
from jaxprefix.io import terminal
from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, FullFineTuning, LlamaAdapter, LoRA, NoAdapter, PrefixTuning
from jaxprefix.models.layers import layer_of
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter
from jaxprefix.probe import __main__ as command
from jaxprefix.probe import reading
from jaxprefix.probe.lost_scores import FOLDER, OTHERS
from jaxprefix.probe.measure import ALL, Measure
from jaxprefix.probe.probe import BASE, probe
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.base_model import BaseModel, load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.saved import save_run, write_run_json

ADAPTERS: dict[str, Adapter] = {
    "lora": LoRA(),
    "prefix": PrefixTuning(length=3, layers="top:2", start="random"),
    "llama-adapter": LlamaAdapter(length=3),
    "full": FullFineTuning(),
}
LANGUAGES = ("en", "de", "sw")
SENTENCES = 40  # more than the 32 dimensions of the model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a run of each method with random parameters, and parallel texts."""
    folder = tmp_path_factory.mktemp("probe")
    small.write_model(folder / "model", scale=4)
    base = open_base(str(folder / "model"))
    config = RunConfig(model=str(folder / "model"), task="mnli", mesh="1x1")
    for name, adapter in ADAPTERS.items():
        params = tiny.noisy(adapter, 0.1, base.config)
        if name == "full":
            frozen = load_weights(base, meshes.make_mesh("1x1"), "float32")
            params = jax.tree.map(lambda weight, noise: weight + 0.3 * noise, frozen, params)
        save_run(folder / name, config.with_adapter(adapter), base, params, "en")
    none = config.with_adapter(NoAdapter())
    write_run_json(folder / "none", none, base, {"source": "en", "rows": None, "steps": 0, "finished": True})
    small.write_rows(folder / "texts.jsonl", texts())
    return folder


def texts() -> list[dict[str, str]]:
    """A sentence, its words in another order, and letters: three "languages"."""
    rows = []
    for row in small.rows(SENTENCES):
        words = row["prompt"].split()
        rows.append({"language": "en", "text": row["prompt"]})
        rows.append({"language": "de", "text": " ".join(words[::-1])})
        rows.append({"language": "sw", "text": " ".join(word[::-1] for word in words)})
    return rows


def settings(place: Path, **changes: Any) -> Probe:
    values = {"text_file": place / "texts.jsonl", "mesh": "1x1", "batch": 8, "output": place / "out"}
    return Probe(**values | changes)


@pytest.fixture(scope="module")
def result(place: Path) -> dict[str, Any]:
    chosen = "mexa,cka,language-id,attention,forgetting"
    return probe([place / name for name in ("lora", "prefix", "none")], settings(place, probes=chosen), quiet=True)


def naive_vectors(place: Path, name: str) -> np.ndarray:
    """[J, n, M, D]: the vectors of each text alone, layer by layer."""
    base = open_base(str(place / "model"))
    frozen = load_weights(base, meshes.make_mesh("1x1"), "float32")
    adapter = ADAPTERS.get(name, NoAdapter())
    weights, hooks = adapter.bind(base.config, tiny.noisy(adapter, 0.1, base.config), frozen)

    @jax.jit
    def states(tokens: jax.Array, length: jax.Array) -> list[jax.Array]:
        batch = decoder.Batch.right_padded(tokens[None], length[None])
        stream, positions = decoder.embed(base.config, weights, batch, hooks)
        step, found = decoder.layer_step(base.config, batch, positions), [stream]
        for layer in range(base.config.layers):
            stream, _ = step(stream, layer_of(weights["layers"], layer), layer_of(hooks.per_layer, layer), 0)
            found.append(stream)
        return found

    vectors = []
    for language in LANGUAGES:
        for ids in (base.tokenizer.prompt_ids(row["text"]) for row in texts() if row["language"] == language):
            layers = states(jnp.asarray(ids + [0] * (128 - len(ids))), jnp.asarray(len(ids)))
            weight = np.arange(1, len(ids) + 1, dtype=float)
            vectors.append([weight / weight.sum() @ np.asarray(layer[0, : len(ids)], float) for layer in layers])
    return np.array(vectors).reshape(len(LANGUAGES), SENTENCES, len(vectors[0]), -1)


def values(figures: dict[str, Any], language: str) -> list[float]:
    return [estimate["value"] for estimate in figures[language]["layers"]]


def test_mexa_and_cka_are_those_of_single_sentences(place: Path, result: dict[str, Any]):
    base, lora = (naive_vectors(place, name) for name in ("none", "lora"))
    layers, scored = range(base.shape[2]), []
    for model, vectors in ((BASE, base), ("lora", lora)):
        for index, language in enumerate(LANGUAGES[1:], start=1):
            mexa = [naive_mexa(vectors[0, :, layer], vectors[index, :, layer]) for layer in layers]
            scored += mexa
            scores = result["probes"]["mexa"]["score"][model]
            assert values(scores, language) == pytest.approx(mexa, abs=1e-9)
            assert scores[language]["max"]["value"] == pytest.approx(max(mexa))
            assert scores[language]["mean"]["value"] == pytest.approx(np.mean(mexa))
            cka = [naive_cka(vectors[0, :, layer], vectors[index, :, layer]) for layer in layers]
            assert values(result["probes"]["cka"]["to pivot"][model], language) == pytest.approx(cka, abs=1e-5)
    for index, language in enumerate(LANGUAGES):
        cka = [naive_cka(base[index, :, layer], lora[index, :, layer]) for layer in layers]
        assert values(result["probes"]["cka"]["to base"]["lora"], language) == pytest.approx(cka, abs=1e-5)
    assert min(cka) < 0.99 and len(set(scored)) > 4  # neither is trivial


def test_a_run_of_method_none_has_changed_nothing(result: dict[str, Any]):
    probes = result["probes"]
    for language in (*LANGUAGES, ALL):
        assert probes["forgetting"]["added loss"]["none"][language]["mean"] == {"value": 0, "low": 0, "high": 0}
        assert values(probes["cka"]["to base"]["none"], language) == pytest.approx([1] * 4, abs=1e-12)
        assert probes["language-id"]["accuracy"]["none"][language] == probes["language-id"]["accuracy"][BASE][language]
    assert probes["mexa"]["score"]["none"] == probes["mexa"]["score"][BASE]


def test_one_process_measures_the_base_once(place: Path, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Runs that are probed one after another get the figures that they get together."""
    measured, measure = [], Measure.__call__

    def counted(self: Measure, model: Any, name: str) -> Any:
        measured.append(name)
        return measure(self, model, name)

    monkeypatch.setattr(Measure, "__call__", counted)
    loaded, chosen = Loaded(), settings(place, probes="cka,forgetting")
    for name in ("lora", "none"):
        found = probe([place / name], replace(chosen, output=place / f"alone-{name}"), quiet=True, loaded=loaded)
        for figure in ("to base", "to pivot"):
            assert found["probes"]["cka"][figure][name] == result["probes"]["cka"][figure][name]
        assert found["probes"]["forgetting"]["loss"][BASE] == result["probes"]["forgetting"]["loss"][BASE]
    assert measured == [BASE, "lora", "none"]


def test_every_interval_contains_its_value(result: dict[str, Any]):
    def estimates(node: Any) -> list[dict[str, float]]:
        if isinstance(node, dict) and "value" in node:
            return [node]
        parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return [estimate for part in parts for estimate in estimates(part)]

    found = estimates(result["probes"])
    assert len(found) > 100
    assert all(estimate["low"] <= estimate["value"] + 1e-9 for estimate in found)
    assert all(estimate["high"] >= estimate["value"] - 1e-9 for estimate in found)


def test_attention_is_shown_where_there_are_virtual_tokens(result: dict[str, Any]):
    attention = result["probes"]["attention"]
    assert set(attention["share"]) == {"prefix"}
    assert values(attention["share"]["prefix"], "de")[0] == 0 < values(attention["share"]["prefix"], "de")[1]
    heads = np.array(attention["share by head"]["prefix"]["de"]["heads"])
    assert heads.shape == (3, 4)
    assert heads.mean(axis=1) == pytest.approx(values(attention["share"]["prefix"], "de"), abs=1e-6)


def test_forgetting_is_that_of_torch_with_peft_on_and_off(place: Path, result: dict[str, Any], tmp_path: Path):
    base = open_base(str(place / "model"))
    frozen = load_weights(base, meshes.make_mesh("1x1"), "float32")
    params = tiny.noisy(ADAPTERS["lora"], 0.1, base.config)
    exported, tensors = to_peft(ADAPTERS["lora"], params, base.config, lambda name: np.asarray(frozen["layers"][name]))
    name = {"base_model_name_or_path": str(place / "model")}
    write_adapter(tmp_path / "lora", exported | name, tensors, "hash", "card")
    model = LlamaForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, str(tmp_path / "lora")).eval()
    for language in LANGUAGES[:2]:
        added = mean_loss(model, base, language)
        with model.disable_adapter():
            added -= mean_loss(model, base, language)
        found = result["probes"]["forgetting"]["added loss"]["lora"][language]["mean"]["value"]
        assert found == pytest.approx(added, abs=1e-5) and abs(added) > 1e-3


def mean_loss(model: Any, base: BaseModel, language: str) -> float:
    """The mean over all tokens of a language but the first of each text."""
    total = count = 0.0
    for row in texts():
        if row["language"] == language:
            ids = torch.tensor(base.tokenizer.prompt_ids(row["text"]))
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0]
            total += cross_entropy(logits[:-1].double(), ids[1:], reduction="sum").item()
            count += len(ids) - 1
    return total / count


def test_lost_scores_are_the_differences_of_ordinary_evaluations(place: Path, tmp_path: Path):
    """The frozen base is a run of its own, which a repeated probe does not evaluate again."""
    shutil.copytree(place / "full", tmp_path / "full")
    languages = {"languages": "en,de,sw", "limit": 12, "forgetting_task": "babel-choice"}
    chosen = settings(place, probes="forgetting", output=tmp_path / "out", **languages)
    found = probe([tmp_path / "full"], chosen, quiet=True)["probes"]["forgetting"]["lost babel-choice accuracy"]["full"]
    assert set(found) == {"en", "de", "sw", OTHERS}
    right = {"base": dict[str, float](), "full": dict[str, float]()}
    for name, run in (("base", tmp_path / "out" / FOLDER), ("full", tmp_path / "full")):
        lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        for code in LANGUAGES:
            right[name][code] = np.mean([row["scores"]["accuracy"] for row in rows if row["language"] == code])
        right[name][OTHERS] = (right[name]["de"] + right[name]["sw"]) / 2
    assert len({*right["base"].values(), *right["full"].values()}) > 2  # not all alike
    for code, figures in found.items():
        lost = right["base"][code] - right["full"][code]
        assert figures["mean"]["value"] == pytest.approx(lost) and figures["base"] == pytest.approx(right["base"][code])
        assert figures["relative"]["value"] == pytest.approx(lost / right["base"][code])
    before = (tmp_path / "out" / FOLDER / "predictions.jsonl").stat().st_mtime_ns
    probe([tmp_path / "full"], chosen, quiet=True)
    assert (tmp_path / "out" / FOLDER / "predictions.jsonl").stat().st_mtime_ns == before


def test_active_neurons_are_those_of_torch(place: Path):
    """Counted by a hook on the activations of transformers' model, text by text, and selected by the naive LAPE."""
    found = probe([place / "none"], settings(place, probes="neurons", output=place / "neurons"), quiet=True)
    base = open_base(str(place / "model"))
    model = LlamaForCausalLM.from_pretrained(place / "model", dtype=torch.float32).eval()
    active = np.zeros((base.config.layers, len(LANGUAGES), base.config.intermediate_size), int)
    tokens, language = np.zeros(len(LANGUAGES), int), 0

    def counter(layer: int) -> Callable[..., None]:
        def count(_: Any, __: Any, outputs: torch.Tensor) -> None:
            active[layer, language] += (outputs[0] > 0).sum(dim=0).numpy()

        return count

    for number, layer in enumerate(model.model.layers):
        layer.mlp.act_fn.register_forward_hook(counter(number))
    for language, code in enumerate(LANGUAGES):
        for row in texts():
            if row["language"] == code:
                ids = base.tokenizer.prompt_ids(row["text"])
                tokens[language] += len(ids)
                model(input_ids=torch.tensor(ids)[None])
    expected = naive_lape(active, tokens)
    counts = found["probes"]["neurons"]["count"]["none"]
    listed = {(j, *pair) for j, code in enumerate(LANGUAGES) for pair in map(tuple, counts[code]["neurons"])}
    assert listed == expected and len(listed) > 4
    assert found["probes"]["neurons"]["overlap with base"]["none"]["de"]["mean"]["value"] in (0.0, 1.0)


def test_full_fine_tuning_has_the_frozen_weights_as_its_base(place: Path, result: dict[str, Any]):
    found = probe([place / "full"], settings(place, probes="forgetting", output=place / "of-full"), quiet=True)
    loss = found["probes"]["forgetting"]["loss"]
    assert loss[BASE] == result["probes"]["forgetting"]["loss"][BASE]
    added = found["probes"]["forgetting"]["added loss"]["full"]["en"]["mean"]["value"]
    assert added == pytest.approx(loss["full"]["en"]["mean"]["value"] - loss[BASE]["en"]["mean"]["value"])
    assert abs(added) > 1e-3


def test_the_gates_of_a_llama_adapter_are_its_parameters(place: Path):
    found = probe([place / "llama-adapter"], settings(place, probes="attention", output=place / "gates"), quiet=True)
    params = tiny.noisy(ADAPTERS["llama-adapter"], 0.1, open_base(str(place / "model")).config)
    gate = found["probes"]["attention"]["gate"]["llama-adapter"][ALL]
    learnt = np.tanh(np.asarray(params["gate"]))
    assert np.array(gate["heads"])[-len(learnt) :] == pytest.approx(learnt, abs=1e-6)
    assert "share" not in found["probes"]["attention"]


def test_the_lens_reads_the_first_tokens_of_the_answers(place: Path):
    """The last layer of the lens is the model's own prediction, which the decoder computes with other code."""
    chosen = settings(place, probes="lens", lens_task="babel-qa", limit=20, languages="de", output=place / "lens")
    found = probe([place / "lora"], chosen, quiet=True)["probes"]["lens"]
    base = open_base(str(place / "model"))
    frozen = load_weights(base, meshes.make_mesh("1x1"), "float32")
    task = tasks.find("babel-qa")
    english, german = (
        spread([task.example(row, code) for row in task.load(code, "test", None)], 20) for code in ("en", "de")
    )

    @jax.jit
    def last(tokens: jax.Array, length: jax.Array) -> jax.Array:
        states = decoder.hidden_states(base.config, frozen, decoder.Batch.right_padded(tokens[None], length[None]))
        return jax.nn.softmax(decoder.logits(frozen, states[0, length - 1]))

    pivot, language = [], []
    for source, example in zip(english, german, strict=True):
        tokens = [base.tokenizer.response_ids(one.response)[0] for one in (source, example)]
        if tokens[0] == tokens[1]:
            continue
        ids = base.tokenizer.prompt_ids(example.prompt)
        probabilities = last(jnp.asarray(ids + [0] * (512 - len(ids))), jnp.asarray(len(ids)))
        pivot.append(probabilities[tokens[0]])
        language.append(probabilities[tokens[1]])
    assert 5 < len(pivot) < 20
    assert found["p(pivot)"][BASE]["de"]["last"]["value"] == pytest.approx(np.mean(pivot), rel=1e-4)
    assert found["p(language)"][BASE]["de"]["last"]["value"] == pytest.approx(np.mean(language), rel=1e-4)
    assert found["p(pivot)"]["lora"]["de"]["last"] != found["p(pivot)"][BASE]["de"]["last"]


def test_few_shapes_are_compiled(place: Path, monkeypatch: pytest.MonkeyPatch):
    shapes = set()
    made = reading.prompt_batch

    def prompt_batch(model: Any, rows: Any, time: int, size: int) -> Any:
        shapes.add((time, size))
        return made(model, rows, time, size)

    monkeypatch.setattr(reading, "prompt_batch", prompt_batch)
    probe([place / "none"], settings(place, probes="forgetting", output=place / "shapes"), quiet=True)
    assert 1 <= len(shapes) <= 3


def test_each_run_gets_its_own_figures_and_the_same_bytes_again(place: Path, tmp_path: Path):
    """Without --output, probes.json of a run has the base and the run alone."""
    for name in ("lora", "prefix"):
        shutil.copytree(place / name, tmp_path / name)
    runs = [tmp_path / "lora", tmp_path / "prefix"]
    chosen = settings(place, probes="mexa,attention", output=None, limit=10)
    probe(runs, chosen, quiet=True)
    first = (tmp_path / "lora" / "probes.json").read_bytes()
    lora, prefix = (json.loads((run / "probes.json").read_text(encoding="utf-8")) for run in runs)
    assert list(lora["models"]) == [BASE, "lora"] and not lora["probes"]["attention"]
    assert set(prefix["probes"]["mexa"]["score"]) == {BASE, "prefix"}
    assert set(prefix["probes"]["attention"]["share"]) == {"prefix"}
    assert sorted(path.name for path in runs[1].glob("probe-*.png")) == [
        "probe-attention-share.png",
        "probe-mexa-score.png",
    ]
    assert prefix["texts"] == {
        "name": str(place / "texts.jsonl"),
        "sentences": 10,
        "languages": list(LANGUAGES),
        "pivot": "en",
    }
    probe(runs, chosen, quiet=True)
    assert (tmp_path / "lora" / "probes.json").read_bytes() == first


def fewer_german(place: Path) -> None:
    rows = texts()
    rows.remove(next(row for row in rows if row["language"] == "de"))
    small.write_rows(place / "texts.jsonl", rows)


def other_base(place: Path) -> None:
    small.write_model(place / "model", scale=3)


MISTAKES: dict[str, tuple[Callable[[Path], None] | None, str, str]] = {
    "an unknown probe": (None, "lora --probes mexa,cca", "--probes 'cca' is unknown; expected mexa, cka"),
    "one language": (None, "lora --languages en", "en is one language; give at least two"),
    "an unknown language": (None, "lora --languages de,fr", "texts.jsonl has no language 'fr'; it has en, de, sw"),
    "an unknown pivot": (None, "lora --pivot fr", "--pivot: texts.jsonl has no language 'fr'"),
    "unequal counts": (fewer_german, "lora", "texts.jsonl has 39 texts in de, 40 in en; expected the same texts"),
    "few sentences": (None, "lora --limit 5", "gives 5 sentences per language; expected at least 8"),
    "no virtual tokens": (None, "lora,none --probes attention", "no run has virtual tokens (lora, none)"),
    "two sources": (None, "lora --texts xnli", "--text-file texts.jsonl and --texts xnli both name the texts"),
    "another base": (other_base, "lora", "is not the base that lora was trained on"),
    "a foreign flag": (None, "lora --lens-task xquad", "--lens-task xquad is for the probe lens; add it to --probes"),
    "no answers": (None, "lora --probes lens --lens-task xnli", "--lens-task 'xnli' has no answers in several"),
    "a batch that does not divide": (None, "lora --batch 3 --mesh 2x1", "--batch 3 cannot be divided among 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    damage, arguments, expected = MISTAKES[name]
    for part in ("model", "lora", "none"):
        shutil.copytree(place / part, tmp_path / part)
        if part != "model":  # its base is the copy
            path = tmp_path / part / "run.json"
            path.write_text(path.read_text().replace(str(place / "model"), str(tmp_path / "model")))
    shutil.copy(place / "texts.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    if damage:
        damage(tmp_path)
    arguments = f"{arguments} --text-file texts.jsonl --output new --quiet"
    arguments = arguments if "--mesh" in arguments else f"{arguments} --mesh 1x1"
    monkeypatch.setattr(command.mesh, "configure_platform", lambda *_: None)  # JAX has started, with eight devices
    monkeypatch.setattr(sys, "argv", ["probe", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        terminal.run(command.main)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if not line.startswith("note:")]) == 1 and expected in lines[-1]
    assert not (tmp_path / "new" / "probes.json").exists()


def test_settings_that_contradict_the_split_are_refused(place: Path):
    with pytest.raises(ValueError, match=r"--text-file .* and --split test both name the texts"):
        replace(settings(place), split="test").check()
