"""Where the commands of `labkit slo` get objectives, counts and incidents from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit._http import get_json
from labkit._time import as_utc, parse_duration, utc_now
from labkit.errors import ConfigInvalid, InvalidValue

if TYPE_CHECKING:
    import pandas as pd

    from labkit.lab import Lab
    from labkit.slo.backtest import Range
    from labkit.slo.model import Policy, Slo
    from labkit.slo.source import PrometheusSource
    from labkit.slo.spec_file import SpecFile

__all__ = [
    "Past",
    "Place",
    "chosen",
    "instant",
    "past_from_file",
    "past_of_place",
    "past_of_seed",
    "policies_of",
    "seconds",
    "specification",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Which server is asked: the one of the lab that runs, or the one at an address."""

    source: PrometheusSource
    lab: Lab | None

    @classmethod
    def of(cls, prometheus: str | None, run_dir: Path | None) -> Place:
        """
        The server at the address *prometheus*, or that of the lab in *run_dir*.

        Raises:
            NotRunning: no address was given, and no lab runs there.
        """
        from labkit.lab import connect  # noqa: PLC0415  (`--help` must not wait for the clients)
        from labkit.slo.source import PrometheusSource  # noqa: PLC0415

        if prometheus is not None:
            return cls(PrometheusSource(prometheus), None)
        lab = connect(run_dir=run_dir)
        return cls(PrometheusSource(lab.url("prometheus")), lab)

    def now(self) -> datetime:
        """The present instant of the lab, or of this machine."""
        return self.lab.now() if self.lab is not None else utc_now()

    def counts(self, slo: Slo, step_s: int, start: datetime, end: datetime) -> pd.DataFrame:
        """Good and total events of *slo* per step; in the seeded month of a lab exact and per minute."""
        if self.lab is not None:
            found = self.lab.slo.counts(slo)
            return found[(found.index > start) & (found.index <= end)]
        return self.source.counts(slo, start, end, step_s)

    def closed(self) -> Range:
        """Which samples a range of this server holds."""
        from labkit.slo.backtest import range_semantics  # noqa: PLC0415

        return range_semantics(get_json(f"{self.source.url}/api/v1/status/buildinfo")["data"]["version"])


@dataclass(frozen=True, slots=True)
class Past:
    """A history to test alert policies on: counts, incidents if they are known, and what the objective was."""

    title: str
    counts: pd.DataFrame
    incidents: pd.DataFrame | None
    objective: Fraction
    period_s: int
    closed: Range


def specification(path: Path | None) -> SpecFile:
    """The specification at *path*; the shop's own when it is None."""
    from labkit.lab_slo import shop_specification  # noqa: PLC0415
    from labkit.slo.spec import load_specs  # noqa: PLC0415

    return load_specs(path or shop_specification())


def policies_of(spec: SpecFile) -> dict[str, Policy]:
    """The alert policies that objectives of *spec* may name."""
    from labkit.slo.policies import POLICIES  # noqa: PLC0415

    return {**POLICIES, **spec.policies}


def chosen(spec: SpecFile, names: Sequence[str]) -> list[Slo]:
    """The objectives called *names*, or all; UnknownName for one that there is not."""
    return [spec.slo(name) for name in names] if names else list(spec.slos)


def instant(text: str | None, now: datetime) -> datetime:
    """
    The instant that *text* is, or *now* when it is None.

    Raises:
        InvalidValue: it is no instant with a time zone.
    """
    if text is None:
        return now
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidValue("--at", expected="an instant such as 2026-03-01T12:00:00Z", got=text) from error


def seconds(option: str, text: str) -> int:
    """
    Whole seconds of a duration such as 5m.

    Raises:
        InvalidValue: *text*, given as *option*, is no such duration.
    """
    try:
        return int(parse_duration(text))
    except ValueError as error:
        raise InvalidValue(option, expected=f"a duration such as 5m or 1h ({error})", got=text) from error


def past_of_place(place: Place, slo: Slo, step_s: int, days: int) -> Past:
    """The last *days* days of *slo* on a server; in a lab with the incidents of its seeded month."""
    from datetime import timedelta  # noqa: PLC0415

    from labkit.slo import windows  # noqa: PLC0415

    now = place.now()
    counts = place.counts(slo, step_s, now - timedelta(days=days), now)
    incidents = None if place.lab is None else visible_incidents(place.lab.history.incidents, slo)
    return Past(slo.name, counts, incidents, slo.objective, windows.period_s(slo.window, now), place.closed())


