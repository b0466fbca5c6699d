"""Verdicts on objectives: their borders, their reasons, and what a report says as JSON, page and figure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from labkit._http import request
from labkit.errors import InvalidValue, UnknownName
from labkit.slo import verdict
from labkit.slo.counts import frame
from labkit.slo.model import Budgeting, Calendar, EventSli, Rolling, Slo
from labkit.slo.report import STATUS_MEANING, Report, report
from labkit.slo.source import Counted, CountsSource, Measured, Problem, PrometheusSource
from tests.prometheus_process import PrometheusProcess
from tests.slo.conftest import END
from tests.slo.test_source import AVAILABILITY, EVEN

DAY_S = 86_400
SCHEMA = json.loads((Path(verdict.__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
# 99 % over ten days, of a thousand requests a day: a hundred of the ten thousand may be bad.
SLO = Slo("shop", "gateway", Fraction(99, 100), Rolling(10 * DAY_S), EventSli("total[$window]", good="good"))


def of_days(*bad: int, slo: Slo = SLO, per_day: int = 1000, end: datetime = END) -> Report:
    """A report on days with so many bad requests each, the last one just over."""
    counts = frame([per_day - one for one in bad], [per_day] * len(bad), end=end, step_s=DAY_S)
    return report([slo], CountsSource({slo.name: counts}), end)


@pytest.mark.parametrize(
    ("bad", "status", "remaining"),
    [
        (0, "healthy", Fraction(1)),
        (90, "healthy", Fraction(1, 10)),
        (91, "at_risk", Fraction(9, 100)),
        (100, "at_risk", Fraction(0)),
        (101, "violated", Fraction(-1, 100)),
    ],
)
def test_one_request_decides(bad: int, status: str, remaining: Fraction) -> None:
    """A tenth left is enough, one request less is not; the last allowed failure keeps the promise, the next ends it."""
    (row,) = of_days(bad, *[0] * 9)

    assert (row.status, row.remaining) == (status, remaining)
    assert row.budget is not None
    assert (row.budget.bad, row.budget.total, row.budget.allowed) == (bad, 10_000, 100)


def test_a_share_just_below_the_border_is_not_shown_as_the_border() -> None:
    """Less than 10 % is never written as 10 %, however little less it is."""
    (row,) = of_days(90_000_001, *[0] * 9, per_day=1_000_000_000)

    assert row.status == "at_risk"
    assert row.reasons == ("9.999999 % of the budget is left, less than 10 %.",)


def test_an_alert_that_holds_is_a_risk_however_much_is_left() -> None:
    """A page's condition makes a healthy budget at risk; the reason names the alert and its burn rate."""
    slo = replace(SLO, objective=Fraction(999, 1000), window=Rolling(30 * DAY_S))
    month = frame([1000] * 43_190 + [900] * 10, [1000] * 43_200, end=END, step_s=60)
    (row,) = report([slo], CountsSource({"shop": month}), END)

    assert row.status == "at_risk"
    assert row.remaining is not None
    assert row.remaining > Fraction(9, 10)
    assert any(reason.startswith("The condition of page 1h/5m holds: burn 16.7, above 14.4.") for reason in row.reasons)


def test_without_events_in_the_short_window_an_alert_does_not_hold() -> None:
    """Nobody comes, so nothing burns any more: as in the rule, the second half of the condition is not true."""
    slo = replace(SLO, objective=Fraction(999, 1000), window=Rolling(30 * DAY_S))
    month = frame([1000] * 43_180 + [500] * 10 + [0] * 10, [1000] * 43_190 + [0] * 10, end=END, step_s=60)
    (row,) = report([slo], CountsSource({"shop": month}), END)

    assert (row.alerts[0].name, row.alerts[0].holds) == ("page 1h/5m", False)
    assert row.alerts[0].short_burn is None
    assert row.alerts[0].long_burn is not None
    assert row.alerts[0].long_burn > row.alerts[0].factor


def test_a_budget_that_ends_within_a_day_is_a_risk() -> None:
    """Half the budget left and a pace that ends it within hours: at risk, with the time."""
    hours = [1000] * 720
    good = [1000] * 714 + [930, 930, 930, 930, 930, 930]
    slo = replace(SLO, objective=Fraction(999, 1000), window=Rolling(30 * DAY_S))
    (row,) = report([slo], CountsSource({"shop": frame(good, hours, end=END, step_s=3600)}), END)

    assert row.status == "at_risk"
    assert row.exhaustion.in_s is not None
    assert row.exhaustion.in_s < DAY_S
    assert any(reason.startswith("The budget ends in ") for reason in row.reasons)


