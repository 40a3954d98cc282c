"""The harness's own `hf` backend (torch, PEFT) and ours agree, row by row and in the metrics."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import peers
import pytest
import small
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from benchmarks import real
from jaxprefix.inference.model import open_frozen
from jaxprefix.lm_eval.model import NO_LIMIT, JaxPrefixLM, open_adapted
from jaxprefix.models.adapters import IA3, Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.peft.__main__ import main as exchange

pytestmark = [small.needs_rows, pytest.mark.filterwarnings("ignore")]  # theirs warn of each other

# What PEFT calls them.
METHODS: dict[str, Adapter | None] = {
    "none": None,
    "LORA": LoRA(3, 6.0, "q,k,v,o,gate,up,down"),
    "IA3": IA3(),
    "PREFIX_TUNING": PrefixTuning(5, "all"),
    "PROMPT_TUNING": SoftPrompt(5, start="random"),
    "ADAPTION_PROMPT": LlamaAdapter(5, "top", gate="layer"),
}
Backends = tuple[JaxPrefixLM, HFLM]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("parity")
    harness.write_model(folder / "model", harness.real_texts())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of a model so tiny, more are slower
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def manager(place: Path) -> TaskManager:
    return harness.write_tasks(place / "tasks")


def pair(place: Path, name: str, max_length: int | None = None, batch: int = 8) -> Backends:
    """Ours and theirs. Theirs takes one row at a time: PEFT counts positions itself, wrongly in padding on the left."""
    model, adapter, run, out = place / "model", METHODS[name], place / f"run-{name}", place / f"peft-{name}"
    theirs = {"pretrained": str(model), "device": "cpu", "dtype": "float32", "batch_size": 1, "max_length": max_length}
    if adapter is None:
        return JaxPrefixLM(open_frozen(str(model), "1x1", batch, max_length or NO_LIMIT), batch), HFLM(**theirs)
    if not run.exists():
        harness.write_run(run, model, adapter)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["peft", "export", str(run), str(out)])
            exchange()
    ours = JaxPrefixLM(open_adapted(run, "1x1", batch, max_length or NO_LIMIT), batch)
    return ours, HFLM(peft=str(out), **theirs)


def compare(
    backends: Backends, manager: TaskManager, tasks: list[str], limit: int, longest: int, **options: Any
) -> harness.Found:
    """Each response and metric of both; returns ours."""
    options |= {"gen_kwargs": {"max_gen_toks": longest}}
    ours, theirs = (harness.evaluate(backend, manager, tasks, limit, **options) for backend in backends)
    for task in tasks:
        one, other = ours.responses[task], theirs.responses[task]
        assert len(one) == len(other) >= limit
        if task.startswith("mgsm"):
            assert one == other
            print(f"{task}: {limit} texts equal,", end=" ")
        else:
            largest = np.abs(harness.likelihoods(one) - harness.likelihoods(other)).max()
            print(f"{task}: {len(one)} log-likelihoods, largest difference {largest:.1e},", end=" ")
            assert largest < 1e-3
            assert harness.likeliest(one) == harness.likeliest(other)
        if task == "texts":
            assert ours.metrics[task] == pytest.approx(theirs.metrics[task], rel=1e-5)
        else:
            assert ours.metrics[task] == theirs.metrics[task]
        print(ours.metrics[task])
    return ours


@pytest.fixture(scope="module")
def plain(place: Path, manager: TaskManager) -> np.ndarray:
    """The responses of the base alone to two rows of XCOPA: an adapter without effect would hide every error in it."""
    model = JaxPrefixLM(open_frozen(str(place / "model"), "1x1", 8, NO_LIMIT), 8)
    return harness.likelihoods(harness.evaluate(model, manager, ["xcopa_zh"], 2).responses["xcopa_zh"])


def test_the_base(place: Path, manager: TaskManager):
    compare(pair(place, "none"), manager, list(harness.TASKS), 2, 16)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("PREFIX_TUNING", marks=peers.peft_generates),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("PROMPT_TUNING", "ADAPTION_PROMPT")),
    ],
)  # LORA and IA3 are among the slow ones below
def test_adapters(place: Path, manager: TaskManager, plain: np.ndarray, name: str):
    tasks = ["xcopa_zh", "mgsm_direct_de"] if name == "PREFIX_TUNING" else ["xcopa_zh"]
    found = compare(pair(place, name), manager, tasks, 2, 16)
    assert np.abs(harness.likelihoods(found.responses["xcopa_zh"]) - plain).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_task_on_more_rows(
    place: Path, manager: TaskManager, plain: np.ndarray, name: str, request: pytest.FixtureRequest
):
    if name in ("PREFIX_TUNING", "PROMPT_TUNING"):
        request.applymarker(peers.peft_generates)
    found = compare(pair(place, name), manager, list(harness.TASKS), 60, 64)
    changed = np.abs(harness.likelihoods(found.responses["xcopa_zh"])[: len(plain)] - plain).max()
    assert changed > 1 or name == "none"


@pytest.mark.slow
@pytest.mark.skipif(not (real.directory() / "config.json").is_file(), reason="run `make real` first")
@pytest.mark.parametrize(("task", "count"), [("belebele_deu_Latn", 240), ("mgsm_direct_de", 120)])
def test_a_real_model(manager: TaskManager, task: str, count: int):
    """SmolLM2: 240 log-likelihoods of Belebele, and 60 answers to MGSM, each through two filters."""
    directory = str(real.directory())
    ours = JaxPrefixLM(open_frozen(directory, "1x1", 8, NO_LIMIT), 8)
    theirs = HFLM(pretrained=directory, device="cpu", dtype="float32", batch_size=1)
    found = compare((ours, theirs), manager, [task], 60, 32)
    assert len(found.responses[task]) == count and len(set(map(str, found.responses[task]))) > 10


@peers.peft_generates
def test_texts_in_windows_and_contexts_that_are_cut(place: Path, manager: TaskManager):
    """At 100 tokens a paragraph takes several windows, and nothing but the end of a prompt of Belebele is left."""
    backends = pair(place, "PROMPT_TUNING", max_length=100)
    for row in harness.read("facebook/belebele/deu_Latn/test.jsonl")[:2]:
        assert len(backends[0].tok_encode(row["flores_passage"])) > 150
    tasks = ["texts", "belebele_deu_Latn", "mgsm_direct_de"]
    compare(backends, manager, tasks, 2, 60)  # which leaves 40 tokens for MGSM's prompts


def test_examples_as_earlier_turns_of_a_chat(place: Path, manager: TaskManager):
    template = "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</s>{% endfor %}"
    path = place / "model" / "chat_template.jinja"
    path.write_text(template + "{% if add_generation_prompt %}<assistant>{% endif %}")
    backends = pair(place, "none")
    path.unlink()
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "num_fewshot": 2}
    plain = compare(backends, manager, ["xcopa_zh"], 3, 1)
    found = compare(backends, manager, ["xcopa_zh"], 3, 1, **options, system_instruction="Choose.")
    assert found.responses != plain.responses


def generate(model: JaxPrefixLM | HFLM, asked: list[tuple[str, dict]]) -> list[str]:
    return model.generate_until(
        [Instance("generate_until", {}, arguments, number) for number, arguments in enumerate(asked)], disable_tqdm=True
    )


def test_answers_end_before_the_first_stop_text(place: Path):
    """Some of the texts are in the middle of tokens, some over several, some nowhere; requests differ in settings."""
    ours, theirs = pair(place, "none", batch=2)
    prompts = [row["question"][:40] for row in harness.read("juletxara/mgsm/de/test.jsonl")[:3]]
    free = {"until": [], "max_gen_toks": 12}
    whole = generate(theirs, [(prompt, free) for prompt in prompts])
    asked: list[tuple[str, dict]] = [(prompt, free) for prompt in prompts]
    for prompt, text in zip(prompts, whole, strict=True):
        asked.append((prompt, {"until": ["nowhere in it", text[5:12]], "max_new_tokens": 12, "do_sample": False}))
        asked.append((prompt, {"until": text[3:5], "temperature": 0.0, "max_gen_toks": 12}))
    found = generate(ours, asked)
    assert found == generate(theirs, asked)
    assert (
        found[:3] == whole
        and all(len(text) == 5 for text in found[3::2])
        and all(len(each) < 4 for each in found[4::2])
    )
