"""A local mirror of the Hub's data sets: finds the files of a split, also as `hf download` writes them."""

import re
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line
from jaxprefix.io.rows import ENDINGS, split_name

# validation-00000-of-00002, and train-00000-of-00001-a09b74b3ef9c3b56 of older repositories
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")


def split_files(dataset: Path, config: str, split: str) -> list[Path]:
    """The files of a split, in order; empty if there are none.

    They are <config>/<split>.*, their parts, or all files of <config>/<split>/. A data set may have them in a folder
    data/. A data set of one config, "default", needs no folder for it. Otherwise the data set's README.md says where
    they are.

    Raises:
        InputError: a part is missing, or two files claim to be the split.
    """
    folders = [dataset / config, dataset / config / "data", dataset / "data" / config]
    if config == "default":
        folders += [dataset / "data", dataset]
    for folder in folders:
        if files := named_files(folder, split):
            return files
    return _files_of_card(dataset, config, split)


def named_files(folder: Path, name: str) -> list[Path]:
    """The file <name>.* in a folder, its parts in order, or the files of the folder <name>; empty if there are none."""
    forms: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, ending = split_name(path)
        part = _PART.fullmatch(stem)
        if path.is_file() and ending and stem == name:
            forms[path.name] = [path]
        elif path.is_file() and ending and part and part[1] == name:
            forms.setdefault(f"{name}-*-of-{part[3]}.{ending}", []).append(path)
        elif path.is_dir() and path.name == name and (inside := _row_files(path)):
            forms[f"{name}/"] = inside
    if len(forms) > 1:
        raise InputError(f"{folder} has {' and '.join(forms)}; expected one of them, move the others away")
    for form, files in forms.items():
        _check_parts(folder / form, files)
        return files
    return []


def _row_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and split_name(path)[1])


def _check_parts(form: Path, files: list[Path]) -> None:
    """InputError if a part is missing or there twice, as after a download that was stopped."""
    parts = [match for path in files if (match := _PART.fullmatch(split_name(path)[0]))]
    if not parts:
        return
    numbers, count = [int(part[2]) for part in parts], int(parts[0][3])
    if numbers != list(range(count)):
        wrong = sorted(set(range(count)) ^ set(numbers)) or [n for n in numbers if numbers.count(n) > 1]
        state = "missing" if wrong[0] not in numbers else "there twice or too many"
        raise InputError(f"{form}: part {wrong[0]:05d} is {state}; download the data set again")


def _files_of_card(dataset: Path, config: str, split: str) -> list[Path]:
    """The files that README.md, the card of the data set, lists for the split."""
    path = dataset / "README.md"
    if not path.is_file():
        return []
    try:
        entries = [
            entry for entry in _configs(path, path.stat().st_mtime_ns) if entry.get("config_name", "default") == config
        ]
        patterns = [pattern for entry in entries for pattern in _patterns(entry["data_files"], split)]
        files = sorted({found for pattern in patterns for found in dataset.glob(pattern) if split_name(found)[1]})
    except Exception as error:  # not YAML, or another form than expected
        raise InputError(f"{path}: its list of configs cannot be read: {one_line(error)}") from None
    _check_parts(path, files)
    return files


@lru_cache(maxsize=8)
def _configs(path: Path, changed: int) -> list[Any]:
    """The configs in a card, which is read again when it has `changed`; some have hundreds."""
    return (metadata_load(path) or {}).get("configs") or []


def _patterns(data_files: Any, split: str) -> list[str]:
    """The patterns of a split in a card: a list of splits and their paths, or only the paths of train."""
    if isinstance(data_files, str) or isinstance(data_files[0], str):
        data_files = [{"split": "train", "path": data_files}]
    paths = [entry["path"] for entry in data_files if entry["split"] == split]
    return [pattern for path in paths for pattern in ([path] if isinstance(path, str) else path)]


def missing(dataset: str, config: str, split: str, revision: str | None, data: Path) -> str:
    """Says what of the split is missing in the mirror, what there is, and how to get it."""
    folder = data / dataset / config
    wanted = f"no {folder / split}.{{{','.join(ENDINGS)}}}"
    if not data.is_dir():
        return f"{wanted}: there is no directory {data}; expected a mirror <dataset>/<config>/<split>.*"
    if folder.is_dir():
        return f"{wanted}: {folder} has {_names(folder)}"
    download = ["hf", "download", dataset, "--repo-type", "dataset", "--local-dir", str(data / dataset)]
    download += ["--revision", revision] if revision else []
    if (data / dataset).is_dir():
        there = f"the mirror of {dataset} has no config {config}; it has {_names(data / dataset)}"
    else:
        names = sorted(path.relative_to(data).as_posix() for path in data.glob("[!.]*/[!.]*/"))
        there = f"{data} has {', '.join(names) or 'no data set'}"
    return f"{wanted}: {there}; to download it: {shlex.join(download)}"


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))) or "nothing"
