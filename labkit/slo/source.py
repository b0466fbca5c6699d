"""
Where the counts of an objective come from: a Prometheus server, or frames of counts that are there already.

    source = PrometheusSource("http://127.0.0.1:9090")
    source.measure(slo, at)                   what a report needs, in at most four HTTP requests
    source.counts(slo, start, end, step_s=60) good and total events per step

Nothing is invented: what did not come is None, with the reason as a `Problem`.  Docs: docs/slo-report.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from labkit._time import as_utc, format_duration
from labkit.errors import InvalidValue, LabkitError, NoData, UnknownName
from labkit.slo import counts
from labkit.slo._ask import Asker, Series
from labkit.slo._parts import ImpossibleCounts, LabelsDiffer, SeveralSeries, good_events, parts_of, single
from labkit.slo.methods import budget_of, units
from labkit.slo.model import Budgeting, Slo
from labkit.slo.tracking import closing

__all__ = ["Counted", "CountsSource", "Kind", "Measured", "Problem", "PrometheusSource", "Source", "track_step_s"]

Kind = Literal[
    "no_data",
    "no_events",
    "query_failed",
    "labels_differ",
    "several_series",
    "impossible_counts",
    "no_such_label",
    "no_such_bucket",
]
"""What may be wrong; the last two are found by `live_check` only."""

_MOST_INSTANTS = 11_000
# Points of a burn-down: hours for a month, which a figure of 8 inches can still show.
_TRACK_POINTS = 750
_TRACK_STEPS_S = (60, 300, 600, 900, 1800, 3600, 2 * 3600, 4 * 3600, 6 * 3600, 12 * 3600, 86_400)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not known: a kind for programs, a text for people."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Counted:
    """
    Events (or slices of time) in a window that ends at the instant of the measurement.

    Attributes:
        window_s: length of the window, in seconds.
        good, total: counts, 0 or more, exact; both None when unknown.  Prometheus extrapolates, so they need not be
            whole.
    """

    window_s: float
    good: Fraction | None
    total: Fraction | None

    @property
    def bad(self) -> Fraction | None:
        """Bad events; None when unknown."""
        return None if self.good is None or self.total is None else self.total - self.good


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What a source knows about one objective at one instant.

    Attributes:
        slo: the objective.
        at: the instant, UTC.
        start: where its window begins, UTC.
        whole: the counts of its window.
        burns: counts of the shorter windows that were asked for, by length in seconds.
        track: counts per step within the window (index `time`, `good`, `total`, `attrs["step_s"]`); None if unknown.
        problems: why something is unknown, the gravest first; empty when all is known.
        notes: what a reader should know and what makes nothing unknown.
        requests: HTTP requests that this took.
    """

    slo: Slo
    at: datetime
    start: datetime
    whole: Counted
    burns: Mapping[int, Counted]
    track: pd.DataFrame | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    requests: int = 0

    @property
    def covered(self) -> Fraction | None:
        """The fraction of the steps of `track` that have data; None when unknown."""
        return None if self.track is None else Fraction(int(self.track["total"].notna().sum()), len(self.track))


