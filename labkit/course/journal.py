"""What happened in a run, one JSON object a line, written at once so that it survives any end."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit._time import utc_now

__all__ = ["Journal"]


class Journal:
    """
    The journal of one run: `time` (UTC), `event`, and what belongs to the event.

    Events: run_start, run_end, queued, notebook_start, notebook_end, kernel_start, cell_start, cell_end, check,
    output_cut, teardown, error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")

    def write(self, event: str, **what: Any) -> None:
        """Add one line."""
        line = {"time": utc_now().isoformat(timespec="milliseconds"), "event": event, **what}
        self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
