"""The Python interface trains, saves and loads the same as the commands."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small

import jaxprefix
from jaxprefix import (
    Evaluation,
    FullFineTuning,
    LanguageModel,
    LoRA,
    NoAdapter,
    PrefixTuning,
    Sampling,
    SoftPrompt,
    Sum,
    load_model,
)
from jaxprefix.errors import InputError
from jaxprefix.evaluation import evaluate
from jaxprefix.evaluation.evaluate import evaluate_together
from jaxprefix.peft.exchange import export_adapter
from jaxprefix.peft.files import read_adapter
from jaxprefix.runs.saved import load_run
from jaxprefix.train import train

PREFIX = PrefixTuning(length=4, layers="all")
PAIRS = [(row["prompt"], row["response"]) for row in small.rows(24)]
FREE = pytest.param({}, marks=pytest.mark.slow)
PROMPTS = [prompt for prompt, _ in PAIRS[:5]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_model(tmp_path_factory.mktemp("model"), scale=5)


@pytest.fixture(scope="module")
def base(directory: Path) -> LanguageModel:
    return load_model(str(directory), mesh="1x1")


@pytest.fixture(scope="module")
def saved(base: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prefixes, `red` and `blue`, that differ in how they began and in what they learnt."""
    folder = tmp_path_factory.mktemp("saved")
    for seed, colour in enumerate(("red", "blue")):
        base.set_adapter(PrefixTuning(length=4, layers="all" if seed else "0:3", std=0.3 + seed), seed=seed)
        base.train([(prompt, colour) for prompt, _ in PAIRS], steps=30, batch=8, lr=0.05, quiet=True)
        base.save(folder / colour)
    return folder


def test_training_equals_the_command(base: LanguageModel, directory: Path, tmp_path: Path):
    """The same losses and the same adapter, bit for bit, as a run on the same rows in the same order."""
    file = small.write_rows(tmp_path / "rows.jsonl", small.rows(24))
    config = small.configuration(directory, file, steps=6, held_out=0, method="prefix", prefix=PREFIX)
    run = train(config, tmp_path / "run", quiet=True)
    order = np.random.default_rng(0).permutation(len(PAIRS))  # the command shuffles its rows with the seed
    base.set_adapter(PREFIX)
    losses = base.train([PAIRS[index] for index in order], steps=6, batch=4, lr=1e-2, max_length=96, quiet=True)
    assert losses == [row["loss"] for row in small.metrics(run)]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(base.params), load_run(run).params)


def test_training_continues_from_the_current_parameters(base: LanguageModel):
    base.set_adapter(LoRA())
    first = base.train(PAIRS, steps=20, batch=24, lr=0.02, quiet=True)
    second = base.train(PAIRS, steps=2, batch=24, lr=1e-4, quiet=True)
    assert second[0] < first[-2] < first[0] - 0.5


