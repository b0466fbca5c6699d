"""OpenSearch keeps the contract of logs and what the shipper brings; a cluster of three survives the loss of a node."""

from __future__ import annotations

import functools
import json
import math
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit._http import get_json, is_up, request
from labkit._wait import wait_until
from labkit.errors import NoData, RequestFailed
from labkit.observe.grok import Grok, load_patterns
from labkit.observe.ingest import INDEX, PIPELINE, OpenSearchSink, prepare_index
from labkit.observe.log_lines import FORMATS, LogLine, line_reader
from labkit.observe.opensearch import OpenSearchLogs
from labkit.observe.shipper import Placed, Shipper
from labkit.settings import files_root, load_settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_catalogue
from tests.conftest import free_offset
from tests.observe import contract_logs

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(900)]

APPLICATION = (
    "2026-03-01 10:00:00,250 ERROR shop.orders - could not - write",
    "2026-03-01T10:00:00.1234567+01:00 Warn  - no logger",
    "2026-03-01T10:00Z FATAL a.b - ",
    "2026-13-01T10:00 info x - there is no such month",
)
ACCESS = (
    '10.0.0.1 - ann [01/Mar/2026:10:00:00 +0000] "GET /a?b=c HTTP/1.1" 503 17 "http://a/b" "curl/8 \\"x\\""',
    'host.example - - [01/Mar/2026:11:00:00 +0100] "POST /a HTTP/2.0" 404 -',
    '::1 - - [01/Mar/2026:10:00:00 +0000] "" 400 226',
    '10.0.0.1 - - [01/Mar/2026:10:00:00 +0000] "GET /big HTTP/1.1" 200 3000000000',
)
OTHER = (
    "level=warn something",
    '{"half',
    "2026-03-01 ERROR - ",
    "10.0.0.1 - -",
    "ключ - значение 🔑",
    "a\\b \"c\" 'd'",
)


class Cluster:
    """OpenSearch as the catalogue's launcher runs it: starts, is killed, comes back over the same folder."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.program = acquire(load_catalogue()["opensearch"], load_settings())
        self.folder, self.nodes, self.offset = folder, nodes, free_offset()
        self.url = f"http://127.0.0.1:{9200 + self.offset}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Cluster:
        """Returns when every node is there and every shard has its copies."""
        ports = ["--http", 9200 + self.offset, "--transport", 9300 + self.offset]
        argv = [self.program.path, "--data", self.folder / "data", *ports, "--nodes", self.nodes]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            self.wait_for(f"wait_for_status=green&wait_for_nodes={self.nodes}")
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for(self, health: str) -> None:
        """Until the cluster's health is so, asked at node 1."""
        url = f"{self.url}/_cluster/health?{health}&timeout=1s"
        log = self.folder / "log"
        wait_until(lambda: is_up(url, timeout_s=5), f"OpenSearch has {health} (its log is {log})", timeout_s=180)

    def tell(self, line: str) -> None:
        """Say *line* to the launcher and wait until it is done."""
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert next(said for said in self.process.stdout if line in said).strip() == f"done: {line}"

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it; twice is fine."""
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
        self.process = None


@pytest.fixture(scope="module")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one node with the contract's lines, each sent twice."""
    cluster = Cluster(tmp_path_factory.mktemp("opensearch"), nodes=1).start()
    try:
        fill(cluster.url)
        yield cluster.url
    finally:
        cluster.stop()


def fill(url: str) -> None:
    """The contract's lines, each sent twice, can be found."""
    for _ in range(2):
        OpenSearchSink(url).send(contract_logs.lines(contract_logs.START))
    request("POST", f"{url}/{INDEX}/_refresh")


class TestOpenSearchLogs(contract_logs.LogContract):
    """The contract of logs."""

    @pytest.fixture
    def log_store(self, opensearch: str) -> OpenSearchLogs:
        """Its client."""
        return OpenSearchLogs(opensearch)


