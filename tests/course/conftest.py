"""A world for checks without processes: the real seeded history, answered by the arithmetic that Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest

from labkit.shop.history import History, build_history

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
_INCREASE = re.compile(
    r"sum\(increase\(http_requests_total\{(?P<labels>.*)\}\[(?P<n>\d+)(?P<u>[sd])\](?: @ (?P<at>\d+))?\)\)"
)


class SeededPrometheus:
    """Answers sum(increase(http_requests_total{…}[…] @ …)) from the counts of a seeded history."""

    def __init__(self, past: History, down: list[str]) -> None:
        self.past, self.down = past, down

    def value(self, promql: str) -> float:
        """The one number, or a failure naming the query that this stand-in does not know."""
        found = _INCREASE.fullmatch(promql)
        assert found, f"the stand-in cannot evaluate {promql}"
        picked = [e for e in self.past.traffic.endpoints if f'endpoint="{e[1]}"' in found["labels"]]
        frames = [self.past.request_counts(endpoint=e) for e in picked] or [self.past.request_counts()]
        end = pd.Timestamp(int(found["at"]), unit="s", tz="UTC") if found["at"] else pd.Timestamp(END)
        start = end - pd.Timedelta(int(found["n"]), unit={"s": "s", "d": "D"}[found["u"]])
        failed = "5.." in found["labels"]
        return float(
            sum(
                (f["total"] - f["good"] if failed else f["total"])[(f.index > start) & (f.index <= end)].sum()
                for f in frames
            )
        )

    def targets(self) -> pd.DataFrame:
        """All targets, those in `down` with health down."""
        names = ["gateway", "catalog-1", "catalog-2", "payments-1", "mariadb"]
        return pd.DataFrame({"instance": names, "health": ["down" if n in self.down else "up" for n in names]})


class SeededHistory:
    """The labels of the past as frames."""

    def __init__(self, past: History) -> None:
        self.incidents = pd.DataFrame(past.labels()["incidents"])
        for column in ("start", "end"):
            self.incidents[column] = pd.to_datetime(self.incidents[column], utc=True)


class World:
    """A lab as checks see it; `stop` harms it."""

    def __init__(self, past: History) -> None:
        self.seed = past.seed
        self.down_targets: list[str] = []
        self.prometheus = SeededPrometheus(past, self.down_targets)
        self.history = SeededHistory(past)
        names = ["prometheus", "gateway", "catalog-1", "catalog-2", "payments-1", "mariadb"]
        self._status = pd.DataFrame({"state": "RUNNING", "ready": True}, index=pd.Index(names, name="name"))

    def now(self) -> datetime:
        """The end of the history."""
        return END

    def status(self) -> pd.DataFrame:
        """One row per process."""
        return self._status.copy()

    def stop(self, name: str) -> None:
        """What a learner does who "fixes" by stopping."""
        self._status.loc[name] = ["STOPPED", False]
        self.down_targets.append(name)

    def restart(self, name: str) -> None:
        """Undo `stop`."""
        self._status.loc[name] = ["RUNNING", True]
        self.down_targets.remove(name)


@pytest.fixture(scope="session")
def past() -> History:
    """Thirty days of seed 7."""
    return build_history(seed=7, end=END)


@pytest.fixture
def world(past: History) -> World:
    """A healthy lab with that past."""
    return World(past)


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny notebook: cells as text or (text, tag); a text that starts with a heading is prose."""

    def write(name: str, *cells: Any) -> Path:
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
        for cell in cells:
            source, tags = cell if isinstance(cell, tuple) else (cell, "")
            make = nbformat.v4.new_markdown_cell if source.startswith("# ") else nbformat.v4.new_code_cell
            notebook.cells.append(make(source, metadata={"tags": [tags] if tags else []}))
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write
