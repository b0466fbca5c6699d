"""
Bench rows of the embedded store: what goes in per second, what questions over a million lines cost, its memory.

The goals are those of the issue; the load comes from this process, on the same two cores.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from labkit.observe.logs import EmbeddedLogs
from labkit.observe.shipper import OtlpSink, Shipper
from labkit.observe.traces import EmbeddedTraces
from tests.store_process import StoreProcess

Row = dict[str, Any]
_LINES, _BATCH, _SPANS = 1_000_000, 2000, 20_000


def rows(folder: Path) -> list[Row]:
    """All rows of this file."""
    store = StoreProcess(folder / "store").start()
    try:
        into = [_spans_in(store), _lines_in(store), _files_in(store, folder / "files")]
        asked = [*_questions(store)]
        peak_mb = psutil.Process(store.pid).memory_info().rss / 1e6
        return [*into, *asked, _row("store: memory with a million lines", peak_mb, "MB", 300, most=True)]
    finally:
        store.stop()


def _row(name: str, value: float, unit: str, goal: float, *, most: bool = False) -> Row:
    met = value <= goal if most else value >= goal
    said = f"{'<=' if most else '>='} {goal:,g} {unit}"
    found = {"name": name, "value": round(value, 4), "unit": unit, "goal": said, "met": met}
    return found | {"rival": None, "rival_value": None, "ratio": None}


def _spans_in(store: StoreProcess) -> Row:
    provider = TracerProvider(resource=Resource.create({"service.name": "gateway"}))
    exporter = OTLPSpanExporter(f"{store.url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_SPANS + 1, max_export_batch_size=512))
    tracer = provider.get_tracer("bench")
    start = time.perf_counter()
    for number in range(_SPANS // 2):
        with tracer.start_as_current_span("GET /products", attributes={"http.route": "/", "number": number}):
            tracer.start_span("mariadb prices", attributes={"db.system": "mariadb"}).end()
    provider.force_flush()
    took_s = time.perf_counter() - start
    provider.shutdown()
    kept = requests.get(f"{store.url}/api/status", timeout=10).json()["spans"]
    assert kept == _SPANS, f"{kept} of {_SPANS} spans were kept"
    return _row("store: spans in, from the OpenTelemetry SDK", _SPANS / took_s, "spans/s", 5000)


def _body(seed: int) -> bytes:
    rng, now = random.Random(seed), time.time_ns()
    message = ExportLogsServiceRequest()
    for service in ("gateway", "catalog", "cart", "orders"):
        group = message.resource_logs.add()
        pair = group.resource.attributes.add()
        pair.key, pair.value.string_value = "service.name", service
        records = group.scope_logs.add().log_records
        for number in range(_BATCH // 4):
            record = records.add()
            record.time_unix_nano = now - rng.randrange(3600 * 10**9)
            record.severity_text = "error" if rng.random() < 0.02 else "info"
            record.body.string_value = f"GET /products/{number} answered 200"
            record.trace_id, record.span_id = rng.randbytes(16), rng.randbytes(8)
            for name in ("status", "took_ms"):
                pair = record.attributes.add()
                pair.key, pair.value.int_value = name, number
    return message.SerializeToString()


def _lines_in(store: StoreProcess) -> Row:
    bodies = [_body(seed) for seed in range(20)]
    with requests.Session() as session:

        def send(body: bytes) -> None:
            headers = {"Content-Type": "application/x-protobuf"}
            session.post(f"{store.url}/v1/logs", data=body, headers=headers, timeout=60).raise_for_status()

        start = time.perf_counter()
        for body in bodies:
            send(body)
        took_s = time.perf_counter() - start
        for number in range(len(bodies), _LINES // _BATCH):
            send(bodies[number % len(bodies)])
    return _row("store: log lines in, OTLP protobuf", len(bodies) * _BATCH / took_s, "lines/s", 20_000)


def _files_in(store: StoreProcess, folder: Path) -> Row:
    folder.mkdir()
    line = {
        "time": "2026-03-01T10:00:00+00:00",
        "level": "info",
        "service": "shipped",
        "message": "GET /",
        "status": 200,
    }
    count = 20_000
    (folder / "shipped.log").write_text("".join(json.dumps(line | {"n": n}) + "\n" for n in range(count)))
    shipper = Shipper(folder, folder / "offsets.json", OtlpSink(store.url))
    start = time.perf_counter()
    while shipper.ship():
        pass
    return _row("shipper: lines from a file to the store", count / (time.perf_counter() - start), "lines/s", 2000)


def _questions(store: StoreProcess) -> list[Row]:
    logs, traces = EmbeddedLogs(store.url), EmbeddedTraces(store.url)
    trace_id = str(traces.search(limit=1)["trace_id"].iloc[0])
    line_trace = str(logs.search(limit=1, service="gateway")["trace_id"].iloc[0])
    asked: dict[str, Callable[[], object]] = {
        "store: errors per minute x service, a million lines": logs.errors_per_minute,
        "store: a trace by id": lambda: traces.trace(trace_id),
        "store: the lines of a trace, a million lines": lambda: logs.search(trace_id=line_trace),
    }
    return [_row(name, _median_ms(ask), "ms", 100, most=True) for name, ask in asked.items()]


def _median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1000)
    return median(times)
