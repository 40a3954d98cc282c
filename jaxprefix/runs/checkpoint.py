"""Orbax checkpoints of a run: adapter, optimizer and data position; the base is named and hashed, never copied.

A checkpoint appears under its step by one renaming, with the hashes of its files in it; they are checked before it is
read. Reading changes nothing in the directory, but that training sets damaged checkpoints aside.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.path import atomicity

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io import checksums
from jaxprefix.runs.directory import FOLDER

REMOVED = "removed-"  # begins the name of a checkpoint that is being removed
# Orbax's own notes of when it began and ended; nothing that is read again depends on them.
NOTES = frozenset({"_CHECKPOINT_METADATA", "commit_success.txt"})
# Bytes that a checkpoint takes beside its arrays: Orbax's small files and folders, of a block each.
BESIDE = 256 * 2**10


class Checkpoints:
    """The checkpoints of one run directory, the last few and the best kept; a save is whole or not there at all."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.place = (directory / FOLDER).resolve()
        self.keep = keep
        self.saved: int | None = None
        self.best: int | None = None

    @property
    def steps(self) -> list[int]:
        """The steps that are on the disk, in their order."""
        names = [path.name for path in self.place.iterdir()] if self.place.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def latest(self) -> int | None:
        """The last step that was saved."""
        return max(self.steps, default=None)

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """What saves; it also removes what a process that was killed left unfinished."""
        options = ocp.CheckpointManagerOptions(
            temporary_path_class=_Hashed,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # Orbax's notes in the steps, which may be damaged, are not read
        )
        for path in self.place.glob(f"{REMOVED}*") if processes.is_main_process() else ():
            shutil.rmtree(path)
        return ocp.CheckpointManager(self.place, options=options)

    def save(self, step: int, adapter: Any, optimizer: Any, position: dict[str, Any], best: int | None = None) -> None:
        """Saves in the background, and keeps the step `best` besides; what is there already is left as it is.

        Raises InputError where this, or the save before it, cannot be written.
        """
        if step in (self.saved, self.latest):
            return
        items = {"adapter": ocp.args.StandardSave(adapter), "optimizer": ocp.args.StandardSave(optimizer)}
        self._save(step, ocp.args.Composite(**items, position=ocp.args.JsonSave(position)), best)

    def save_adapter(self, step: int, adapter: Any) -> None:
        """Saves an adapter alone: it can be used, and not trained on."""
        self._save(step, ocp.args.Composite(adapter=ocp.args.StandardSave(adapter)))

    def _save(self, step: int, items: ocp.args.Composite, best: int | None = None) -> None:
        with self._told():
            self.manager.wait_until_finished()
            self._remove_old()
            self._check_room(items)
            self.best = best
            # Forced: a save that is due waits for the one before it, where Orbax would leave it out.
            self.manager.save(step, args=items, force=True)
        self.saved = step

    def _check_room(self, items: ocp.args.Composite) -> None:
        """OSError where the disk has too little: each of Orbax's threads would complain in lines of its own."""
        disk = shutil.disk_usage(self.place)
        arrays = [leaf for leaf in jax.tree.leaves([each.item for each in items.values()]) if hasattr(leaf, "nbytes")]
        needed = sum(leaf.nbytes for leaf in arrays) + BESIDE
        if disk.total and disk.free < needed:  # file systems that do not tell say 0
            raise OSError(errno.ENOSPC, f"No space left on device: {disk.free:,} bytes, {needed:,} needed")

    def _remove_old(self) -> None:
        """Called when the last save is on the disk. What Orbax itself removes is half there after a kill."""
        steps = self.steps if processes.is_main_process() else []
        for step in set(steps[: -self.keep]) - {self.best}:
            aside = self.place / f"{REMOVED}{step}"
            (self.place / str(step)).rename(aside)
            shutil.rmtree(aside)

    def restore_adapter(self, like: Any) -> Any:
        """The last adapter that is whole, in the shapes, types and places of `like` (arrays or abstract ones)."""
        return self.restore_adapter_and_step(like)[0]

    def restore_adapter_and_step(self, like: Any) -> tuple[Any, int]:
        """The same, and the step that it is of. Says in a line on stderr which later ones are damaged.

        Raises InputError where there is none, or none that is whole.
        """
        step, damaged = self._whole()
        for other, why in damaged.items():
            _say(f"{self.place / str(other)} is damaged ({why}): taking step {step}")
        return self._read(step, like).adapter, step

    def restore(self, adapter: Any, optimizer: Any) -> tuple[Any, Any, dict[str, Any]]:
        """(adapter, optimizer state, position) as they were last saved; the arguments give shapes, types and places.

        Damaged ones after the last whole one are set aside, as damaged-STEP, and it says so. InputError where there is
        none.
        """
        step, damaged = self._whole()
        if processes.broadcast_from_main(step) != step:
            raise InputError(f"{self.place} is not the same to all processes; give a directory that all of them share")
        for other, why in damaged.items() if processes.is_main_process() else ():
            aside = self._set_aside(other)
            _say(f"{self.place / str(other)} is damaged ({why}): going back to step {step}; it is kept as {aside}")
        found = self._read(
            step,
            adapter,
            optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
            position=ocp.args.JsonRestore(),
        )
        self.saved, self.best = step, (found.position.get("best") or {}).get("step")
        return found.adapter, found.optimizer, found.position

    def _whole(self) -> tuple[int, dict[int, str]]:
        """The last step whose files are as they were written, and what is wrong with each one after it."""
        damaged: dict[int, str] = {}
        # Listed anew each time: a run that is still training may have removed one, and saved another.
        while left := [step for step in self.steps if step not in damaged]:
            place = self.place / str(left[-1])
            listed = checksums.exists(place)
            why = checksums.first_mismatch(place) if listed else None
            if not place.is_dir():
                continue
            if why is None:
                if not listed:
                    _say(f"{place} has no {checksums.FILE} (an earlier version's?): it is read unchecked")
                return left[-1], damaged
            damaged[left[-1]] = why
        if not damaged:
            raise InputError(f"no checkpoint in {self.place}; run the training command again until it has saved one")
        each = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        raise InputError(
            f"every checkpoint in {self.place} is damaged ({each}); put one back from a copy of yours, or train anew "
            "with a new --output"
        )

    def _set_aside(self, step: int) -> str:
        names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
        name = next(name for name in names if not (self.place / name).exists())
        (self.place / str(step)).rename(self.place / name)
        return name

    def _read(self, step: int, adapter: Any, **items: Any) -> Any:
        place = self.place / str(step)
        try:
            # Compared first: of arrays that differ in shape Orbax's threads complain in many lines of their own.
            shapes, wanted = _shapes(_described(place / "adapter")), _shapes(adapter)
            if shapes == wanted:
                items["adapter"] = ocp.args.StandardRestore(_abstract(adapter))
                with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                    return reader.restore(place, args=ocp.args.Composite(**items))
            name = next(name for name in sorted(shapes | wanted) if shapes.get(name) != wanted.get(name))
            why = f"{name} has the shape {shapes.get(name)}, expected {wanted.get(name)}"
        except Exception as error:  # Orbax and what it reads with have many of their own
            why = _short(error)
        raise InputError(
            f"{place} is not of the run that its run.json describes ({why}): that, or a file that has no hash, was "
            "changed; restore it, or train anew with a new --output"
        )

    def close(self) -> None:
        """Waits for saves that are under way. Raises InputError where one cannot be written."""
        if "manager" in self.__dict__:
            with self._told():
                self.manager.wait_until_finished()
                self._remove_old()
                self.manager.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What Orbax and its threads raise of a disk that is full or gone, as a InputError."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"a checkpoint cannot be written to {self.place} ({_short(error)}); the ones before it are kept: make "
                "room there, and the same command goes on"
            ) from error


class _Hashed(atomicity.AtomicRenameTemporaryPath):
    """A directory that lists its files' hashes before it takes its final name."""

    async def finalize(self) -> None:
        if self.get_final().name.isdecimal():  # a step; its items are such directories too
            checksums.write(Path(self.get()), exclude=NOTES)
        await super().finalize()


def _short(error: Exception) -> str:
    """What the operating system said, where it did; else the beginning of the error's own words."""
    text = " ".join(str(error).split())
    system = re.search(r"os_error_code='(\d+)'", text)
    return os.strerror(int(system[1])) if system else getattr(error, "strerror", None) or text[:120]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _described(item: Any) -> Any:
    """A saved tree with what is known of its leaves without reading them."""
    return ocp.StandardCheckpointHandler().metadata(item).tree


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
