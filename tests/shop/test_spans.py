"""Spans on their way out: nothing that the trace store does may slow a request, grow without bound or fill the log."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter

from labkit._wait import wait_until
from labkit.errors import ConfigInvalid
from labkit.shop.config import Config, load_config
from labkit.shop.logs import JsonFormatter
from labkit.shop.metrics import Telemetry
from labkit.shop.spans import SpanQueue, otlp_exporter
from labkit.shop.tracing import exemplar, trace_headers
from tests.shop.otlp_receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A trace store of this test."""
    receiver = Receiver()
    yield receiver
    receiver.close()


class Source:
    """A queue before a store, and something that makes spans."""

    def __init__(self, url: str, **options: float) -> None:
        self.outcomes = Counter("spans_total", "Spans.", ["outcome"], registry=CollectorRegistry())
        self.queue = SpanQueue(otlp_exporter(url), self.outcomes, **options)  # type: ignore[arg-type]
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.queue)
        self._tracer = provider.get_tracer("test")

    def make(self, count: int) -> float:
        """*count* spans; the seconds that it took."""
        start = time.perf_counter()
        for _ in range(count):
            self._tracer.start_span("work").end()
        return time.perf_counter() - start

    def count(self, outcome: str) -> float:
        """How many spans ended so."""
        return float(self.outcomes.labels(outcome)._value.get())


@pytest.fixture
def source(receiver: Receiver) -> Iterator[Source]:
    """Spans on their way to the receiver; at most 600 may wait."""
    source = Source(receiver.url, capacity=600, pause_s=0.1)
    yield source
    receiver.release()
    source.queue.shutdown()


def test_every_span_arrives_and_is_counted(receiver: Receiver, source: Source):
    """What ended is sent within a moment, and the metric says so."""
    source.make(500)
    wait_until(lambda: len(receiver.spans) == 500, "500 spans arrived", timeout_s=10, every_s=0.05)
    wait_until(lambda: source.count("sent") == 500, "counted", timeout_s=5, every_s=0.05)
    assert len(source.queue) == 0


def test_a_store_that_hangs_costs_spans_and_not_time(
    receiver: Receiver, source: Source, caplog: pytest.LogCaptureFixture
):
    """With a store that never answers, ending a span takes microseconds, and what is too much is counted."""
    caplog.set_level(logging.INFO, "labkit.shop")
    receiver.mode = "hang"
    source.make(1)
    wait_until(lambda: receiver.posts > 0, "the sender hangs", timeout_s=10, every_s=0.02)
    took_s = source.make(5000)
    assert (len(source.queue), source.count("queue_full")) == (600, 5001 - 600)
    assert took_s < 1.0  # 5000 spans; one wait for the store is 1 s
    wait_until(lambda: "does not take spans" in caplog.text, "the log says it", timeout_s=10, every_s=0.05)


def test_a_store_that_comes_back_gets_what_waited(receiver: Receiver, source: Source, caplog: pytest.LogCaptureFixture):
    """A short outage loses no span; the log has one line for its begin and one for its end, whatever was tried."""
    caplog.set_level(logging.INFO, "labkit.shop")
    receiver.mode = "refuse"
    source.make(100)
    wait_until(lambda: receiver.posts >= 3, "several attempts", timeout_s=20, every_s=0.05)
    receiver.mode = "ok"
    wait_until(lambda: "takes spans again" in caplog.text, "the end of the outage", timeout_s=20, every_s=0.05)
    assert len(receiver.spans) == 100
    assert [r.levelname for r in caplog.records if "spans" in r.message] == ["WARNING", "INFO"]


def test_a_batch_that_is_never_taken_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    """Something that the store cannot take is dropped and counted after some attempts, and does not block the rest."""
    monkeypatch.setattr("labkit.shop.spans.ATTEMPTS", 2)
    receiver.mode = "refuse"
    source = Source(receiver.url, pause_s=0.01)
    source.make(3)
    wait_until(lambda: source.count("not_taken") == 3, "given up", timeout_s=20, every_s=0.05)
    source.queue.shutdown()


