"""
What the recording rules of an objective would have recorded, from counts: rules have no past, and a month needs one.

    series(counts, slo)       a frame with a column per recorded series

Exact: ratios of sums of counts, where a rule has Prometheus' extrapolation. How far the two are apart is in
docs/slo-rules.md, and a test on a live server holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.errors import InvalidValue
from labkit.slo.counts import step_s, times_ns
from labkit.slo.methods import units
from labkit.slo.model import Policy, Slo
from labkit.slo.rules import plan, ratio_name

__all__ = ["STEP_S", "series"]

STEP_S = 300
"""
Distance between recorded instants, in seconds.

Prometheus looks five minutes back for a sample, so the past has a value at every instant, and the ratios over five
minutes, side by side, leave no event out.
"""

_Floats = npt.NDArray[np.float64]
_NS = 1_000_000_000


def series(
    counts: pd.DataFrame, slo: Slo, policies: Mapping[str, Policy] | None = None, *, every_s: int = STEP_S
) -> pd.DataFrame:
    """
    The series that the rules of *slo* record, at regular instants.

    Args:
        counts: good and total events per step, as `labkit.slo.counts.checked` takes them.
        slo: the objective.
        policies: of one's own by name.
        every_s: distance of the instants in seconds, a multiple of the counts' step; the last is the last of *counts*.

    Returns:
        Index `time`, UTC; a float column per recorded series, by its name; `attrs["labels"]` are the labels of all.
        A window that reaches beyond the first count holds what there is, as in a server that is younger than it. nan
        where a window holds no event: unknown.

    Raises:
        InvalidValue: *every_s* does not fit, or the counts cannot be.
        UnknownName: the objective names a policy that there is not.

    >>> from fractions import Fraction
    >>> from labkit.slo.model import EventSli, Rolling
    >>> slo = Slo("a", "shop", Fraction("0.999"), Rolling(2_592_000), EventSli("a[$window]", good="b[$window]"))
    >>> times = pd.date_range("2026-03-01T00:01Z", periods=60, freq="min", name="time")
    >>> found = series(pd.DataFrame({"good": 99, "total": 100}, index=times), slo)
    >>> round(float(found["slo:sli_error:ratio_rate1h"].iloc[-1]), 9), len(found)
    (0.01, 12)
    """
    made = plan(slo, policies)
    counted = units(counts, slo.budgeting)
    step = step_s(counted)
    if every_s <= 0 or every_s % step:
        raise InvalidValue("every_s", expected=f"a multiple of the counts' step, which is {step} s", got=every_s)
    known = counted[["good", "total"]].fillna(0).to_numpy()
    # A leading row of zeros: the sum up to a step less the sum up to the step before the window.
    sums = np.concatenate([np.zeros((1, 2), known.dtype), np.cumsum(known, axis=0)])
    last = np.arange(len(known), 0, -every_s // step)[::-1]
    columns: dict[str, Any] = {}
    for window_s in (*made.windows_s, *made.period_windows_s):
        columns[ratio_name(window_s)] = _bad_share(sums, last, max(1, round(window_s / step)))
    columns["slo:objective:ratio"] = float(slo.objective)
    columns["slo:error_budget:ratio"] = float(made.budget)
    if made.period_windows_s:
        spent = columns[ratio_name(made.period_s)] / float(made.budget)
        columns["slo:period_error_budget_remaining:ratio"] = 1 - spent
    times = pd.DatetimeIndex(times_ns(counted)[last - 1], tz="UTC", name="time")
    frame = pd.DataFrame(columns, index=times)
    frame.attrs["labels"] = made.labels
    return frame


def _bad_share(sums: _Floats, last: npt.NDArray[np.int64], steps: int) -> _Floats:
    """Bad over total of the *steps* steps that end with each step of *last*; nan without events."""
    good, total = (sums[last] - sums[np.maximum(last - steps, 0)]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        share: _Floats = np.where(total > 0, (total - good) / total, np.nan)
    return share
