"""
The state of objectives at an instant, with every number between the counts and the verdict.

    found = report(slos, PrometheusSource(url), at)
    found.status                    {"visit-availability": "at_risk", ...}
    found["visit-availability"]  counts, budget, burn rates, alerts, time to exhaustion
    found.to_json(), found.to_html(), found.figure()

What the four words mean, and the JSON: docs/slo-report.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit._time import as_utc
from labkit.errors import InvalidValue, UnknownName
from labkit.slo import windows
from labkit.slo.model import Policy, Slo
from labkit.slo.policies import POLICIES, get
from labkit.slo.source import Source
from labkit.slo.verdict import PACE_S, STATUS_MEANING, AlertState, SloReport, Status, judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STATUS_MEANING", "AlertState", "Report", "SloReport", "Status", "report"]

SCHEMA = "labkit-slo-report/1"

_LOW = Fraction(1, 10)
# Shown whatever the policy looks at, so that two objectives can be compared.
_USUAL_WINDOWS_S = (3600, 6 * 3600, 86_400, 3 * 86_400)
_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Report:
    """
    Objectives at one instant, in the order of their specification.

    Attributes:
        at: the instant, UTC.
        rows: one per objective.
        source: where the counts came from, in words.
    """

    at: datetime
    rows: tuple[SloReport, ...]
    source: str = ""

    @property
    def status(self) -> dict[str, Status]:
        """The verdict by the objective's name."""
        return {row.slo.name: row.status for row in self.rows}

    def __getitem__(self, name: str) -> SloReport:
        """The row of the objective called *name*; UnknownName when there is none."""
        for row in self.rows:
            if row.slo.name == name:
                return row
        raise UnknownName("objective of this report", name, known=list(self.status))

    def __iter__(self) -> Iterator[SloReport]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self) -> pd.DataFrame:
        """
        One row per objective, indexed by its name.

        Columns: `service, status, objective, achieved, good, total, spent, remaining` (floats, nan when unknown),
        `burn_1h` and `exhaustion` (text).
        """
        records = [row.to_dict() for row in self.rows]
        names = ["service", "status", "objective", "achieved", "good", "total", "spent", "remaining"]
        table = pd.DataFrame([{name: one[name] for name in names} for one in records], columns=names)
        table[names[2:]] = table[names[2:]].astype(float)
        burns = [row.burns.get(PACE_S) for row in self.rows]
        table["burn_1h"] = np.array([np.nan if burn is None else float(burn) for burn in burns], dtype=float)
        table["exhaustion"] = [str(row.exhaustion) for row in self.rows]
        return table.set_axis(pd.Index([row.slo.name for row in self.rows], name="slo"), axis=0)

    def to_dict(self) -> dict[str, Any]:
        """As `labkit slo report --json` prints it; labkit/slo/report.schema.json is its schema."""
        slos = [row.to_dict() for row in self.rows]
        return {"schema": SCHEMA, "at": self.at.isoformat(), "source": self.source, "slos": slos}

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def to_html(self) -> str:
        """A page that holds everything and fetches nothing."""
        from labkit.slo.report_page import report_page  # noqa: PLC0415  (it needs the types above)

        return report_page(self)

    def figure(self) -> Figure:
        """The burn-down of every objective whose counts are known, below one another."""
        from labkit.slo.report_page import report_figure  # noqa: PLC0415

        return report_figure(self)

    def _repr_html_(self) -> str:
        from labkit.slo.report_page import overview  # noqa: PLC0415

        return overview(self)


def report(
    slos: Iterable[Slo],
    source: Source,
    at: datetime,
    *,
    policies: Mapping[str, Policy] = POLICIES,
    windows_s: Iterable[int] = (),
    low: Fraction = _LOW,
    workers: int = _WORKERS,
) -> Report:
    """
    Measure every objective at the instant *at* and judge it.

    Args:
        slos: the objectives.
        source: gives the counts; what it fails at becomes a problem of that objective alone.
        at: timezone-aware instant.
        policies: alert policies by name; those of the workbook if not given.
        windows_s: further windows for burn rates, in seconds, beside those of the policies and 1 h, 6 h, 1 d, 3 d.
        low: at risk when less than this share of the budget is left.
        workers: objectives that are measured at the same time.

    Returns:
        A `Report`, with a row for every objective.  Without objectives it is empty.

    Raises:
        ValueError: *at* has no time zone.
        UnknownName: an objective names a policy that there is not.
        InvalidValue: two objectives have one name.
    """
    instant, wanted, further = as_utc(at), list(slos), tuple(windows_s)
    names = [slo.name for slo in wanted]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidValue("names of objectives", expected="each once", got=", ".join(twice))
    rules = [get(slo.policy, policies) for slo in wanted]

    def measure(pair: tuple[Slo, Policy]) -> SloReport:
        slo, policy = pair
        return judged(source.measure(slo, instant, _windows_s(slo, policy, instant, further)), policy, low)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        rows = tuple(pool.map(measure, zip(wanted, rules, strict=True)))
    return Report(instant, rows, str(source))


def _windows_s(slo: Slo, policy: Policy, at: datetime, further: Iterable[int]) -> list[int]:
    """Windows of the alerts and the usual ones, as far as they are no longer than the objective's and hold a slice."""
    longest = windows.period_s(slo.window, at)
    shortest = 0 if slo.budgeting.method == "occurrences" else slo.budgeting.slice_s
    lengths = {length for alert in policy.alerts for length in (alert.long_s, alert.short_s) if length is not None}
    return sorted(length for length in {*lengths, *_USUAL_WINDOWS_S, *further} if shortest <= length <= longest)