def test_everything_listens_on_loopback_only(opensearch: str) -> None:
    """The addresses that the node publishes."""
    (node,) = get_json(f"{opensearch}/_nodes/http,transport")["nodes"].values()
    bound = [*node["http"]["bound_address"], *node["transport"]["bound_address"]]
    assert [address for address in bound if not address.startswith("127.0.0.1:")] == []


def test_a_missing_index_is_no_data_and_named(opensearch: str) -> None:
    """No service has lines then; a search says that the index is missing and where to look."""
    logs = OpenSearchLogs(opensearch)
    request("DELETE", f"{opensearch}/{INDEX}")
    try:
        assert logs.services() == []
        for ask in (logs.search, logs.errors_per_minute):
            with pytest.raises(NoData, match=f"no index {INDEX}: nothing was logged yet, or it was deleted.*shipper"):
                ask()
    finally:
        fill(opensearch)


def test_an_index_without_lines_says_so(opensearch: str) -> None:
    """That is another thing than a missing index or a misspelt service."""
    request("DELETE", f"{opensearch}/{INDEX}")
    try:
        prepare_index(opensearch)
        with pytest.raises(NoData, match="OpenSearch has no lines at all"):
            OpenSearchLogs(opensearch).search()
    finally:
        fill(opensearch)


def test_what_opensearch_refuses_is_told_in_its_words(opensearch: str) -> None:
    """The reason, not the JSON around it: here an index that is closed."""
    request("POST", f"{opensearch}/{INDEX}/_close")
    try:
        with pytest.raises(RequestFailed, match=r"failed: HTTP 400: closed\. Is OpenSearch running") as caught:
            OpenSearchLogs(opensearch).search()
        assert "{" not in str(caught.value)
    finally:
        request("POST", f"{opensearch}/{INDEX}/_open")
        wait_until(lambda: is_up(f"{opensearch}/{INDEX}/_count"), "the index is open", timeout_s=60)


# --- The pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(opensearch: str) -> str:
    """The address of the pipeline's trial run."""
    prepare_index(opensearch)
    return f"{opensearch}/_ingest/pipeline/{PIPELINE}/_simulate"


def through(pipeline: str, lines: list[LogLine]) -> list[dict[str, Any]]:
    """What the pipeline makes of *lines*."""
    documents = [
        {"time_ns": line.time_ns, "level": line.level, "message": line.message, "fields": line.fields} for line in lines
    ]
    answer = request("POST", pipeline, json={"docs": [{"_source": one} for one in documents]}, timeout_s=60).json()
    return [one["doc"]["_source"] for one in answer["docs"]]


def parsed_alike(pipeline: str, texts: list[str]) -> None:
    """Each text, as OpenSearch parses it and as labkit does."""
    whole, without = line_reader(), line_reader(formats=False)
    found = through(pipeline, [without(text, "app") for text in texts])
    for text, here in zip(texts, found, strict=True):
        line = whole(text, "app")
        assert here == {
            "time_ns": line.time_ns,
            "level": line.level,
            "message": line.message,
            "fields": line.fields,
        }, text


def test_both_formats_are_parsed_as_labkit_parses_them(pipeline: str) -> None:
    """Time, level, message and every field with its type; lines of no format stay as they are."""
    parsed_alike(pipeline, [*APPLICATION, *ACCESS, *OTHER])


def test_the_samples_are_of_the_formats_they_stand_for() -> None:
    """Otherwise the comparison would only show that neither side matches."""
    patterns = load_patterns(files_root() / "infra" / "logs" / "patterns")
    application, access = (Grok(patterns[name], patterns) for name in FORMATS)

    assert all(application.match(text) and not access.match(text) for text in APPLICATION)
    assert all(access.match(text) and not application.match(text) for text in ACCESS)
    assert not any(application.match(text) or access.match(text) for text in OTHER)


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12)
_INSTANT = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_LEVEL = st.sampled_from(["ERROR", "warn", "Info", "FATAL", "notice", "Err", "debug", "other"])


