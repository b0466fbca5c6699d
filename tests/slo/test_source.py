"""Counts of objectives out of a real Prometheus, beside the exact ones; and every way in which it can fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from labkit.errors import InvalidValue, NoData, QueryRejected, RequestFailed, UnknownName
from labkit.shop.history import History
from labkit.slo import counts as exactly
from labkit.slo.live_check import live_problems
from labkit.slo.model import Budgeting, Calendar, EventSli, LatencySli, Rolling, Sli, Slo
from labkit.slo.source import CountsSource, PrometheusSource, track_step_s
from tests.prometheus_process import PrometheusProcess, free_port
from tests.slo.conftest import END

pytestmark = pytest.mark.live

SELECTOR = 'job="shop",service="gateway"'
TOTAL = f"sum(increase(http_requests_total{{{SELECTOR}}}[$window]))"
BAD = f'sum(increase(http_requests_total{{{SELECTOR},status=~"5.."}}[$window]))'
AVAILABILITY = EventSli(TOTAL, bad=BAD)
DAY_S = 86_400
# The last two hours of the month have no sample every full minute, so windows that end there are extrapolated.
EVEN = END - timedelta(hours=3)


def objective(sli: Sli = AVAILABILITY, days: int = 30, method: Budgeting | None = None) -> Slo:
    """99.9 % over some days."""
    window = Rolling(days * DAY_S)
    return Slo("shop", "gateway", Fraction(999, 1000), window, sli, budgeting=method or Budgeting())


@pytest.fixture
def source(served: PrometheusProcess) -> PrometheusSource:
    """The server."""
    return PrometheusSource(served.url)


def test_the_counts_of_a_month_are_exact(source: PrometheusSource, month_counts: pd.DataFrame, apart: float) -> None:
    """Good and total of thirty days are those of the month, to the last request, from three requests."""
    found = source.measure(objective(), END, [6 * 3600])

    assert float(found.whole.total or 0) == pytest.approx(int(month_counts["total"].sum()), rel=apart, abs=0)
    assert float(found.whole.bad or 0) == pytest.approx(
        int((month_counts["total"] - month_counts["good"]).sum()), rel=apart, abs=0
    )
    assert (found.requests, found.problems, found.covered) == (3, (), 1)


@pytest.mark.parametrize("back", [timedelta(days=4), timedelta(days=20, hours=7)])
def test_the_past_is_asked_for_the_past(
    back: timedelta, source: PrometheusSource, month_counts: pd.DataFrame, apart: float
) -> None:
    """A report on an earlier instant has the counts of its own window, and so have its shorter windows."""
    at = END - back
    found = source.measure(objective(days=7), at, [3600, DAY_S])

    for length_s, one in [(7 * DAY_S, found.whole), *found.burns.items()]:
        exact = exactly.sums(month_counts, at - timedelta(seconds=length_s), at)
        assert float(one.total or 0) == pytest.approx(float(exact.total), rel=apart, abs=0)
        assert float(one.bad or 0) == pytest.approx(float(exact.bad), rel=apart, abs=100 * apart)


@pytest.mark.parametrize(
    "method", [Budgeting("timeslices", 300, Fraction(99, 100)), Budgeting("ratio-timeslices", 300)]
)
def test_slices_counted_by_prometheus_are_those_of_the_counts(
    method: Budgeting, source: PrometheusSource, month_counts: pd.DataFrame, apart: float
) -> None:
    """Good slices, and mean ratios, of a day with an incident are the same from both sources."""
    # Slices lie on whole multiples of their length since 1970, so the instant is one of them.
    at = (END - timedelta(days=12)).replace(minute=0)
    slo = objective(days=2, method=method)
    told, exact = source.measure(slo, at, [DAY_S]), CountsSource({"shop": month_counts}).measure(slo, at, [DAY_S])

    for one, other in ((told.whole, exact.whole), (told.burns[DAY_S], exact.burns[DAY_S])):
        assert one.total == other.total
        assert float(one.bad or 0) == pytest.approx(float(other.bad or 0), rel=1e-6 + 5 * apart)
    assert 0 < float(told.whole.bad or 0) < float(told.whole.total or 0)


def test_steps_are_the_counts_of_each_hour(
    source: PrometheusSource, month: History, month_counts: pd.DataFrame, apart: float
) -> None:
    """Two days per hour are those of the month; hours before it begins are nan, not zero."""
    begin = month.start
    found = source.counts(objective(), begin - timedelta(hours=5), begin + timedelta(hours=43), 3600)
    exact = CountsSource({"shop": month_counts}).counts(objective(), begin, begin + timedelta(hours=43), 3600)

    assert found["total"].isna().tolist() == found["good"].isna().tolist() == [True] * 5 + [False] * 43
    np.testing.assert_allclose(found.iloc[6:].to_numpy(), exact.iloc[1:].to_numpy(), rtol=10 * apart, atol=0)
    assert found.attrs["step_s"] == 3600


def test_steps_are_events_whatever_the_budget_counts(source: PrometheusSource, month_counts: pd.DataFrame) -> None:
    """Slices are made of events, by whoever computes with them: counts of an objective by slices are events too."""
    sliced, events = objective(method=Budgeting("timeslices", 300, Fraction(99, 100))), objective()
    begin = EVEN - timedelta(hours=5)

    for one in (source, CountsSource({"shop": month_counts})):
        pd.testing.assert_frame_equal(one.counts(sliced, begin, EVEN, 600), one.counts(events, begin, EVEN, 600))


def test_more_steps_than_one_answer_may_hold(
    source: PrometheusSource, month_counts: pd.DataFrame, apart: float
) -> None:
    """Sixteen days of two minutes come in two answers, and fit together."""
    begin = EVEN - timedelta(days=16)
    found = source.counts(objective(), begin, EVEN, 120)
    exact = CountsSource({"shop": month_counts}).counts(objective(), begin, EVEN, 120)

    assert len(found) == 11_520
    assert found["total"].notna().all()
    if not apart:
        np.testing.assert_array_equal(found.to_numpy(), exact.to_numpy())


@pytest.mark.parametrize(
    ("sli", "kind", "says"),
    [
        (EventSli(TOTAL.replace("http_req", "http_reqq"), bad=BAD), "no_data", "No data is not zero"),
        (
            EventSli(TOTAL.replace("sum", "sum by (endpoint)"), bad=BAD.replace("sum", "sum by (method)")),
            "labels_differ",
            "`bad` has the label `method`, `total` has the label `endpoint`",
        ),
        (
            EventSli(TOTAL, good=TOTAL.replace("sum", "sum by (service)")),
            "labels_differ",
            "`good` has the label `service`, `total` has no label",
        ),
        (
            EventSli(TOTAL.replace("sum", "sum by (endpoint)"), good=TOTAL.replace("sum", "sum by (endpoint)")),
            "several_series",
            "was asked for one value and has 4 series",
        ),
        (EventSli(TOTAL[:-1], bad=BAD), "query_failed", "unclosed left parenthesis"),
        (EventSli(TOTAL, bad=f"scalar({BAD})"), "query_failed", "takes `total` and `bad` apart and refuses them"),
        (EventSli(BAD, bad=TOTAL), "impossible_counts", "a part is from 0 up to the whole"),
        (LatencySli("http_request_duration_seconds", 0.3, SELECTOR), "query_failed", "must be the bound of a bucket"),
    ],
)
def test_what_is_wrong_is_named_and_counts_as_nothing(sli: Sli, kind: str, says: str, source: PrometheusSource) -> None:
    """Each mistake is a problem of its kind with its reason; the counts are unknown, never 0, in at most 4 requests."""
    found = source.measure(objective(sli, days=2), EVEN, [3600])

    assert [problem.kind for problem in found.problems] == [kind]
    assert says in found.problems[0].text
    assert (found.whole.good, found.whole.total, found.track) == (None, None, None)
    assert found.requests <= 4


def test_a_refused_query_is_shown_as_it_was_written(source: PrometheusSource) -> None:
    """The caret stands under the place in the author's query, not in what it was wrapped into."""
    broken = "sum(\n  increase(http_requests_total[$window]\n)"
    with pytest.raises(QueryRejected, match="unclosed left parenthesis") as caught:
        source.counts(objective(EventSli(broken, bad=BAD)), EVEN - timedelta(days=1), EVEN, 3600)

    assert caught.value.query == broken.replace("$window", "3600s")
    assert caught.value.position is not None


