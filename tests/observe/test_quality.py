"""Alert quality: the arithmetic by property, the measures on the live month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import isnan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.lab import Lab
from labkit.observe.quality import grouped, hold, intervals, measures, score

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
flags = st.lists(st.booleans(), max_size=60)
spans = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=12)


def frame(pairs: list[tuple[int, int]]) -> pd.DataFrame:
    """Intervals from (first minute, length in minutes)."""
    starts = pd.to_datetime([BEGIN + timedelta(minutes=a) for a, _ in pairs], utc=True)
    return pd.DataFrame({"start": starts, "end": starts + pd.to_timedelta([n for _, n in pairs], unit="min")})


def series(values: list[bool]) -> pd.Series:
    """Flags on a grid of minutes."""
    return pd.Series(values, pd.date_range(BEGIN, periods=len(values), freq="60s"), dtype=bool)


@given(flags)
@settings(max_examples=30, derandomize=True)
def test_intervals_cover_exactly_the_true_instants(values: list[bool]) -> None:
    """Together they last as long as there are true instants, and they never touch."""
    found = intervals(series(values), 60)

    assert (found["end"] - found["start"]).sum() == timedelta(seconds=60 * sum(values))
    assert (found["start"].iloc[1:].array > found["end"].iloc[:-1].array).all()


@given(flags, st.integers(0, 5))
@settings(max_examples=30, derandomize=True)
def test_a_longer_for_only_removes(values: list[bool], steps: int) -> None:
    """With `for` an alert fires only where its condition holds; a longer one fires nowhere else; 0 changes nothing."""
    active = np.array(values, dtype=bool)
    shorter, longer = hold(active, steps * 60, 60), hold(active, (steps + 1) * 60, 60)

    assert (longer <= shorter).all()
    assert (shorter <= active).all()
    assert (hold(active, 0, 60) == active).all()


@given(spans, st.integers(0, 3600))
@settings(max_examples=30, derandomize=True)
def test_grouping_loses_no_firing_time_and_no_gap_is_small(pairs: list[tuple[int, int]], within_s: int) -> None:
    """Every page lies in one group, groups are further apart than the gap, and grouping again changes nothing."""
    pages = frame(pairs)

    groups = grouped(pages, within_s)

    inside = [((groups["start"] <= p.start) & (groups["end"] >= p.end)).sum() for p in pages.itertuples()]
    assert set(inside) <= {1}
    gaps = groups["start"].iloc[1:].array - groups["end"].iloc[:-1].array
    assert all(gap > timedelta(seconds=within_s) for gap in gaps)
    assert grouped(groups, within_s).equals(groups)


@given(spans, spans)
@settings(max_examples=30, derandomize=True)
def test_scores_are_shares_and_grouping_costs_no_recall(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    """Precision and recall are fractions or unknown; fewer, merged pages still meet every incident they met."""
    pages, incidents = frame(a), frame(b)
    plain, merged = score(pages, incidents, DAY), score(grouped(pages), incidents, DAY)

    for share in (plain.precision, plain.recall):
        assert isnan(share) or 0 <= share <= 1
    assert merged.pages <= plain.pages
    assert merged.duplicates <= plain.duplicates
    assert isnan(plain.recall) or merged.recall >= plain.recall


def test_a_week_with_two_pages_for_one_incident_and_one_for_none() -> None:
    """Worked by hand: three pages, two of them right, one a duplicate, one incident of two unnoticed."""
    pages, incidents = frame([(10, 5), (20, 5), (300, 5)]), frame([(8, 30), (400, 10)])

    found = score(pages, incidents, timedelta(days=7))

    assert (found.pages, found.per_week, found.duplicates, found.recall) == (3, 3.0, 1, 0.5)
    assert found.precision == pytest.approx(2 / 3)


def test_without_pages_precision_is_unknown_and_without_time_nothing_is() -> None:
    """No pages: nan, not 0 and not 1.  A span of no length is refused."""
    nothing = score(frame([]), frame([(1, 1)]), DAY)

    assert isnan(nothing.precision)
    assert nothing.recall == 0
    assert isnan(score(frame([]), frame([]), DAY).recall)
    with pytest.raises(InvalidValue, match="above 0"):
        score(frame([]), frame([]), timedelta(0))
    with pytest.raises(InvalidValue, match="step above 0"):
        hold(np.array([True]), 0, 0)


@pytest.mark.live
def test_each_correction_cuts_the_noise_of_the_seeded_month(lab: Lab) -> None:
    """The brief's rule pages many times a day, mostly for nothing; corrected it pages only for incidents."""
    end = lab.now() - timedelta(minutes=15)

    found = measures(lab.prometheus, lab.history.incidents, end - timedelta(days=29), end)

    assert found["pages"].is_monotonic_decreasing
    assert found["per_week"].iloc[0] > 50
    assert found["precision"].iloc[0] < 0.5
    assert found["precision"].iloc[-1] == 1
    assert found["duplicates"].iloc[-1] <= found["duplicates"].iloc[0]
    assert found["recall"].iloc[-1] > 0