@st.composite
def _application_line(draw: st.DrawFn) -> str:
    instant = draw(_INSTANT).isoformat(sep=draw(st.sampled_from(" T")))
    if draw(st.booleans()):
        instant = instant.replace(".", ",").replace("+00:00", draw(st.sampled_from(["", "Z", "+0100", "-02:30"])))
    return f"{instant} {draw(_LEVEL)} {draw(_TEXT)} - {draw(_TEXT)}"


@st.composite
def _access_line(draw: st.DrawFn) -> str:
    instant = draw(_INSTANT).strftime("%d/%b/%Y:%H:%M:%S %z")
    asked = draw(st.sampled_from(["GET /a HTTP/1.1", "PUT /ä", "-", "", "GET  /two", "DELETE / HTTP/x"]) | _TEXT)
    status, size = draw(st.integers(100, 599)), draw(st.just("-") | st.integers(0, 2**40).map(str))
    end = draw(st.just("") | st.tuples(_TEXT, _TEXT).map(lambda both: f' "{both[0]}" "{both[1]}"'))
    return (
        f'{draw(st.sampled_from(["10.0.0.1", "a-b.c", "::1", "_"]))} - ann [{instant}] "{asked}" {status} {size}{end}'
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.one_of(_application_line(), _access_line(), _TEXT), min_size=20, max_size=20))
def test_any_line_is_parsed_as_labkit_parses_it(pipeline: str, texts: list[str]) -> None:
    """500 lines that nearly or really are of one of the formats."""
    parsed_alike(pipeline, texts)


# --- What the shipper brings -----------------------------------------------------------------------------------------


def lines_of(url: str, service: str) -> pd.DataFrame:
    """Every line of *service* since 2026 began, as soon as it can be found."""
    request("POST", f"{url}/{INDEX}/_refresh")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    return OpenSearchLogs(url).search(service=service, start=first, limit=10_000)


def messages(url: str, service: str) -> list[str]:
    """What these lines say."""
    return [str(message) for message in lines_of(url, service)["message"]]


def shipper(folder: Path, url: str) -> Shipper:
    """As the catalogue starts it, over the files of *folder*."""
    return Shipper(folder, folder / "offsets.json", OpenSearchSink(url), read=line_reader(formats=False))


def test_shipped_lines_of_every_kind_arrive_understood(opensearch: str, tmp_path: Path) -> None:
    """JSON by the shipper, the two formats by OpenSearch, the rest as text; what looks like a line in JSON is left."""
    said = {"time": "2026-03-01T10:00:00.25Z", "level": "WARN", "service": "mixed", "message": APPLICATION[0], "n": 1}
    (tmp_path / "mixed.log").write_text("\n".join([json.dumps(said), APPLICATION[0], ACCESS[0], OTHER[0], ""]))

    assert shipper(tmp_path, opensearch).ship() == 4

    found = lines_of(opensearch, "mixed")
    assert sorted(zip(found["level"], found["message"], strict=True)) == [
        ("error", ACCESS[0]),
        ("error", "could not - write"),
        ("warning", APPLICATION[0]),
        ("warning", OTHER[0]),
    ]
    assert found.set_index("message")["logger"].dropna().to_dict() == {"could not - write": "shop.orders"}


def test_odd_lines_are_kept_too(opensearch: str, tmp_path: Path) -> None:
    """Whatever a process may write, no line is refused: numbers that are none, giants, strange names and letters."""
    odd: list[dict[str, Any]] = [
        {"value": math.nan, "other": math.inf, "small": 1e-300},
        {"value": 10**400},
        {"": 1, ".": 2, "a..b": 3, "_id": "x", "message ": 4},
        {"value": [[{"a": [None, 1, "b"]}], {}]},
        {"level": "L" * 40_000, "trace_id": "no id", "time": "no time"},
        {"message": "\ud800 half a letter", "n": 1},
        {"message": "\x00\x1b[31m control \u2028"},
        {"message": "x" * 200_000},
        {"value": functools.reduce(lambda inner, _: {"a": inner}, range(400), {})},
    ]
    texts = [json.dumps({"service": "odd-lines", "message": f"odd {n}", **one}) for n, one in enumerate(odd)]
    (tmp_path / "odd-lines.log").write_text("\n".join([*texts, "raw \x00 \x1b[0m \\ %{INT:x} \U0001f511", ""]))

    assert shipper(tmp_path, opensearch).ship() == len(odd) + 1

    found = lines_of(opensearch, "odd-lines")
    assert len(found) == len(odd) + 1
    assert {"? half a letter", "odd 1", "raw \x00 \x1b[0m \\ %{INT:x} \U0001f511"} <= set(found["message"])


