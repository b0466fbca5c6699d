"""The embedded store keeps the contracts, and its spans can be looked at."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from labkit._http import request
from labkit.observe.logs import EmbeddedLogs
from labkit.observe.shipper import OtlpSink
from labkit.observe.trace_views import clock_skew, service_map, tree, waterfall
from labkit.observe.traces import EmbeddedTraces
from tests.observe import contract_logs, contract_traces
from tests.store_process import StoreProcess

pytestmark = pytest.mark.live
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store with the lines and spans of the contracts, each sent twice."""
    process = StoreProcess(tmp_path_factory.mktemp("store")).start()
    try:
        spans = contract_traces.spans(contract_traces.START).SerializeToString()
        for _ in range(2):
            OtlpSink(process.url).send(contract_logs.lines(contract_logs.START))
            request("POST", f"{process.url}/v1/traces", data=spans, headers=PROTOBUF)
        yield process
    finally:
        process.stop()


class TestEmbeddedLogs(contract_logs.LogContract):
    """The contract of logs."""

    @pytest.fixture
    def log_store(self, store: StoreProcess) -> EmbeddedLogs:
        """Its client."""
        return EmbeddedLogs(store.url)


class TestEmbeddedTraces(contract_traces.TraceContract):
    """The contract of traces."""

    @pytest.fixture
    def trace_store(self, store: StoreProcess) -> EmbeddedTraces:
        """Its client."""
        return EmbeddedTraces(store.url)


@pytest.fixture
def slow(store: StoreProcess) -> pd.DataFrame:
    """The slow trace, whose payments have a clock behind the others."""
    return EmbeddedTraces(store.url).trace(contract_traces.SLOW)


def test_a_tree_shows_parents_before_children_and_says_that_clocks_differ(slow: pd.DataFrame) -> None:
    """The span that seems to begin before its parent is still below it."""
    rows = tree(slow).splitlines()

    assert [row.split()[0] for row in rows[:3]] == ["gateway", "payments", "orders"]
    assert "ERROR" in rows[0]
    assert rows[3].startswith("Clocks differ: a span of payments begins 50 ms before its parent in gateway")
    assert clock_skew(slow)["ahead_s"].tolist() == pytest.approx([0.05])


def test_a_waterfall_has_a_bar_per_span_and_the_note_on_clocks(slow: pd.DataFrame) -> None:
    """Bars lie where the spans' own clocks put them."""
    ax = waterfall(slow)
    try:
        assert len(ax.patches) == 3
        assert "Clocks differ" in ax.get_xlabel()
    finally:
        plt.close(ax.figure)


def test_the_service_map_names_every_service(store: StoreProcess) -> None:
    """And the number of calls on each arrow."""
    first, last = contract_traces.START - pd.Timedelta(seconds=1), contract_traces.END
    ax = service_map(EmbeddedTraces(store.url).dependencies(start=first, end=last))
    try:
        assert {"gateway", "catalog", "orders", "payments", "1"} <= {text.get_text() for text in ax.texts}
    finally:
        plt.close(ax.figure)


def test_a_span_whose_parent_is_not_here_is_shown_as_a_root(slow: pd.DataFrame) -> None:
    """Half a trace is still a trace, and the tree says what is missing."""
    assert tree(slow[slow["service"] != "gateway"]).count("(its parent is not here)") == 2
