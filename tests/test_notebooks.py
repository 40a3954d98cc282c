"""Every notebook runs from its first cell to its last; only its parameters are made small."""

import ast
import importlib
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = {"STEPS": 2, "QUESTIONS": 1}


def load(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def test_notebooks_are_found():
    assert [path.name for path in NOTEBOOKS] == ["quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path):
    nbformat.validate(load(path))
    assert not [cell for cell in load(path).cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_code_is_python_and_its_imports_are_there(path: Path):
    """Without running it, which takes a kernel and a training."""
    cells = [cell.source for cell in load(path).cells if cell.cell_type == "code"]
    tree = ast.parse(re.sub(r"(?m)^( *)%.*$", r"\1pass", "\n".join(cells)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert any(str(node.module).startswith("jaxprefix") for node in found)
    for node in found:
        assert all(hasattr(importlib.import_module(str(node.module)), name.name) for name in node.names)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_it_runs(path: Path, tmp_path: Path):
    notebook = load(path)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in SMALL.items():
        parameters.source, count = re.subn(rf"(?m)^{name} = \w+", f"{name} = {value}", parameters.source)
        assert count == 1
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "trainable: " in printed and "mean of others" in printed + "".join(
        str(output.get("data")) for output in outputs
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "runs" / "babel-qa-prefix" / "report.png").is_file()
