"""Jaeger keeps the contract of traces; it is fetched or compiled once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit._http import is_up, request
from labkit._wait import wait_until
from labkit.errors import InvalidValue, NotReady, RequestFailed
from labkit.observe.jaeger import JaegerTraces
from labkit.settings import files_root, load_settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_catalogue
from tests.observe import contract_traces
from tests.prometheus_process import free_port

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]
_MAX_TRACES = 2000


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Jaeger with the catalogue's configuration, room for 2,000 traces, and the contract's spans."""
    program = acquire(load_catalogue()["jaeger"], load_settings())
    folder = tmp_path_factory.mktemp("jaeger")
    ports = {name: free_port() for name in ("query", "otlp", "health")}
    text = (files_root() / "infra" / "jaeger" / "jaeger.yaml").read_text(encoding="utf-8")
    text = text.replace("@{listen}", "127.0.0.1")
    for name, port in ports.items():
        text = text.replace(f"@{{port.{name}}}", str(port))
    config = folder / "jaeger.yaml"
    config.write_text(text.replace("max_traces: 20000", f"max_traces: {_MAX_TRACES}"), encoding="utf-8")
    with _running([program.path, f"--config={config}"], folder / "log"):
        health, url = (f"http://127.0.0.1:{ports[name]}" for name in ("health", "query"))
        wait_until(lambda: is_up(f"{health}/status"), "Jaeger is ready", timeout_s=60)
        message = contract_traces.spans(contract_traces.START).SerializeToString()
        headers = {"Content-Type": "application/x-protobuf"}
        request("POST", f"http://127.0.0.1:{ports['otlp']}/v1/traces", data=message, headers=headers)
        wait_until(lambda: len(JaegerTraces(url).services()) == 4, "the spans can be found", timeout_s=20)
        yield url


class _running:  # noqa: N801  (used as a statement)
    """A program while the block runs."""

    def __init__(self, argv: list[str | Path], log: Path) -> None:
        self._argv, self._log = argv, log

    def __enter__(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


class TestJaegerTraces(contract_traces.TraceContract):
    """The contract of traces."""

    @pytest.fixture
    def trace_store(self, jaeger: str) -> JaegerTraces:
        """Its client."""
        return JaegerTraces(jaeger)


def test_a_limit_above_what_jaeger_holds_says_so(jaeger: str) -> None:
    """Jaeger answers with status 500; the error names the setting that caps it."""
    with pytest.raises(RequestFailed, match=r"memory\.max_traces") as caught:
        JaegerTraces(jaeger).search("gateway", limit=_MAX_TRACES + 1)
    assert caught.value.status == 500
    with pytest.raises(InvalidValue, match="limit"):
        JaegerTraces(jaeger).search("gateway", limit=0)


def test_traces_that_did_not_fail_can_be_asked_for_too(jaeger: str) -> None:
    """Jaeger has no such question; the client picks them out."""
    first, last = contract_traces.START, contract_traces.END
    found = JaegerTraces(jaeger).search("gateway", error=False, start=first, end=last)
    assert found["trace_id"].tolist() == [contract_traces.FAST]


def test_a_trace_that_jaeger_has_forgotten_is_waited_for_in_vain(jaeger: str) -> None:
    """As one that an older exemplar names after a restart: the error says that Jaeger's memory is why."""
    with pytest.raises(NotReady, match=r"Jaeger keeps traces in memory.*Take a newer trace"):
        JaegerTraces(jaeger).wait_for(["e" * 32], timeout_s=0)