@pytest.mark.slow  # the command's losses are compared in train/test_step.py
def test_a_mesh_changes_nothing(base: LanguageModel, directory: Path):
    """Losses to rounding, answers token for token; prompts that do not fill the data devices are no matter."""
    sharded, found = load_model(str(directory), mesh="4x2"), []
    for model in (base, sharded):
        model.set_adapter(PrefixTuning(length=4, start="vocabulary"))
        losses = model.train(PAIRS, steps=20, batch=8, lr=0.02, quiet=True)
        found.append((losses, model.generate(PROMPTS[:3], max_new_tokens=6)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=2e-5)
    assert found[0][1] == found[1][1]
    with pytest.raises(InputError, match="6 rows per micro-batch cannot be divided among 4 data devices"):
        sharded.train(PAIRS, batch=6)


def test_what_is_saved_answers_the_same_everywhere(base: LanguageModel, saved: Path, directory: Path):
    base.load(saved / "red")
    answers = base.generate(PROMPTS, max_new_tokens=6)
    assert answers[:2] == [base.generate(prompt, max_new_tokens=6) for prompt in PROMPTS[:2]]
    again = load_model(str(directory), mesh="1x1")
    assert again.generate(PROMPTS, max_new_tokens=6) != answers
    again.load(str(saved / "red"))
    assert again.generate(PROMPTS, max_new_tokens=6) == answers
    assert json.loads((saved / "red" / "run.json").read_text())["trainable_parameters"] == 3 * 4 * 32


@pytest.mark.slow
def test_rows_of_one_batch_have_their_own_adapters(base: LanguageModel, saved: Path):
    """The answers in a mixed batch are those of each adapter alone."""
    alone = {}
    for name in ("red", "blue"):
        base.load(saved / name)
        alone[name] = base.generate(PROMPTS, max_new_tokens=6)
    assert alone["red"] != alone["blue"]
    base.load(saved / "red", saved / "blue")
    names = ["red", "blue", "blue", "red", "blue"]
    expected = [alone[name][place] for place, name in enumerate(names)]
    assert base.generate(PROMPTS, max_new_tokens=6, adapters=names) == expected
    assert base.generate(PROMPTS, max_new_tokens=6, adapters="blue", batch=2) == alone["blue"]


def test_loras_of_one_batch_may_differ_in_alpha(base: LanguageModel, tmp_path: Path):
    """The scale and the order of the targets are no part of the kind; dropout is for training."""
    adapters = {"low": LoRA(2, 1.0, "q,up"), "high": LoRA(2, 30.0, "up,q", dropout=0.5)}
    alone = {}
    for seed, (name, adapter) in enumerate(adapters.items(), 1):
        base.set_adapter(adapter)
        leaves, tree = jax.tree.flatten(base.params)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        base.params = tree.unflatten(
            [0.5 * jax.random.normal(*pair) for pair in zip(keys, map(np.shape, leaves), strict=True)]
        )
        base.save(tmp_path / name)
        base.load(tmp_path / name)
        alone[name] = base.generate(PROMPTS, max_new_tokens=6)
    assert alone["low"] != alone["high"]
    base.load(*(tmp_path / name for name in adapters))
    for name in adapters:
        assert base.generate(PROMPTS, max_new_tokens=6, adapters=name) == alone[name]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("form", [{"choices": ["red", "green", "blue", "white", "black"]}, FREE])
def test_evaluation_together_is_evaluation_alone(saved: Path, tmp_path: Path, form: dict[str, Any]):
    """Generated answers and choices of two runs in mixed batches: the files of each run are as if it had been alone."""
    rows = small.rows(7) + small.rows(3, "de")
    file = small.write_rows(tmp_path / "rows.jsonl", [row | form for row in rows])
    settings = Evaluation(eval_file=file, batch=4, mesh="1x1")
    copies = {
        (name, way): shutil.copytree(saved / name, tmp_path / way / name)
        for name in ("red", "blue")
        for way in ("together", "alone")
    }
    reports = evaluate_together([copies["red", "together"], copies["blue", "together"]], settings, quiet=True)
    assert reports[0] != reports[1] or not form
    for name, report in zip(("red", "blue"), reports, strict=True):
        assert evaluate(copies[name, "alone"], settings, quiet=True) == report
        mixed, alone = (small.predictions(copies[name, way]) for way in ("together", "alone"))
        for one, other in zip(mixed, alone, strict=True):
            assert one | {"logprobs": [], "evaluation": ""} == other | {"logprobs": [], "evaluation": ""}
            assert one.get("logprobs", []) == pytest.approx(other.get("logprobs", []), abs=2e-5)


class Cells(HTMLParser):
    """The texts of the cells of all tables, by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.mark.usefixtures("no_pictures")
def test_evaluation_in_memory_is_that_of_the_saved_run(base: LanguageModel, saved: Path, tmp_path: Path):
    """The report and the statistics are those of the files, and the tables show them."""
    file = small.write_rows(tmp_path / "rows.jsonl", small.rows(7) + small.rows(5, "de") + small.rows(5, "sw"))
    run, settings = shutil.copytree(saved / "red", tmp_path / "red"), Evaluation(eval_file=file, batch=4)
    base.load(run)
    result = base.evaluate(languages=["en", "de"], limit=5, settings=settings, quiet=True)
    assert not (run / "report.json").exists()
    report = evaluate(run, Evaluation(languages="en,de", eval_file=file, batch=4, limit=5, mesh="1x1"), quiet=True)
    assert result.report == report and set(report["tasks"]["rows"]["languages"]) == {"en", "de"}
    assert result.statistics == json.loads((run / "statistics.json").read_text())
    frame = result.to_frame().set_index("language")
    for code, scores in report["tasks"]["rows"]["languages"].items():
        assert {name: frame.loc[code, name] for name in scores} == scores
        low, high = frame.loc[code, ["f1_low", "f1_high"]]
        assert low <= scores["f1"] <= high and frame.loc[code, "source"] == (code == "en")
    parser = Cells()
    parser.feed(result._repr_html_())
    row = next(row for row in parser.rows if row[0] == "de")
    assert row[1] == f"{100 * report['tasks']['rows']['languages']['de']['f1']:.1f}" and row[-1] == "German"
    assert [line[0] for line in parser.rows[:5]] == ["language", "en (source)", "de", "mean of others", "gap"]
    assert all(cell in str(result) for cell in row) and "\x1b" not in str(result)


def test_an_export_is_that_of_the_saved_run(base: LanguageModel, saved: Path, tmp_path: Path):
    """The same content of PEFT's files, whose meaning tests/peft compares with PEFT itself.

    The files are not compared: safetensors writes its metadata in any order.
    """
    base.load(saved / "red")
    base.export_peft(tmp_path / "memory")
    export_adapter(saved / "red", tmp_path / "run")
    (settings, tensors, base_hash), expected = read_adapter(tmp_path / "memory"), read_adapter(tmp_path / "run")
    assert (settings, base_hash, tensors.keys()) == (expected[0], expected[2], expected[1].keys()) and tensors
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[1][name])


def test_a_sum_is_saved_whole(base: LanguageModel, tmp_path: Path):
    base.set_adapter(SoftPrompt(length=3) + LoRA(rank=2))
    assert base.adapter == Sum((("soft-prompt", SoftPrompt(length=3)), ("lora", LoRA(rank=2))))
    base.save(tmp_path / "sum", language="de")
    found = load_run(tmp_path / "sum")
    assert found.config.adapter == base.adapter and found.run_json["source"] == "de"
    base.load(tmp_path / "sum")
    base.save(tmp_path / "again")
    assert load_run(tmp_path / "again").run_json["source"] == "de"
    jax.tree.map(np.testing.assert_array_equal, found.params, jax.device_get(base.params))


def test_adding_prints_what_is_trained(base: LanguageModel, capsys: pytest.CaptureFixture[str]):
    base.set_adapter(PREFIX)
    assert capsys.readouterr().out.startswith("trainable: 384 of ")
    assert "PrefixTuning(length=4" in str(base)


def test_parameters_of_your_own_loop(base: LanguageModel, saved: Path):
    """They give the answers of their run, and are copies, so that the loop may donate them."""
    base.load(saved / "red")
    answers, adapter, params = base.generate(PROMPTS, max_new_tokens=6), base.adapter, base.params
    base.set_adapter(NoAdapter())
    assert base.generate(PROMPTS, max_new_tokens=6) != answers
    given = jax.tree.map(jax.numpy.copy, params)
    base.set_adapter(adapter, params=given)
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(given)
    assert base.generate(PROMPTS, max_new_tokens=6) == answers


def test_the_package_exports_what_it_lists():
    for name in jaxprefix.__all__:
        assert getattr(jaxprefix, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        jaxprefix.load_modle  # type: ignore[attr-defined]  # noqa: B018


def refusals(base: LanguageModel, saved: Path, folder: Path) -> dict[str, object]:
    """Each message with what brings it about."""
    both = (saved / "red", saved / "blue")

    def untrained() -> None:
        base.set_adapter(NoAdapter())
        base.train(PAIRS)

    def unsaved() -> None:
        base.set_adapter(NoAdapter())
        base.save(folder / "none")

    def loaded(*directories: Path, **options: object) -> None:
        base.load(*directories)
        base.generate(PROMPTS, **options)  # type: ignore[arg-type, call-overload]

    def trained(rows: Any, **options: object) -> None:
        base.set_adapter(PREFIX)
        base.train(rows, **options)  # type: ignore[arg-type]

    def asked(prompts: Any = "a", **options: Any) -> None:
        base.generate(prompts, **options)

    def evaluated(*directories_and: Any, **options: Any) -> None:
        directories = [each for each in directories_and if isinstance(each, Path)]
        base.load(*directories)
        base.evaluate(*directories_and[len(directories) :], **options)

    def several() -> None:
        base.load(*both)
        base.train(PAIRS)

    return {
        "the model has no adapter; set one to train": untrained,
        "the model has 2 adapters; set one to train": several,
        "row 1 is ('a',); expected (prompt, response), two texts": lambda: trained([("a", "b"), ("a",)]),
        "row 0 is 'ab'; expected (prompt, response)": lambda: trained(["ab"]),
        "row 0 is ('a', ' '); expected (prompt, response), two texts that are not blank": lambda: trained([("a", " ")]),
        "row 0 is array([[0.], [0.]]); expected": lambda: trained([np.zeros((2, 1))]),
        "rows are 'abc'; expected a list of pairs (prompt, response)": lambda: trained("abc"),
        "rows are 3; expected a list of pairs": lambda: trained(3),
        "there are no rows to train on; expected at least one pair": lambda: trained([]),
        "1 of 2 rows are longer than 20 tokens": lambda: trained([("a", "b"), ("x" * 90, "y")], max_length=20),
        "--steps 2 and --epochs 1 both say how long": lambda: trained(PAIRS, steps=2, epochs=1),
        "--steps is '2'; expected a whole number": lambda: trained(PAIRS, steps="2"),
        "--lr is 'x'; expected a number": lambda: trained(PAIRS, lr="x"),
        "None is not a method; expected one such as PrefixTuning(length=10)": base.set_adapter,
        "'prefix' is not a method": lambda: base.set_adapter("prefix"),  # type: ignore[arg-type]
        "PrefixTuning'> is not a method": lambda: base.set_adapter(PrefixTuning),  # type: ignore[arg-type]
        "params['hidden'] has the shape (3,); expected (3, 4, 32)": lambda: base.set_adapter(
            PREFIX, params={"hidden": np.zeros(3)}
        ),
        "params has the shape (); expected None": lambda: base.set_adapter(PREFIX, params=3),
        "the model has no adapters; set or load the one to save": unsaved,
        "nothing to load": loaded,
        "is not a run: it has no readable run.json": lambda: loaded(folder),
        "adapters need different directory names, given red, red": lambda: loaded(both[0], both[0]),
        "adapters=None for 5 prompts; expected one per prompt, of red, blue": lambda: loaded(*both),
        "adapters=['red'] for 5 prompts": lambda: loaded(*both, adapters=["red"]),
        "adapters='green' for 5 prompts": lambda: loaded(*both, adapters="green"),
        "adapters='red' for 5 prompts; expected one per prompt, of none": lambda: loaded(both[0], adapters="red"),
        "adapters=3 for 5 prompts": lambda: loaded(*both, adapters=3),
        "adapters=[['red'], ['red'], ['red'], ['red'], ['red']] for": lambda: loaded(*both, adapters=[["red"]] * 5),
        "max_new_tokens is 0; expected a whole number of at least 1": lambda: asked(max_new_tokens=0),
        "max_new_tokens is '3'; expected a whole number": lambda: asked(max_new_tokens="3"),
        "batch is 1.5; expected a whole number": lambda: asked(batch=1.5),
        "prompts is 3; expected a text or a list of texts": lambda: asked(3),
        "prompts is None; expected a text or a list of texts": lambda: asked(None),
        "prompts is b'a'; expected a text or a list of texts": lambda: asked(b"a"),
        "prompts[1] is 1; expected a text": lambda: asked(["a", 1]),
        "sampling is {'temperature': 1}; expected one such as Sampling": lambda: asked(sampling={"temperature": 1}),
        "stop is 'x'; expected a list of texts": lambda: asked(stop="x"),
        "stop is None; expected a list of texts": lambda: asked(stop=None),
        "stop is ['x', '']; an empty text would end every answer": lambda: asked(stop=["x", ""]),
        "stop[0] is 1; expected a text": lambda: asked(stop=[1]),
        "temperature is 'hot'; expected a number": lambda: Sampling(temperature="hot"),  # type: ignore[arg-type]
        "top-p is None; expected a number": lambda: Sampling(1.0, top_p=None),  # type: ignore[arg-type]
        "top-k is 1.5; expected a whole number": lambda: Sampling(1.0, top_k=1.5),  # type: ignore[arg-type]
        "seed is 'x'; expected a whole number": lambda: Sampling(1.0, seed="x"),  # type: ignore[arg-type]
        "temperature is nan; expected 0 (greedy) or more": lambda: Sampling(temperature=float("nan")),
        "the model has 2 adapters; load the one to evaluate": lambda: evaluated(*both),
        "output is kept, which a model in memory does not use; leave it out": lambda: evaluated(
            both[0], settings=Evaluation(output=Path("kept"))
        ),
        "--limit is 0; expected at least 1": lambda: evaluated(both[0], "babel-qa", limit=0),
        "no task 'xqad'; for training": lambda: evaluated(both[0], "xqad"),
        "languages is 3; expected a text, such as 'de', or a list": lambda: evaluated(both[0], "babel-qa", 3),
        "the run was trained on your own rows; choose the benchmark": lambda: evaluated(both[0]),
        "dtype is 'half'; expected auto, float32, bfloat16 or int8": lambda: load_model(dtype="half"),  # type: ignore[arg-type]
        f"{both[0]} already has files; give a new directory": lambda: base.save(both[0]),
    }


CASES = 53


@pytest.mark.parametrize("number", range(CASES))
def test_refused(number: int, base: LanguageModel, saved: Path, tmp_path: Path):
    base.load(saved / "red")
    cases = list(refusals(base, saved, tmp_path).items())
    assert len(cases) == CASES
    message, cause = cases[number]
    with pytest.raises(InputError) as raised:
        cause()  # type: ignore[operator]
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", [-1, pytest.param(2**70, marks=pytest.mark.slow)])
def test_any_whole_number_is_a_seed(base: LanguageModel, seed: int):
    """The same seed gives the same samples, and another seed gives others."""
    base.set_adapter(NoAdapter())
    one, again, other = (
        base.generate(PROMPTS, max_new_tokens=6, sampling=Sampling(2.0, seed=each)) for each in (seed, seed, seed + 1)
    )
    assert one == again != other


def test_adapters_that_cannot_share_a_batch(base: LanguageModel, saved: Path, tmp_path: Path):
    base.set_adapter(LoRA())
    base.save(tmp_path / "lora")
    base.set_adapter(LoRA(targets="q"))
    base.save(tmp_path / "other")
    base.set_adapter(FullFineTuning())
    base.save(tmp_path / "full")
    base.save(tmp_path / "again")
    with pytest.raises(InputError, match=r"must have the same kind of adapter: found PrefixTuning.* and LoRA"):
        base.load(saved / "red", tmp_path / "lora")
    with pytest.raises(InputError, match=r"must have the same kind of adapter: found LoRA.*'q,k,v'.* and LoRA.*'q'"):
        base.load(tmp_path / "lora", tmp_path / "other")
    with pytest.raises(InputError, match="all weights cannot differ between the rows of a batch"):
        base.load(tmp_path / "full", tmp_path / "again")


def test_an_adapter_of_another_base(saved: Path, tmp_path: Path):
    """Of the same shapes; the weights differ. A copy of the right one elsewhere will do."""
    other = load_model(str(small.write_model(tmp_path / "other", scale=4)), mesh="1x1")
    with pytest.raises(InputError, match=r"other is not the base that .*red was trained on, .*: its hash is"):
        other.load(saved / "red")


@pytest.mark.slow
def test_a_copy_of_the_base_is_accepted(base: LanguageModel, directory: Path, saved: Path, tmp_path: Path):
    base.load(saved / "red")
    copy = load_model(str(shutil.copytree(directory, tmp_path / "copy")), mesh="1x1")
    copy.load(saved / "red")
    assert copy.generate(PROMPTS[:2], max_new_tokens=4) == base.generate(PROMPTS[:2], max_new_tokens=4)