def test_no_failure_yet_is_none_and_said(source: PrometheusSource) -> None:
    """Failures without any series are 0 where there are requests, with a note: it may be a wrong selector too."""
    found = source.measure(objective(EventSli(TOTAL, bad=BAD.replace("5..", "6..")), days=2), EVEN)

    assert (found.whole.bad, found.problems) == (0, ())
    assert "`bad` matches no series: counted as 0 of" in found.notes[0]


def test_a_server_that_does_not_answer_is_a_problem() -> None:
    """Nothing is raised, nothing is 0: the reason is in the measurement; asking for counts raises."""
    source = PrometheusSource(f"http://127.0.0.1:{free_port()}")
    found = source.measure(objective(), END, [3600])

    assert [problem.kind for problem in found.problems] == ["query_failed"]
    assert "connection refused" in found.problems[0].text
    assert found.burns[3600].total is None
    with pytest.raises(RequestFailed, match="connection refused"):
        source.counts(objective(), EVEN, END, 3600)


def test_a_server_that_is_no_prometheus_is_refused(served: PrometheusProcess) -> None:
    """An answer of something else is named as such."""
    found = PrometheusSource(f"{served.url}/nowhere").measure(objective(), END)

    assert [problem.kind for problem in found.problems] == ["query_failed"]
    assert "404" in found.problems[0].text


