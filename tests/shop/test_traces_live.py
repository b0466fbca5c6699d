"""Traces of the shop at work: one checkout through all services, errors, exemplars, deploys, a store that is gone."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator

import pytest

from labkit._wait import wait_until
from tests.shop.otlp_receiver import Received, Receiver
from tests.shop.shop_stack import ShopStack, buy, somebody

pytestmark = pytest.mark.live

OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
PARENT = "00-{}-b7ad6b7169203331-01"


@pytest.fixture
def store(trace_store: Receiver) -> Iterator[Receiver]:
    """The trace store that the shop sends to; in working order again after the test."""
    yield trace_store
    trace_store.release()


def trace_id() -> str:
    """An id for a trace that this test begins."""
    return f"{time.time_ns():032x}"


def settled(store: Receiver, trace: str, *wanted: str) -> dict[str, Received]:
    """The spans of *trace* by `service name`, once all *wanted* have arrived."""

    def found() -> dict[str, Received] | None:
        spans = {f"{span.service} {span.name}": span for span in store.trace(trace)}
        return spans if set(wanted) <= set(spans) else None

    return wait_until(found, f"{', '.join(wanted)} arrived", timeout_s=20, every_s=0.05)


def parents(spans: dict[str, Received], name: str) -> list[str]:
    """The way from a span up to the root, by name."""
    by_id = {span.span_id: key for key, span in spans.items()}
    way = []
    while name := by_id.get(spans[name].parent_id, ""):
        way.append(name)
    return way


def test_a_checkout_is_one_trace_through_all_services(shop: ShopStack, store: Receiver):
    """Gateway, cart, catalog, payments, orders and worker are in one trace, each below whoever asked for it."""
    trace, user = trace_id(), somebody()
    shop.post(f"/cart/{user}", {"product": 3, "quantity": 1})
    headers = {"traceparent": PARENT.format(trace)}
    assert shop.post(f"/checkout/{user}", None, headers=headers).status_code == 201
    jobs = [f"worker process {queue}" for queue in ("email_queue", "processing_queue", "notification_queue")]
    root = "gateway POST /checkout/{user}"
    last = ("orders POST /orders", "cart DELETE /cart/{user}", "catalog GET /prices", "payments POST /charges")
    spans = settled(store, trace, root, *last, *jobs)
    assert parents(spans, "cart GET /cart/{user}") == ["gateway GET cart", root]
    assert parents(spans, "payments POST /charges") == ["gateway POST payments", root]
    above_orders = ["gateway POST orders", root]
    assert parents(spans, "orders mariadb order_insert") == ["orders POST /orders", *above_orders]
    for job in jobs:
        assert parents(spans, job) == ["orders redis push", "orders POST /orders", *above_orders]
    statement = spans["orders mariadb order_insert"].attributes
    assert (statement["db.system"], statement["db.operation"]) == ("mariadb", "INSERT")
    assert user not in statement["db.statement"]
    assert not any(span.error for span in spans.values())


def test_an_error_is_in_its_span_and_in_the_log_under_one_id(shop: ShopStack, store: Receiver):
    """A request that fails in catalog marks the spans of both services as errors; the log lines have the trace's id."""
    trace = trace_id()
    shop.admin().inject("error", on="catalog", status=500, endpoint="/products/{id}")
    answer = shop.get("gateway", "/products/3", headers={"traceparent": PARENT.format(trace)})
    assert answer.status_code == 502
    spans = settled(store, trace, "gateway GET /products/{id}", "gateway GET catalog", "catalog GET /products/{id}")
    assert all(span.error for span in spans.values())
    assert spans["gateway GET /products/{id}"].attributes["http.response.status_code"] == 502
    for replica in ("gateway", spans["catalog GET /products/{id}"].instance):
        lines = [json.loads(line) for line in shop.log(replica) if trace in line]
        assert [line["level"] for line in lines if line["span_id"]] == ["error"] * len(lines) != []


