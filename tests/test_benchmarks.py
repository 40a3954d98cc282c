"""Both measured sides do the same work; otherwise the benchmark would mean nothing."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
import small

from benchmarks import (
    accelerator,
    adapters,
    answer_ours,
    answer_peer,
    cpu,
    evaluation,
    gpu,
    kernels,
    ours,
    peer,
    steps,
    train_ours,
    train_peer,
    useful,
)
from benchmarks.sides import RESULTS, side
from benchmarks.table import table
from benchmarks.work import write_model
from jaxprefix.models import attention
from jaxprefix.models.config import DecoderConfig

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
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5)
    assert one["memory"] > 0 and len(one["seconds"]) == len(other["seconds"]) == 3
    assert np.ptp(one["losses"]) > 1e-3  # the steps differ


def test_both_sides_answer_the_same(folder: Path):
    one, other = (side.main(folder, "decode", "float32", 5) for side in (answer_ours, answer_peer))
    assert one["answers"] == other["answers"] and len(one["answers"][0]) == 5
    one, other = (side.main(folder, "scoring", "float32", 4) for side in (answer_ours, answer_peer))
    np.testing.assert_allclose(one["answers"], other["answers"], rtol=0, atol=1e-5)


# What an accelerator's machine lacks, where there is no registry to install from; regex comes with transformers.
MISSING = {"tyro", "datasets", "jaxtyping", "sentencepiece", "matplotlib", "sacrebleu", "rouge_score", "lm_eval"}
BARE = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {MISSING} else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run_bare(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python without the missing packages and without a network, also in the processes that it starts."""
    (folder / "sitecustomize.py").write_text(BARE)
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *command], capture_output=True, text=True, env=environment, cwd=folder
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", accelerator.PARTS)
def test_one_accelerator_at_a_small_size(part: str, tmp_path: Path):
    """On a CPU without the missing packages, from the command to the kept results."""
    command = ("-m", "benchmarks.gpu", "--size", "tiny", "--parts", part, "--output", str(tmp_path / "results"))
    done = run_bare(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert row["figure"] > 0 and "CPU cores" in row["device"] and table([row]) in done.stdout


@pytest.mark.slow
def test_the_processors_at_a_small_size(tmp_path: Path):
    rows = cpu.main(["--size", "tiny", "--output", str(tmp_path)])
    assert len({(row["work"], row["method"]) for row in rows}) == len(rows) == len(cpu.parts())
    assert all(row["figure"] > 0 and row["peer"] > 0 for row in rows)
    assert len({row["figure"] for row in rows}) == len(rows)  # none is another's, taken for the same
    shares = [row["work"] for row in rows if (row.get("mfu") or row.get("bandwidth_share", 0)) > 0]
    assert [row["work"].rpartition(", ")[2] for row in rows if row["work"] not in shares] == ["bfloat16", "int8"]


def test_the_accelerator_benchmark_fits_its_machine(tmp_path: Path):
    modules = "gpu, benchmarks.train_ours, benchmarks.answer_ours, benchmarks.rates, benchmarks.kernels"
    done = run_bare(tmp_path, "-c", f"import benchmarks.{modules}")
    assert done.returncode == 0, done.stderr
    assert "No module named 'tyro'" in run_bare(tmp_path, "-c", "import tyro").stderr


def test_a_part_that_fails_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The rows of others are printed and kept, also those of sides that disagree."""
    row = {"method": "none", "device": "CPU", "figure": 2.0, "unit": "s", "peer": None, "ratio": None, "target": None}
    left = []

    def measure(bench: accelerator.Bench, work: str, **more: str) -> list[dict]:
        left.append(bench.left)
        return [row | {"work": work, "met": None} | more]

    def fail(bench: accelerator.Bench) -> list[dict]:
        raise RuntimeError("out of memory")

    parts = {"one": (partial(measure, work="first"), 10), "two": (fail, 10)}
    parts |= {"three": (partial(measure, work="last", failed="the losses differ"), 30)}
    rows, failures = gpu.run(parts, gpu.SIZES["tiny"], gpu.METHODS, 100, tmp_path)
    assert [found["work"] for found in rows] == ["first", "last"] and rows == json.loads(
        (tmp_path / "latest.json").read_text()
    )
    assert failures == ["two: out of memory", "three: the losses differ"]
    assert capsys.readouterr().out.count("| none |") == 2
    assert left[0] <= 20 and 70 < left[1] <= 100  # what a part leaves is the next one's


def test_a_side_ends_with_its_time():
    with pytest.raises(RuntimeError, match=r"benchmarks\.rates matrix was ended after 0 s"):
        side(["benchmarks.rates", "matrix"], seconds=0.2)


def test_attention_is_compared_with_a_softmax(monkeypatch: pytest.MonkeyPatch):
    """The errors are those of rounding, and those of a wrong mask are not."""
    case = kernels.Case(150, 7)
    assert max(kernels.errors(case, jnp.float32).values()) < 1e-5
    whole = attention.attend_prefill

    def wrong(*arguments: Any) -> jax.Array:
        changed = list(arguments)
        changed[6] = 149 if changed[7] else None  # the window, where the rows are right-padded
        return whole(*changed)

    monkeypatch.setattr(attention, "attend_prefill", wrong)
    assert max(kernels.errors(case, jnp.float32).values()) > 1e-3


def test_the_least_work_of_8b():
    """Of docs/performance.md: 223 TFLOP for 16 rows of 512 tokens, and 15.0 and 4.6 GB for a step of generation."""
    sizes = DecoderConfig.parse(gpu.LLAMA_8B)
    assert useful.training_flops(sizes, 16 * 512, 16 * 17) == pytest.approx(223e12, rel=0.005)
    assert useful.decode_bytes(sizes, 0, 0, 2, 2) == pytest.approx(15.0e9, rel=0.005)
    assert useful.decode_bytes(sizes, 64, 544, 2, 1) == pytest.approx((15.0 - 6.98 + 4.56) * 1e9, rel=0.005)


def test_the_page_shows_the_newest_figures():
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table(json.loads((RESULTS / "latest.json").read_text(encoding="utf-8"))) in page


@pytest.mark.slow
def test_many_adapters_are_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "ROUNDS", 1)
    monkeypatch.setattr(adapters, "METHODS", {"lora": adapters.METHODS["lora"]})
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    rows = adapters.main(adapters.SIZES | small)
    assert [row["work"].split(",")[0] for row in rows] == ["score", "score", "generate", "generate"]
    assert all(row["figure"] > 0 for row in rows)
