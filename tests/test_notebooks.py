"""Every notebook runs from its first cell to its last; only its parameters are made small."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from test_readme import mirror

from jaxprefix.runs.base_model import EMBEDDED

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# Of each notebook: small parameters, the number of pictures, and what its last cells print or show.
SMALL: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "hub_model": (
        {"MODEL": str(EMBEDDED), "DATA": "mirror", "STEPS": 2, "BATCH": 4, "LANGUAGES": "de,hi,zh", "QUESTIONS": 2},
        1,
        ("trainable: ", "mean of others", "sign flips"),
    ),
    "methods": (
        {"METHODS": ["none", "lora"], "STEPS": 2, "QUESTIONS": 1, "LANGUAGES": "en,de"},
        1,
        ("trainable: ", "mean of others", "gap"),
    ),
    "peft": ({"STEPS": 2}, 0, ("LORA", "largest difference", "wrote runs/imported")),
    "probes": (
        {"METHODS": ["lora"], "STEPS": 2, "LANGUAGES": "en,de", "SENTENCES": 8},
        3,
        ("mexa", "forgetting"),
    ),
    "quickstart": ({"STEPS": 2, "QUESTIONS": 1}, 2, ("trainable: ", "mean of others")),
    "serving": ({"STEPS": 2, "COPIES": 1}, 0, ("spanish", "equal", "4 answers")),
    "study": (
        {"LENGTHS": [1, 2], "SEEDS": [0], "STEPS": 2, "QUESTIONS": 1, "LANGUAGES": "en,de"},
        1,
        ("| prefix.length |", "tables: runs/lengths"),
    ),
}


def load(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def test_each_notebook_has_small_parameters():
    assert [path.stem for path in NOTEBOOKS] == sorted(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path):
    nbformat.validate(load(path))
    assert not [cell for cell in load(path).cells if cell.get("outputs") or cell.get("execution_count")]


def test_all_install_the_package_alike():
    """So that one change serves all of them, once the repository has an address."""
    assert len({next(cell.source for cell in load(path).cells if cell.cell_type == "code") for path in NOTEBOOKS}) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_code_is_python_and_its_imports_are_there(path: Path):
    """Without running it, which takes a kernel and a training."""
    cells = [cell.source for cell in load(path).cells if cell.cell_type == "code"]
    tree = ast.parse(re.sub(r"(?m)^( *)[%!].*$", r"\1pass", "\n".join(cells)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert any(str(node.module).startswith("jaxprefix") for node in found) or "-m jaxprefix" in "".join(cells)
    for node in found:
        assert all(hasattr(importlib.import_module(str(node.module)), name.name) for name in node.names)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_it_runs(path: Path, tmp_path: Path):
    small, pictures, expected = SMALL[path.stem]
    notebook = load(path)
    mirror(tmp_path / "mirror")
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in small.items():
        parameters.source, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", parameters.source)
        assert count == 1, name
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
    for text in expected:
        assert text in shown, text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
