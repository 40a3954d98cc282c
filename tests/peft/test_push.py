"""A push to a hub on this machine: what arrives, and what a user reads when it fails. Nothing leaves the machine."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fake_hub
import huggingface_hub
import pytest
import small
import theirs
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from safetensors.numpy import load, load_file

from jaxprefix import tasks
from jaxprefix.api import load_model
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.models.adapters import LoRA
from jaxprefix.peft import __main__ as command
from jaxprefix.peft.eval_results import DATASETS
from jaxprefix.peft.files import WEIGHTS
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

TOKEN = "hf_thistokenmustnotbeseen"
SCORES = {"f1": 0.41237, "em": 0.25, "n": 1190, "parse_failure_rate": 0.0}
FILES = [".eval_results/jaxprefix.yaml", "README.md", "adapter_config.json", "adapter_model.safetensors"]
ENVIRONMENT = {"HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def write_report(run: Path) -> None:
    languages = {"de": SCORES, "no": SCORES | {"f1": 0.5}}
    rest = {"source": None, "mean_others": None, "gap": None}
    xquad, own = ({"metrics": ["f1", "em"], "languages": languages} | rest for _ in range(2))
    report = {"model": "tiny", "method": "lora", "source": "no", "tasks": {"xquad": xquad, "mine": own}}
    (run / "report.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run, whose language YAML takes for False."""
    folder = tmp_path_factory.mktemp("push")
    base = open_base(str(small.write_model(folder / "model")))
    config = RunConfig(model=str(base.directory), method="lora", lora=LoRA(2))
    save_run(folder / "run", config, base, theirs.drawn(LoRA(2), base.config), "no")
    write_report(folder / "run")
    return folder / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.Hub]:
    """The hub of this process, with a user's token."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's attempts
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with fake_hub.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
    huggingface_hub.close_session()


def push(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["peft", "push", *map(str, arguments)])
    command.main()


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_the_command(run: Path, tmp_path: Path):
    """As a user types it: one private repository, one commit, and no file or line with the token."""
    before = files(run)
    with fake_hub.running() as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        arguments = [sys.executable, "-m", "jaxprefix.peft", "push", str(run), "org/name"]
        environment = os.environ | ENVIRONMENT | settings | {"HF_HUB_OFFLINE": "0", "TMPDIR": str(tmp_path)}
        done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"pushed the adapter and its scores to {hub.url}/org/name (private)\n"
    repository = hub.repositories["org/name"]
    assert repository.private and repository.commits == 1 and sorted(repository.files) == FILES
    with_token = [path for _, path, sent in hub.requests if sent == f"Bearer {TOKEN}"]
    assert with_token == [path for _, path, _ in hub.requests if not path.startswith(("/store/", "/api/agent-"))]
    assert files(run) == before
    for content in (done.stdout.encode(), done.stderr.encode(), *files(tmp_path).values(), *repository.files.values()):
        assert TOKEN.encode() not in content and str(run.parent).encode() not in content


def test_what_arrives(run: Path, hub: fake_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's own parsers read the card and the scores; the adapter is that of an export."""
    push(monkeypatch, run, "org/name")
    pushed = hub.repositories["org/name"].files
    monkeypatch.setattr(sys, "argv", ["peft", "export", str(run), str(tmp_path / "out")])
    command.main()
    tensors, exported_tensors = load(pushed["adapter_model.safetensors"]), load_file(tmp_path / "out" / WEIGHTS)
    assert tensors.keys() == exported_tensors.keys() and len(tensors) == 18
    assert all(tensors[name].tobytes() == tensor.tobytes() for name, tensor in exported_tensors.items())
    ours, local = yaml.safe_load(pushed["adapter_config.json"]), files(tmp_path / "out")
    exported = yaml.safe_load(local[tmp_path / "out" / "adapter_config.json"])
    assert ours == exported | {"base_model_name_or_path": None}
    card = ModelCard(pushed["README.md"].decode())
    assert (card.data.library_name, card.data.language, card.data.tags) == ("peft", ["no"], ["jaxprefix", "lora"])
    assert 'PeftModel.from_pretrained(base, "org/name")' in card.text
    assert "hf download org/name --local-dir adapter\npython -m jaxprefix.peft import adapter" in card.text
    german, norwegian = parse_eval_result_entries(yaml.safe_load(pushed[".eval_results/jaxprefix.yaml"]))
    assert (german.dataset_id, german.task_id, german.value) == ("google/xquad", "xquad.de", 41.24)
    assert german.notes == "f1 in percent, 1,190 rows; adapter trained in no, with jaxprefix"
    assert (norwegian.task_id, norwegian.value) == ("xquad.no", 50.0)


