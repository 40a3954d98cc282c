"""Adapts frozen Llama and Mistral decoders in one language, measures zero-shot transfer to many (arXiv:2510.24619)."""

__version__ = "0.1.0"
