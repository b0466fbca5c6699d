"""OpenSearch keeps the contract of logs; a cluster of three survives the loss of a node."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit._http import get_json, is_up, request
from labkit._wait import wait_until
from labkit.errors import RequestFailed
from labkit.observe.opensearch import OpenSearchLogs, OpenSearchSink
from labkit.settings import load_settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_catalogue
from tests.conftest import free_offset
from tests.observe import contract_logs

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(900)]


@contextmanager
def cluster(folder: Path, nodes: int) -> Iterator[tuple[str, Callable[[str], str]]]:
    """OpenSearch with so many nodes: its address, and a function that tells its launcher something."""
    program = acquire(load_catalogue()["opensearch"], load_settings())
    offset = free_offset()
    http, transport = 9200 + offset, 9300 + offset
    argv = [program.path, "--data", folder / "data", "--http", http, "--transport", transport, "--nodes", nodes]
    url = f"http://127.0.0.1:{http}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def tell(line: str) -> str:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return next(said for said in process.stdout if line in said).strip()

    ready = f"{url}/_cluster/health?wait_for_status=green&wait_for_nodes={nodes}&timeout=1s"
    try:
        wait_until(lambda: is_up(ready, timeout_s=3), "OpenSearch is green", timeout_s=120)
        yield url, tell
    finally:
        process.terminate()
        process.wait(30)
        for pipe in (process.stdin, process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture(scope="module")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one node with the contract's lines, each sent twice."""
    with cluster(tmp_path_factory.mktemp("opensearch"), nodes=1) as (url, _):
        for _ in range(2):
            OpenSearchSink(url).send(contract_logs.lines(contract_logs.START))
        request("POST", f"{url}/logs-labkit/_refresh")
        yield url


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


def test_before_anything_is_logged_the_missing_index_is_named(opensearch: str) -> None:
    """The error says what to look at, not only that the answer was 404."""
    request("DELETE", f"{opensearch}/logs-labkit")
    try:
        with pytest.raises(RequestFailed, match="has anything been logged") as caught:
            OpenSearchLogs(opensearch).services()
        assert caught.value.status == 404
    finally:
        OpenSearchSink(opensearch).send(contract_logs.lines(contract_logs.START))
        request("POST", f"{opensearch}/logs-labkit/_refresh")
