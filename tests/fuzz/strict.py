"""The law of every reader: for any content of a file, it returns, or one line says what is wrong, and it ends.

FUZZ_EXAMPLES=100000 runs that many cases of each kind. The default is the few hundred of the ordinary suite.
"""

import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from mutation import LONGEST, SHORTEST, Maker

from jaxprefix.errors import InputError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
LONGEST_MESSAGE = 1000
SECONDS = 10  # per case; nearly all take a thousandth of it
ROOM = 3 * 2**30  # bytes that a case may allocate beyond those of the process


def fuzz(make: Maker, holds: Callable[[bytes], Any], few: int = 300) -> None:
    """Runs `holds` on what is made of recipes: a few that hypothesis draws, the same ones in every suite, and shrinks.

    With FUZZ_EXAMPLES they are so many random ones, and every kind of failure is counted before the first is raised:
    hypothesis itself takes longer than the readers do.
    """
    if EXAMPLES:
        _many(make, holds)
        return
    settings = hypothesis.settings(
        max_examples=few,
        derandomize=True,
        deadline=None,  # `ends` has one
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    recipes = st.binary(min_size=SHORTEST, max_size=LONGEST)

    def case(recipe: bytes) -> None:
        holds(make(recipe))

    settings(hypothesis.given(recipes)(case))()


def _many(make: Maker, holds: Callable[[bytes], Any]) -> None:
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns()))
    draw, failed, first = random.Random(seed), Counter[str](), None
    returned, last = 0, Path(tempfile.gettempdir()) / f"fuzz-last-{os.getpid()}"
    print(f"seed {seed}; a case that ends the process stands in {last}", flush=True)
    for number in range(EXAMPLES):
        if number % 10_000 == 0 and number:
            print(f"{number} cases, {failed.total()} failed", flush=True)
        # One change alone is what gets deepest into a reader.
        recipe = draw.randbytes(SHORTEST * draw.choice((1, 1, 1, 2, 3, 4)))
        last.write_text(recipe.hex())
        try:
            returned += bool(holds(make(recipe)))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            kind = f"{type(error).__name__}: {error!s:.150} at {frames[-1].filename}:{frames[-1].lineno}"
            if kind not in failed:
                print(f"recipe {recipe.hex()}: {kind}", flush=True)
            failed[kind] += 1
            first = first or error
    last.unlink()
    print(f"{EXAMPLES} cases of seed {seed}: {returned} were read, {failed.total()} failed, in {len(failed)} ways")
    if first:
        raise first


def returns_or_says_why(read: Callable[[], Any], place: Path) -> bool:
    """Whether it returned. AssertionError if it raised anything but one short line that names the location."""
    try:
        with ends():
            read()
    except InputError as error:
        message = str(error)
        assert message.isprintable() or _wide(message), f"not one line: {message!r:.1200}"
        assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message!r:.1200}"
        assert str(place) in message, f"{place} is not named: {message!r:.1200}"
        return False
    return True


def _wide(message: str) -> bool:
    """Only spaces of other scripts are neither printable nor harmful."""
    return all(each.isprintable() or each == "\u3000" for each in message)


@contextmanager
def ends() -> Iterator[None]:
    """AssertionError for Python code that does not end."""

    def late(*_: Any) -> None:
        raise AssertionError(f"no end within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A request for 2^60 bytes fails at once, which it would not on every machine."""
    if not sys.platform.startswith("linux"):
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, where there is one: a case writes a file or two."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shared if os.access(shared, os.W_OK) else None) as directory:
        yield Path(directory)
