"""What is released: the files of the distributions, one version, one address; and an installation that trains.

The empty environment has the packages of this one through a path file, so that nothing is downloaded. It proves that
the wheel is whole and its command works, not that the newest versions of the dependencies do (`make test-latest`).
"""

import ast
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import jaxprefix

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = jaxprefix.__version__
LARGEST = 10 * 10**6  # bytes of a distribution
PACKAGES = {"orbax": "orbax-checkpoint", "jaxlib": "jax"}  # of modules with other names; jaxlib is a half of jax


def load_address() -> Any:
    spec = importlib.util.spec_from_file_location("address", ROOT / ".ci" / "address.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ADDRESS = load_address()


def shown(checkout: Path) -> dict[str, str]:
    """The files that show the address or the version."""
    paths = [checkout / "README.md", checkout / "CITATION.cff", *sorted((checkout / "notebooks").glob("*.ipynb"))]
    return {path.relative_to(checkout).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make address` reads and writes."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml", "jaxprefix/_version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def set_address(checkout: Path, address: str) -> None:
    path = checkout / "pyproject.toml"
    text = re.sub(r"(?m)^(# )?Repository = .*\n", "", path.read_text(encoding="utf-8"))
    line = f'[project.urls]\nRepository = "{address}"\n' if address else "[project.urls]\n"
    path.write_text(text.replace("[project.urls]\n", line), encoding="utf-8")


def test_the_files_show_the_address_and_version_that_are_set(checkout: Path):
    ADDRESS.write(checkout)
    assert shown(checkout) == shown(ROOT), "run `make address`"


def test_an_address_is_shown_everywhere_and_taken_back(checkout: Path):
    set_address(checkout, "")
    ADDRESS.write(checkout)
    without = shown(checkout)
    assert not [name for name, text in without.items() if re.search("badge|/archive/|repository-code", text)]
    assert all("pip install -q .." in text for name, text in without.items() if name.endswith(".ipynb"))
    set_address(checkout, "https://github.com/someone/jaxprefix/")
    ADDRESS.write(checkout)
    ADDRESS.write(checkout)  # a second time changes nothing
    archive = f"https://github.com/someone/jaxprefix/archive/refs/tags/v{VERSION}.tar.gz"
    found = shown(checkout)
    assert found["CITATION.cff"].count("repository-code: https://github.com/someone/jaxprefix\n") == 1
    assert found.pop("README.md").count(archive) == 1
    for name in found.keys() - {"CITATION.cff"}:
        assert found[name].count(f"%pip install -q {archive}") == 1 and "install -q .." not in found[name]
        assert found[name].count(f"/github/someone/jaxprefix/blob/v{VERSION}/{name})") == 1
    set_address(checkout, "")
    ADDRESS.write(checkout)
    assert shown(checkout) == without


def test_an_address_that_colab_cannot_open_is_refused(checkout: Path):
    set_address(checkout, "https://example.org/jaxprefix")
    with pytest.raises(SystemExit, match="Colab expects"):
        ADDRESS.write(checkout)


def test_the_version_has_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.findall(r"(?m)^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[0] == VERSION


def test_the_citation_is_complete():
    """The keys that the schema of CFF 1.2.0 requires."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert str(citation["version"]) == VERSION and citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"] == [{"name": "The jaxprefix developers"}]
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


def test_no_page_installs_by_name():
    """An extra of the installed package is another matter: pip finds the package itself installed."""
    paths = [path for kind in ("*.md", "*.ipynb", "*.py") for path in ROOT.rglob(kind)]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in paths
        if not {".venv", ".venv-latest", "site", "tests"} & set(path.relative_to(ROOT).parts)
        and path.name != "CONTRIBUTING.md"  # it states this rule
    }
    assert ROOT / "README.md" in texts and ROOT / "notebooks" / "quickstart.ipynb" in texts
    by_name = re.compile(r"pip install (-\S+ )*['\"]?jaxprefix(?!\[|-)")
    assert [path for path, text in texts.items() if by_name.search(text)] == []


def test_what_is_imported_is_declared():
    """Each package that the code imports is a dependency, or in an extra."""
    lines = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    declared = {name.lower() for line in lines for name in re.findall(r"^[\w.-]+", line)}
    imported = set()
    for path in (ROOT / "jaxprefix").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    others = imported - sys.stdlib_module_names - {"jaxprefix", "IPython"}  # IPython runs the notebook that needs it
    packages = {PACKAGES.get(name, name.lower().replace("_", "-")) for name in others}
    assert "numpy" in packages and packages - declared == set()


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make(path: Path):
    """They install nothing themselves, and call targets that exist."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = {command.removeprefix("make ") for command in commands if command.startswith("make ")}
    rules = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert targets and targets <= rules
    assert not [command for command in commands if "pip " in command or "pytest" in command]


def test_there_are_workflows_for_each_purpose():
    assert [path.stem for path in WORKFLOWS] == ["ci", "docs", "release"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the wheel, which is built from the source distribution, and of that."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def tracked() -> set[str]:
    done = subprocess.run(["git", "ls-files", "jaxprefix"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Path):
    (wheel,) = built.glob("*.whl")
    about = f"jaxprefix-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        metadata = files.read(f"{about}/METADATA").decode()
    assert wheel.name == f"jaxprefix-{VERSION}-py3-none-any.whl" and wheel.stat().st_size <= LARGEST
    assert {name for name in names if not name.startswith(about)} == tracked()
    assert {"jaxprefix/babel/model/model.safetensors", "jaxprefix/tasks/languages.tsv", "jaxprefix/py.typed"} <= names
    assert f"\nVersion: {VERSION}\n" in metadata and "\nAuthor: The jaxprefix developers\n" in metadata


@pytest.mark.slow
def test_the_source_distribution_has_no_tests(built: Path):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert source.stat().st_size <= LARGEST and tracked() <= names
    others = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "pyproject.toml"}
    assert names - tracked() == {*others, ".gitignore", "PKG-INFO"}


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that has the wheel, and what it depends on from this environment."""
    folder = tmp_path_factory.mktemp("empty") / "environment"
    venv.create(folder, with_pip=False)
    (wheel,) = built.glob("*.whl")
    pip(folder / "bin", "--no-deps", str(wheel))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def pip(bin: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--python", str(bin / "python"), "install", "--no-index", *arguments]
    done = subprocess.run(command, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outside() -> dict[str, str]:
    """The environment variables without the path to this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(command: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([command, *arguments], cwd=cwd, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_trains_and_evaluates(installed: Path, tmp_path: Path):
    where = "import jaxprefix; print(jaxprefix.__file__, jaxprefix.__version__)"
    file, version = run(installed / "python", "-c", where, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent) and version == VERSION
    train = ["train", "--task", "babel-qa", "--steps", "5", "--output", "run"]
    assert "step 5: held-out loss" in run(installed / "jaxprefix", *train, cwd=tmp_path)
    evaluate = ["evaluate", "run", "--languages", "en", "--limit", "2"]
    assert "en (source)" in run(installed / "jaxprefix", *evaluate, cwd=tmp_path)
    study = ["study", "paper", "--list", "--model", "any"]
    assert "runs/study-paper/prefix-squad" in run(installed / "jaxprefix", *study, cwd=tmp_path)


@pytest.mark.slow
def test_help_is_fast(installed: Path, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(installed / "jaxprefix", "--help", cwd=tmp_path).startswith("usage: jaxprefix")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 2


@pytest.mark.slow
def test_an_extra_is_installed_as_the_messages_say(installed: Path):
    """`pip install 'jaxprefix[tensorboard]'` finds the package installed, and asks no index for it."""
    assert "requirement already satisfied: tensorboardx" in pip(installed, "jaxprefix[tensorboard]").lower()
