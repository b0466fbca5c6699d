"""What rules would have recorded, from counts: exact in every window, unknown where nothing is known."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue
from labkit.lab_past import seeded_counts
from labkit.settings import files_root
from labkit.shop.history import History
from labkit.slo import rules
from labkit.slo.counts import frame
from labkit.slo.model import Budgeting, Calendar, EventSli, Rolling, Slo, ThroughputSli
from labkit.slo.recorded import series
from labkit.slo.spec import load_specs
from tests.slo.conftest import END

SHOP = {slo.name: slo for slo in load_specs(files_root() / "infra" / "slo" / "shop.yaml").slos}
VISIT = SHOP["visit-availability"]


def exact_ratio(counts: pd.DataFrame, at: pd.Timestamp, window_s: int) -> Fraction:
    """Bad over total of the steps that end in (at - window, at], added up one by one."""
    inside = counts[(counts.index > at - timedelta(seconds=window_s)) & (counts.index <= at)]
    return 1 - Fraction(int(inside["good"].sum()), int(inside["total"].sum()))


def test_every_window_is_the_ratio_of_its_sums(month: History) -> None:
    """Over a month with incidents, at instants all over it, each recorded ratio is that of its window's counts."""
    counts = month.request_counts()
    recorded = series(counts, VISIT)

    assert len(recorded) == 30 * 288
    assert recorded.index[-1] == END
    for row in (0, 11, 500, 4000, 8000, 8639):
        at = recorded.index[row]
        for window_s in (300, 1800, 3600, 21_600, 3 * 86_400, 29 * 86_400, 30 * 86_400):
            found = recorded.loc[at, rules.ratio_name(window_s)]
            assert found == pytest.approx(float(exact_ratio(counts, at, window_s)), abs=1e-15)


def test_names_and_labels_are_those_of_the_rules(month_counts: pd.DataFrame) -> None:
    """A frame has a column for each series that the generated rules record, and no other."""
    for slo in (VISIT, SHOP["product-latency"], Slo("c", "s", Fraction(99, 100), Calendar("month"), VISIT.sli)):
        recorded = series(month_counts, slo)
        (first, *_) = groups = rules.groups([slo])
        expected = {rule.name for group in groups for rule in group.rules if rule.kind == "record"}
        assert set(recorded.columns) == expected
        assert recorded.attrs["labels"] == first.rules[0].labels


def test_the_budget_that_remains_is_that_of_the_whole_window(month_counts: pd.DataFrame) -> None:
    """1 - spent, where spent is the ratio over the window divided by what the objective allows."""
    recorded = series(month_counts, VISIT)

    spent = exact_ratio(month_counts, recorded.index[-1], 30 * 86_400) / Fraction(1, 1000)
    assert recorded["slo:period_error_budget_remaining:ratio"].iloc[-1] == pytest.approx(float(1 - spent), abs=1e-12)


def test_no_event_is_unknown_and_a_gap_is_left_out() -> None:
    """A window without an event has no ratio; one with unknown minutes has that of the minutes that are known."""
    good = [10.0] * 5 + [0.0] * 5 + [np.nan] * 5 + [5.0] * 5
    total = [10.0] * 5 + [0.0] * 5 + [np.nan] * 5 + [10.0] * 5

    recorded = series(frame(good, total, end=END, step_s=60), VISIT)

    assert recorded["slo:sli_error:ratio_rate5m"].tolist() == pytest.approx([0.0, np.nan, np.nan, 0.5], nan_ok=True)
    assert recorded["slo:sli_error:ratio_rate30m"].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.25])


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=10, max_size=90),
    every=st.integers(1, 10),
)
def test_instants_do_not_change_values(events: list[tuple[int, int]], every: int) -> None:
    """Whatever the counts, recording at every minute and picking some gives what recording at some gives."""
    counts = frame([good for good, _ in events], [sum(both) for both in events], end=END, step_s=60)

    minutes, some = series(counts, VISIT, every_s=60), series(counts, VISIT, every_s=60 * every)

    pd.testing.assert_frame_equal(minutes.loc[some.index], some, check_freq=False)


