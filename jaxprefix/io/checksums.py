"""hashes.json: size and SHA-256 of every file of a directory, so that what was cut short or changed is noticed."""

import hashlib
import json
from pathlib import Path

FILE = "hashes.json"


def write(directory: Path, besides: frozenset[str] = frozenset()) -> None:
    """Lists all files of the directory but those of the names `besides`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in {FILE, *besides})
    found = {str(path.relative_to(directory)): [path.stat().st_size, _digest(path)] for path in files}
    (directory / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def exists(directory: Path) -> bool:
    """Whether there is anything to check the files by."""
    return (directory / FILE).is_file()


def first_mismatch(directory: Path) -> str | None:
    """In which listed file the directory differs from what was written, and how; None where it does not."""
    try:
        listed = [(name, int(size), str(digest)) for name, (size, digest) in _read(directory).items()]
    except (OSError, ValueError, TypeError, AttributeError):  # bytes that are no text, or no such list
        return f"its {FILE} cannot be read"
    for name, size, digest in listed:
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if _digest(path) != digest:
            return f"{name} has other bytes than were written"
    return None


def _read(directory: Path) -> dict[str, list]:
    return json.loads((directory / FILE).read_text(encoding="utf-8"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
