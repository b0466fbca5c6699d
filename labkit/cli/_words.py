"""How an error is told on a terminal."""

from __future__ import annotations

from pathlib import Path

__all__ = ["in_words"]


def in_words(error: Exception) -> str:
    """
    An error as one text: its name, what happened, what to do.

    >>> print(in_words(ValueError("no")))
    ✗ ValueError — no
    """
    text = str(error)
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        text = f"There is no file {error.filename}, looked for from {Path.cwd()}. Check the path."
    return f"✗ {type(error).__name__} — {text}"
