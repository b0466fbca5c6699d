"""
Carry the lab's log files to the store of logs: `python -m labkit.observe.shipper --to otlp --url URL …`.

Files are read in pieces and never held open, so rotation by renaming is only another name for the same file.  How far
each was read is written down after the store has said that it keeps the lines; a crash between the two sends them
again, and the store knows them by file and position.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from labkit._http import request
from labkit.errors import RequestFailed
from labkit.observe.ingest import OpenSearchSink
from labkit.observe.log_lines import LONGEST, LogLine, cut, line_reader

__all__ = ["OtlpSink", "Placed", "Shipper", "Sink"]

_log = logging.getLogger(__name__)
_PIECE = 256 * 1024
_BATCH = 1024 * 1024
# After so many lines there are more: no pause.
_MANY = 1000
_NEVER = frozenset({400, 413})


@dataclass(frozen=True, slots=True)
class Placed:
    """A line and where it stands: which file (however it is called now), and at which byte it starts."""

    line: LogLine
    source: str
    position: int


class Sink(Protocol):
    """Where lines go; returning means that they are kept."""

    def send(self, lines: Sequence[Placed]) -> None:
        """Keep *lines*, in their order; raises `RequestFailed` when that is not certain."""
        ...


class OtlpSink:
    """
    A store that takes OTLP over HTTP.

    Args:
        url: as in `http://127.0.0.1:4318`.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/v1/logs"

    def send(self, lines: Sequence[Placed]) -> None:
        """Keep *lines*; raises `RequestFailed` when the store does not say that it does."""
        message = ExportLogsServiceRequest()
        scopes: dict[str, Any] = {}
        for placed in lines:
            line = placed.line
            if line.service not in scopes:
                group = message.resource_logs.add()
                _put(group.resource.attributes, "service.name", line.service)
                scopes[line.service] = group.scope_logs.add()
            record = scopes[line.service].log_records.add()
            record.time_unix_nano = line.time_ns or time.time_ns()
            record.severity_text, record.body.string_value = line.level, line.message
            record.trace_id, record.span_id = bytes.fromhex(line.trace_id), bytes.fromhex(line.span_id)
            for name, value in (*line.fields.items(), ("log.source", placed.source), ("log.position", placed.position)):
                _put(record.attributes, name, value)
        headers = {"Content-Type": "application/x-protobuf"}
        request("POST", self._url, data=message.SerializeToString(), headers=headers, timeout_s=30)


def _put(attributes: Any, name: str, value: object) -> None:
    pair = attributes.add()
    pair.key = name
    if isinstance(value, bool):
        pair.value.bool_value = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        pair.value.int_value = value
    elif isinstance(value, float):
        pair.value.double_value = value
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        pair.value.string_value = cut(text).encode(errors="replace").decode()


@dataclass(slots=True)
class _Read:
    """How far a file was read, and whether the rest of a giant line is being passed over."""

    offset: int = 0
    passing_over: bool = False


