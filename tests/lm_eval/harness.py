"""Shared by tests of the harness: one tiny model in Hugging Face layout, stock tasks on local rows, both backends."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import lm_eval
import lm_eval.tasks
import numpy as np
import pytest
import small
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import Adapter, LoRA
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

STOCK = Path(lm_eval.tasks.__path__[0])
# The harness's own task files, with their prompts and metrics, and the rows that each reads here. XNLI's validation
# split is not in the mirror.
TASKS = {
    "belebele_deu_Latn": ("belebele/belebele_deu_Latn.yaml", {"test": "facebook/belebele/deu_Latn/test.jsonl"}),
    "xnli_sw": ("xnli/xnli_sw.yaml", {"train": None, "validation": "facebook/xnli/sw/test.jsonl"}),
    "xcopa_zh": ("xcopa/default_zh.yaml", {"test": "cambridgeltl/xcopa/zh/test.jsonl"}),
    "mgsm_direct_de": ("mgsm/direct/mgsm_direct_de.yaml", {"test": "juletxara/mgsm/de/test.jsonl"}),
}
ROWS = {
    "xnli_sw": {"training_split": None},
    "xcopa_zh": {"validation_split": None},
    "mgsm_direct_de": {"training_split": None},
}
TEXTS = {"task": "texts", "output_type": "loglikelihood_rolling", "test_split": "test", "doc_to_text": ""}
TEXTS |= {"doc_to_target": "{{context}}", "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}]}


def read(path: str) -> list[dict[str, Any]]:
    lines = (small.MIRROR / path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def real_texts() -> list[str]:
    """Some German, Swahili and Chinese for the tokenizer to know a little of."""
    texts = [row["flores_passage"] for row in read("facebook/belebele/deu_Latn/test.jsonl")[:60]]
    texts += [row["premise"] for row in read("facebook/xnli/sw/test.jsonl")[:200]]
    return texts + [row["premise"] for row in read("cambridgeltl/xcopa/zh/test.jsonl")[:200]]


def write_model(directory: Path, texts: list[str], **sizes: Any) -> Path:
    """A random Llama that starts every text with BOS, its tokenizer trained on `texts`."""
    ids = {"model_type": "llama", "bos_token_id": 0, "eos_token_id": 1}
    sizes = {"vocab_size": 768, "num_hidden_layers": 2, "max_position_embeddings": 2048} | sizes
    return small.write_model(directory, texts, scale=6.0, **ids, **sizes)


def write_run(directory: Path, model: Path, adapter: Adapter, scale: float = 2.0) -> Path:
    """A run of the adapter with random parameters, none of them zero."""
    base = open_base(str(model))
    random = np.random.default_rng(3)
    scale = 0.05 * scale if isinstance(adapter, LoRA) else scale
    params = jax.tree.map(
        lambda leaf: (scale * random.normal(size=leaf.shape)).astype(np.float32),
        adapter_init.abstract_params(adapter, base.config),
    )
    save_run(directory, RunConfig(model=str(model)).with_adapter(adapter), base, params, "en")
    return directory


def write_tasks(directory: Path) -> TaskManager:
    """The stock tasks on the mirror's rows, and whole paragraphs to be scored as they are."""
    directory.mkdir()
    cache = {"cache_dir": str(directory / "cache")}
    for name, (stock, files) in TASKS.items():
        paths = {split: str(small.MIRROR / path) for split, path in files.items() if path}
        own = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": paths} | cache}
        task = {"include": str(STOCK / stock), "task": name} | own | ROWS.get(name, {})
        (directory / f"{name}.yaml").write_text(json.dumps(task))
    paths = {"test": str(small.MIRROR / "google/xquad/xquad.de/validation.jsonl")}
    task = TEXTS | {"dataset_path": "json", "dataset_kwargs": {"data_files": paths} | cache}
    (directory / "texts.yaml").write_text(json.dumps(task))
    return TaskManager(include_path=str(directory), include_defaults=False)


def likelihoods(responses: list[Any]) -> np.ndarray:
    """Of responses (log-likelihood, whether it is the likeliest), or of log-likelihoods alone."""
    return np.array([each[0] if isinstance(each, tuple | list) else each for each in responses], float)


def likeliest(responses: list[Any]) -> list[bool]:
    return [each[1] for each in responses if isinstance(each, tuple | list)]


@dataclass(frozen=True)
class Found:
    """What a backend said: every response of a task, in the order of its rows, and the task's metrics."""

    responses: dict[str, list[Any]]
    metrics: dict[str, dict[str, float]]


def evaluate(model: LM, manager: TaskManager, tasks: list[str], limit: int, **options: Any) -> Found:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_eval.utils, "is_torch_available", lambda: False)  # it would ask for every package's version
        found = lm_eval.simple_evaluate(
            model=model, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=0, **options
        )
    assert found is not None
    responses = {
        task: [
            response[0]
            for row in sorted(found["samples"][task], key=lambda row: row["doc_id"])
            for response in row["resps"]
        ]
        for task in tasks
    }
    metrics = {
        task: {
            name: value
            for name, value in found["results"][task].items()
            if isinstance(value, float) and "stderr" not in name
        }
        for task in tasks
    }
    return Found(responses, metrics)
