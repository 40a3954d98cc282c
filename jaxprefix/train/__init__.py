"""Training of adapters."""

from jaxprefix.train.loop import train

__all__ = ["train"]