FAULTS = {
    "nobody": (
        "/",
        fake_hub.status(401, "Invalid credentials in Authorization header"),
        "you are not logged in (401); run",
    ),
    "not logged in": ("repos/create", fake_hub.status(401), "(401); run `hf auth login` or set HF_TOKEN, then run the"),
    "no member": (
        "repos/create",
        fake_hub.status(403),
        "(403); use a token that can write to org, from https://hugging",
    ),
    "a token to read": ("/preupload/", fake_hub.status(403), "you may not write there (403)"),
    "gone at first": ("/api/models/", fake_hub.die, "the connection failed (RemoteProtocolError"),
    "gone in a file": ("/store/", fake_hub.die, "; nothing is lost, and the same command completes the push"),
    "gone in the commit": ("/commit/", fake_hub.die, "; nothing is lost, and the same command completes the push"),
    "expired": (
        "/store/",
        fake_hub.status(400, f"Bad {TOKEN}"),
        "answered 400 (Bad ***); nothing is lost, and the same",
    ),
    "a long answer": (  # that is cut within the token
        "/store/",
        fake_hub.status(400, f"{185 * 'a'} {TOKEN}"),
        "aaa ***); nothing is lost, and the same command tries again",
    ),
    "full": (
        "/commit/",
        fake_hub.status(507, "No room"),
        "the Hub answered 507 (No room); nothing is lost, and the same",
    ),
    "a login page": ("/preupload/", fake_hub.login_page, "the connection failed (JSONDecodeError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_push_that_fails_is_completed_by_the_same_command(
    name: str, run: Path, hub: fake_hub.Hub, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
):
    caplog.set_level(logging.INFO)
    part, fault, message = FAULTS[name]
    before = files(run)
    hub.faults[part] = fault
    with pytest.raises(SystemExit) as ended:
        terminal.run(partial(push, monkeypatch, run, "org/name"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said.endswith(f"{line}\n") and line.startswith("error: could not push to org/name: ") and message in line, (
        line
    )
    assert TOKEN[:8] not in said + caplog.text and "signed" not in line
    assert files(run) == before
    assert not any(repository.files for repository in hub.repositories.values())
    hub.faults.clear()
    push(monkeypatch, run, "org/name")
    assert sorted(hub.repositories["org/name"].files) == FILES and hub.repositories["org/name"].private


def test_no_network(run: Path, hub: fake_hub.Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"the connection failed \(ConnectError: .*; nothing is lost"):
        push(monkeypatch, run, "org/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set; unset it, then run the same command again"):
        push(monkeypatch, run, "org/name")


def test_a_public_repository_needs_a_word(run: Path, hub: fake_hub.Hub, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """A private one stays private. What else a repository has stays; scores that no longer exist go."""
    hub.repositories["org/public"] = fake_hub.Repository(private=False)
    with pytest.raises(InputError, match="org/public exists and is public; give --public"):
        push(monkeypatch, run, "org/public")
    assert not hub.repositories["org/public"].files
    for name in ("org/public", "org/new"):
        push(monkeypatch, run, name, "--public")
        assert capsys.readouterr().out.endswith(f"{hub.url}/{name} (public)\n")
        assert not hub.repositories[name].private
    old = {".eval_results/jaxprefix.yaml": b"old", ".eval_results/theirs.yaml": b"", "notes.txt": b"mine"}
    hub.repositories["org/private"] = fake_hub.Repository(private=True, files=old)
    (run / "report.json").unlink()
    try:
        push(monkeypatch, run, "org/private", "--public")
    finally:
        write_report(run)
    assert capsys.readouterr().out == f"pushed the adapter to {hub.url}/org/private (private)\n"
    repository = hub.repositories["org/private"]
    assert repository.private
    assert sorted(repository.files) == sorted([".eval_results/theirs.yaml", "notes.txt", *FILES[1:]])


def test_names_that_are_none(run: Path, hub: fake_hub.Hub, monkeypatch: pytest.MonkeyPatch):
    for name in ("name", "../name", "org/name/more", "org/na me"):
        with pytest.raises(InputError, match="is not a name on the Hub; expected one such as my-name/my-adapter"):
            push(monkeypatch, run, name)
    assert not hub.requests


def test_from_python(run: Path, hub: fake_hub.Hub):
    """A run that was loaded has its scores; an adapter that was not saved has none, and training changes the run."""
    model = load_model(str(run.parent / "model"), mesh="1x1")
    model.load(run)
    line = model.push_to_hub("org/loaded")
    assert line == f"pushed the adapter and its scores to {hub.url}/org/loaded (private)"
    assert sorted(hub.repositories["org/loaded"].files) == FILES
    model.set_adapter(LoRA(3))
    assert model.push_to_hub("org/fresh", public=True) == f"pushed the adapter to {hub.url}/org/fresh (public)"
    rank = yaml.safe_load(hub.repositories["org/fresh"].files["adapter_config.json"])["r"]
    assert rank == 3 and sorted(hub.repositories["org/fresh"].files) == FILES[1:]
    with pytest.raises(InputError, match="exists and is public; give --public"):
        model.push_to_hub("org/fresh")


def test_the_data_sets_are_those_that_the_tasks_load(monkeypatch: pytest.MonkeyPatch):
    class Loaded(Exception):
        pass

    def rows(dataset: str, config: str, *_: Any) -> list[Any]:
        raise Loaded(dataset, config)

    assert set(DATASETS) == {name for task in tasks.TASKS for name in (task.eval_tasks or (task.name,))}
    for name, (dataset, config_of) in DATASETS.items():
        task = tasks.find(name)
        monkeypatch.setattr(f"{task.load.__module__}.dataset_rows", rows)
        for language in task.languages:
            with pytest.raises(Loaded) as loaded:
                task.load(language, task.split, None)
            assert loaded.value.args[0] == dataset
            config = loaded.value.args[1]
            assert config_of(language) == (f"{config}.{language}" if name == "tydiqa" else config)
