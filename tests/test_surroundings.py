"""Where commands run: without a home, with a terminal of ASCII, into a pipe that closes, in directories of any name."""

import io
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import small

from jaxprefix import PrefixTuning, generate, load_model
from jaxprefix.distributed import compilation_cache
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.messages import shell
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import run_directories
from jaxprefix.train.loop import train

NAME = 'it\'s a, "run" & $HOME'


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch):
    """As in a container: no HOME, and a user id that is not in /etc/passwd."""

    def getpwuid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_nothing_is_cached(monkeypatch: pytest.MonkeyPatch):
    import jax

    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("a cache without a home"))
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", None, raising=False)
    compilation_cache.enable()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose name is hard for a shell, of a model that says what ASCII cannot write."""
    folder = tmp_path_factory.mktemp("runs")
    model = load_model(str(small.write_model(folder / "model", scale=5)), mesh="1x1")
    model.set_adapter(PrefixTuning(length=2, layers="all"))
    model.save(folder / NAME)
    return folder / NAME


HOMELESS = """
import pwd, runpy, sys
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
sys.argv[:] = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_a_whole_command_without_a_home_in_ascii_from_a_shell(run: Path):
    """The answer is the same as in UTF-8; what ASCII lacks is escaped."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    line = f"{sys.executable} -c {shlex.quote(HOMELESS)} jaxprefix.generate {shell(run)} 'Où ?' --max-new-tokens 6"
    answers = []
    for encoding in ("utf-8", "ascii"):
        environment |= {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        answers.append(done.stdout)
    assert answers[1] == answers[0].decode("utf-8").encode("ascii", "backslashreplace") and answers[1].strip()


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", b"\\u221a \\xe9 \\u0939\n"), ("utf-8", "√ é ह\n".encode())]
)
def test_what_stdout_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str, expected: bytes):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    terminal.run(lambda: print("√ é ह"))
    assert written.getvalue() == expected


@pytest.mark.parametrize("count", [1, 10**5])  # what the buffer holds until the end, and more than it holds
def test_a_closed_pipe_ends_a_command_quietly(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], count: int
):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            terminal.run(lambda: print("x" * count))
        monkeypatch.undo()
    assert ended.value.code == 141  # as of any program that SIGPIPE ends
    assert capfd.readouterr() == ("", "")


def test_a_closed_pipe_of_a_process(tmp_path: Path):
    line = f"{sys.executable} -m jaxprefix.peft --help | true; {sys.executable} -m jaxprefix.peft --help | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("usage: python -m jaxprefix.peft") and not done.stderr


def test_a_directory_of_the_whole_name_comes_before_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("com,ma", "com", "a", "x,y,z"):
        Path(name).mkdir()
    assert run_directories("com,ma") == [Path("com,ma")]
    assert run_directories("a,com,ma,com,x,y,z") == [Path(name) for name in ("a", "com,ma", "com", "x,y,z")]
    assert run_directories("com,a,") == [Path("com"), Path("a")]
    assert run_directories("no,such") == [Path("no"), Path("such")]  # which the command then names one by one
    for twice in ("com,ma,com,ma", ",", ""):
        with pytest.raises(InputError, match="names no run, or one twice"):
            run_directories(twice)


@pytest.mark.parametrize("name", [NAME, "plain", "two words", "-flag", "runs/a\tb"])
def test_a_printed_path_is_one_argument_and_no_flag(name: str):
    (word,) = shlex.split(shell(Path(name)))
    assert Path(word) == Path(name) and not word.startswith("-")


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
def test_a_name_under_which_orbax_loses_checkpoints_is_refused(name: str, run: Path, tmp_path: Path):
    """Before anything is trained or written."""
    model = load_model(str(run.parent / "model"), mesh="1x1")
    model.set_adapter(PrefixTuning(length=2, layers="all"))
    with pytest.raises(InputError, match=r"its path has .*; choose another name or directory"):
        model.save(tmp_path / name)
    rows = small.write_rows(tmp_path / "rows.jsonl", small.rows(8))
    with pytest.raises(InputError, match="a run cannot be saved in"):
        train(RunConfig(model=str(run.parent / "model"), train_file=rows, max_length=96), tmp_path / name / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_run_of_any_name_is_prompted(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["generate", f"{run},{run.parent / NAME}/.", "Who?", "--max-new-tokens", "2"])
    with pytest.raises(InputError, match="names no run, or one twice"):
        generate.main()
    monkeypatch.setattr(sys, "argv", ["generate", str(run), "Who?", "--max-new-tokens", "2"])
    generate.main()
    assert capsys.readouterr().out.strip()
