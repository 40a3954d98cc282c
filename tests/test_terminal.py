"""A mistake of the user is one line and code 2; a defect of ours, or of a library, keeps its traceback."""

import numpy as np
import pytest

from jaxprefix import mesh, terminal


def test_an_error_that_the_package_raised(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        terminal.run(lambda: mesh.parse("banana") and None)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --mesh 'banana' is not a mesh; expected DATAxMODEL, such as 4x2\n"


def test_sources_are_not_needed(monkeypatch: pytest.MonkeyPatch):
    """They may be absent, or edited while a long run goes on."""
    monkeypatch.setattr("linecache.getline", lambda *_: "something else")
    monkeypatch.setattr("linecache.getlines", lambda *_: [])
    with pytest.raises(SystemExit):
        terminal.run(lambda: mesh.parse("banana") and None)


def a_number() -> None:
    """In a frame of the package, but not by a `raise` of it."""
    code = compile("int('x')", str(terminal.PACKAGE / "mesh.py"), "exec")
    exec(code)


@pytest.mark.parametrize("defect", [a_number, lambda: np.zeros(3).reshape(2) and None], ids=["ours", "a library's"])
def test_any_other_error(defect):
    with pytest.raises(ValueError, match=r"int|reshape"):
        terminal.run(defect)


def test_a_stop_by_the_user(capsys: pytest.CaptureFixture[str]):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        terminal.run(stop)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped; what was saved is kept, and the same command goes on from there\n"