def test_nothing_counted_is_unknown_and_never_zero() -> None:
    """No counts and no traffic: unknown, no numbers, and the reason; JSON has null, the frame nan."""
    other = replace(SLO, name="other")
    quiet = frame([0] * 10, [0] * 10, end=END, step_s=DAY_S)
    found = report([SLO, other], CountsSource({"shop": quiet}), END)

    assert found.status == {"shop": "unknown", "other": "unknown"}
    assert found["shop"].reasons == ("There was no event of shop in 10 d: the promise was neither kept nor broken.",)
    assert found["other"].to_dict()["total"] is None
    assert found["shop"].to_dict()["remaining"] is None
    assert np.isnan(found.frame().loc["other", ["good", "total", "spent", "remaining"]].to_numpy(dtype=float)).all()
    assert found["other"].exhaustion.answer == "unknown"


class _HalfBlind:
    """A source that counts the window and fails at the burn rates, as a server that is overloaded does."""

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def measure(self, slo: Slo, at: datetime, burn_windows_s: Iterable[int] = ()) -> Measured:
        """The window, and a problem."""
        whole = Counted(10 * DAY_S, Fraction(10_000 - self.bad), Fraction(10_000))
        burns = {length: Counted(length, None, None) for length in burn_windows_s}
        problem = Problem("query_failed", "no answer within 30 s")
        return Measured(slo, at, at - timedelta(days=10), whole, burns, None, (problem,))

    def counts(self, slo: Slo, start: datetime, end: datetime, step_s: int) -> pd.DataFrame:
        """Never asked for."""
        raise AssertionError((slo, start, end, step_s))


@pytest.mark.parametrize(("bad", "status"), [(0, "unknown"), (95, "at_risk"), (200, "violated")])
def test_healthy_needs_everything_to_be_known(bad: int, status: str) -> None:
    """What is known can prove a broken promise, and never health: then the failed question decides."""
    (row,) = report([SLO], _HalfBlind(bad), END)

    assert row.status == status
    assert row.budget is not None
    assert row.alerts[0].holds is None


def test_a_calendar_period_has_its_whole_budget() -> None:
    """Ten days into February at a burn of 1, ten of its 28 parts are spent, and the end of the window lies ahead."""
    slo = replace(SLO, window=Calendar("month"))
    (row,) = of_days(*[10] * 10, slo=slo, end=datetime(2026, 2, 11, tzinfo=UTC))

    assert row.spent == Fraction(10, 28)
    assert row.end == datetime(2026, 3, 1, tzinfo=UTC)
    assert row.burn_down is not None
    assert float(row.burn_down["remaining"].iloc[-1]) == pytest.approx(18 / 28)


@pytest.mark.parametrize(
    "method", [Budgeting("timeslices", DAY_S, Fraction(99, 100)), Budgeting("ratio-timeslices", DAY_S)]
)
def test_slices_are_what_the_budget_counts(method: Budgeting) -> None:
    """Ten days are ten units, and one bad day is 1 bad unit, or as much of one as was bad."""
    (row,) = of_days(500, *[0] * 9, slo=replace(SLO, budgeting=method))

    assert row.budget is not None
    assert row.budget.total == 10
    assert row.budget.bad == (1 if method.method == "timeslices" else Fraction(1, 2))


def test_a_part_of_the_window_is_said_to_be_one() -> None:
    """Data that begins within the window gives the numbers of that part, and a note."""
    (row,) = of_days(10, 0, 0, 0)

    assert row.covered == Fraction(4, 10)
    assert row.notes == ("Only 40 % of 10 d has data; the numbers are of that part.",)


def test_the_burn_down_ends_at_what_remains() -> None:
    """It begins at the whole budget, loses what each step spent, and ends at the share of the report."""
    (row,) = of_days(0, 20, 0, 50, *[0] * 6)

    assert row.burn_down is not None
    assert row.burn_down["remaining"].round(9).tolist()[:6] == [1.0, 1.0, 0.8, 0.8, 0.3, 0.3]
    assert row.remaining == Fraction(3, 10)


def test_what_cannot_be_reported_is_refused() -> None:
    """Two objectives of one name, a policy that there is not, an instant without zone, a name that is not there."""
    source = CountsSource({})
    with pytest.raises(InvalidValue, match="each once, got 'shop'"):
        report([SLO, SLO], source, END)
    with pytest.raises(UnknownName, match="did you mean 'workbook'"):
        report([replace(SLO, policy="workbok")], source, END)
    with pytest.raises(ValueError, match="no time zone"):
        report([SLO], source, END.replace(tzinfo=None))
    with pytest.raises(UnknownName, match="Known: shop"):
        report([SLO], source, END)["shoop"]


