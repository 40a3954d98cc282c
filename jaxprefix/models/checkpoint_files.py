"""Which files of a directory are its checkpoint: one safetensors file, or the shards of an index."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr, truncate
from jaxprefix.io.strict_json import read_object
from jaxprefix.models.stored import stored

LONGEST_NAME = 60  # characters of a file name; file systems allow 255 bytes
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def checkpoint_files(directory: Path, is_whole: Callable[[Collection[str]], bool]) -> list[Path]:
    """The files of the checkpoint, sorted. A single file beside an index counts if one of them alone is whole.

    Args:
        is_whole: whether a checkpoint with tensors of these names has all that the model needs.

    Raises:
        InputError: there is no checkpoint, or a file is missing or damaged, or both a single file and an index are
            whole. transformers would read the single file, and other programs the index.
    """
    single, index = directory / SINGLE, directory / INDEX
    if not index.is_file():
        return [single] if single.is_file() else _no_files(directory)
    if not single.is_file():
        return _indexed(index)
    shards = [directory / name for name in sorted(_indexed_names(index))]
    undamaged = [files for files in ([single], shards) if all(map(_is_undamaged, files))]
    whole = [files for files in undamaged if is_whole(_names(files))]
    if len(whole) == 1 or shards == [single]:
        return whole[0] if whole else shards
    if whole:
        raise InputError(
            f"{directory} has two whole checkpoints, {SINGLE} and the shards of {INDEX}; "
            "move away the one that is out of date"
        )
    raise InputError(
        f"{directory} has {SINGLE} and {INDEX}, but neither has all tensors of the model; download the model again"
    )


def ignored_file(directory: Path, files: Collection[Path]) -> str | None:
    """A line that names what `checkpoint_files` left out, if anything."""
    single, index = directory / SINGLE, directory / INDEX
    if not (single.is_file() and index.is_file()):
        return None
    if single not in files:
        return f"{directory}: ignored {SINGLE}, which lacks tensors that the shards of {INDEX} have"
    if len(files) == 1 and _indexed_names(index) != {SINGLE}:
        return f"{directory}: ignored {INDEX}, which is out of date; {SINGLE} has the whole model"
    return None


def open_file(path: Path) -> Any:
    """The file, opened and checked by the library. InputError if it is damaged."""
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({one_line(error)}); download it again") from None


def _is_undamaged(path: Path) -> bool:
    try:
        with open_file(path):
            return True
    except InputError:
        return False


def _names(files: Collection[Path]) -> set[str]:
    return {name for path in files for name in stored(path)}


def _indexed_names(index: Path) -> set[str]:
    """The names of the files in an index, which are beside it. They need not be there."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map from tensor names to files")
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith(".safetensors") or len(name) > LONGEST_NAME:
            raise InputError(f"{index} points to {short_repr(name)}; expected a .safetensors file beside it")
    return set(places.values())


def _indexed(index: Path) -> list[Path]:
    """The files of an index, all of which are there. A file may be a link out of the directory, as in the Hub's cache.

    A tensor may be in another of these files than the index says; transformers reads the files too, not the map.
    """
    names = sorted(_indexed_names(index))
    for name in names:
        if not (index.parent / name).is_file():
            raise InputError(f"{index} names {truncate(name)}, which is not there; download the model again")
    return [index.parent / name for name in names]


def _no_files(directory: Path) -> list[Path]:
    if pickled := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern)):
        raise InputError(
            f"{directory} holds only pickled weights ({pickled[0]}), which can run code; convert them to safetensors"
        )
    raise InputError(f"no weights in {directory}; expected {SINGLE} or {INDEX} with its shards")
