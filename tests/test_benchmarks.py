"""Both measured sides do the same work; otherwise the benchmark would mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import peers
import pytest
import small

from benchmarks import answer_ours, answer_peer, evaluation, gpu, ours, peer, steps, train_ours, train_peer
from benchmarks.sides import RESULTS
from benchmarks.table import table
from benchmarks.training import agreement
from benchmarks.work import write_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

TINY = {"vocab_size": 1000, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 4}


@pytest.mark.slow
@peers.peft_generates
@small.needs_rows
def test_both_sides_score_the_same(tmp_path: Path):
    """With a soft prompt, whose own positions PEFT's logits have as well."""
    method = "soft-prompt"
    base = write_model(tmp_path / "model", small.MIRROR, TINY)
    run, exported = evaluation.write_adapters(tmp_path, base, method, evaluation.METHODS[method])
    for work in evaluation.TARGETS:
        one = ours.main(work, run, small.MIRROR, 6, 1)
        other = peer.main(work, str(base), str(exported), small.MIRROR, 6, 1)
        evaluation.agreement(work, one["answers"], other["answers"])
        assert one["compilations"] == one["buckets"]
        with pytest.raises(AssertionError):
            evaluation.agreement(work, one["answers"][::-1], other["answers"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("steps")
    sizes = steps.write_model(place, gpu.TINY, np.float32)
    steps.write_adapters(place, sizes, list(steps.methods(3)))
    steps.write_rows(place, steps.random_rows(sizes, 3, 4, 32, 6))
    return place


@pytest.mark.parametrize(
    "method", [name if name == "prefix" else pytest.param(name, marks=pytest.mark.slow) for name in steps.methods(3)]
)
def test_both_sides_learn_the_same(folder: Path, method: str):
    """Three steps with the same losses, of which the later ones depend on what the earlier ones changed."""
    one = train_ours.main(folder, method, "float32", "dots")
    other = train_peer.main(folder, method, "float32", "sdpa", "eager")
    agreement(one["losses"], other["losses"], 1e-5)
    assert one["memory"] > 0 and len(one["seconds"]) == len(other["seconds"]) == 3
    with pytest.raises(AssertionError):
        agreement(one["losses"][::-1], other["losses"], 1e-5)


def test_both_sides_answer_the_same(folder: Path):
    one, other = (side.main(folder, "decode", "float32", 5) for side in (answer_ours, answer_peer))
    assert one["answers"] == other["answers"] and len(one["answers"][0]) == 5
    one, other = (side.main(folder, "scoring", "float32", 4) for side in (answer_ours, answer_peer))
    np.testing.assert_allclose(one["answers"], other["answers"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("part", gpu.PARTS)
def test_one_accelerator_at_a_small_size(part: str):
    """On CPU; the figures are not kept."""
    found = gpu.main(part, "tiny", "lora")
    assert len(found) == 1 and found[0]["figure"] > 0


def test_the_accelerator_benchmark_fits_its_machine():
    """There is no registry to install from; regex comes with transformers."""
    missing = ("tyro", "datasets", "jaxtyping", "sentencepiece", "matplotlib", "sacrebleu", "rouge_score")
    code = f"""
import sys
for name in {missing}: sys.modules[name] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {missing} else found(name, *rest)
import benchmarks.gpu, benchmarks.train_ours, benchmarks.answer_ours, benchmarks.rates
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_the_newest_figures():
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table(json.loads((RESULTS / "latest.json").read_text(encoding="utf-8"))) in page
