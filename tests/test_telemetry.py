"""The telemetry contract: every service of the live lab is seen in every signal, and one leads to the next."""

from __future__ import annotations

from datetime import timedelta

import pytest
from matplotlib.text import Text

from labkit._http import request
from labkit._wait import wait_until
from labkit.errors import NoData, UnknownName
from labkit.lab import Lab
from labkit.observe import dashboards
from labkit.shop.config import SERVICES
from labkit.stack.progress import silent

pytestmark = pytest.mark.live

# The single source of what must be seen: one row per service, one column per signal.
SIGNALS = ("metrics", "logs", "traces", "dashboard", "alert")


def test_every_service_is_seen_in_every_signal(lab: Lab) -> None:
    """Coverage of the whole table is complete; when it is not, the missing cells are named."""
    coverage = wait_until(
        lab.coverage,
        "metrics, logs, traces, dashboard and alert of every service",
        timeout_s=90,
        every_s=2,
        ready=lambda found: found.score == 1.0,
    )

    table = coverage.table
    assert sorted(table.index) == sorted(SERVICES)
    assert set(SIGNALS) <= set(table.columns)


def test_a_failed_request_leads_from_its_log_line_to_its_trace(lab: Lab) -> None:
    """An injected error is found in the logs, and its trace id gives the trace that crosses the services."""
    lab.shop.inject("error", on="orders", share=1.0, for_s=60)
    try:
        start = lab.now()

        def failures() -> object:
            rows = lab.logs.search(service="orders", level="error", start=start, end=lab.now() + timedelta(seconds=1))
            return rows.dropna(subset=["trace_id"])

        found = wait_until(
            failures,
            "an error of orders in the logs",
            timeout_s=60,
            every_s=1,
            ready=len,
            tolerate=(NoData,),  # type: ignore[arg-type]
        )
        trace_id = found["trace_id"].iloc[-1]  # type: ignore[index]
        spans = wait_until(
            lambda: lab.traces.trace(trace_id),
            "the trace of that line",
            timeout_s=60,
            every_s=1,
            ready=lambda frame: {"gateway", "orders"} <= set(frame["service"]),
            tolerate=(NoData,),
        )
    finally:
        lab.reset(progress=silent)
    assert spans[spans["service"] == "orders"]["error"].any()
    assert spans["trace_id"].nunique() == 1


def test_the_map_of_services_shows_who_calls_whom(lab: Lab) -> None:
    """The calls that the shop's page describes are there: the gateway calls every other service of the request path."""
    calls = wait_until(
        lab.traces.dependencies,
        "the gateway's calls",
        timeout_s=60,
        every_s=2,
        ready=lambda frame: (
            {"catalog", "cart", "orders", "payments"} <= set(frame[frame["parent"] == "gateway"]["child"])
        ),
        tolerate=(NoData,),
    )

    assert (calls["calls"] > 0).all()


def test_an_exemplar_leads_from_a_histogram_to_a_trace(lab: Lab) -> None:
    """Prometheus keeps the trace id of a request beside the bucket that counted it."""

    def exemplars() -> list[str]:
        end = lab.now()
        given = {
            "query": "http_request_duration_seconds_bucket",
            "start": (end - timedelta(minutes=5)).isoformat(),
            "end": end.isoformat(),
        }
        answer = request("GET", f"{lab.url('prometheus')}/api/v1/query_exemplars", params=given).json()["data"]
        return [one["labels"]["trace_id"] for series in answer for one in series["exemplars"]]

    newest = wait_until(exemplars, "an exemplar", timeout_s=60, every_s=1)[-1]
    spans = wait_until(
        lambda: lab.traces.trace(newest), "its trace", timeout_s=60, every_s=1, ready=len, tolerate=(NoData,)
    )

    assert set(spans["trace_id"]) == {newest}


def test_the_dashboard_is_drawn_by_name(lab: Lab) -> None:
    """`lab.dashboard("operations")` has seven panels; a name that does not exist is answered with those that do."""
    figure = lab.dashboard("operations", minutes=15)

    drawn = [text.get_text() for text in figure.findobj(Text)]
    titles = [panel["title"] for panel in dashboards.load("operations")["panels"]]
    assert len(titles) == 7
    assert [title for title in titles if not any(title in text for text in drawn)] == []
    with pytest.raises(UnknownName, match="operations"):
        lab.dashboard("operation")


def test_nothing_is_firing_in_a_healthy_lab(lab: Lab) -> None:
    """A lab at rest pages nobody."""
    lab.reset(progress=silent)

    wait_until(
        lambda: lab.alertmanager.alerts().query("severity == 'critical'"),
        "no critical alert",
        timeout_s=60,
        every_s=2,
        ready=lambda alerts: alerts.empty,
    )