def test_a_line_that_opensearch_cannot_keep_does_not_hold_up_the_rest(opensearch: str, tmp_path: Path) -> None:
    """A time beyond 64 bits is refused for good; its neighbours in the same batch are kept, and the shipper goes on."""
    lines = [Placed(LogLine(10**18 + n, "odd", "info", f"line {n}"), "odd", n) for n in range(3)]
    lines[1] = Placed(LogLine(2**70, "odd", "info", "from the future"), "odd", 1)

    with pytest.raises(RequestFailed, match=r"1 of 3 lines were not kept: .*time_ns") as caught:
        OpenSearchSink(opensearch).send(lines)

    assert caught.value.status == 400
    request("POST", f"{opensearch}/{INDEX}/_refresh")
    first = datetime.fromtimestamp(10**9 - 1, UTC)
    kept = OpenSearchLogs(opensearch).search(service="odd", start=first, end=first + timedelta(seconds=9))
    assert kept["message"].tolist() == ["line 0", "line 2"]


def test_a_shipper_notices_that_opensearch_was_emptied(opensearch: str, tmp_path: Path) -> None:
    """The index comes back as it should be, with the pipeline, and no line is taken for one refused for good."""
    ships, log = shipper(tmp_path, opensearch), tmp_path / "emptied.log"
    log.write_text("before\n")
    ships.ship()
    request("DELETE", f"{opensearch}/{INDEX}")
    request("DELETE", f"{opensearch}/_ingest/pipeline/{PIPELINE}")
    try:
        log.write_text(f"before\n{APPLICATION[0]}\n")
        assert ships.ship() == 1

        assert messages(opensearch, "emptied") == ["could not - write"]
        mapping = get_json(f"{opensearch}/{INDEX}/_mapping")[INDEX]["mappings"]
        assert mapping["properties"]["message"]["type"] == "wildcard"
    finally:
        fill(opensearch)


def test_a_full_disk_refuses_lines_which_wait_in_their_file(opensearch: str, tmp_path: Path) -> None:
    """OpenSearch blocks its indices at 95 % of a disk: the reason is told, nothing counts as kept, nothing is lost."""
    ships, log = shipper(tmp_path, opensearch), tmp_path / "full-disk.log"
    log.write_text("before\n")
    ships.ship()
    # What OpenSearch itself does to an index when the disk passes its flood stage, and takes back when there is room.
    block: dict[str, Any] = {"index.blocks.read_only_allow_delete": True}
    request("PUT", f"{opensearch}/{INDEX}/_settings", json=block)
    try:
        with log.open("a") as file:
            file.write("while it is full\n")
        for _ in range(2):
            with pytest.raises(RequestFailed, match=r"1 of 1 lines were not kept: .*disk usage exceeded flood-stage"):
                ships.ship()
        assert messages(opensearch, "full-disk") == ["before"]
    finally:
        request("PUT", f"{opensearch}/{INDEX}/_settings", json=dict.fromkeys(block))

    assert ships.ship() == 1
    assert sorted(messages(opensearch, "full-disk")) == ["before", "while it is full"]


def _ship_until_refused(ships: Shipper, acknowledged: list[int]) -> None:
    """Until nothing is left or OpenSearch takes no more; how many lines each time."""
    with suppress(RequestFailed):
        while sent := ships.ship():
            acknowledged.append(sent)


