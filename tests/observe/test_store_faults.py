"""The embedded store under bad input, kill -9 and a full disk."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from labkit._http import get_json
from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import RequestFailed
from labkit.observe.log_lines import LogLine
from labkit.observe.logs import EmbeddedLogs
from labkit.observe.shipper import OtlpSink, Placed
from labkit.observe.store.database import Database
from tests.observe import contract_traces
from tests.store_process import StoreProcess

pytestmark = pytest.mark.live
PROTOBUF, JSON = "application/x-protobuf", "application/json"
SPANS = contract_traces.spans(contract_traces.START).SerializeToString()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """An empty store."""
    process = StoreProcess(tmp_path_factory.mktemp("store")).start()
    yield process
    process.stop()


def post(
    store: StoreProcess, body: bytes, content_type: str, path: str = "/v1/traces", **headers: str
) -> tuple[int, str]:
    """Status and text of the answer."""
    headers |= {"Content-Type": content_type}
    answer = requests.post(store.url + path, data=body, headers=headers, timeout=20)
    return answer.status_code, answer.text


def batch(first: int, count: int, text: str = "line") -> list[Placed]:
    """Lines of now, numbered."""
    now = int(utc_now().timestamp() * 1e9)
    return [Placed(LogLine(now, "shop", "info", f"{text} {n}"), "file", n) for n in range(first, first + count)]


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (SPANS[:-7], PROTOBUF, "in protobuf"),
        (SPANS, "text/plain", "content type 'text/plain' is not OTLP"),
        (b'{"resourceSpans": [', JSON, "not JSON"),
        (b'{"resourceSpans": 7}', JSON, "no ExportTraceServiceRequest"),
        (b"\xff\xfe", JSON, "not UTF-8"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abcd"}]}]}]}', JSON, "must have 16 bytes"),
    ],
)
def test_what_is_not_otlp_is_refused_with_the_reason(
    store: StoreProcess, body: bytes, content_type: str, reason: str
) -> None:
    """HTTP 400 names what is wrong, and nothing of the request is kept."""
    before = get_json(f"{store.url}/api/status")["spans"]

    status, text = post(store, body, content_type)

    assert status == 400
    assert reason in json.loads(text)["message"]
    assert get_json(f"{store.url}/api/status")["spans"] == before


def test_json_and_gzip_are_understood(store: StoreProcess) -> None:
    """Ids are hex digits in OTLP's JSON; bodies may be packed."""
    span = {"traceId": "c" * 32, "spanId": "d" * 16, "name": "GET /", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()

    status, text = post(store, gzip.compress(body), JSON, **{"Content-Encoding": "gzip"})

    assert (status, text) == (200, "{}")
    assert get_json(f"{store.url}/api/trace", params={"trace_id": "c" * 32})["span_id"] == ["d" * 16]


def test_a_request_that_unpacks_to_too_much_is_refused(store: StoreProcess) -> None:
    """20 MB of zeros are small when packed, and HTTP 413 all the same."""
    status, _ = post(store, gzip.compress(bytes(20_000_000)), PROTOBUF, **{"Content-Encoding": "gzip"})
    assert status == 413


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("sql", 404, "there are: logs"),
        ("logs?where=1", 400, "no parameter 'where'"),
        ("logs?limit=many", 400, "whole number"),
        ("log-counts?by=message", 400, "service, level or both"),
    ],
)
def test_only_the_fixed_questions_are_answered(store: StoreProcess, path: str, status: int, reason: str) -> None:
    """Anything else is refused, and the refusal says what there is."""
    answer = requests.get(f"{store.url}/api/{path}", timeout=10)
    assert answer.status_code == status
    assert reason in answer.json()["message"]


def test_a_value_never_becomes_sql(store: StoreProcess) -> None:
    """A quote in a search is a quote."""
    assert get_json(f"{store.url}/api/logs", params={"text": "'; drop table logs; --"})["message"] == []
    assert get_json(f"{store.url}/api/status")["logs"] >= 0


