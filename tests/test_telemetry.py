"""The telemetry contract, in both profiles: every service is in every signal, and one signal leads to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
from matplotlib.text import Text

import labkit
from labkit._http import get_json
from labkit._wait import wait_until
from labkit.errors import NoData, NotReady, UnknownName
from labkit.lab import Lab
from labkit.observe import dashboards
from labkit.observe.trace_views import tree
from labkit.shop.config import SERVICES
from labkit.stack.progress import silent
from tests.conftest import free_offset

pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Seen:
    """What a service must show in the backends: a counter that its traffic moves, and the operation of a span."""

    metric: str
    operation: str


# The single source of what must be seen: service x (metrics, logs, traces).
SIGNAL_MATRIX = {
    "gateway": Seen("http_requests_total", "POST /checkout/{user}"),
    "catalog": Seen("http_requests_total", "GET /products/{id}"),
    "cart": Seen("http_requests_total", "POST /cart/{user}"),
    "orders": Seen("http_requests_total", "POST /orders"),
    "payments": Seen("shop_charges_total", "POST /charges"),
    "worker": Seen("shop_jobs_total", "process email_queue"),
}
SIGNALS = ("metrics", "logs", "traces")

FULL = [pytest.mark.full, pytest.mark.timeout(1800)]
PROFILES = ["core", pytest.param("jaeger-opensearch", marks=FULL)]


@pytest.fixture(scope="module", params=PROFILES)
def any_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A live lab of each profile; that of `core` is the session's."""
    if request.param == "core":
        yield request.getfixturevalue("lab")
        return
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    with labkit.up(profile=request.param, run_dir=run_dir, port_offset=free_offset(), progress=silent) as lab:
        assert {"jaeger", "opensearch"} <= set(lab.status().query("ready").index)
        yield lab


def test_the_matrix_has_a_row_for_every_service() -> None:
    """A service that is added later must be seen too."""
    assert sorted(SIGNAL_MATRIX) == sorted(SERVICES)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("service", SIGNAL_MATRIX)
def test_every_service_is_in_every_backend(any_lab: Lab, service: str, signal: str) -> None:
    """Its counter moved, it has a line, it has a span of its operation: each asked of the backend itself."""
    seen = SIGNAL_MATRIX[service]

    def rows() -> int:
        start = any_lab.now() - timedelta(minutes=30)
        if signal == "metrics":
            # The seeded past has series of the same names.
            return int(any_lab.prometheus.value(f'sum({seen.metric}{{service="{service}",instance!="seeded"}})'))
        if signal == "logs":
            return len(any_lab.logs.search(service=service, start=start, limit=1))
        return len(any_lab.traces.search(service, seen.operation, start=start, limit=1))

    wait_until(rows, f"{signal} of {service}", timeout_s=90, every_s=1, tolerate=(NoData,))


def test_coverage_finds_nothing_missing(any_lab: Lab) -> None:
    """The score that a learner is shown is 1, with dashboard and alert beside the three; missing cells are named."""
    coverage = wait_until(
        any_lab.coverage,
        "metrics, logs, traces, dashboard and alert of every service",
        timeout_s=90,
        every_s=2,
        ready=lambda found: found.score == 1.0,
    )

    assert sorted(coverage.table.index) == sorted(SERVICES)
    assert {*SIGNALS, "dashboard", "alert"} <= set(coverage.table.columns)


def test_a_failed_request_leads_from_its_log_line_to_its_trace(any_lab: Lab) -> None:
    """An injected error is found in the logs, and its trace id gives the trace that crosses the services."""
    any_lab.shop.inject("error", on="orders", share=1.0, for_s=60)
    try:
        start = any_lab.now()

        def trace_ids() -> list[str]:
            found = any_lab.logs.search(service="orders", level="error", start=start)
            return [one for one in found["trace_id"] if one]

        trace_id = wait_until(trace_ids, "an error of orders in the logs", timeout_s=60, every_s=1, tolerate=(NoData,))[
            -1
        ]
        any_lab.traces.wait_for([trace_id], timeout_s=60)
    finally:
        any_lab.reset(progress=silent)

    spans = any_lab.traces.trace(trace_id)
    assert {"gateway", "orders"} <= set(spans["service"])
    assert spans[spans["service"] == "orders"]["error"].any()


def test_an_exemplar_leads_to_a_whole_trace(any_lab: Lab) -> None:
    """A checkout's bucket names a trace with spans of all six services, rooted in the gateway; its tree shows that."""
    query = 'http_request_duration_seconds_bucket{service="gateway",endpoint="/checkout/{user}"}'

    def whole() -> pd.DataFrame | None:
        for trace_id in reversed(_exemplars(any_lab, query)):
            any_lab.traces.wait_for([trace_id], timeout_s=20)
            spans = any_lab.traces.trace(trace_id)
            # A checkout of a customer whose cart is empty goes no further.
            if set(spans["service"]) == set(SERVICES):
                return spans
        return None

    spans = wait_until(
        whole, "a checkout's exemplar", timeout_s=90, every_s=1, ready=lambda s: s is not None, tolerate=(NotReady,)
    )

    assert spans is not None
    roots = spans[spans["parent_id"] == ""]
    assert roots[["service", "operation"]].to_numpy().tolist() == [["gateway", "POST /checkout/{user}"]]
    shown = tree(spans)
    assert shown.startswith("gateway POST /checkout")
    assert "parent is not here" not in shown


def _exemplars(lab: Lab, query: str) -> list[str]:
    """The trace ids that Prometheus keeps for *query* from the last two minutes, the newest last."""
    end = lab.now()
    span = {"start": (end - timedelta(minutes=2)).timestamp(), "end": end.timestamp()}
    found = get_json(f"{lab.url('prometheus')}/api/v1/query_exemplars", params={"query": query, **span})["data"]
    ordered: list[dict[str, Any]] = sorted((e for one in found for e in one["exemplars"]), key=lambda e: e["timestamp"])
    return [str(one["labels"]["trace_id"]) for one in ordered]


def test_the_map_of_services_shows_who_calls_whom(any_lab: Lab) -> None:
    """The calls that the shop's page describes are there: the gateway calls every other service of the request path."""
    calls = wait_until(
        any_lab.traces.dependencies,
        "the gateway's calls",
        timeout_s=60,
        every_s=2,
        ready=lambda frame: (
            {"catalog", "cart", "orders", "payments"} <= set(frame[frame["parent"] == "gateway"]["child"])
        ),
        tolerate=(NoData,),
    )

    assert (calls["calls"] > 0).all()


def test_errors_are_counted_and_found_alike(any_lab: Lab) -> None:
    """The sum over the grid is the number of rows that a search finds, and their trace ids find them again."""
    any_lab.shop.inject("error", on="payments", share=1.0, for_s=60)
    try:
        start = any_lab.now().replace(microsecond=0)
        wait_until(
            lambda: any_lab.logs.search(service="payments", level="error", start=start),
            "errors of payments in the logs",
            timeout_s=60,
            every_s=1,
            ready=len,
            tolerate=(NoData,),
        )
    finally:
        any_lab.reset(progress=silent)
    end = any_lab.now()

    found = any_lab.logs.search(level="error", service="payments", start=start, end=end, limit=10_000)
    counted = any_lab.logs.aggregate(("service",), level="error", start=start, end=end)

    assert int(counted["payments"].sum()) == len(found)
    trace_id = next(one for one in found["trace_id"] if one)
    assert set(any_lab.logs.search(trace_id=trace_id, start=start, end=end)["trace_id"]) == {trace_id}


# --- The live lab of the core ----------------------------------------------------------------------------------------


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
