"""Orbax checkpoints of a run: adapter, optimizer state and data position, without the weights of the base.

A checkpoint is renamed to its step when it is complete. It contains the hashes of its files, which are checked before
it is read. Reading changes nothing in the directory, except that training renames damaged checkpoints.
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
from jaxtyping import PyTree
from orbax.checkpoint.path import atomicity

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io import checksums
from jaxprefix.models.hooks import Params
from jaxprefix.runs.directory import FOLDER

REMOVED = "removed-"  # the prefix of a checkpoint that is being removed
# Timestamps that Orbax writes. They have no hash, because nothing that is read depends on them.
NOTES = frozenset({"_CHECKPOINT_METADATA", "commit_success.txt"})
# Bytes of a checkpoint in addition to its arrays: the small files and folders of Orbax, one block each.
OVERHEAD = 256 * 2**10


class Checkpoints:
    """The checkpoints of a run directory. The latest `keep` and the best one are kept, and each is saved atomically."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = (directory / FOLDER).resolve()
        self.keep = keep
        self.saved: int | None = None
        self.best: int | None = None

    @property
    def steps(self) -> list[int]:
        """The saved steps, in order."""
        names = [path.name for path in self.directory.iterdir()] if self.directory.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def latest(self) -> int | None:
        """The last saved step."""
        return max(self.steps, default=None)

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """The manager that saves. It also removes unfinished checkpoints of a killed process."""
        options = ocp.CheckpointManagerOptions(
            temporary_path_class=_Hashed,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # do not read the metadata of the steps, which may be damaged
        )
        for path in self.directory.glob(f"{REMOVED}*") if processes.is_main_process() else ():
            shutil.rmtree(path)
        return ocp.CheckpointManager(self.directory, options=options)

    def save(
        self, step: int, adapter: Params, optimizer: PyTree, position: dict[str, Any], best: int | None = None
    ) -> None:
        """Saves in the background, unless this step is saved already. The checkpoint of step `best` is kept as well.

        Raises InputError if this checkpoint or the previous one cannot be written.
        """
        if step in (self.saved, self.latest):
            return
        items = {"adapter": ocp.args.StandardSave(adapter), "optimizer": ocp.args.StandardSave(optimizer)}
        self._save(step, ocp.args.Composite(**items, position=ocp.args.JsonSave(position)), best)

    def save_adapter(self, step: int, adapter: Params) -> None:
        """Saves an adapter without optimizer state: training cannot resume from it."""
        self._save(step, ocp.args.Composite(adapter=ocp.args.StandardSave(adapter)))

    def _save(self, step: int, items: ocp.args.Composite, best: int | None = None) -> None:
        with self._input_errors():
            self.manager.wait_until_finished()
            self._remove_old()
            self._check_space(items)
            self.best = best
            # Without force, Orbax would skip a save while the previous one is still being written.
            self.manager.save(step, args=items, force=True)
        self.saved = step

    def _check_space(self, items: ocp.args.Composite) -> None:
        """OSError if the disk has too little space: otherwise each of Orbax's threads would print an error."""
        disk = shutil.disk_usage(self.directory)
        leaves = jax.tree.leaves([args.item for args in items.values()])
        arrays = [leaf for leaf in leaves if hasattr(leaf, "nbytes")]
        needed = sum(leaf.nbytes for leaf in arrays) + OVERHEAD
        if disk.total and disk.free < needed:  # 0 if the file system does not tell
            raise OSError(errno.ENOSPC, f"No space left on device: {disk.free:,} bytes, {needed:,} needed")

    def _remove_old(self) -> None:
        """Removes old checkpoints, after the last save is complete. Orbax would leave half of one if it were killed."""
        steps = self.steps if processes.is_main_process() else []
        for step in set(steps[: -self.keep]) - {self.best}:
            removed = self.directory / f"{REMOVED}{step}"
            (self.directory / str(step)).rename(removed)
            shutil.rmtree(removed)

    def restore_adapter(self, like: Params) -> Params:
        """The last undamaged adapter, with the shapes, dtypes and shardings of `like` (arrays or ShapeDtypeStructs)."""
        return self.restore_adapter_and_step(like)[0]

    def restore_adapter_and_step(self, like: Params) -> tuple[Params, int]:
        """The same with its step. Prints a line on stderr for each later checkpoint that is damaged.

        Raises InputError if there is no undamaged checkpoint.
        """
        step, damaged = self._last_undamaged()
        for other, why in damaged.items():
            _say(f"{self.directory / str(other)} is damaged ({why}): using step {step}")
        return self._read(step, like).adapter, step

    def restore(self, adapter: Params, optimizer: PyTree) -> tuple[Params, PyTree, dict[str, Any]]:
        """The last undamaged (adapter, optimizer state, position), with the shapes and shardings of the arguments.

        Later checkpoints, which are damaged, are renamed to damaged-STEP, and a line on stderr says so.

        Raises InputError if there is no undamaged checkpoint.
        """
        step, damaged = self._last_undamaged()
        for other, why in damaged.items() if processes.is_main_process() else ():
            name = self._rename_damaged(other)
            _say(f"{self.directory / str(other)} is damaged ({why}): going back to step {step}; it is kept as {name}")
        restored = self._read(
            step,
            adapter,
            optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
            position=ocp.args.JsonRestore(),
        )
        self.saved, self.best = step, (restored.position.get("best") or {}).get("step")
        return restored.adapter, restored.optimizer, restored.position

    def _last_undamaged(self) -> tuple[int, dict[int, str]]:
        """The last step whose files match their hashes, and what is wrong with each later one.

        Raises InputError if there is none, or if the processes do not find the same.
        """
        step, damaged = self._find_undamaged()
        processes.check_same(str(step), f"the checkpoints in {self.directory}")
        return step, damaged

    def _find_undamaged(self) -> tuple[int, dict[int, str]]:
        damaged: dict[int, str] = {}
        # The steps are listed again each time: a run that is still training removes and saves checkpoints.
        while candidates := [step for step in self.steps if step not in damaged]:
            step = candidates[-1]
            folder = self.directory / str(step)
            has_hashes = checksums.exists(folder)
            why = checksums.first_mismatch(folder) if has_hashes else None
            if not folder.is_dir():
                continue
            if why is None:
                if not has_hashes:
                    _say(f"{folder} has no {checksums.FILE} (an earlier version's?): it is read without a check")
                return step, damaged
            damaged[step] = why
        if not damaged:
            raise InputError(f"no checkpoint in {self.directory}; repeat the training command until it has saved one")
        damages = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        raise InputError(
            f"every checkpoint in {self.directory} is damaged ({damages}); restore one from your own copy, or train "
            "again with a new --output"
        )

    def _rename_damaged(self, step: int) -> str:
        names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
        name = next(name for name in names if not (self.directory / name).exists())
        (self.directory / str(step)).rename(self.directory / name)
        return name

    def _read(self, step: int, adapter: Params, **items: Any) -> Any:
        folder = self.directory / str(step)
        try:
            # Shapes are compared first: if they differ, each of Orbax's threads would print an error.
            shapes, expected = _shapes(_metadata(folder / "adapter")), _shapes(adapter)
            if shapes == expected:
                items["adapter"] = ocp.args.StandardRestore(_abstract(adapter))
                with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                    return reader.restore(folder, args=ocp.args.Composite(**items))
            name = next(name for name in sorted(shapes | expected) if shapes.get(name) != expected.get(name))
            why = f"{name} has the shape {shapes.get(name)}, expected {expected.get(name)}"
        except Exception as error:  # Orbax and TensorStore raise many kinds
            why = _short(error)
        raise InputError(
            f"{folder} does not match run.json ({why}): run.json, or a file without a hash, was changed; "
            "restore it, or train again with a new --output"
        )

    def close(self) -> None:
        """Waits until all saves are complete. Raises InputError if one cannot be written."""
        if "manager" in self.__dict__:
            with self._input_errors():
                self.manager.wait_until_finished()
                self._remove_old()
                self.manager.close()

    @contextmanager
    def _input_errors(self) -> Iterator[None]:
        """Turns what Orbax and its threads raise, for example on a full disk, into an InputError."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"a checkpoint cannot be written to {self.directory} ({_short(error)}); earlier ones are kept: "
                "free some space and repeat the command to resume"
            ) from error


class _Hashed(atomicity.AtomicRenameTemporaryPath):
    """A directory that gets a list of its files' hashes before it is renamed to its final name."""

    async def finalize(self) -> None:
        if self.get_final().name.isdecimal():  # a step; its items are finalized in the same way
            checksums.write(Path(self.get()), exclude=NOTES)
        await super().finalize()


def _short(error: Exception) -> str:
    """The message of the operating system, if there is one, or else the beginning of the error's message."""
    text = " ".join(str(error).split())
    system = re.search(r"os_error_code='(\d+)'", text)
    return os.strerror(int(system[1])) if system else getattr(error, "strerror", None) or text[:120]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _metadata(item: Any) -> PyTree:
    """The tree of a saved item with the metadata of its leaves, which are not read."""
    return ocp.StandardCheckpointHandler().metadata(item).tree


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
