"""The step compiles while the weights load: the same program and the same errors, and no thread is left."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models.adapters import LoRA, PrefixTuning
from jaxprefix.runs import loaded
from jaxprefix.runs.base_model import (
    BaseModel,
    abstract_weights,
    init_token_ids,
    load_weights,
    max_text_tokens,
    open_base,
)
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import dataset as training_rows
from jaxprefix.train import programs
from jaxprefix.train.batches import Plan
from jaxprefix.train.loop import train
from jaxprefix.train.programs import CompiledByShape, TrainPrograms

START = PrefixTuning(length=5, start="text:The boat is red.")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Rows of many lengths, so that a run has more than one shape."""
    folder = tmp_path_factory.mktemp("data")
    found = [row | {"prompt": "x " * (number * 2) + row["prompt"]} for number, row in enumerate(small.rows(40))]
    model, rows = small.write_model(folder / "model", scale=5), small.write_rows(folder / "rows.jsonl", found)
    return small.configuration(model, rows, method="lora", steps=9, max_length=200, save_every=100, eval_every=100)


def planned(config: RunConfig, base: BaseModel) -> Plan:
    task = training_rows.training_task(config)
    longest = max_text_tokens(base.config, config.adapter, config.max_length)
    return Plan(config, training_rows.load_rows(config, task, base.tokenizer, longest).learn)


def shapes(config: RunConfig, start: int) -> list[tuple[int, ...]]:
    """The shapes of the tokens of every step after `start`."""
    base = open_base(config.model)
    return [batch.tokens.shape for batch in planned(config, base).batches(start, base.tokenizer.pad)]


def text(program: Any) -> str:
    """The program without its Python source locations."""
    tables = r"(?m)^(\d+ .*|FileNames|FunctionNames|FileLocations|StackFrames)\n"
    return re.sub(r", metadata=\{[^}]*\}", "", re.sub(tables, "", program.as_text()))


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        ("1x1", {"method": "prefix+lora", "prefix": START, "lora": LoRA(dropout=0.2)}),
        pytest.param("1x1", {"method": "lora", "dtype": "int8"}, marks=pytest.mark.slow),
        pytest.param("2x2", {"method": "full"}, marks=pytest.mark.slow),
    ],
)
def test_the_abstract_program_equals_that_of_real_arrays(config: RunConfig, mesh: str, changes: dict[str, Any]):
    """The text is equal, with layouts and donations; and the first state is equal, bit for bit."""
    config = replace(config, mesh=mesh, **changes)
    base, made = open_base(config.model), meshes.make_mesh(mesh)
    plan = planned(config, base)
    frozen, early = programs.load_and_compile(config, base, made, plan, 0)
    (found,) = early.step.executables.values()

    weights = load_weights(base, made, config.dtype)
    jax.tree.map(np.testing.assert_array_equal, frozen, weights)
    tokens = init_token_ids(base.tokenizer, config.seed)
    late = TrainPrograms(config, base.config, made, weights, tokens, plan.steps)
    state = late.init(weights)
    assert {leaf.weak_type for leaf in jax.tree.leaves(state)} == {False}  # as the abstract ones are
    batch = meshes.shard_batch(made, next(plan.batches(0, base.tokenizer.pad)), dim=1)
    lowered = late.step.lower(state, weights, batch)
    assert early.lower(next(plan.batches(0, base.tokenizer.pad))).as_text() == lowered.as_text()  # as in a dry run
    wanted = lowered.compile()
    assert text(found) == text(wanted) and "input_output_alias" in text(wanted)
    assert found.input_shardings == wanted.input_shardings and found.output_shardings == wanted.output_shardings
    jax.tree.map(np.testing.assert_array_equal, early.init(frozen), state)
    assert jax.tree.structure(state) == jax.tree.structure(early.state)


def test_the_weights_load_while_the_step_compiles(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: None
):
    """The weights load until the step is compiled; one after the other would never end."""
    compiled, written = threading.Event(), CompiledByShape.compile

    def compile_step(self: CompiledByShape, *arguments: Any) -> Any:
        found = written(self, *arguments)
        if len(arguments) == 3:
            compiled.set()
        return found

    def load(base: BaseModel, mesh: Any, dtype: str, *_: Any) -> Any:
        assert compiled.wait(600)
        return load_weights(base, mesh, dtype)

    monkeypatch.setattr(CompiledByShape, "compile", compile_step)
    monkeypatch.setattr(loaded, "load_weights", load)
    train(replace(config, steps=1), tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_a_run_compiles_the_shapes_that_it_meets(config: RunConfig, tmp_path: Path, capsys: Any):
    """A resumed run does not compile shapes of earlier steps, and a finished run compiles nothing."""
    met = shapes(config, 0)
    assert met[0] not in met[-1:] and len(set(met)) > 1
    config = replace(config, save_every=len(met) - 1)
    small.train_until(len(met), config, tmp_path / "run")
    capsys.readouterr()
    for times in (1, 0):
        train(config, tmp_path / "run", quiet=True)
        said = re.findall(r"(resumed at step \d+|compiled .* times)", capsys.readouterr().out)
        assert said == [f"resumed at step {len(met) - times}", f"compiled the training step {times} times"]


def broken(config: RunConfig, directory: Path) -> Path:
    """The model without one of its tensors."""
    model = small.write_model(directory)
    tensors = load_file(model / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors")
    return model


def test_wrong_weights_are_reported_in_one_line(config: RunConfig, tmp_path: Path):
    model = broken(config, tmp_path / "model")
    command = [sys.executable, "-m", "jaxprefix.train", "--model", str(model), "--train-file", str(config.train_file)]
    command += ["--output", str(tmp_path / "run"), "--mesh", "1x1", "--platform", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    line = f"error: {model}: tensor model.norm.weight is missing (1 in all); config.json asks for it\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_nothing_is_compiled_if_the_weights_are_wrong(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: None, capfd: Any
):
    """If the error comes early; here the compiler waits for it."""
    compiled, reading = list[tuple](), list[futures.Future]()

    class Reader(futures.ThreadPoolExecutor):
        def submit(self, *arguments: Any) -> futures.Future:
            reading.append(super().submit(*arguments))
            return reading[-1]

    def late(*arguments: Any) -> Any:
        futures.wait(reading)
        return abstract_weights(*arguments)

    monkeypatch.setattr(programs, "ThreadPoolExecutor", Reader)
    monkeypatch.setattr(programs, "abstract_weights", late)
    monkeypatch.setattr(CompiledByShape, "compile", lambda *arguments: compiled.append(arguments))
    with pytest.raises(InputError, match=r"model\.norm\.weight is missing"):
        train(replace(config, model=str(broken(config, tmp_path / "model"))), tmp_path / "run", quiet=True)
    assert not compiled and capfd.readouterr().err == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("readable", [True, False])
def test_an_error_in_the_weights_precedes_one_of_the_compiler(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: None, readable: bool
):
    begun = threading.Event()

    def compiled(*_: Any) -> Any:
        begun.set()
        raise RuntimeError("the compiler's")

    def load(base: BaseModel, mesh: Any, dtype: str, *_: Any) -> Any:
        assert begun.wait(600)
        if not readable:
            raise ValueError("the weights'")
        return load_weights(base, mesh, dtype)

    monkeypatch.setattr(CompiledByShape, "compile", compiled)
    monkeypatch.setattr(loaded, "load_weights", load)
    with pytest.raises(RuntimeError if readable else ValueError, match="compiler's" if readable else "weights'"):
        train(config, tmp_path / "run", quiet=True)
