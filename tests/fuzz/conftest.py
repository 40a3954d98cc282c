"""The fixtures of strict.py, for every file here."""

from strict import little_memory, place

__all__ = ["little_memory", "place"]