def test_a_mistake_of_the_client_is_no_error_of_the_service(shop: ShopStack, store: Receiver):
    """A 4xx leaves the span's status alone; the status code is in its attributes."""
    trace = trace_id()
    shop.get("gateway", "/products/99999", headers={"traceparent": PARENT.format(trace)})
    span = settled(store, trace, "gateway GET /products/{id}")["gateway GET /products/{id}"]
    assert (span.error, span.attributes["http.response.status_code"]) == (False, 404)


def test_the_exemplar_of_a_slow_request_leads_to_its_trace(shop: ShopStack, store: Receiver):
    """The bucket that a slow request fell into names its trace, in OpenMetrics and without `_created` series."""
    trace = trace_id()
    shop.admin().inject("latency", on="gateway", ms=600, endpoint="/products/{id}")
    shop.get("gateway", "/products/3", headers={"traceparent": PARENT.format(trace)})
    page = shop.get("gateway", "/metrics", headers=OPEN_METRICS).text
    named = re.findall(r'le="1.0"[^\n]*# {trace_id="(\w+)"} (\S+)', page)
    assert [name for name, _ in named] == [trace]
    assert (float(named[0][1]) >= 0.6, "_created" in page, page.endswith("# EOF\n")) == (True, False, True)
    settled(store, trace, "gateway GET /products/{id}")
    assert "trace_id" not in shop.get("gateway", "/metrics").text


def test_spans_follow_a_deploy_and_the_flag(shop: ShopStack, store: Receiver):
    """service.version is the deployed one; with the flag `tracing` off no span is made."""
    shop.admin().deploy("9.9.9", on="payments")
    buy(shop, somebody())
    wait_until(lambda: store.find(service="payments", version="9.9.9"), "a span of 9.9.9", timeout_s=20, every_s=0.05)
    shop.admin().set_flag("tracing", False)
    trace = trace_id()
    shop.get("gateway", "/products/3", headers={"traceparent": PARENT.format(trace)})
    shop.admin().set_flag("tracing", True)
    shop.get("gateway", "/products/3", headers={"traceparent": PARENT.format("1" + trace[1:])})
    settled(store, "1" + trace[1:], "gateway GET /products/{id}")
    assert store.trace(trace) == []


def test_a_store_that_hangs_slows_no_request_and_fills_no_log(shop: ShopStack, store: Receiver):
    """While the store never answers, requests take what they took before, and each service says so once."""

    def median_s() -> float:
        return statistics.median(shop.get("gateway", "/products/3").elapsed.total_seconds() for _ in range(60))

    median_s()
    before_s, posts = median_s(), store.posts
    store.mode = "hang"
    wait_until(lambda: store.posts > posts + 1 or not shop.get("gateway", "/products/3"), "it hangs", timeout_s=10)
    said = "does not take spans"
    wait_until(lambda: any(said in line for line in shop.log("gateway")), "the log says it", timeout_s=10)
    during_s = median_s()
    assert during_s < 3 * before_s + 0.02
    assert sum(said in line for line in shop.log("gateway")) == 1
    assert shop.metrics("gateway")["shop_spans_waiting"] > 0


def test_a_job_that_fails_is_an_error_in_the_trace_of_its_order(shop: ShopStack, store: Receiver):
    """The worker's span is marked, its log line has the same trace, and the repeated job ends well in that trace."""
    trace, user = trace_id(), somebody()
    shop.post(f"/cart/{user}", {"product": 3, "quantity": 1})
    shop.admin().inject("error", on="worker", endpoint="email_queue")
    shop.post(f"/checkout/{user}", None, headers={"traceparent": PARENT.format(trace)})

    def jobs(*, error: bool) -> list[Received]:
        return [s for s in store.trace(trace) if s.name == "process email_queue" and s.error is error]

    wait_until(lambda: jobs(error=True), "a job that failed", timeout_s=20, every_s=0.05)
    assert any("email_queue" in line and trace in line for line in shop.log("worker"))
    shop.admin().undo("error", on="worker")
    wait_until(lambda: jobs(error=False), "the job was done after all", timeout_s=20, every_s=0.05)
