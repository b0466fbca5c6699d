"""Things that take minutes to make, kept by the content of what they were made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from labkit.stack.progress import Progress, silent, step

_UNUSED_S = 14 * 24 * 3600


def digest(*parts: str | Path) -> str:
    """
    A name for what *parts* hold: the same contents give the same name, wherever the files lie.

    Args:
        parts: text; or files and folders, of which relative names and contents count (compiled Python does not).

    Returns:
        16 hexadecimal digits.

    Raises:
        FileNotFoundError: a path does not exist; silence would make two different things one.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(total, "text", part.encode())
        elif part.is_dir():
            for file in sorted(part.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    _add(total, file.relative_to(part).as_posix(), file.read_bytes())
        else:
            _add(total, part.name, part.read_bytes())
    return total.hexdigest()[:16]


def _add(total: hashlib._Hash, name: str, content: bytes) -> None:
    # Lengths in front: "ab" + "c" and "a" + "bc" are different things.
    for piece in (name.encode(), content):
        total.update(len(piece).to_bytes(8, "big"))
        total.update(piece)


@dataclass(frozen=True, slots=True)
class Cache:
    """Folders below *root* by name and key; each is there whole or not at all."""

    root: Path

    def path(self, name: str, key: str) -> Path:
        """Where the thing is or would be."""
        return self.root / f"{name}-{key}"

    def get(self, name: str, key: str, make: Callable[[Path], None], *, what: str, progress: Progress = silent) -> Path:
        """
        The folder of *name* with this *key*, made by *make* if it is not here yet.

        Args:
            name: what it is, for people; older keys of the same name that nobody used for two weeks are deleted.
            key: from `digest`.
            make: fills the empty folder that it is given; an error leaves nothing behind.
            what: the work in words, for the lines of progress.
            progress: told of the beginning and end of the work; not called when nothing had to be made.
        """
        target = self.path(name, key)
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{name}.lock"):
            if not target.is_dir():
                part = self.root / f".{name}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                try:
                    with step(progress, what):
                        make(part)
                    part.rename(target)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
            os.utime(target)
            self._forget_old(name, target)
        return target

    def _forget_old(self, name: str, kept: Path) -> None:
        for other in self.root.glob(f"{name}-{'[0-9a-f]' * 16}"):
            if other != kept and time.time() - other.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(other, ignore_errors=True)
