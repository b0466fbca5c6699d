"""
The past of the lab: what happened in the seeded month, what an objective counted in it, what rules would have recorded.

The seeded month is a function of its seed, so its counts need no question to Prometheus. What came after it does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from labkit import _http
from labkit.shop.history import History, build_history
from labkit.slo._selectors import Selector, counted
from labkit.slo.model import Sli, Slo

if TYPE_CHECKING:
    import pandas as pd

    from labkit.slo.source import PrometheusSource

__all__ = ["MINUTE_S", "PastLabels", "counts_of", "missing", "past_of", "seeded_counts", "write"]

MINUTE_S = 60
# More instants than this are refused by Prometheus in one answer.
_MOST_INSTANTS = 11_000
_HOW_UP = "Is the lab up? `labkit status` says it."


class PastLabels:
    """What happened in the thirty seeded days, as frames: `incidents` and `deploys`."""

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self.labels = labels

    @cached_property
    def incidents(self) -> pd.DataFrame:
        """One row per incident: `id, title, kind, start, end, …, budget_share`; times are UTC."""
        return _frame(self.labels["incidents"])

    @cached_property
    def deploys(self) -> pd.DataFrame:
        """One row per deploy: `time, service, version, …`; times are UTC."""
        return _frame(self.labels["deploys"])


@lru_cache(maxsize=4)
def past_of(seed: int, end: datetime, days: int) -> History:
    """The seeded past that ends at *end*; built once."""
    return build_history(seed=seed, end=end, days=days)


def counts_of(slo: Slo, past: History, source: PrometheusSource, now: datetime) -> pd.DataFrame:
    """
    Good and total events per minute, from the start of the seeded past up to *now*.

    The seeded part is exact where the indicator is a sum over one metric of the past; otherwise, and after the past's
    end, Prometheus is asked. Minutes of which it knows nothing (the lab was off) are nan.

    Raises:
        NoData, QueryRejected, QueryError, RequestFailed: Prometheus has no counts for the indicator.
    """
    import pandas as pd  # noqa: PLC0415  (half a second that a start of the lab does not need)

    seeded = seeded_counts(past, slo.sli)
    start = past.start if seeded is None else past.end
    if seeded is not None and (now - start).total_seconds() < MINUTE_S:
        return seeded
    asked = source.counts(slo, start, now, MINUTE_S)
    if seeded is None:
        return asked
    found = pd.concat([seeded, asked])
    found.attrs["step_s"] = MINUTE_S
    return found


def seeded_counts(past: History, sli: Sli) -> pd.DataFrame | None:
    """
    What *sli* counts in the seeded past, per minute; None if it is no sum over series of one metric there.

    Whole numbers, except in the past's last two hours: there the minutes lie between its samples, and what was counted
    between two of them is spread evenly.
    """
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    selectors = counted(sli)
    if selectors is None:
        return None
    found = {name: _counter(past, selector) for name, selector in selectors.items()}
    if not found["total"].any():
        return None
    index = pd.date_range(end=past.end, periods=past.days * 1440 + 1, freq=f"{MINUTE_S}s", unit="ns", name="time")
    at_ms = index.asi8 // 1_000_000
    steps = {name: np.diff(np.interp(at_ms, past.times_ms, counter)) for name, counter in found.items()}
    bad = steps["bad"] if "bad" in steps else np.maximum(steps["total"] - steps["good"], 0)
    frame = pd.DataFrame({"good": np.maximum(steps["total"] - bad, 0), "total": steps["total"]}, index=index[1:])
    frame.attrs["step_s"] = MINUTE_S
    return frame


def _counter(past: History, selector: Selector) -> Any:
    """The sum of the past's series that *selector* counts; zeros where it counts none."""
    import numpy as np  # noqa: PLC0415

    rows = [row for labels, row in zip(past.series, past.values, strict=True) if selector.accepts(labels)]
    return np.sum(rows, axis=0) if rows else np.zeros(len(past.times_ms))


def missing(prometheus_url: str, recorded: pd.DataFrame) -> pd.DataFrame:
    """
    The values of *recorded* that Prometheus has no sample for within five minutes before, the others nan.

    Args:
        prometheus_url: as in `http://127.0.0.1:9090`.
        recorded: from `labkit.slo.recorded.series`.

    Raises:
        RequestFailed: Prometheus does not answer.
    """
    import numpy as np  # noqa: PLC0415

    names = [str(name) for name in recorded]
    own = ",".join(f"{key}={json.dumps(value)}" for key, value in recorded.attrs["labels"].items())
    selector = f'{{{own},__name__=~"{"|".join(names)}"}}'
    # First only how many there are at each instant: mostly all or none of them, and then nothing more need be asked.
    number = sum(_there(prometheus_url, f"count({selector})", recorded.index).values(), np.zeros(len(recorded)))
    there = np.tile((number == len(names))[:, None], len(names))
    partly = np.flatnonzero((number > 0) & (number < len(names)))
    if len(partly):
        rows = slice(partly[0], partly[-1] + 1)
        found = _there(prometheus_url, selector, recorded.index[rows])
        for column, name in enumerate(names):
            there[rows, column] |= name in found and ~np.isnan(found[name])
    result = recorded.mask(there)
    result.attrs = dict(recorded.attrs)
    return result


def _there(prometheus_url: str, query: str, index: Any) -> dict[str, Any]:
    """The values of *query* at the instants of *index*, nan where there is none, by the name of the series."""
    import numpy as np  # noqa: PLC0415

    times_s = index.as_unit("ns").asi8 / 1e9
    step_s = times_s[1] - times_s[0] if len(times_s) > 1 else MINUTE_S
    found: dict[str, Any] = {}
    for first in range(0, len(times_s), _MOST_INSTANTS):
        part = times_s[first : first + _MOST_INSTANTS]
        span = {"start": f"{part[0]:.3f}", "end": f"{part[-1]:.3f}", "step": f"{step_s:g}"}
        answer = _http.get_json(
            f"{prometheus_url}/api/v1/query_range", params={"query": query, **span}, timeout_s=60, how=_HOW_UP
        )
        for series in answer["data"]["result"]:
            values = found.setdefault(series["metric"].get("__name__", ""), np.full(len(times_s), np.nan))
            when_s, numbers = np.array(series["values"], dtype=float).T
            values[first + np.rint((when_s - part[0]) / step_s).astype(int)] = numbers
    return found


def write(prometheus_url: str, frames: Sequence[pd.DataFrame], *, how: str) -> int:
    """
    Remote-write the columns of *frames*, each a series with the labels of its frame; nan is no sample.

    Returns:
        How many samples were sent.

    Raises:
        RequestFailed: Prometheus refused; *how* ends the message.
    """
    import numpy as np  # noqa: PLC0415

    from labkit.shop import _remote_write as remote  # noqa: PLC0415
    from labkit.shop.history_write import Samples, bodies  # noqa: PLC0415

    sent = 0
    for frame in frames:
        times_ms = frame.index.as_unit("ns").asi8 // 1_000_000  # type: ignore[attr-defined]
        series = [{"__name__": str(name), **frame.attrs["labels"]} for name in frame.columns]
        values = frame.to_numpy(dtype=np.float64).T
        for body, _ in bodies(Samples(series, times_ms, values)):
            if len(body) > 1:
                remote.push(prometheus_url, body, how=how)
        sent += int(np.isfinite(values).sum())
    return sent


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    frame = pd.DataFrame(rows)
    for column in ("start", "end", "time"):
        if column in frame:
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame
