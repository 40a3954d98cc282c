"""Uploads files to a model repository of the Hugging Face Hub, in one commit."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_token
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, httpx

from jaxprefix.errors import InputError
from jaxprefix.io.hub import PROBE_SECONDS, is_hub_id
from jaxprefix.io.messages import truncate


def check_repository(repository: str) -> None:
    """InputError if the name is not one of a repository."""
    if not is_hub_id(repository):
        raise InputError(f"{truncate(repository)} is not a name on the Hub; expected one such as my-name/my-adapter")


def upload(repository: str, files: Mapping[str, Path | bytes | None], message: str, public: bool = False) -> str:
    """Commits files to a repository, which is created if it does not exist, and returns its address and visibility.

    The commit has all files or none of them. Other files of the repository stay, and its history has the earlier ones.

    Args:
        files: the contents by their paths in the repository; None deletes the file if it is there.
        message: the title of the commit.
        public: whether others may see the repository. If it is private already, it stays private.

    Raises:
        InputError: the repository is public and `public` is False, or the Hub refuses or cannot be reached.
    """
    check_repository(repository)
    api = HfApi()
    with _input_errors(repository):
        info = _info(api, repository)
    if info is not None and not info.private and not public:
        raise InputError(f"{repository} exists and is public; give --public (in Python, public=True) to publish there")
    present = {sibling.rfilename for sibling in (info.siblings or ())} if info else set()
    additions = [CommitOperationAdd(path, content) for path, content in files.items() if content is not None]
    deletions = [CommitOperationDelete(path) for path, content in files.items() if content is None and path in present]
    with _input_errors(repository), _without_bars():
        if info is None:
            api.create_repo(repository, private=not public, exist_ok=True)
        api.create_commit(repository, [*additions, *deletions], commit_message=message)
    private = not public if info is None else info.private
    return f"{api.endpoint}/{repository} ({'private' if private else 'public'})"


def _info(api: HfApi, repository: str) -> ModelInfo | None:
    """The repository; None if it does not exist, or cannot be seen by this user."""
    try:
        return api.model_info(repository, timeout=PROBE_SECONDS)
    except RepositoryNotFoundError:
        return None


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the client's progress bars, which leave the cursor in the line of an error."""
    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            enable_progress_bars()


@contextmanager
def _input_errors(repository: str) -> Iterator[None]:
    """Makes an InputError of an error of the Hub's client, without the cause, whose requests have the token.

    The client raises RuntimeErrors for interrupted uploads, and ValueErrors for answers that are not the Hub's, such as
    the login page of a network.
    """
    try:
        yield
    except (OSError, httpx.HTTPError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise InputError(f"could not push to {repository}: {_why(cause, repository)}") from None


def _why(error: BaseException, repository: str) -> str:
    """The problem, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it, then run the same command again"
    response = getattr(error, "response", None)
    if response is None:
        what = _without_secrets(f"{type(error).__name__}: {error}")
        return f"the connection failed ({what}); nothing is lost, and the same command completes the push"
    if response.status_code == 401:
        return "you are not logged in (401); run `hf auth login` or set HF_TOKEN, then run the same command again"
    if response.status_code == 403:
        return (
            f"you may not write there (403); use a token that can write to {repository.split('/')[0]}, from "
            "https://huggingface.co/settings/tokens, or give another name"
        )
    reason = _without_secrets(getattr(error, "server_message", None) or "no reason")
    return f"the Hub answered {response.status_code} ({reason}); nothing is lost, and the same command tries again"


def _without_secrets(text: str) -> str:
    """The text as one line, without the token and without the signatures of addresses."""
    text = re.sub(r"\?\S+", "", " ".join(text.split()))
    token = get_token()
    return truncate(text.replace(token, "***") if token else text)