def test_times_without_a_zone_and_steps_that_do_not_fit_are_refused(source: PrometheusSource) -> None:
    """Guessing a time zone would move the data; an interval shorter than a step has no step."""
    with pytest.raises(ValueError, match="has no time zone"):
        source.measure(objective(), END.replace(tzinfo=None))
    with pytest.raises(InvalidValue, match="at most the interval, 60 s, got 3600"):
        source.counts(objective(), END - timedelta(minutes=1), END, 3600)


def test_a_label_that_does_not_exist_is_found(source: PrometheusSource) -> None:
    """`statuss!~"5.."` lets everything pass: the live check says so, and which label is meant."""
    good = TOTAL.replace(SELECTOR, f'{SELECTOR},statuss!~"5.."')
    (problem,) = live_problems(objective(EventSli(TOTAL, good=good), days=2), source, EVEN)

    assert problem.kind == "no_such_label"
    assert "lets everything pass" in problem.text
    assert "Did you mean `status`?" in problem.text
    assert live_problems(objective(days=2), source, EVEN) == []


def test_a_bound_that_is_no_bucket_is_found(source: PrometheusSource) -> None:
    """The live check lists the bounds and the nearest one."""
    found = live_problems(objective(LatencySli("http_request_duration_seconds", 0.3, SELECTOR), days=2), source, EVEN)

    assert [problem.kind for problem in found] == ["query_failed", "no_such_bucket"]
    assert "the nearest is 0.25 s" in found[1].text


def test_frames_answer_as_a_server_does(month_counts: pd.DataFrame) -> None:
    """Counts at hand give exact windows; what they lack is a problem, and names what there is."""
    source = CountsSource({"shop": month_counts})
    found = source.measure(objective(), END, [3600])
    late = source.measure(objective(), END + timedelta(days=90))
    other = source.measure(replace(objective(), name="checkout"), END, [3600])

    assert found.whole.total == int(month_counts["total"].sum())
    assert found.burns[3600].total == int(month_counts["total"].iloc[-60:].sum())
    assert ([one.kind for one in late.problems], late.whole.total) == (["no_data"], None)
    assert "they go from 2026-02-02" in late.problems[0].text
    assert other.problems[0].text == "There are no counts of checkout; there are: shop."


def test_frames_refuse_what_they_do_not_have(month_counts: pd.DataFrame) -> None:
    """Unknown names, steps that do not divide, times without counts: each an error with the right name."""
    source = CountsSource({"shop": month_counts})
    with pytest.raises(UnknownName, match="Known: shop"):
        source.counts(replace(objective(), name="shp"), EVEN, END, 3600)
    with pytest.raises(InvalidValue, match="a multiple of 60 s"):
        source.counts(objective(), EVEN, END, 90)
    with pytest.raises(NoData):
        source.counts(objective(), END + timedelta(days=1), END + timedelta(days=2), 3600)


def test_no_traffic_is_unknown(month_counts: pd.DataFrame) -> None:
    """A window in which nobody came has total 0 and a problem that says so."""
    quiet = exactly.frame([0] * 60, [0] * 60, end=END, step_s=60)
    found = CountsSource({"shop": quiet}).measure(objective(), END)

    assert (found.whole.total, [one.kind for one in found.problems]) == (0, ["no_events"])


def test_at_its_very_end_a_month_is_still_that_month() -> None:
    """At midnight of the first, the calendar month that has just ended is meant, not the one of no length."""
    slo = replace(objective(), window=Calendar("month"))
    days = exactly.frame([9] * 59, [10] * 59, end=datetime(2026, 3, 1, tzinfo=UTC), step_s=DAY_S)
    found = CountsSource({"shop": days}).measure(slo, datetime(2026, 3, 1, tzinfo=UTC))

    assert found.start == datetime(2026, 2, 1, tzinfo=UTC)
    assert found.whole.total == 280


@pytest.mark.parametrize("days", [1, 7, 28, 30, 90, 365])
def test_a_burn_down_never_has_too_many_points(days: int) -> None:
    """Whatever the window, its steps are at most 750, and as short as that allows."""
    step_s = track_step_s(days * DAY_S)

    assert 100 <= days * DAY_S / step_s <= 750
