"""hashes.json: the size and SHA-256 of every file in a directory, to detect truncated or changed files."""

import hashlib
import json
from pathlib import Path

FILE = "hashes.json"


def write(directory: Path, exclude: frozenset[str] = frozenset()) -> None:
    """Lists all files in the directory except those with a name in `exclude`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in {FILE, *exclude})
    values = {str(path.relative_to(directory)): [path.stat().st_size, _digest(path)] for path in files}
    (directory / FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def exists(directory: Path) -> bool:
    """Whether the directory has checksums."""
    return (directory / FILE).is_file()


def first_mismatch(directory: Path) -> str | None:
    """The first listed file that has changed, and how; None if none has."""
    try:
        listed = [(name, int(size), str(digest)) for name, (size, digest) in _read(directory).items()]
    except (OSError, ValueError, TypeError, AttributeError):  # not UTF-8, or not such a list
        return f"its {FILE} cannot be read"
    for name, size, digest in listed:
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if _digest(path) != digest:
            return f"{name} has a different SHA-256"
    return None


def _read(directory: Path) -> dict[str, list]:
    return json.loads((directory / FILE).read_text(encoding="utf-8"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
