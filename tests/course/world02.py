"""Worlds for the checks of notebook 02: the seeded month with a room of objectives, and a lab in which time is data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from labkit._time import parse_duration
from labkit.course import ex02_world
from labkit.errors import NoData
from labkit.shop.history import History
from labkit.slo import rules
from labkit.slo.backtest import backtest
from labkit.slo.model import Slo
from labkit.slo.policies import POLICIES, alert_names
from labkit.slo.report import Report, report
from labkit.slo.source import CountsSource
from tests.course.conftest import END, World

STEP_S = 5
CHECKOUTS_PER_STEP = 6


class Room:
    """What `lab.slo` offers, over the counts behind the history."""

    def __init__(self, past: History) -> None:
        self._counts = past.request_counts(endpoint=("POST", ex02_world.ENDPOINT))

    def counts(self, slo: Slo | None) -> pd.DataFrame:  # noqa: ARG002  (one objective, one frame)
        """Checkouts of each minute."""
        return self._counts

    def report(self, slos: Sequence[Slo]) -> Report:
        """The state of *slos* at the end of the month."""
        return report(slos, CountsSource({slo.name: self._counts for slo in slos}), END)


class MonthWorld(World):
    """The world of the other notebooks, with objectives."""

    def __init__(self, past: History) -> None:
        super().__init__(past)
        self.slo = Room(past)
        self.history.labels = {"end": END}  # type: ignore[attr-defined]
        self.prometheus.version = lambda: "2.42.0"  # type: ignore[attr-defined]


class Silences:
    """An Alertmanager that has silences."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def silences(self) -> pd.DataFrame:
        """One row per silence."""
        return pd.DataFrame(self.rows, columns=["id", "state", "matchers"])


class TimelinePrometheus:
    """Counters in steps of five seconds over three days, and what the rules of the promise make of them."""

    def __init__(self) -> None:
        self.now = END
        grid = pd.date_range(end=END, periods=3 * 86_400 // STEP_S, freq=f"{STEP_S}s", name="time")
        total = np.full(len(grid), CHECKOUTS_PER_STEP)
        self.counts = pd.DataFrame({"good": total, "total": total}, index=grid)
        self.counts.attrs["step_s"] = STEP_S
        self.groups = rules.groups([ex02_world.checkout()])
        self.gone: set[str] = set()
        self.factor = 1.0
        self._pages: pd.DataFrame | None = None

    def fail(self, start: datetime, end: datetime, share: float = 1.0) -> None:
        """A share of the checkouts after *start* and up to *end* fails."""
        inside = (self.counts.index > start) & (self.counts.index <= end)
        self.counts.loc[inside, "good"] = round(CHECKOUTS_PER_STEP * (1 - share))
        self._pages = None

    def value(self, promql: str, at: datetime | None = None) -> float:
        """The share of bad checkouts in the window that the query names."""
        found = re.search(r"\[(\w+)\]", promql)
        assert found, f"the stand-in cannot evaluate {promql}"
        end = pd.Timestamp(at or self.now)
        start = end - pd.Timedelta(seconds=parse_duration(found[1]))
        inside = self.counts[(self.counts.index > start) & (self.counts.index <= end)].sum()
        return float(1 - inside["good"] / inside["total"])

    def query(self, promql: str, at: datetime) -> pd.DataFrame:
        """The raw samples of the counter of failed checkouts, which is born with the first failure."""
        found = re.search(r"\[(\w+)\]", promql)
        assert found, f"the stand-in cannot evaluate {promql}"
        failed = (self.counts["total"] - self.counts["good"]).cumsum()
        failed = failed[(failed > 0) & (failed.index <= at)]
        inside = failed[failed.index > at - timedelta(seconds=parse_duration(found[1]))]
        if inside.empty:
            raise NoData(promql, start=at, end=at)
        return pd.DataFrame({"time": inside.index, "value": inside.to_numpy(dtype=float)})

    def query_range(self, promql: str, start: datetime, end: datetime, *, step_s: float) -> pd.DataFrame:
        """Where an alert of the promise fires, by back-test of the workbook's policy on the counters."""
        found = re.search(r'alertname="(\w+)".*long="(\w+)"', promql)
        assert found, f"the stand-in cannot evaluate {promql}"
        if self._pages is None:
            self._pages = backtest(self.counts, 0.999, POLICIES["workbook"], fresh=False).pages
        name = next(one for one in alert_names(POLICIES["workbook"]) if f" {found[2]}/" in one)
        grid = pd.date_range(start, end, freq=f"{step_s}s", name="time")
        on = np.zeros(len(grid), dtype=bool)
        for page in self._pages[self._pages["alert"] == name].itertuples():
            on |= (grid >= page.start) & (grid < page.end)
        if not on.any():
            raise NoData(promql, start=start, end=end)
        return pd.DataFrame({"value": np.where(on, 1.0, np.nan)}, index=grid)

    def rules(self) -> pd.DataFrame:
        """The rules in force, but those that are gone; *factor* changes the thresholds of the others."""
        rows = [
            (rule.name, "alerting", re.sub(r"> ([\d.e-]+)", self._changed, rule.expr))
            for group in self.groups
            for rule in group.rules
            if rule.kind == "alert" and rule.name not in self.gone
        ]
        return pd.DataFrame(rows, columns=["name", "kind", "query"])

    def _changed(self, found: re.Match[str]) -> str:
        return f"> {float(found[1]) * self.factor!r}"


class DrillWorld(World):
    """A lab whose last three days are counters that a test can spoil."""

    def __init__(self, past: History) -> None:
        super().__init__(past)
        self.timeline = TimelinePrometheus()
        self.prometheus = self.timeline  # type: ignore[assignment]
        self.alertmanager = Silences()

    def now(self) -> datetime:
        """The present, which a test may move."""
        return self.timeline.now


def minutes_ago(minutes: float) -> datetime:
    """An instant before the end of the timeline."""
    return END - timedelta(minutes=minutes)
