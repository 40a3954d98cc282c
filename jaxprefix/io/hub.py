"""Loads models and rows from the Hugging Face Hub, or from a local mirror of it."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id

from jaxprefix.errors import InputError
from jaxprefix.io import mirror
from jaxprefix.io.messages import one_line
from jaxprefix.io.rows import Rows, read_rows, with_locations

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
# Folders ("original/", "onnx/") and the consolidated file of Mistral have the same weights again.
NOT_MODEL_FILES = ("*/*", "consolidated*")
# The client waits forever for a silent server and `datasets` retries for 23 seconds: a short request comes first.
PROBE_SECONDS = 5.0
UNREACHABLE = (httpx.TransportError, OfflineModeIsEnabled)


def model_directory(name: str, files: Sequence[str] = MODEL_FILES) -> Path:
    """The directory of a model: `name` itself, or the snapshot of a Hub id `org/name[@revision]`.

    The `files` of a snapshot are downloaded unless they are in the cache.

    Raises:
        InputError: no such directory, a directory or repository without config.json, or a Hub model that is gated,
            unknown or unreachable.
    """
    path = expanded(name)
    if name and path.is_dir():
        return _with_config(path, name)
    if name and path.exists():
        raise InputError(f"{name} is a file; give a model directory in Hugging Face layout, or a Hub id")
    repository, _, revision = name.partition("@")
    if not is_hub_id(repository):
        raise InputError(
            f"no such model directory: {name}; give a directory in Hugging Face layout or a Hub id such as "
            "meta-llama/Llama-3.2-1B"
        )
    problem = _probe(repository, "model", revision or None)
    try:
        snapshot = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(files),
            ignore_patterns=list(NOT_MODEL_FILES),
            local_files_only=problem is not None,  # the cache works without the Hub
        )
    except (OSError, httpx.HTTPError) as error:  # the Hub's errors are OSErrors
        why = _why(problem or error, f"https://huggingface.co/{repository}")
        raise InputError(
            f"could not load {name}: no such directory, and the Hub request failed: {why}. "
            "Or download it elsewhere with `hf download` and give the directory"
        ) from error
    return _with_config(Path(snapshot), name)


def expanded(name: str) -> Path:
    """The path with ~ expanded; unchanged if there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _with_config(path: Path, name: str) -> Path:
    if not (path / "config.json").is_file():
        hint = "; it is a run, whose adapter goes without --model" if (path / "run.json").is_file() else ""
        raise InputError(f"{name} is not a model in Hugging Face layout: it has no config.json{hint}")
    return path


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `org/name` of a Hub id and is not a path. The Hub is not queried."""
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _probe(repository: str, kind: str, revision: str | None) -> Exception | None:
    """The error of a short request for the repository; None if the Hub answers."""
    try:
        HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=PROBE_SECONDS)
    except (HfHubHTTPError, *UNREACHABLE) as error:
        return error
    return None


def _why(error: Exception, url: str) -> str:
    """One line: the problem and what to do."""
    if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):  # as `datasets` rewrites it
        return f"it is gated; accept its licence at {url}, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no such revision; {url} lists them"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private; check the name, or log in with `hf auth login`"
    if isinstance(error, UNREACHABLE):
        return f"the Hub cannot be reached ({type(error).__name__}: {one_line(error)}), and it is not in the cache"
    return f"{type(error).__name__}: {one_line(error)}"


def dataset_rows(dataset: str, config: str, split: str, revision: str | None, data: Path | None) -> Rows:
    """All rows of one split.

    Args:
        revision: a commit, tag or branch of the Hub's repository. A mirror is read as it is.
        data: a local mirror to read instead of the Hub, `<data>/<dataset>/<config>/<split>.*` (see mirror.py).

    Raises:
        InputError: the rows could not be loaded. The message says where they were expected and what to do.
    """
    if data is None:
        return _hub_rows(dataset, config, split, revision)
    return _mirror_rows(dataset, config, split, revision, data)


def _mirror_rows(dataset: str, config: str, split: str, revision: str | None, data: Path) -> Rows:
    if files := mirror.split_files(data / dataset, config, split):
        return [row for path in files for row in read_rows(path)]
    raise InputError(mirror.missing(dataset, config, split, revision, data))


def _hub_rows(dataset: str, config: str, split: str, revision: str | None) -> Rows:
    problem = _probe(dataset, "dataset", revision)
    import datasets.config  # slow to import, and unnecessary with a mirror
    import datasets.exceptions

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = offline or problem is not None  # offline, it reads its cache at once
        rows = datasets.load_dataset(dataset, config, split=split, revision=revision).to_list()
        return with_locations(rows, f"{dataset}, config {config}, split {split}")
    except (datasets.exceptions.DatasetsError, httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        why = _why(problem or error, f"https://huggingface.co/datasets/{dataset}")
        raise InputError(
            f"could not load {dataset}, config {config}, split {split}, from the Hub: {why}. "
            f"Or give `--data DIR`, a mirror that has DIR/{dataset}/{config}/{split}.jsonl"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
