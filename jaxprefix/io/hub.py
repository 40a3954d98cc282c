"""Models and rows from the Hugging Face hub, a local mirror of it, or a file: found, or refused in one line."""

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
from jaxprefix.io.messages import one_line
from jaxprefix.io.rows import ENDINGS, Rows, placed, read_rows

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
# Sub-folders ("original/", "onnx/") and Mistral's consolidated file hold the same weights once more.
NOT_MODEL_FILES = ("*/*", "consolidated*")
# The hub's client waits without end for a silent server and `datasets` retries for 23 seconds: ask once first, briefly.
PROBE_SECONDS = 5.0
UNREACHABLE = (httpx.TransportError, OfflineModeIsEnabled)


def model_directory(name: str, files: Sequence[str] = MODEL_FILES) -> Path:
    """The directory of a model: `name` itself, or the snapshot of a hub id `org/name[@revision]`, of which `files`
    are fetched, or are there already.

    Raises:
        InputError: no such directory, a directory without config.json, or a hub model that is gated, unknown,
            unreachable, or without a config.json of its own.
    """
    path = expanded(name)
    if name and path.is_dir():
        return _with_config(path, name)
    if name and path.exists():
        raise InputError(f"{name} is a file; give a model's directory in Hugging Face layout, or a hub id")
    repository, _, revision = name.partition("@")
    if not _is_hub_id(repository):
        raise InputError(
            f"no such model directory: {name}; give a directory in Hugging Face layout or a hub id such as "
            "meta-llama/Llama-3.2-1B"
        )
    problem = _probe(repository, "model", revision or None)
    try:
        snapshot = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(files),
            ignore_patterns=list(NOT_MODEL_FILES),
            local_files_only=problem is not None,  # what was fetched before serves without the hub
        )
    except (OSError, httpx.HTTPError) as error:  # the hub's own errors are kinds of OSError
        why = _why(problem or error, f"https://huggingface.co/{repository}")
        raise InputError(
            f"{name} is no directory here, and cannot be had from the hub: {why}; "
            "or fetch it where you can (`hf download`) and give its directory"
        ) from error
    return _with_config(Path(snapshot), name)


def expanded(name: str) -> Path:
    """The path with the home directory in the place of ~; as it stands where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _with_config(path: Path, name: str) -> Path:
    if not (path / "config.json").is_file():
        raise InputError(f"{name} is not a model in Hugging Face layout: it holds no config.json")
    return path


def _is_hub_id(name: str) -> bool:
    """Whether `name` can only be meant as `org/name`: paths are told from ids here, not by asking the hub."""
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _probe(repository: str, kind: str, revision: str | None) -> Exception | None:
    """What keeps this machine from the hub's repository now, or None."""
    try:
        HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=PROBE_SECONDS)
    except (HfHubHTTPError, *UNREACHABLE) as error:
        return error
    return None


def _why(error: Exception, url: str) -> str:
    """One line: what is wrong, and what to do about it."""
    if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):  # as `datasets` rewrites it
        return f"it is gated; accept its licence at {url}, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no such revision; {url} lists them"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub knows no such name, or it is private; check the name, or log in with `hf auth login`"
    if isinstance(error, UNREACHABLE):
        return f"the hub cannot be reached ({type(error).__name__}: {one_line(error)}), and it is not in the cache"
    return f"{type(error).__name__}: {one_line(error)}"


def dataset_rows(dataset: str, config: str, split: str, revision: str | None, data: Path | None) -> Rows:
    """All rows of one split, as the hub has them.

    Args:
        revision: the hub's commit, tag or branch; a mirror is taken as it is.
        data: a local mirror `<data>/<dataset>/<config>/<split>.{jsonl,json,parquet,csv}`, read in the hub's place.

    Raises:
        InputError: the rows cannot be had, with the place that was looked at and what to do.
    """
    return _hub_rows(dataset, config, split, revision) if data is None else _mirror_rows(dataset, config, split, data)


def _mirror_rows(dataset: str, config: str, split: str, data: Path) -> Rows:
    folder = data / dataset / config
    for ending in ENDINGS:
        if (path := folder / f"{split}.{ending}").is_file():
            return read_rows(path)
    sought = f"no {folder / split}.{{{','.join(ENDINGS)}}}"
    if not data.is_dir():
        raise InputError(f"{sought}: there is no directory {data}; it should be a mirror <dataset>/<config>/<split>.*")
    if folder.is_dir():
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise InputError(f"{sought}: {folder} holds {there}")
    if (data / dataset).is_dir():
        there = ", ".join(sorted(path.name for path in (data / dataset).iterdir())) or "nothing"
        raise InputError(f"{sought}: {dataset} has no config {config} there, but {there}")
    there = ", ".join(sorted(path.relative_to(data).as_posix() for path in data.glob("*/*/"))) or "no data set"
    raise InputError(f"{sought}: {data} holds {there}")


def _hub_rows(dataset: str, config: str, split: str, revision: str | None) -> Rows:
    problem = _probe(dataset, "dataset", revision)
    import datasets.config  # slow to import, and not needed with a mirror
    import datasets.exceptions

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = offline or problem is not None  # then it asks its cache alone, at once
        rows = datasets.load_dataset(dataset, config, split=split, revision=revision).to_list()
        return placed(rows, f"{dataset}, config {config}, split {split}")
    except (datasets.exceptions.DatasetsError, httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        why = _why(problem or error, f"https://huggingface.co/datasets/{dataset}")
        raise InputError(
            f"{dataset}, config {config}, split {split}, cannot be had from the hub: {why}; "
            f"or give `--data DIR`, a mirror that holds DIR/{dataset}/{config}/{split}.jsonl"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