def test_slices_of_time_are_recorded_as_slices(month_counts: pd.DataFrame) -> None:
    """With a budget of bad minutes, a ratio is the share of bad minutes."""
    minutes = Budgeting("timeslices", 60, Fraction(9, 10))
    slo = Slo("m", "s", Fraction(99, 100), Rolling(86_400), VISIT.sli, budgeting=minutes)
    recorded = series(month_counts, slo)
    bad = (month_counts["good"] < 0.9 * month_counts["total"]).rolling(60).mean()

    hours = recorded["slo:sli_error:ratio_rate1h"].iloc[12:]
    assert bad.max() > 0
    np.testing.assert_allclose(hours, bad.loc[hours.index], atol=1e-12)


def test_instants_that_are_no_steps_are_refused(month_counts: pd.DataFrame) -> None:
    """Nobody counted what happened in half a minute."""
    with pytest.raises(InvalidValue, match="every_s must be a multiple of the counts' step, which is 60 s, got 90"):
        series(month_counts, VISIT, every_s=90)


def test_the_seeded_month_counts_what_its_series_count(month: History) -> None:
    """The text of an indicator chooses series of the past; their counts are those that the past was made of."""
    every, made = seeded_counts(month, VISIT.sli), month.request_counts()
    orders, ordered = (
        seeded_counts(month, SHOP["orders-placed"].sli),
        month.request_counts(endpoint=("POST", "/checkout/{user}")),
    )
    quiet = -120  # the last two hours have their minutes between samples

    assert every is not None
    assert orders is not None
    for found, expected in ((every, made), (orders, ordered)):
        assert (found.index == expected.index).all()
        assert (found.iloc[:quiet] == expected.iloc[:quiet]).all(axis=None)
        assert found.iloc[quiet:].sum().tolist() == pytest.approx(expected.iloc[quiet:].sum().tolist())
        assert (found["good"] <= found["total"]).all()


def test_slow_pages_of_the_seeded_month_are_counted(month: History) -> None:
    """The bucket of the bound tells slow from quick: the slow incident costs what its label says."""
    counts = seeded_counts(month, SHOP["product-latency"].sli)
    assert counts is not None
    (slow,) = (one for one in month.incidents if one.kind == "latency")
    inside = counts[(counts.index > slow.start) & (counts.index <= slow.end)]

    assert (inside["total"] - inside["good"]).sum() == slow.bad
    assert inside["total"].sum() == slow.total


def test_what_the_month_does_not_hold_is_not_made_up(month: History) -> None:
    """No series of that name, more than a sum over one metric, or slices of time: Prometheus must be asked."""
    live = 'sum(increase(http_requests_total{instance!="seeded"}[$window]))'

    assert (
        seeded_counts(month, EventSli("sum(increase(jobs_total[$window]))", good="sum(increase(ok[$window]))")) is None
    )
    assert seeded_counts(month, EventSli(live, good=live)) is None
    assert seeded_counts(month, EventSli("a[$window] + b[$window]", bad="b[$window]")) is None
    assert seeded_counts(month, ThroughputSli("sum(rate(http_requests_total[5m]))", 1)) is None


def test_a_day_ahead_is_what_counts_would_be_then(month: History) -> None:
    """
    The ratio that SLOBudgetExhaustion predicts is, within 2 %, that of the counts a day later.

    In that day come as many requests as on the mean day of the month, as bad as those of the last six hours.
    """
    counts = month.request_counts()
    recorded = series(counts, VISIT).iloc[-287::41]
    day = 86_400
    predicted = (29 * recorded[rules.ratio_name(29 * day)] + recorded[rules.ratio_name(21_600)]) / 30
    for at, ahead in predicted.items():
        assert isinstance(at, pd.Timestamp)
        known = counts[(counts.index > at - timedelta(days=29)) & (counts.index <= at)]
        coming = counts["total"].mean() * 1440
        bad = (known["total"] - known["good"]).sum() + coming * recorded.loc[at, rules.ratio_name(21_600)]
        assert ahead == pytest.approx(bad / (known["total"].sum() + coming), rel=0.02)
