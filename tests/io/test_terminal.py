"""Progress without a terminal: a line per minute, even if the main thread is blocked. Errors are one line, and only
commands change the process.
"""

import ast
import re
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from rich.console import Console

import jaxprefix
from jaxprefix.errors import InputError
from jaxprefix.io import terminal


def wait_for_line(capsys: Any) -> str:
    """The first line on stderr. A minute is shortened, and the wait has no limit: the machine may be busy."""
    while not (printed := capsys.readouterr().err):
        time.sleep(0.01)
    return printed.splitlines()[0]


def test_a_line_shows_the_progress_of_a_task(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(terminal, "MINUTE", 0.05)
    with terminal.progress(quiet=False) as bar:
        task = bar.add_task("training", total=200, rate="loss 0.5")
        bar.update(task, completed=50)
        assert wait_for_line(capsys).startswith("training 50 of 200, loss 0.5, 0:00:0")


def test_a_task_of_unknown_length_shows_its_time(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(terminal, "MINUTE", 0.05)
    with terminal.progress(quiet=False) as bar:
        bar.add_task("compiling", total=None, rate="")
        line = wait_for_line(capsys)
    assert line.startswith("compiling, 0:00:0") and line.endswith(" so far")


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(terminal, "MINUTE", 0.001)
    with terminal.progress(quiet=True) as bar:
        bar.add_task("training", total=2, rate="")
        time.sleep(0.05)
    assert not capsys.readouterr().err


class Output:
    """A notebook's display handle, which keeps what it shows."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown.append(data)


def test_a_notebook_has_progress_in_its_cell(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """The output is updated while the main thread is blocked, and ends with the last state. stderr has nothing."""
    output = Output()
    monkeypatch.setattr(Console, "is_jupyter", True, raising=False)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: output)
    monkeypatch.setattr(terminal, "SECOND", 0.01)
    with terminal.progress(quiet=False) as bar:
        task = bar.add_task("<rows>", total=4, rate="loss 0.5")
        while not output.shown:
            time.sleep(0.01)
        bar.update(task, completed=4)
    first, last = output.shown[0], output.shown[-1]
    assert first["text/plain"].startswith("<rows> 0 of 4, loss 0.5, 0:00:0")
    assert re.match(r'<progress value="4(\.0)?" max="4(\.0)?"></progress> &lt;rows&gt; 4 of 4, ', last["text/html"])
    with terminal.progress(quiet=True) as bar:
        bar.add_task("quiet", total=1, rate="")
    assert "quiet" not in output.shown[-1]["text/plain"] and not capsys.readouterr().err


CELL = """
import time
from jaxprefix.io import terminal

terminal.SECOND = 0.05
with terminal.progress(quiet=False) as bar:
    bar.add_task("loading", total=None, rate="")
    task = bar.add_task("training", total=2, rate="")
    time.sleep(1)
    bar.update(task, completed=2)
print("after")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_progress_in_a_kernel():
    """The cell keeps one output, which is updated in place, before what is printed afterwards."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    bars, printed = notebook.cells[0].outputs
    loading, training = bars.data["text/plain"].splitlines()
    assert loading.startswith("loading, 0:00:0") and training.startswith("training 2 of 2, 0:00:0")
    assert '<progress value="2' in bars.data["text/html"] and printed.text == "after\n"


def test_a_mistake_of_the_user_is_one_line(capsys: Any):
    def main() -> None:
        raise InputError("--steps 0:\n expected at least 1")

    with pytest.raises(SystemExit) as ended:
        terminal.run(main)
    assert ended.value.code == 2 and capsys.readouterr().err == "error: --steps 0: expected at least 1\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="invalid literal"):
        terminal.run(lambda: print(int("x")))


LOGGING = {"absl_set_min_log_level", "addFilter", "addHandler", "setLevel", "basicConfig", "disable"}


def changes(path: Path) -> list[str]:
    """The attributes of `sys` that a file assigns, and its calls that change loggers."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    calls = [node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [each for each in map(ast.unparse, targets) if each.startswith("sys.")] + sorted(LOGGING & set(calls))


def test_only_commands_change_the_process():
    """Streams, hooks and loggers belong to the program that calls the library."""
    root = Path(jaxprefix.__file__).parent
    found = {path.relative_to(root).as_posix(): changes(path) for path in root.rglob("*.py")}
    assert found.pop("io/terminal.py") == ["sys.excepthook", "absl_set_min_log_level", "addFilter"]
    assert found.pop("io/multihost.py") == ["absl_set_min_log_level"]  # for commands with --hosts
    assert {name: each for name, each in found.items() if each and not name.endswith("__main__.py")} == {}
