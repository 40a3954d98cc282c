"""A specification is read as strictly as run.json, and expands to distinct cells."""

import re
from pathlib import Path

import pytest

from jaxprefix.errors import InputError
from jaxprefix.study import specification
from jaxprefix.study.folder import as_json, first_difference
from jaxprefix.study.plan import Cell, plan
from jaxprefix.study.specification import parse


def cells(grids: str, head: str = "", table: str = "") -> list[Cell]:
    return plan(parse(f'{head}\n[[table]]\nname = "T"\n{table}\n{grids}'.encode(), "t")).cells()


GRID = "[[table.grid]]\n"


def test_axes_multiply_and_lists_are_axes():
    found = cells(GRID + 'run = {method = ["prefix", "lora"], lr = [1e-3, 3e-4], task = "babel-nli"}')
    assert [(cell.config.method, cell.config.lr) for cell in found] == [
        ("prefix", 1e-3), ("prefix", 3e-4), ("lora", 1e-3), ("lora", 3e-4)
    ]  # fmt: skip
    assert {cell.evaluation.task for cell in found} == {"babel-nli"}  # the benchmarks of the trained task


def test_a_setting_of_a_method_multiplies_only_its_cells():
    found = cells(GRID + 'run = {method = ["prefix", "lora"], lora.rank = [4, 8], prefix.length = [5, 10, 20]}')
    assert [(cell.config.method, cell.setting("lora.rank"), cell.setting("prefix.length")) for cell in found] == [
        ("prefix", None, 5), ("prefix", None, 10), ("prefix", None, 20), ("lora", 4, None), ("lora", 8, None)
    ]  # fmt: skip


def test_the_base_is_one_cell_whatever_is_trained_beside_it():
    found = cells(GRID + 'run = {method = ["none", "lora"], lr = [1e-3, 3e-4], seed = [0, 1], steps = 7}')
    assert [cell.config.method for cell in found].count("none") == 1 and len(found) == 5


def test_grids_share_cells_and_runs():
    """An equal cell is one; another evaluation of the same run is in a directory below it."""
    two = GRID + 'run = {method = "lora"}\nevaluation = {temperature = [0.0, 0.5]}\n'
    other = '[[table]]\nname = "U"\n' + GRID + 'run = {method = ["lora", "prefix"]}'
    found = cells(two + other)
    assert len(found) == 3 and len({cell.run for cell in found}) == 2
    first, second, _ = found
    assert second.name.startswith(f"{first.run}/evaluation-") and first.name == first.run


def test_names_do_not_depend_on_directories(tmp_path: Path):
    names = []
    for place in ("here", "there"):
        (tmp_path / place / "Llama").mkdir(parents=True)
        grid = f'run = {{model = "{tmp_path / place / "Llama"}", method = "lora", task = "squad"}}'
        names.append([cell.name for cell in cells(GRID + grid)])
    assert names[0] == names[1]


@pytest.mark.parametrize("name", specification.names())
def test_the_specifications_of_the_package_are_plans(name: str):
    read = specification.read(name)
    assert plan(read).cells() and read.about
    small = plan(read.smaller(["embedded-2"], steps=3, limit=5, seeds=[0, 7]))
    found = [cell for cell in small.cells() if cell.config.method != "none"]
    assert {cell.config.model for cell in found} == {"embedded-2"} and {cell.config.seed for cell in found} == {0, 7}
    assert {(cell.config.steps, cell.config.epochs, cell.evaluation.limit) for cell in found} == {(3, None, 5)}


def test_the_paper_has_the_figures_that_are_known():
    found = {table.name: table.known for table in specification.read("paper").tables}
    assert [known.value for known in found["Table 1"]] == [1.23e6, 2.36e6, 75.5e6]
    assert [known.value for known in found["Table 2"]] == [37.74, 33.6, 78.11]


