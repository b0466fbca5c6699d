"""What a frame of counts must be, how it comes out of counters, and what its sums say about gaps and edges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.slo import counts
from labkit.slo.counts import checked, frame, from_counters, increases, sums
from tests.slo.drawn import START, facts, frames

NAN = float("nan")


def minutes(good: list[float], total: list[float]) -> pd.DataFrame:
    """A frame of minutes from midnight on."""
    return frame(good, total, end=START + timedelta(minutes=len(good)), step_s=60)


def test_all_is_sorted_and_true() -> None:
    """`__all__` names what the module has."""
    assert sorted(counts.__all__) == counts.__all__
    assert all(hasattr(counts, name) for name in counts.__all__)


def test_the_pure_parts_import_no_network_and_no_plotting() -> None:
    """Nor any other room: the arithmetic is usable wherever pandas is."""
    names = ("approximations", "arithmetic", "confidence", "counts", "explain", "methods", "tracking")
    heavy = ("matplotlib", "requests", "http.client", "labkit.shop", "labkit.stack", "labkit.observe")
    modules = ", ".join(f"labkit.slo.{name}" for name in names)
    code = f"import sys, {modules}; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def _changed(change: Callable[[pd.DataFrame], object]) -> pd.DataFrame:
    made = minutes([9, 9, 9], [10, 10, 10]).astype(float)
    result = change(made)
    return result if isinstance(result, pd.DataFrame) else made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda made: made.drop(columns="good"),
            r"counts must be a frame with the columns good and total.*\['total'\]",
        ),
        (lambda made: made.iloc[:0], r"at least one step \(no steps is no data, which is not zero events\)"),
        (
            lambda made: made.tz_localize(None),
            r"times with a time zone.*tz_localize\(\"UTC\"\).*DatetimeIndex from 2026",
        ),
        (lambda made: made.reset_index(drop=True), "times with a time zone.*RangeIndex from 0"),
        (lambda made: made.iloc[::-1], "every 60 s, ascending, complete.*00:02:00.* after .*00:03:00"),
        (lambda made: made.drop(made.index[1]), r"every 60 s.*asfreq\(\"60s\"\).*00:03:00.* after .*00:01:00"),
        (lambda made: made.attrs.update(step_s=0), "whole seconds above 0, got 0"),
        (lambda made: made.attrs.update(step_s=30), "every 30 s"),
        (
            lambda made: made.__setitem__("good", [9, -1, 9]),
            "0 or more .a counter that fell was reset.*good -1, total 10",
        ),
        (
            lambda made: made.__setitem__("good", [9, 11, 9]),
            "good at most total.*same events.*good 11, total 10 at .*00:02",
        ),
        (lambda made: made.__setitem__("good", [9, NAN, 9]), "both known or both nan.*good nan, total 10"),
        (lambda made: made.__setitem__("total", [10, np.inf, 10]), "finite in every step"),
    ],
)
def test_frames_that_are_no_counts_are_refused(change: Callable[[pd.DataFrame], object], said: str) -> None:
    """Missing columns, no rows, naive or unordered times, holes, negative counts, good over total; each with where."""
    with pytest.raises(InvalidValue, match=said):
        checked(_changed(change))


def test_times_of_another_zone_become_utc() -> None:
    """The instants stay the same, and the argument is not changed."""
    given_ = minutes([9], [10]).tz_convert("Europe/Berlin")
    found = checked(given_)
    assert str(found.index.tz) == "UTC"  # type: ignore[attr-defined]
    assert found.index[0] == given_.index[0]
    assert str(given_.index.tz) == "Europe/Berlin"  # type: ignore[attr-defined]


def test_the_step_is_read_off_when_nobody_says_it() -> None:
    """Frames of other programs have no attributes; one row alone has no step."""
    made = minutes([9, 9], [10, 10])
    made.attrs = {}
    assert counts.step_s(checked(made)) == 60
    with pytest.raises(InvalidValue, match=r"step_s.*whole seconds above 0, got None"):
        checked(made.iloc[:1])


def test_counters_lose_what_was_counted_before_a_restart() -> None:
    """A fall is a restart at 0: the new value is the growth, nothing is negative."""
    assert np.nan_to_num(increases([5, 8, 2, 2, 10]), nan=-1).tolist() == [-1, 3, 2, 0, 8]


def test_each_series_has_its_own_resets() -> None:
    """Two instances, one of which restarts: adding first would see a fall of the sum and count it all again."""
    index = pd.date_range(START, periods=3, freq="60s")
    total = pd.DataFrame({"a": [100.0, 110, 120], "b": [50.0, 5, 10]}, index=index)
    good = pd.DataFrame({"a": [100.0, 109, 119], "b": [50.0, 5, 10]}, index=index)
    found = from_counters(good, total)
    assert found["total"].tolist() == [15, 15]
    assert found["good"].tolist() == [14, 15]


def test_a_missing_scrape_makes_its_two_steps_unknown() -> None:
    """Neither the step before nor the one after is known; what the counter grew meanwhile is in neither."""
    index = pd.date_range(START, periods=5, freq="60s")
    total = pd.DataFrame({"a": [0.0, 10, NAN, 30, 40]}, index=index)
    found = from_counters(total, total)
    assert found["total"].isna().tolist() == [False, True, True, False]
    assert sums(found, START, START + timedelta(minutes=4)).coverage == Fraction(1, 2)


def test_a_scrape_that_is_missing_in_one_is_missing_in_both() -> None:
    """Good events without their total, or the other way round, are no count of either."""
    index = pd.date_range(START, periods=4, freq="60s")
    total = pd.DataFrame({"a": [0.0, 10, NAN, 30]}, index=index)
    good = pd.DataFrame({"a": [0.0, 9, 18, 27]}, index=index)
    for found in (from_counters(good, total), from_counters(good.where(total.notna()), good)):
        assert found.isna().to_numpy().tolist() == [[False, False], [True, True], [True, True]]


def test_a_series_that_appears_is_no_gap() -> None:
    """The first failure creates its series: before that, the others are known."""
    index = pd.date_range(START, periods=3, freq="60s")
    total = pd.DataFrame({"ok": [0.0, 10, 20], "failed": [NAN, NAN, 2]}, index=index)
    found = from_counters(total[["ok"]], total)
    assert found["total"].tolist() == [10, 10]


@pytest.mark.parametrize("samples", [[-1.0, 2], [np.inf, 2]])
def test_no_counter_is_negative(samples: list[float]) -> None:
    """Nor infinite."""
    with pytest.raises(InvalidValue, match="a sample of a counter must be finite and 0 or more"):
        increases(samples)


def test_counters_on_two_grids_are_refused() -> None:
    """Counts of one minute need samples of one minute."""
    one = pd.DataFrame({"a": [1.0, 2]}, index=pd.date_range(START, periods=2, freq="60s"))
    with pytest.raises(InvalidValue, match="samples on one grid of times, 2 or more"):
        from_counters(one, one.shift(freq="1s"))


@facts
@given(frames(gaps=True), st.integers(1, 40), st.integers(1, 40))
def test_splitting_a_window_changes_nothing(made: pd.DataFrame, first: int, more: int) -> None:
    """Two adjacent stretches have the sums of the one that they make, known time included."""
    start, cut, end = (START + timedelta(minutes=at) for at in (0, first, first + more))
    whole = sums(made, start, end)
    parts = [sums(made, start, cut), sums(made, cut, end)]
    for name in ("good", "bad", "total", "known_s", "length_s"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)


def test_a_window_beyond_the_data_says_so() -> None:
    """Half of it was counted; the sums are of that half."""
    found = sums(minutes([9, 9], [10, 10]), START, START + timedelta(minutes=4))
    assert (found.total, found.coverage) == (20, Fraction(1, 2))


def test_sums_of_counts_that_are_not_whole_are_exact() -> None:
    """What increase() returns adds up as the decimals that it is written as."""
    found = sums(minutes([0.1] * 10, [0.3] * 10), START, START + timedelta(minutes=10))
    assert (found.good, found.total) == (1, 3)


def test_windows_end_after_they_start_and_have_a_time_zone() -> None:
    """An empty or naive stretch is refused."""
    made = minutes([9], [10])
    with pytest.raises(InvalidValue, match="end must be after start, which is 2026-03-01T00:00:00"):
        sums(made, START, START)
    with pytest.raises(ValueError, match="has no time zone; write it as UTC"):
        sums(made, datetime(2026, 3, 1), START + timedelta(hours=1))  # noqa: DTZ001


def test_a_frame_needs_two_sequences_of_one_length() -> None:
    """Nothing is made of nothing."""
    for good, total in (([], []), ([1], [1, 2])):
        with pytest.raises(InvalidValue, match="two sequences of one length, 1 or more"):
            frame(good, total, end=datetime(2026, 3, 1, tzinfo=UTC), step_s=60)