def test_what_was_acknowledged_outlives_an_opensearch_killed_under_load(tmp_path: Path) -> None:
    """Every line up to the shipper's mark is there when it comes back; in the end each line is there once."""
    (folder := tmp_path / "logs").mkdir()
    (home := tmp_path / "opensearch").mkdir()
    texts = [f"line {n} {'x' * 300}" for n in range(6_000)]
    for service in ("one", "two"):
        (folder / f"{service}.log").write_text("".join(f"{text}\n" for text in texts))
    cluster = Cluster(home, nodes=1).start()
    try:
        ships, acknowledged = shipper(folder, cluster.url), list[int]()
        thread = threading.Thread(target=_ship_until_refused, args=(ships, acknowledged))
        thread.start()
        wait_until(lambda: len(acknowledged) >= 2, "two batches were kept", timeout_s=120, every_s=0.02)
        cluster.stop(signal.SIGKILL)
        thread.join(120)
        with pytest.raises(RequestFailed, match="connection refused"):
            ships.ship()
        assert 0 < sum(acknowledged) < 12_000

        cluster.start()

        kept = {service: lines_of(cluster.url, service) for service in ("one", "two")}
        assert sum(len(found) for found in kept.values()) >= sum(acknowledged)
        for found in kept.values():
            # Each file is sent from its beginning, so what was kept of it has no gap.
            assert set(found["message"]) == set(texts[: len(found)])
        # A new shipper, as after a crash, that had not written down how far it came: nothing is there twice.
        (folder / "offsets.json").unlink()
        _ship_until_refused(shipper(folder, cluster.url), again := list[int]())
        assert sum(again) == 12_000
        for service, before in kept.items():
            after = lines_of(cluster.url, service)
            assert sorted(after["message"]) == sorted(texts)
            # Nor does a line without a time of its own move to the time at which it was sent again.
            assert after.set_index("message")["time"][before["message"]].tolist() == before["time"].tolist()
    finally:
        cluster.stop()


# --- Three nodes -----------------------------------------------------------------------------------------------------


def test_three_nodes_survive_the_loss_of_one(tmp_path: Path) -> None:
    """Green; without a node yellow, with every line; green again on two, and on three when it is back."""
    cluster = Cluster(tmp_path, nodes=3).start()
    try:
        logs, sink = OpenSearchLogs(cluster.url), OpenSearchSink(cluster.url)
        sink.send(contract_logs.lines(contract_logs.START))
        cluster.wait_for("wait_for_status=green&wait_for_nodes=3")
        holders = {row["node"] for row in get_json(f"{cluster.url}/_cat/shards/{INDEX}?format=json")}
        lost = max(holders)  # not node 1, the one that is asked; a shard is on two of the three
        request("PUT", f"{cluster.url}/_cluster/settings", json=_allocate("none"))

        cluster.tell(f"stop {lost.removeprefix('node-')}")

        # If the lost one led the cluster, the others first choose another.
        wait_until(
            logs.health, "health is yellow", timeout_s=60, ready=lambda h: h == "yellow", tolerate=(RequestFailed,)
        )
        request("POST", f"{cluster.url}/{INDEX}/_refresh")
        assert len(logs.search(start=contract_logs.START, end=contract_logs.END, limit=1000)) == 184
        # Copies are made on the two that are left, as soon as that is allowed.
        request("PUT", f"{cluster.url}/_cluster/settings", json=_allocate("all"))
        cluster.wait_for("wait_for_status=green&wait_for_nodes=2")
        cluster.tell(f"start {lost.removeprefix('node-')}")
        cluster.wait_for("wait_for_status=green&wait_for_nodes=3")
        assert logs.health() == "green"
    finally:
        cluster.stop()


def _allocate(which: str) -> dict[str, Any]:
    # Otherwise the copy may be made anew before anybody has seen that it was missing.
    return {"transient": {"cluster.routing.allocation.enable": which}}