def test_a_report_on_nothing_says_so() -> None:
    """Without objectives there is no row, an empty frame, and a page that says that nothing was measured."""
    found = report([], CountsSource({}), END)

    assert (len(found), found.status, len(found.frame())) == (0, {}, 0)
    assert "nothing was measured" in found.to_html()


def test_json_follows_its_schema() -> None:
    """Known and unknown objectives alike fit the published schema, which has the verdicts with their meaning."""
    found = report(
        [SLO, replace(SLO, name="other")], CountsSource({"shop": frame([9], [10], end=END, step_s=DAY_S)}), END
    )
    data = json.loads(found.to_json())

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA)
    said = SCHEMA["$defs"]["slo"]["properties"]["status"]
    assert set(said["enum"]) == set(STATUS_MEANING)
    assert [one["status"] for one in data["slos"]] == ["violated", "unknown"]


def test_the_page_holds_everything_and_fetches_nothing() -> None:
    """Each objective has its section, the gravest first; names are text, not markup; nothing comes from elsewhere."""
    wicked = replace(SLO, name="a.b", description="<script>alert(1)</script>")
    counts = frame([1000] * 10, [1000] * 10, end=END, step_s=DAY_S)
    broken = frame([900] * 10, [1000] * 10, end=END, step_s=DAY_S)
    found = report([SLO, wicked, replace(SLO, name="none")], CountsSource({"shop": counts, "a.b": broken}), END)
    page = found.to_html()

    assert re.findall(r'<section id="([^"]+)">', page) == ["a.b", "none", "shop"]
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!#)[^"]', page)
    assert page.count("<svg") == 2
    assert all(meaning in page for meaning in STATUS_MEANING.values())


@pytest.mark.usefixtures("_closed_figures")
def test_the_figure_has_axes_for_each_objective_with_counts() -> None:
    """Titles say the finding, the axis has its unit; what is unknown is left out."""
    counts = frame([900] * 10, [1000] * 10, end=END, step_s=DAY_S)
    found = report([SLO, replace(SLO, name="none")], CountsSource({"shop": counts}), END)
    (axes,) = found.figure().axes

    assert axes.get_title(loc="left") == "shop: 900 % more than the budget is spent"
    assert axes.get_ylabel().startswith("error budget left")
    assert axes.get_xlabel() == "time (UTC)"


@pytest.mark.live
def test_a_report_of_a_server_is_that_of_the_counts(
    served: PrometheusProcess, month_counts: pd.DataFrame, apart: float
) -> None:
    """Every number of the report from Prometheus is the exact one, for an instant in the past too."""
    slo = Slo("shop", "gateway", Fraction(999, 1000), Rolling(20 * DAY_S), AVAILABILITY)
    told = report([slo], PrometheusSource(served.url), EVEN)["shop"].to_dict()
    exact = report([slo], CountsSource({"shop": month_counts}), EVEN)["shop"].to_dict()
    requests = told.pop("requests")
    exact.pop("requests")

    assert requests == 3
    assert told["total"] > 10_000_000
    for name in ("good", "bad", "total", "spent", "remaining", "achieved"):
        assert told[name] == pytest.approx(exact[name], rel=1e-3)
    assert told["status"] == exact["status"]
    assert [one["holds"] for one in told["alerts"]] == [one["holds"] for one in exact["alerts"]]
    for one, other in zip(told["burns"], exact["burns"], strict=True):
        # In Prometheus 3 five minutes of a minute's samples have four increases; each failure then weighs more.
        assert one["burn"] == pytest.approx(other["burn"], rel=0.05, abs=0.02 if not apart else 0.5)


@pytest.mark.live
def test_an_objective_takes_at_most_four_requests(served: PrometheusProcess) -> None:
    """The server itself counts no more than four requests for each of ten objectives."""

    def asked() -> int:
        text = request("GET", f"{served.url}/metrics").text
        found = re.findall(r'^prometheus_http_requests_total\{.*handler="/api/v1/query.*"\} (\d+)$', text, re.MULTILINE)
        return sum(int(number) for number in found)

    slos = [Slo(f"shop-{number}", "gateway", Fraction(99, 100), Rolling(DAY_S), AVAILABILITY) for number in range(10)]
    before = asked()
    found = report(slos, PrometheusSource(served.url), EVEN)

    assert asked() - before == sum(row.requests for row in found) <= 40
    assert {row.status for row in found} <= {"healthy", "at_risk"}