BAD = {
    "no TOML": ("about = ", "not TOML"),
    "no table": ('about = "x"', "no [[table]]"),
    "an unknown key": ("banana = 1", "the specification has 'banana'; expected about, run, evaluation, probe, table"),
    "an unknown key of a table": ('[[table]]\nname = "T"\nbanana = 1', "'T': it has 'banana'; expected grid, name"),
    "a table without a name": ("[[table]]", "table '': name is missing; expected a text"),
    "no grid": ('[[table]]\nname = "T"', "table 'T': it has no [[table.grid]]"),
    "an unknown axis": (GRID + "run.banana = [1, 2]", "unknown setting 'banana'"),
    "an unknown axis of a method": (GRID + 'run = {method = "lora", lora.rang = 4}', "unknown setting 'lora.rang'"),
    "an unknown axis of the evaluation": (GRID + "evaluation.banana = 1", "unknown setting 'evaluation.banana'"),
    "a wrong type": (GRID + 'run.steps = ["few"]', "steps is 'few'; expected a whole number"),
    "a wrong value": (GRID + "run.lr = [1e-3, -1.0]", "--lr is -1.0; expected more than 0"),
    "a wrong setting of a method": (GRID + 'run = {method = "lora", lora.rank = 0}', "lora rank is 0"),
    "an infinite value": (GRID + "run.lr = inf", "lr is inf; expected a number"),
    "a deep setting": (GRID + f"run.{'.'.join(['a'] * 3000)} = 1", "a.a is {'a': {'a': {'a': {...}}}}; expected"),
    "no value": (GRID + "run.lr = []", "the axis lr has no value"),
    "a value twice": (GRID + "run.seed = [0, 0]", "the axis seed has a value twice"),
    "a method without cells": (GRID + 'run = {method = "prefix", lora.rank = 4}', "no cell has the method of lora.r"),
    "contradicting settings": (GRID + "run = {steps = 4, epochs = 2}", "--steps 4 and --epochs 2 both say how long"),
    "an unknown method": (GRID + 'run.method = "banana"', "--method 'banana': 'banana' is unknown"),
    "an unknown task": (GRID + 'run.task = "banana"', "no task 'banana'"),
    "a benchmark to train on": (GRID + 'run.task = "xquad"', "task xquad is only for evaluation"),
    "a language that the task lacks": (GRID + 'run = {task = "squad", language = "de"}', "no language 'de'"),
    "a setting of the machine": (GRID + 'run.data = "/mirror"', "data is not a setting of a specification"),
    "a matrix without languages": ('kind = "matrix"\n' + GRID + "run.steps = 1", '"matrix" needs the axis language'),
    "a line without its axis": ('kind = "line"\nx = "lr"\n' + GRID + "run.lr = 1e-3", "x is 'lr'; expected an axis"),
    "a line without x": ('kind = "line"\n' + GRID + "run.lr = 1e-3", 'kind "line" and x belong together'),
    "no baseline": ('baseline = {method = "lora"}\n' + GRID + "run.steps = 1", "no row has the baseline"),
    "a baseline of no setting": ("baseline = {metod = 1}\n" + GRID + "run.steps = 1", "'metod' is not a setting"),
    "a baseline of two": ("baseline = {lr = [1, 2]}\n" + GRID + "run.steps = 1", "lr is [1, 2]; expected one value"),
    "another kind": ('kind = "pie"\n' + GRID + "run.steps = 1", "kind is 'pie'; expected scores, line"),
    "another selection": ('select = "test"\n' + GRID + "run.steps = 1", "select is 'test'; expected loss, score"),
    "a figure without value": (GRID + 'run.steps = 1\n[[table.known]]\nwhere = {}', "known: value is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_specifications_are_refused_in_one_line(name: str):
    content, message = BAD[name]
    text = content if name.startswith(("no TOML", "no table", "an unknown key", "a table without", "no grid")) else (
        f'[[table]]\nname = "T"\n{content}'
    )  # fmt: skip
    with pytest.raises(InputError) as refused:
        plan(parse(text.encode(), "t"))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_example_of_the_docs_is_a_plan():
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    study = plan(parse(text.encode(), "mine"))
    ranks = [row.labels for row in study.rows["Ranks"] if row.labels["method"] == "lora"]
    assert [labels["lora.rank"] for labels in ranks] == [4, 8, 16]
    assert study.specification.tables[0].known[0].where == {"method": "lora", "lora.rank": 4}


def test_common_settings_of_a_method_that_nobody_has_are_refused():
    with pytest.raises(InputError, match=r"no cell has the method of lora.rank; remove it from \[run\]"):
        cells(GRID + "run.steps = 1", head="[run]\nlora.rank = 4")


def test_two_models_of_one_name_are_refused(tmp_path: Path):
    for place in ("here", "there"):
        (tmp_path / place / "Llama").mkdir(parents=True)
    models = [str(tmp_path / place / "Llama") for place in ("here", "there")]
    with pytest.raises(InputError, match="have the same name, Llama"):
        cells(GRID + f'run = {{model = {models}, task = "squad"}}')


def test_the_first_difference_of_two_specifications_is_named():
    one, other = (
        as_json(parse(f'[[table]]\nname = "T"\n{GRID}run.lr = {lr}'.encode(), "t")) for lr in ("1e-3", "[1e-3, 3e-4]")
    )
    assert first_difference(one, one) is None
    assert first_difference(one, other) == "its tables[0].grids[0].run.lr is [0.001], given [0.001, 0.0003]"