def past_of_seed(seed: int, slo: Slo, version: str) -> Past:
    """
    Thirty seeded days that end now, as *slo* counts them, with their incidents; needs no lab.

    Raises:
        ConfigInvalid: the objective counts nothing that the seeded past has.
    """
    import pandas as pd  # noqa: PLC0415

    from labkit.lab_past import past_of, seeded_counts  # noqa: PLC0415
    from labkit.slo import windows  # noqa: PLC0415
    from labkit.slo.backtest import range_semantics  # noqa: PLC0415

    end = utc_now().replace(microsecond=0)
    past = past_of(seed, end, 30)
    counts = seeded_counts(past, slo.sli)
    if counts is None:
        raise ConfigInvalid(
            f"The seeded past of {slo.name}",
            problems=["its indicator is no sum over one metric of the shop"],
            how="Start a lab with `labkit up` and leave --seed out, or give a file with --counts.",
        )
    frame = pd.DataFrame(past.labels()["incidents"])
    for name in ("start", "end"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    period_s = windows.period_s(slo.window, end)
    incidents = visible_incidents(frame, slo)
    return Past(slo.name, counts, incidents, slo.objective, period_s, range_semantics(version))


def past_from_file(
    counts: Path, incidents: Path | None, endpoint: str | None, objective: Fraction, version: str
) -> Past:
    """
    A history from CSV files, as data/README.md describes them.

    Raises:
        ConfigInvalid: a file lacks columns, holds what is no number or time, or nothing is left of it.
        InvalidValue: its counts cannot be.
        FileNotFoundError: there is no such file.
    """
    from labkit.slo.backtest import range_semantics  # noqa: PLC0415
    from labkit.slo.counts import checked  # noqa: PLC0415

    table = _read(counts, ["time", "total"])
    if endpoint is not None and "endpoint" in table:
        known = sorted(table["endpoint"].unique())
        table = table[table["endpoint"] == endpoint]
        if table.empty:
            raise ConfigInvalid(str(counts), problems=[f"no row of endpoint {endpoint!r}"], how=f"It has: {known}.")
    if "good" not in table and "failed" not in table:
        raise ConfigInvalid(str(counts), problems=["neither a column `good` nor a column `failed`"])
    table["good"] = table["good"] if "good" in table else table["total"] - table["failed"]
    frame = checked(table.groupby("time")[["good", "total"]].sum(min_count=1))
    return Past(counts.name, frame, _incidents(incidents), objective, 30 * 86_400, range_semantics(version))


def visible_incidents(incidents: pd.DataFrame, slo: Slo) -> pd.DataFrame:
    """Those of *incidents* (`kind`, `endpoints`, …) that the indicator of *slo* can show."""
    from labkit.slo._selectors import counted  # noqa: PLC0415
    from labkit.slo.model import LatencySli  # noqa: PLC0415

    kind = "latency" if isinstance(slo.sli, LatencySli) else "availability"
    found = incidents[incidents["kind"] == kind]
    selectors = counted(slo.sli)
    if selectors is None:
        return found
    matchers = [matcher for matcher in selectors["total"].matchers if matcher.label in {"endpoint", "method"}]

    def touches(operations: list[str]) -> bool:
        pairs = [dict(zip(("method", "endpoint"), one.split(" ", 1), strict=True)) for one in operations]
        return any(all(matcher.accepts(labels) for matcher in matchers) for labels in pairs)

    return found[found["endpoints"].map(touches).astype(bool)]


def _incidents(path: Path | None) -> pd.DataFrame | None:
    if path is None:
        return None
    import pandas as pd  # noqa: PLC0415

    found = _read(path, ["start", "end"])
    for name in ("start", "end"):
        found[name] = pd.to_datetime(found[name], utc=True)
    return found[found["kind"] == "availability"] if "kind" in found else found


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    try:
        table = pd.read_csv(path)
        missing = [name for name in columns if name not in table]
        if missing:
            raise ConfigInvalid(
                str(path),
                problems=[f"no column `{name}`" for name in missing],
                how=f"It has: {', '.join(table.columns)}.",
            )
        if "time" in table:
            table["time"] = pd.to_datetime(table["time"], utc=True)
        numbers: list[Any] = [name for name in ("good", "total", "failed") if name in table]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, ConfigInvalid):
            raise
        raise ConfigInvalid(str(path), problems=[f"not a table of times and counts: {error}"]) from error
    return table