def test_nothing_listens_and_the_end_comes_all_the_same():
    """A process whose store is gone is not kept from its end."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = Source(f"http://127.0.0.1:{taken.getsockname()[1]}")
        source.make(10)
        start = time.monotonic()
        source.queue.shutdown()
        assert time.monotonic() - start < 5


def config(**variables: str) -> Config:
    return load_config("payments", {"SHOP_PORT": "8085", **variables})


def connected(url: str, **variables: str) -> Telemetry:
    telemetry = Telemetry("1.0.0")
    telemetry.tracing.connect(config(SHOP_OTLP_URL=url, **variables), telemetry, on=lambda: True)
    return telemetry


def test_without_an_address_there_are_no_spans():
    """An empty SHOP_OTLP_URL means no span, no header, no exemplar and no metric about spans."""
    telemetry = Telemetry("1.0.0")
    telemetry.tracing.connect(config(), telemetry, on=lambda: True)
    with telemetry.tracing.server("GET", "/products", {}, {}) as span:
        assert (span.is_recording(), trace_headers(), exemplar()) == (False, {}, None)
    assert b"shop_spans" not in telemetry.exposition("")[0]


def test_the_flag_turns_traces_off_and_on(receiver: Receiver):
    """`on` is asked at every span."""
    switch, telemetry = [False], Telemetry("1.0.0")
    telemetry.tracing.connect(config(SHOP_OTLP_URL=receiver.url), telemetry, on=lambda: switch[0])
    for _ in range(2):
        with telemetry.tracing.server("GET", "/products", {}, {}) as span:
            assert span.is_recording() is switch[0]
        switch[0] = True
    telemetry.tracing.close()
    assert len(receiver.spans) == 1


def test_a_trace_that_is_not_kept_has_ids_and_no_exemplar(receiver: Receiver):
    """With a share of 0 a request has a trace id for its log lines, says so downstream, and leads to no exemplar."""
    telemetry = connected(receiver.url, SHOP_TRACE_SHARE="0")
    with telemetry.tracing.server("GET", "/products", {}, {}):
        flags = int(trace_headers()["traceparent"][-2:], 16)
        assert (flags & 1, exemplar()) == (0, None)
    telemetry.tracing.close()
    assert receiver.spans == []


def test_who_called_decides_whether_a_trace_is_kept(receiver: Receiver):
    """Sampling follows the parent: a kept trace stays whole in a service whose own share is 0."""
    telemetry = connected(receiver.url, SHOP_TRACE_SHARE="0")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.tracing.server("GET", "/products", {"traceparent": parent}, {}):
        assert exemplar() == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    telemetry.tracing.close()
    assert [(span.trace_id, span.parent_id) for span in receiver.spans] == [(parent[3:35], parent[36:52])]


def test_a_malformed_parent_begins_a_new_trace(receiver: Receiver):
    """Whatever a client sends as traceparent, the request is served and traced."""
    telemetry = connected(receiver.url)
    with telemetry.tracing.server("GET", "/products", {"traceparent": "00-zz-é-01"}, {}) as span:
        assert span.is_recording()
    telemetry.tracing.close()
    assert receiver.spans[0].parent_id == ""


def test_nothing_below_nothing(receiver: Receiver):
    """Statements and commands that serve no request, such as those of probes, make no traces of their own."""
    telemetry = connected(receiver.url)
    with telemetry.tracing.statement("check", "SELECT 1"), telemetry.tracing.command("take"):
        pass
    telemetry.tracing.close()
    assert receiver.spans == []


def test_spans_say_the_version_that_made_them(receiver: Receiver):
    """A deploy changes service.version of the spans that follow, and no earlier one."""
    telemetry = connected(receiver.url)
    for version in ("1.0.0", "1.1.0"):
        telemetry.version = version
        with telemetry.tracing.server("GET", "/products", {}, {}):
            pass
    telemetry.tracing.close()
    assert [(span.service, span.version) for span in receiver.spans] == [("payments", "1.0.0"), ("payments", "1.1.0")]


def test_a_log_line_in_a_request_has_its_ids(receiver: Receiver):
    """trace_id and span_id of a line are those of the span around it, and null outside."""
    telemetry, formatter = connected(receiver.url), JsonFormatter(config())
    record = logging.makeLogRecord({"msg": "hello"})
    with telemetry.tracing.server("GET", "/products", {}, {}):
        inside = json.loads(formatter.format(record))
    outside = json.loads(formatter.format(record))
    telemetry.tracing.close()
    assert (inside["trace_id"], inside["span_id"]) == (receiver.spans[0].trace_id, receiver.spans[0].span_id)
    assert (outside["trace_id"], outside["span_id"]) == (None, None)


@pytest.mark.parametrize("share", ["2", "-0.1", "nan", "all"])
def test_a_share_is_a_fraction(share: str):
    """SHOP_TRACE_SHARE takes 0 to 1, and the error says so."""
    with pytest.raises(ConfigInvalid, match="a fraction from 0 to 1"):
        config(SHOP_TRACE_SHARE=share)
