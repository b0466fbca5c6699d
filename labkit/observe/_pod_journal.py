"""
The file of one container's lines, and how far that container was read.

The position is written down every second, not with every line.  After a crash the lines behind the last position are
in the file: as many of the same text are passed over when they come again.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

__all__ = ["Journal", "Position", "nanoseconds"]

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NS = 1_000_000_000


def nanoseconds(text: bytes) -> int | None:
    """Since 1970, of an instant as kubelet writes it; None if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    whole = datetime.fromisoformat((found[1] + found[3]).decode())
    return int(whole.timestamp()) * _NS + int((found[2] or b"").ljust(9, b"0"))


@dataclass
class Position:
    """
    How far one run of a container was read.

    Kubelet gives lines from a whole second on, in the order in which they were written, which is not quite that of
    their times.  So it is counted how many were read of the newest second and the one before.

    Attributes:
        run: the container's id; a restarted container has another.
        newest_ns: latest time of a line that was read, in nanoseconds since 1970; 0 before the first.
        counts: second → lines read of it, for two seconds.
    """

    run: str = ""
    newest_ns: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def since_s(self) -> int:
        """The second to ask from; 0 is the beginning."""
        return max(0, self.newest_ns // _NS - 1) if self.newest_ns else 0

    def count(self, time_ns: int) -> None:
        """Take note of one more line."""
        second = time_ns // _NS
        self.newest_ns = max(self.newest_ns, time_ns)
        counts = {**self.counts, second: self.counts.get(second, 0) + 1}
        self.counts = {s: n for s, n in counts.items() if s >= self.since_s}

    def known(self) -> int:
        """How many of the lines from `since_s` on were read."""
        return sum(self.counts.values())


class Journal:
    """
    Appends to one file and knows what is in it.

    Args:
        path: of the file, `….log`; it is renamed to `….log.1` when it is full.
        position_path: file with the position.
        most_bytes: size at which the file is full.
    """

    def __init__(self, path: Path, position_path: Path, *, most_bytes: int) -> None:
        self.path, self._position_path, self._most = path, position_path, most_bytes
        self._lock, self._dirty = threading.Lock(), False
        self.position, self.done = Position(), list[str]()
        self._expected: deque[bytes] = deque()
        self._load()
        self._file = path.open("ab", buffering=0)

    def begin(self, run: str) -> None:
        """Go on with *run* of the container; another one than before begins at its beginning."""
        with self._lock:
            if run != self.position.run:
                self.position = Position(run)

    def finish(self, run: str) -> None:
        """*run* has ended and everything of it is here."""
        with self._lock:
            self.done, self._dirty = [*self.done[-1:], run], True

    def add(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """
        Append lines (time in nanoseconds, text without its end) that follow those that are there.

        Raises:
            OSError: the disk does not take them; none of them was added.
        """
        with self._lock:
            before, fresh = replace(self.position), []
            for time_ns, text in lines:
                self.position.count(time_ns)
                if self._expected and self._expected.popleft() == text:
                    continue
                self._expected.clear()
                fresh.append(text + b"\n")
            self._dirty = True
            try:
                self._write(b"".join(fresh))
            except OSError:
                self.position = before
                raise

    def save(self) -> None:
        """Write the position down if it moved."""
        with self._lock:
            if self._dirty and not self._expected and not self._file.closed:
                self._save()

    def close(self) -> None:
        """Save, and let the file go."""
        with self._lock:
            if not self._expected:
                self._save()
            self._file.close()

    def _write(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(size)
            raise
        if self._file.tell() >= self._most:
            self._save()
            # The new file first: an inode that rotation frees must not come back at once under the same name.
            new = self.path.with_name(self.path.name + ".new")
            fresh = new.open("wb", buffering=0)
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            new.replace(self.path)
            self._file.close()
            self._file = fresh

    def _save(self) -> None:
        status = os.fstat(self._file.fileno())
        kept = {"position": asdict(self.position), "done": self.done, "inode": status.st_ino, "size": status.st_size}
        part = self._position_path.with_suffix(".part")
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(self._position_path)
        self._dirty = False

    def _load(self) -> None:
        """The position, and the lines that were written behind it."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            kept = json.loads(self._position_path.read_text(encoding="utf-8"))
            position = kept["position"]
            counts = {int(second): number for second, number in position["counts"].items()}
            self.position = Position(position["run"], position["newest_ns"], counts)
            self.done = kept["done"]
            self._expected.extend(self._behind(kept["inode"], kept["size"]))
            return
        # Without a position, what is in the file is all that was read.
        self._expected.extend(self._behind(-1, 0))

    def _behind(self, inode: int, size: int) -> list[bytes]:
        older = self.path.with_name(self.path.name + ".1")
        text = b""
        if self.path.exists():
            text = self.path.read_bytes()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                os.truncate(self.path, whole)
            text = text[:whole]
            if self.path.stat().st_ino == inode:
                return text[size:].split(b"\n")[:-1]
        if older.exists() and (inode < 0 or older.stat().st_ino == inode):
            text = older.read_bytes()[size:] + text
        return text.split(b"\n")[:-1]
