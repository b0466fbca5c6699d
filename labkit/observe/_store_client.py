"""What the clients of the embedded store share: one question, its columns, instants and intervals."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from labkit._http import get_json
from labkit._time import as_utc, utc_now

__all__ = ["ask", "interval", "nanoseconds", "nearest", "to_time", "with_fields"]

_HOW = "Is the store running? See `labkit status`."
_ONE_HOUR = timedelta(hours=1)


def ask(url: str, name: str, timeout_s: float, **given: Any) -> dict[str, list[Any]]:
    """The columns that answer question *name*; parameters that are None or "" are left out."""
    params = {key: value for key, value in given.items() if value not in {None, ""}}
    answer: dict[str, list[Any]] = get_json(f"{url}/api/{name}", timeout_s=timeout_s, params=params, how=_HOW)
    return answer


def interval(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    """
    The interval meant: up to now, and an hour long, where nothing is said.

    Raises:
        ValueError: an instant has no time zone, or the end is not after the start.
    """
    # A second more than now: a clock of another service may be ahead by a little.
    last = utc_now() + timedelta(seconds=1) if end is None else as_utc(end)
    first = last - _ONE_HOUR if start is None else as_utc(start)
    if last <= first:
        raise ValueError(f"the interval ends ({last.isoformat()}) before it starts ({first.isoformat()})")
    return first, last


def nanoseconds(instant: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond."""
    return int(pd.Timestamp(instant).as_unit("ns").value)


def to_time(values: Sequence[int]) -> pd.DatetimeIndex:
    """Instants from nanoseconds since 1970."""
    return pd.DatetimeIndex(pd.to_datetime(list(values), unit="ns", utc=True))


def with_fields(frame: pd.DataFrame, encoded: Sequence[str]) -> pd.DataFrame:
    """*frame* with one more column per field of the JSON objects; one that has a column's name gets `field.` before."""
    rows = [json.loads(text) for text in encoded]
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        values = [row.get(name) for row in rows]
        # With a gap, pandas would turn whole numbers into fractions.
        kind = object if None in values else None
        frame[f"field.{name}" if name in frame else name] = pd.Series(values, dtype=kind, index=frame.index)
    return frame


def nearest(what: str, wanted: str, there: Sequence[str]) -> str:
    """One sentence: which of *there* is nearest to *wanted*, or all when none is near; "" when it is one of them."""
    if wanted in there:
        return ""
    if not there:
        return f"There is no {what} with data at all."
    close = difflib.get_close_matches(wanted, there, n=1, cutoff=0.5)
    if close:
        return f'The nearest {what} with data is "{close[0]}".'
    return f"No {what} is near {wanted!r}; with data: {', '.join(sorted(there)[:8])}."
