"""
The counts of an objective as parts of a query, and what must be true of the answers before anyone divides them.

A division in PromQL drops what has no partner with the same labels, without a word, and a rule built on it never
fires.  So the parts are asked for apart, and labels that do not match are an error here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from labkit.errors import InvalidValue, QueryError
from labkit.slo._ask import Series
from labkit.slo.model import WINDOW, EventSli, LatencySli, Slo

__all__ = ["ImpossibleCounts", "LabelsDiffer", "SeveralSeries", "good_events", "in_window", "parts_of", "single"]

# Sums of floats differ in the last digits depending on their order; more than this is another kind of difference.
_ROUNDING = 1e-9

Floats = npt.NDArray[np.float64]
_Labels = tuple[tuple[str, str], ...]


class LabelsDiffer(QueryError):
    """The parts of an indicator have different labels, so a division of one by the other has no value."""


class SeveralSeries(QueryError):
    """A part of an indicator has more than one series where one value is needed."""


class ImpossibleCounts(QueryError):
    """A part of an indicator is negative, or larger than the whole."""


def in_window(seconds: float) -> str:
    """
    A length of time as PromQL writes it.

    >>> in_window(3600), in_window(0.5)
    ('3600s', '500ms')
    """
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def parts_of(slo: Slo, window_s: float) -> dict[str, str]:
    """
    What to ask for the counts of *slo* in a window that ends now: `total`, and `good` or `bad`.

    With a budget of slices of time, slices are counted: `good` is the number of good ones, or the sum of their ratios.
    Slices without events count neither way.

    >>> jobs = EventSli("sum(increase(jobs_total[$window]))", bad="sum(increase(failed_total[$window]))")
    >>> from fractions import Fraction
    >>> from labkit.slo.model import Rolling
    >>> parts_of(Slo("jobs", "worker", Fraction(99, 100), Rolling(86_400), jobs), 3600)["bad"]
    'sum(increase(failed_total[3600s]))'
    """
    sli, window = slo.sli, in_window(window_s)
    if slo.budgeting.method != "occurrences":
        return _slices(slo, window_s)
    if isinstance(sli, EventSli):
        name, query = ("bad", sli.bad) if sli.bad is not None else ("good", sli.good)
        if query is None:
            raise InvalidValue("an event SLI", expected="one that has good or bad", got=sli)
        return {"total": sli.total_query(window), name: query.replace(WINDOW, window)}
    return {"total": sli.total_query(window), "good": sli.good_query(window)}


def _slices(slo: Slo, window_s: float) -> dict[str, str]:
    slice_s = slo.budgeting.slice_s
    if window_s < slice_s:
        raise InvalidValue("window", expected=f"at least one slice of {slice_s} s", got=f"{window_s:g} s")
    # Both ends of a range belong to it in Prometheus 2, so a millisecond less keeps the slice before it out.
    steps = f"[{round(window_s * 1000) - 1}ms:{slice_s}s]"
    # NaN is what 0 / 0 is, a slice without events: no comparison holds for it, so it drops out.
    ratio = f"(1 - ({slo.sli.error_ratio(in_window(slice_s))}))"
    held = f"({ratio} >= -Inf)"
    if slo.budgeting.method == "timeslices":
        target = slo.budgeting.slice_target
        if target is None:
            raise InvalidValue("slice_target", expected="the fraction of good events that makes a slice good", got=None)
        good = f"({held} >= bool {float(target)!r})"
    else:
        good = held
    return {"total": f"count_over_time({held}{steps})", "good": f"sum_over_time({good}{steps})"}


def single(slo: Slo, found: Mapping[str, Sequence[Series]], queries: Mapping[str, str]) -> dict[str, Series | None]:
    """
    The one series of each part; None where a part has none.

    Raises:
        LabelsDiffer: a part has labels that the total does not have, or the other way round.
        SeveralSeries: the labels agree, and there are several series.
    """
    labels = {name: {tuple(sorted(one.labels.items())) for one in series} for name, series in found.items()}
    for name, own in labels.items():
        if own and labels["total"] and own != labels["total"]:
            raise LabelsDiffer(
                f"The indicator of {slo.name} divides `{name}` by `total`, which needs the same labels on both. "
                f"{_difference(name, own, labels['total'])} Prometheus drops what does not match, without a word: the "
                f"ratio is wrong or empty, and a rule built on it stays silent.\n"
                f"  {name}:  {queries[name]}\n  total: {queries['total']}\n"
                f"Aggregate both in the same way, as in `sum(…)` around each."
            )
    for name, own in labels.items():
        if len(own) > 1:
            raise SeveralSeries(
                f"`{name}` of {slo.name} was asked for one value and has {len(own)} series: {_shown(own)}.\n"
                f"  {queries[name]}\n"
                f"Write `sum(…)` around it, or one objective for each of them."
            )
    return {name: series[0] if series else None for name, series in found.items()}


def good_events(slo: Slo, part: str, values: Floats, total: Floats, queries: Mapping[str, str]) -> Floats:
    """
    Good events, given the totals and the part of them that was counted ("good" or "bad").

    Where there is a total and an event part has no value, that part is 0: a counter with a status label has no series
    before the first event of its kind.  A bucket of a histogram exists as soon as the histogram does, so there it is
    an error.

    Args:
        slo: whose indicator it is.
        part: which part *values* are.
        values: counts; nan where there is none.
        total: counts of the same shape; nan where there is none.
        queries: as asked, for the message.

    Returns:
        Counts from 0 to the total; nan where there is no total.

    Raises:
        QueryError: a part that must exist wherever the total does has no value at all.
        ImpossibleCounts: a part is negative, or larger than the total.
    """
    known = np.isfinite(total)
    missing = known & ~np.isfinite(values)
    may_be_missing = isinstance(slo.sli, EventSli) and slo.budgeting.method == "occurrences"
    if missing.any() and not may_be_missing and not np.isfinite(values).any():
        raise QueryError(_without_part(slo, part, queries))
    # Beside a total, a bucket that begins later is empty until then; nothing tells that apart from a wrong bound.
    filled = np.where(missing, 0.0, values) if may_be_missing else values
    with np.errstate(invalid="ignore"):
        wrong = known & ((filled < 0) | (total < 0) | (filled > total * (1 + _ROUNDING) + _ROUNDING))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ImpossibleCounts(
            f"The indicator of {slo.name} counted {filled.flat[at]:.10g} `{part}` events of {total.flat[at]:.10g}: a "
            f"part is from 0 up to the whole.\n  {part}:  {queries[part]}\n  total: {queries['total']}\n"
            f"Let both count the same events over the same window; a gauge is no count."
        )
    good: Floats = np.clip(filled if part == "good" else total - filled, 0, total)
    return good


def _without_part(slo: Slo, part: str, queries: Mapping[str, str]) -> str:
    advice = "See what its pieces return, one by one."
    if isinstance(slo.sli, LatencySli):
        advice = (
            f"{slo.sli.bound_s:g} s must be the bound of a bucket of {slo.sli.histogram}: `labkit slo validate --live` "
            f"lists its bounds."
        )
    return f"`{part}` of {slo.name} has no series, although `total` has:\n  {queries[part]}\n{advice}"


def _difference(name: str, own: set[_Labels], total: set[_Labels]) -> str:
    names, of_total = ({label for one in labels for label, _ in one} for labels in (own, total))
    if names != of_total:
        return f"`{name}` has {_named(names)}, `total` has {_named(of_total)}."
    return f"Of {len(own | total)} combinations of {_named(names)}, these are only on one side: {_shown(own ^ total)}."


def _named(labels: set[str]) -> str:
    if not labels:
        return "no label"
    return f"the label{'s' * (len(labels) > 1)} {', '.join(f'`{label}`' for label in sorted(labels))}"


def _shown(labels: set[_Labels]) -> str:
    texts = sorted("{" + ", ".join(f'{name}="{value}"' for name, value in one) + "}" for one in labels)
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
