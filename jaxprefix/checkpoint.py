"""Orbax checkpoints of a run: adapter, optimizer and data position; the base is named and hashed, never copied."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run directory, the last few kept; a save is whole or not there at all."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self.manager = ocp.CheckpointManager((directory / "checkpoints").resolve(), options=options)

    @property
    def latest(self) -> int | None:
        """The last step that was saved."""
        return self.manager.latest_step()

    def save(self, step: int, adapter: Any, optimizer: Any, position: dict[str, int]) -> None:
        """Saves in the background; a step that is there already is left as it is."""
        if step == self.latest:
            return
        items = {"adapter": ocp.args.StandardSave(adapter), "optimizer": ocp.args.StandardSave(optimizer)}
        self.manager.save(step, args=ocp.args.Composite(**items, position=ocp.args.JsonSave(position)))

    def save_adapter(self, step: int, adapter: Any) -> None:
        """Saves an adapter alone: it can be used, and not trained on."""
        self.manager.save(step, args=ocp.args.Composite(adapter=ocp.args.StandardSave(adapter)))

    def restore_adapter(self, like: Any) -> Any:
        """The last adapter, in the shapes, types and places of `like` (arrays or abstract ones)."""
        return self._restore(adapter=ocp.args.StandardRestore(_abstract(like))).adapter

    def restore(self, adapter: Any, optimizer: Any) -> tuple[Any, Any, dict[str, int]]:
        """(adapter, optimizer state, position) as they were last saved; the arguments give shapes, types and places."""
        found = self._restore(
            adapter=ocp.args.StandardRestore(_abstract(adapter)),
            optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
            position=ocp.args.JsonRestore(),
        )
        return found.adapter, found.optimizer, found.position

    def _restore(self, **items: Any) -> Any:
        place = self.manager.directory
        if self.latest is None:
            raise ValueError(f"no checkpoint in {place}; run the training command again until it has saved one")
        try:
            return self.manager.restore(self.latest, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and what it reads with have many of their own
            why = " ".join(str(error).split())[:120]
            raise ValueError(
                f"{place}/{self.latest} is damaged, or its run.json was changed ({why}); remove that directory to go "
                "back to the checkpoint before it, or train anew"
            ) from error

    def close(self) -> None:
        """Waits for saves that are under way."""
        self.manager.wait_until_finished()
        self.manager.close()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
