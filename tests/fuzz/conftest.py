"""The fixtures of strict.py, for every file of this folder."""

from strict import little_memory, place

__all__ = ["little_memory", "place"]