class Shipper:
    """
    Tails every `*.log` of a folder, and what was rotated to `*.log.1`.

    Args:
        folder: of the log files.
        offsets: file that remembers how far each was read.
        sink: where the lines go.
        read: what a line says, from its text and the name of who wrote it; as `line_reader()` if None.
    """

    def __init__(
        self, folder: Path, offsets: Path, sink: Sink, *, read: Callable[[str, str], LogLine] | None = None
    ) -> None:
        self._folder, self._offsets, self._sink = folder, offsets, sink
        self._line = read or line_reader()
        self._identities: dict[int, str] = {}
        self._done = self._load()

    def ship(self) -> int:
        """
        Send what is new, one piece of each file at most.

        Returns:
            How many lines were kept by the sink; 0 means that there is nothing new.

        Raises:
            RequestFailed: the sink does not take them now; the next call begins where this one did.
        """
        sent, size = 0, 0
        batch: list[Placed] = []
        ahead: dict[str, _Read] = {}
        for path in sorted([*self._folder.glob("*.log.1"), *self._folder.glob("*.log")]):
            with suppress(FileNotFoundError):
                size += self._piece(path, batch, ahead)
            if size >= _BATCH:
                sent += self._send(batch, ahead)
                batch, ahead, size = [], {}, 0
        return sent + self._send(batch, ahead)

    def _piece(self, path: Path, batch: list[Placed], ahead: dict[str, _Read]) -> int:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            source = self._identity(file, status.st_ino)
            read = self._done.get(source, _Read())
            if status.st_size < read.offset:
                # Emptied and begun anew under the same inode.
                del self._identities[status.st_ino]
                source, read = self._identity(file, status.st_ino), _Read()
            if not source or source in ahead or status.st_size == read.offset:
                return 0
            file.seek(read.offset)
            piece = file.read(_PIECE)
        writer = path.name.split(".log")[0]
        after = _Read(read.offset, read.passing_over)
        for position, text in _lines(piece, after):
            line = self._line(text, writer)
            batch.append(Placed(line, source, position))
        ahead[source] = after
        return len(piece)

    def _identity(self, file: Any, inode: int) -> str:
        """A name of the file that rotation does not change; "" while its first line is not whole."""
        if inode not in self._identities:
            file.seek(0)
            first = file.readline(_PIECE)
            if not first.endswith(b"\n") and len(first) < _PIECE:
                return ""
            self._identities[inode] = hashlib.sha256(f"{inode}:".encode() + first).hexdigest()[:16]
        return self._identities[inode]

    def _send(self, batch: list[Placed], ahead: dict[str, _Read]) -> int:
        moved = {source: read for source, read in ahead.items() if read != self._done.get(source)}
        if not moved:
            return 0
        try:
            if batch:
                self._sink.send(batch)
        except RequestFailed as error:
            if error.status not in _NEVER:
                raise
            _log.error("of %d lines, what the store refused for good is left out: %s", len(batch), error)
        self._done |= moved
        self._save()
        return len(batch)

    def _load(self) -> dict[str, _Read]:
        try:
            found = json.loads(self._offsets.read_text(encoding="utf-8"))
            return {source: _Read(*values) for source, values in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            # The store leaves out what it has: reading everything again costs time only.
            _log.warning("%s is damaged: every file is read from its beginning", self._offsets)
            return {}

    def _save(self) -> None:
        part = self._offsets.with_suffix(".part")
        part.write_text(json.dumps({s: [r.offset, r.passing_over] for s, r in self._done.items()}), encoding="utf-8")
        part.replace(self._offsets)


def _lines(piece: bytes, read: _Read) -> Iterator[tuple[int, str]]:
    """The whole lines of *piece* with their positions; moves *read* past them, and past a line without an end."""
    start = 0
    while (end := piece.find(b"\n", start)) >= 0:
        text = "" if read.passing_over else piece[start:end].decode(errors="replace").strip("\r")
        if text.strip():
            yield read.offset, text
        read.offset += end + 1 - start
        read.passing_over, start = False, end + 1
    if start == 0 and len(piece) == _PIECE:
        if not read.passing_over:
            yield read.offset, cut(piece[:LONGEST].decode(errors="replace"), _PIECE)
        read.offset, read.passing_over = read.offset + len(piece), True


def main() -> None:
    """Entry point; runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="labkit.observe.shipper", description=__doc__)
    parser.add_argument("--logs", type=Path, required=True, help="folder of the log files")
    parser.add_argument("--offsets", type=Path, required=True, help="file that remembers how far each was read")
    parser.add_argument("--to", choices=["otlp", "opensearch", "nowhere"], required=True, help="kind of store")
    parser.add_argument("--url", default="", help="address of the store")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if given.to == "nowhere":
        _log.warning("this lab has no store of logs: lines stay in their files")
        stop.wait()
    elif given.to == "opensearch":
        run(Shipper(given.logs, given.offsets, OpenSearchSink(given.url), read=line_reader(formats=False)), stop)
    else:
        run(Shipper(given.logs, given.offsets, OtlpSink(given.url)), stop)


def run(shipper: Shipper, stop: threading.Event, *, every_s: float = 0.5, longest_pause_s: float = 10) -> None:
    """Ship until *stop*; while the sink refuses, try again after pauses that double up to *longest_pause_s* seconds."""
    pause_s = every_s
    while not stop.wait(pause_s):
        try:
            pause_s = 0.01 if shipper.ship() >= _MANY else every_s
        except RequestFailed as error:
            if pause_s <= every_s:
                _log.warning("the store takes nothing now, trying again: %s", error)
            pause_s = min(max(pause_s, every_s) * 2, longest_pause_s)


if __name__ == "__main__":
    main()
