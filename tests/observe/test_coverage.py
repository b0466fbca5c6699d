"""Coverage: the score from sets, and what a live lab really has."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import InvalidValue, RequestFailed
from labkit.observe import dashboards
from labkit.observe.coverage import SIGNALS, measure, score, selectors

if TYPE_CHECKING:
    from labkit.lab import Lab

SERVICES = ["gateway", "catalog", "cart", "orders", "payments", "worker"]
names = st.sets(st.sampled_from(SERVICES))


class Store:
    """A store that has these services, or does not answer."""

    def __init__(self, has: Iterable[str] | None) -> None:
        self.has = has

    def services(self) -> Iterable[str]:
        """As a store of logs or traces would."""
        if self.has is None:
            raise RequestFailed("GET", "http://127.0.0.1:1", status=None, reason="connection refused")
        return self.has


def test_what_is_missing_is_listed() -> None:
    """Service by signal, in order; the score is the share that is there."""
    report = score(["b", "a"], {"metrics": {"a", "b"}, "traces": {"b"}})

    assert report.score == 0.75
    assert report.missing.to_numpy().tolist() == [["a", "traces"]]
    assert report.table.loc["a", ["metrics", "traces"]].tolist() == [True, False]
    assert "75 % of 2 services by metrics, traces. a has no traces." in str(report)


def test_what_nobody_asked_is_unknown_and_not_missing() -> None:
    """It neither raises nor lowers the score, and the report says why it was not asked."""
    report = score(["a"], {"metrics": {"a"}}, not_asked={"logs": "the store is down"})

    assert report.score == 1
    assert report.table["logs"].isna().all()
    assert report.not_asked == {
        "logs": "the store is down",
        **dict.fromkeys(["traces", "dashboard", "alert"], "no source was given"),
    }


def test_without_any_signal_there_is_no_score() -> None:
    """Nan, not 0 and not 1."""
    assert math.isnan(score(["a"], {}).score)


@settings(max_examples=50, derandomize=True)
@given(st.dictionaries(st.sampled_from(SIGNALS), names, min_size=1))
def test_score_and_gaps_agree(seen: dict[str, set[str]]) -> None:
    """The score is 1 exactly when nothing is missing, and counts each gap once."""
    report = score(SERVICES, seen)

    assert report.score == pytest.approx(1 - len(report.missing) / (len(SERVICES) * len(seen)))
    assert (report.score == 1) == report.missing.empty


@pytest.mark.parametrize(("services", "seen"), [([], {"metrics": {"a"}}), (["a"], {"metric": {"a"}})])
def test_nonsense_is_refused(services: list[str], seen: dict[str, set[str]]) -> None:
    """No services, or a signal that does not exist."""
    with pytest.raises(InvalidValue, match="signals among metrics, logs, traces, dashboard, alert"):
        score(services, seen)


@pytest.mark.parametrize(
    ("promql", "found"),
    [
        ('up{job="shop"} == 0', ['up{job="shop"}']),
        ("sum by (service) (rate(a_total[1m])) > on (service) group_left (x) b", ["a_total", "b"]),
        ('absent(up{service="cart"}) or ALERTS{alertname="x{}y"}', ['up{service="cart"}', 'ALERTS{alertname="x{}y"}']),
        ('label_replace(up, "service", "$1", "instance", "(.*)-1")', ["up"]),
        ("histogram_quantile(0.95, sum by (le) (rate(d_bucket[5m:1m] offset 1h))) > 2e3", ["d_bucket"]),
        ("time() - max(shop:last_s) > 60 and vector(1) == Inf", ["shop:last_s"]),
    ],
)
def test_selectors_are_found_in_expressions(promql: str, found: list[str]) -> None:
    """Functions, keywords, groupings, ranges, numbers and strings are none."""
    assert selectors(promql) == found


@pytest.mark.live
def test_the_lab_is_covered(lab: Lab) -> None:
    """Every service tells metrics and is on the dashboard; stores plug in by `services()`; a dead one is not asked."""
    boards = [dashboards.load("operations")]
    report = measure(SERVICES, lab.prometheus, dashboards=boards, logs=Store(SERVICES[:5]), traces=Store(None))

    assert report.table[["metrics", "dashboard"]].all(axis=None)
    assert report.missing.loc[report.missing["signal"] == "logs", "service"].tolist() == ["worker"]
    assert "connection refused" in report.not_asked["traces"]
    assert report.table["alert"].notna().all()


@pytest.mark.live
def test_a_service_that_does_not_exist_is_missed(lab: Lab) -> None:
    """The list of services is the plan's: what tells nothing at all is the gap that matters most."""
    report = measure([*SERVICES, "search"], lab.prometheus, dashboards=[dashboards.load("operations")])

    assert {("search", "metrics"), ("search", "dashboard")} <= set(report.missing.itertuples(index=False, name=None))