class Source(Protocol):
    """Anything that can be asked for the counts of an objective."""

    def measure(self, slo: Slo, at: datetime, burn_windows_s: Iterable[int] = ()) -> Measured:
        """What is known about *slo* at the instant *at*; what failed is a problem inside, not an exception."""

    def counts(self, slo: Slo, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
        """Good and total events per step, from *start* to *end*."""


def track_step_s(window_s: float) -> int:
    """
    The step of a burn-down over a window: the shortest round one with at most 750 points.

    >>> track_step_s(30 * 86_400), track_step_s(3600)
    (3600, 60)
    """
    return next((step for step in _TRACK_STEPS_S if window_s / step <= _TRACK_POINTS), _TRACK_STEPS_S[-1])


class PrometheusSource:
    """
    A Prometheus server as the source.

    Args:
        url: as in `http://127.0.0.1:9090`.
        timeout_s: limit for connecting and for each answer, in seconds.

    Raises:
        InvalidValue: *url* is no address of that kind.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidValue("address of Prometheus", expected="one such as http://127.0.0.1:9090", got=url)
        self.url, self.timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"PrometheusSource({self.url!r})"

    def __str__(self) -> str:
        return f"Prometheus at {self.url}"

    def measure(self, slo: Slo, at: datetime, burn_windows_s: Iterable[int] = ()) -> Measured:
        """
        What Prometheus knows about *slo* at the instant *at*.

        One request for the window of the objective, one for all *burn_windows_s*, one for the burn-down.  A refused
        query takes up to two more, which find the part that is refused, and ends the rest.

        Args:
            slo: the objective.
            at: timezone-aware instant; past ones are answered from what Prometheus still holds.
            burn_windows_s: lengths of shorter windows, in seconds.

        Returns:
            A `Measured`.  A failed query, an empty answer, labels that do not match and counts that cannot be are
            problems inside it, and the counts that they concern are None.
        """
        at = as_utc(at)
        asker = Asker(self.url, self.timeout_s)
        start, _ = closing(slo.window, at)
        length_s = (at - start).total_seconds()
        notes: list[str] = []
        burns = {window_s: Counted(window_s, None, None) for window_s in sorted({*burn_windows_s})}
        track: pd.DataFrame | None = None
        whole = Counted(length_s, None, None)
        problems: list[Problem] = []
        try:
            whole = self._windows(asker, slo, at, [length_s], notes)[length_s]
            if whole.total is None:
                raise NoData(parts_of(slo, length_s)["total"], start=start, end=at)
            if burns:
                burns = {int(length): one for length, one in self._windows(asker, slo, at, [*burns], []).items()}
            track = self._counts(asker, slo, start, at, track_step_s(length_s))
        except LabkitError as error:
            problems.append(_problem(error))
        if whole.total == 0:
            problems.append(_no_events(slo, start, at))
        notes += [f"Prometheus remarked: {warning}" for warning in asker.warnings]
        return Measured(slo, at, start, whole, burns, track, tuple(problems), tuple(notes), asker.requests)

    def counts(self, slo: Slo, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
        """
        Good and total events per step, also where the budget counts slices: those are made of events.

        Args:
            slo: whose indicator counts.
            start: timezone-aware; the first step begins here.
            end: timezone-aware; the last step ends here, or less than a step before.
            step_s: length of a step, in seconds; at least twice the scrape interval, or steps have no data.

        Returns:
            Index `time` (UTC, the end of each step, complete), `good` and `total` (float, nan where there is no
            data), `attrs["step_s"]`.

        Raises:
            NoData: nothing at all in the interval.
            QueryRejected: Prometheus refused the indicator.
            QueryError: the parts of the indicator have different labels, more than one series, or counts that
                cannot be (more good events than events).
            RequestFailed: Prometheus does not answer.
            InvalidValue: the interval is shorter than one step.
            ValueError: an instant has no time zone.
        """
        events = replace(slo, budgeting=Budgeting())
        return self._counts(Asker(self.url, self.timeout_s), events, as_utc(start), as_utc(end), step_s)

    def _windows(
        self, asker: Asker, slo: Slo, at: datetime, lengths_s: Sequence[float], notes: list[str]
    ) -> dict[float, Counted]:
        """Counts of several windows that end at *at*, from one request."""
        queries = {length: parts_of(slo, length) for length in lengths_s}
        answer = asker.instant({_key(n, s): q for s, parts in queries.items() for n, q in parts.items()}, at)
        found: dict[float, Counted] = {}
        for length, parts in queries.items():
            one = single(slo, {name: answer[_key(name, length)] for name in parts}, parts)
            total = _last(one["total"])
            if math.isnan(total):
                found[length] = Counted(length, None, None)
                continue
            part = next(name for name in parts if name != "total")
            value = _last(one[part])
            good = good_events(slo, part, np.array([value]), np.array([total]), parts)
            if math.isnan(value) and total:
                notes.append(f"`{part}` matches no series: counted as 0 of {total:g} events. Right if there was none.")
            found[length] = Counted(length, counts.exact(good[0]), counts.exact(total))
        return found

    def _counts(self, asker: Asker, slo: Slo, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
        index = _grid(start, end, step_s)
        queries = parts_of(slo, step_s)
        columns = {name: np.full(len(index), np.nan) for name in queries}
        first_s = index[0].timestamp()
        for begin in range(0, len(index), _MOST_INSTANTS):
            some = index[begin : begin + _MOST_INSTANTS]
            answer = asker.over(queries, some[0].to_pydatetime(), some[-1].to_pydatetime(), step_s)
            for name, one in single(slo, answer, queries).items():
                for when_s, value in one.samples if one else ():
                    columns[name][round((when_s - first_s) / step_s)] = value
        total = columns.pop("total")
        if np.isnan(total).all():
            raise NoData(queries["total"], start=start, end=end)
        part, values = next(iter(columns.items()))
        good = good_events(slo, part, values, total, queries)
        frame = pd.DataFrame({"good": good, "total": np.where(np.isnan(good), np.nan, total)}, index=index)
        frame.attrs["step_s"] = step_s
        return frame


class CountsSource:
    """
    Frames of counts as the source: a recorded month, a file, what another source was asked for.

    Exact: nothing is extrapolated, and whole counts stay whole.

    Args:
        frames: counts by the objective's name (see `counts.checked`).

    Raises:
        InvalidValue: a frame is none of counts.
    """

    def __init__(self, frames: Mapping[str, pd.DataFrame]) -> None:
        self.frames = {name: counts.checked(frame) for name, frame in frames.items()}

    def __repr__(self) -> str:
        return f"CountsSource({_listed(self.frames)})"

    def __str__(self) -> str:
        return f"counts of {_listed(self.frames)}"

    def measure(self, slo: Slo, at: datetime, burn_windows_s: Iterable[int] = ()) -> Measured:
        """What the frames say about *slo* at the instant *at*: the steps that end within each window."""
        at = as_utc(at)
        start, _ = closing(slo.window, at)
        length_s = (at - start).total_seconds()
        frame = self.frames.get(slo.name)
        if frame is None:
            problem = Problem("no_data", f"There are no counts of {slo.name}; there are: {_listed(self.frames)}.")
            unknown = {length: Counted(length, None, None) for length in sorted({*burn_windows_s})}
            return Measured(slo, at, start, Counted(length_s, None, None), unknown, None, (problem,))
        whole = self._window(slo, frame, at, length_s)
        burns = {length: self._window(slo, frame, at, length) for length in sorted({*burn_windows_s})}
        problems: list[Problem] = []
        if whole.total is None:
            text = f"There are no counts of {slo.name} from {start:%Y-%m-%d %H:%M} to {at:%Y-%m-%d %H:%M} UTC"
            had = f"they go from {frame.index[0]:%Y-%m-%d %H:%M} to {frame.index[-1]:%Y-%m-%d %H:%M} UTC"
            problems.append(Problem("no_data", f"{text}; {had}."))
        elif not whole.total:
            problems.append(_no_events(slo, start, at))
        track = None if whole.total is None else self._track(slo, frame, start, at)
        return Measured(slo, at, start, whole, burns, track, tuple(problems))

    def counts(self, slo: Slo, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
        """
        Good and total events per step, summed from the finer steps of the frame; nan where all of them are.

        Raises:
            UnknownName: there is no frame of *slo*.
            NoData: the frame has nothing there.
            InvalidValue: *step_s* is no multiple of the frame's step, or the interval is shorter than one.
        """
        if slo.name not in self.frames:
            raise UnknownName("objective with counts", slo.name, known=list(self.frames))
        frame = self.frames[slo.name]
        own_s = counts.step_s(frame)
        if step_s % own_s:
            raise InvalidValue("step_s", expected=f"a multiple of {own_s} s, the step of the counts", got=step_s)
        return _rolled(slo, frame, as_utc(start), as_utc(end), step_s)

    @staticmethod
    def _track(slo: Slo, frame: pd.DataFrame, start: datetime, at: datetime) -> pd.DataFrame:
        found = units(frame, slo.budgeting)
        own_s, length_s = counts.step_s(found), (at - start).total_seconds()
        wanted_s = track_step_s(length_s)
        step_s = next((one for one in _TRACK_STEPS_S if one >= wanted_s and not one % own_s), own_s)
        return _rolled(slo, found, start, at, min(step_s, max(own_s, int(length_s))))

    @staticmethod
    def _window(slo: Slo, frame: pd.DataFrame, at: datetime, length_s: float) -> Counted:
        start = at - timedelta(seconds=length_s)
        if not counts.sums(frame, start, at).known_s:
            return Counted(length_s, None, None)
        found = budget_of(frame, slo, start, at)
        return Counted(length_s, found.total - found.bad, found.total)


def _key(part: str, window_s: float) -> str:
    return f"{part}:{window_s:g}"


def _last(series: Series | None) -> float:
    """The latest value; nan without a series, and where the server has nan."""
    value = series.samples[-1][1] if series and series.samples else math.nan
    return value if math.isfinite(value) else math.nan


def _grid(start: datetime, end: datetime, step_s: int) -> pd.DatetimeIndex:
    count = int((end - start).total_seconds() // step_s) if step_s > 0 else 0
    if count < 1:
        raise InvalidValue(
            "step_s", expected=f"above 0 and at most the interval, {(end - start).total_seconds():g} s", got=step_s
        )
    step = pd.Timedelta(seconds=step_s)
    return pd.date_range(pd.Timestamp(start) + step, periods=count, freq=step, name="time")


def _problem(error: LabkitError) -> Problem:
    kinds: dict[type[LabkitError], Kind] = {
        LabelsDiffer: "labels_differ",
        SeveralSeries: "several_series",
        ImpossibleCounts: "impossible_counts",
        NoData: "no_data",
    }
    return Problem(next((kind for cls, kind in kinds.items() if isinstance(error, cls)), "query_failed"), str(error))


def _no_events(slo: Slo, start: datetime, at: datetime) -> Problem:
    length = format_duration(at - start)
    return Problem(
        "no_events", f"There was no event of {slo.name} in {length}: the promise was neither kept nor broken."
    )


def _rolled(slo: Slo, frame: pd.DataFrame, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
    index = _grid(start, end, step_s)
    inside = frame[(frame.index > pd.Timestamp(start)) & (frame.index <= index[-1])]
    if inside["total"].isna().all():
        raise NoData(f"counts of {slo.name}", start=start, end=end)
    behind_s = (counts.times_ns(inside) - pd.Timestamp(start).as_unit("ns").value) / 1e9
    number = np.ceil(behind_s / step_s).astype(int) - 1
    summed = inside[["good", "total"]].groupby(number).sum(min_count=1)
    found = summed.reindex(range(len(index))).set_axis(index, axis=0)
    found.attrs["step_s"] = step_s
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