def test_a_giant_message_is_cut_and_says_so(store: StoreProcess) -> None:
    """What is longer than the limit is kept up to it, with its true length."""
    OtlpSink(store.url).send([Placed(LogLine(0, "giant", "info", "x" * 1_000_000), "giant", 0)])
    (message,) = EmbeddedLogs(store.url).search(service="giant")["message"]
    assert len(message) < 17_000
    assert message.endswith("[cut: 1,000,000 characters]")


def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    """Killed while it takes batches, the store has every acknowledged batch after a restart, and no part of another."""
    store, size = StoreProcess(tmp_path).start(), 50
    acknowledged: list[int] = []

    def send() -> None:
        sink = OtlpSink(store.url)
        for first in range(0, 1_000_000, size):
            try:
                sink.send(batch(first, size))
            except RequestFailed:
                return
            acknowledged.append(first)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        wait_until(lambda: len(acknowledged) >= 20, "twenty batches are acknowledged", timeout_s=30, every_s=0.005)
        store.stop(signal.SIGKILL)
        sender.join(timeout=30)
        store.start()
        found = EmbeddedLogs(store.url).search(service="shop", limit=10_000)
    finally:
        store.stop(signal.SIGKILL)
        sender.join(timeout=30)
    kept = {int(message.split()[1]) for message in found["message"]}
    last = acknowledged[-1] + size
    assert set(range(last)) <= kept
    # The batch on its way may have been kept before the answer was lost: whole, or not at all.
    assert len(found) == len(kept) in {last, last + size}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_full_disk_refuses_batches_and_answers_questions(tmp_path: Path) -> None:
    """HTTP 507 with what is free and what must be; questions are answered; with space again, batches are taken."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True, timeout=10)
    store = StoreProcess(disk / "data", "--reserve-mb", "8")
    try:
        store.start()
        sink, filler = OtlpSink(store.url), disk / "filler"
        sink.send(batch(0, 10))
        filler.write_bytes(bytes(18_500_000))

        with pytest.raises(RequestFailed, match="Free some space") as caught:
            sink.send(batch(10, 10))

        assert caught.value.status == 507
        assert len(EmbeddedLogs(store.url).search(service="shop")) == 10
        filler.unlink()
        sink.send(batch(10, 10))
        assert len(EmbeddedLogs(store.url).search(service="shop")) == 20
    finally:
        store.stop(signal.SIGKILL)
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_disk_that_fills_below_the_store_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    """Without any reserve the disk fills within a write: refused, what was kept stays, and it goes on with space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True, timeout=10)
    store, filler = StoreProcess(disk / "data", "--reserve-mb", "0"), disk / "filler"
    try:
        store.start()
        sink, kept = OtlpSink(store.url), 0
        filler.write_bytes(bytes(11_000_000))
        refused = None
        while refused is None and kept < 4000:
            try:
                sink.send(batch(kept, 20, os.urandom(6000).hex()))
                kept += 20
            except RequestFailed as error:
                refused = error
        assert refused is not None
        assert refused.status == 507
        assert len(EmbeddedLogs(store.url).search(service="shop", limit=10_000)) == kept
        filler.unlink()
        sink.send(batch(kept, 20))
        assert len(EmbeddedLogs(store.url).search(service="shop", limit=10_000)) == kept + 20
    finally:
        store.stop(signal.SIGKILL)
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_the_oldest_rows_go_first(tmp_path: Path) -> None:
    """Above the limit a tenth is dropped, and what is older than the age."""
    database = Database(tmp_path / "store.duckdb", most_rows=1000, reserve_mb=0)
    try:
        now = int(utc_now().timestamp() * 1e9)
        rows = range(1500)
        columns = {name: ["x"] * 1500 for name in ("service", "level", "message", "trace_id", "span_id", "fields")}
        database.add_logs(
            columns
            | {"time_ns": [now - (1500 - n) * 10**9 for n in rows], "source": [""] * 1500, "position": [0] * 1500}
        )
        assert database.status()["logs"] == 900
        assert database.ask("select min(time_ns) from logs", []) == [(now - 900 * 10**9,)]
        database.drop_older(100)
        assert 98 <= database.status()["logs"] <= 100
    finally:
        database.close()
