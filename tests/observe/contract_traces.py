"""What every `TraceStore` must do: inherit `TraceContract`, give a fixture `trace_store` that holds `spans(START)`."""

from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from labkit._time import utc_now
from labkit.errors import InvalidValue, NoData, NotReady
from labkit.observe.stores import SPAN_COLUMNS, TRACE_COLUMNS, TraceStore

START = (utc_now() - timedelta(minutes=10)).replace(microsecond=0)
END = START + timedelta(minutes=5)
FAST, SLOW = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"

# trace, span, parent, service, operation, offset, duration (both ms), failed
_SPANS = (
    (FAST, "01", "", "gateway", "GET /products", 0, 20, False),
    (FAST, "02", "01", "catalog", "GET /prices", 5, 10, False),
    (SLOW, "01", "", "gateway", "POST /checkout", 60_000, 900, True),
    (SLOW, "02", "01", "orders", "POST /orders", 60_010, 850, True),
    # The clock of payments is behind: its span seems to begin before the one that caused it.
    (SLOW, "03", "01", "payments", "POST /charges", 59_950, 30, False),
)


def spans(start: datetime) -> ExportTraceServiceRequest:
    """Two traces: a fast one, and a minute later a slow one that failed, with a service whose clock is behind."""
    message = ExportTraceServiceRequest()
    for trace, span, parent, service, operation, offset_ms, took_ms, failed in _SPANS:
        group = message.resource_spans.add()
        pair = group.resource.attributes.add()
        pair.key, pair.value.string_value = "service.name", service
        one = group.scope_spans.add().spans.add()
        one.trace_id, one.span_id = bytes.fromhex(trace), bytes.fromhex(trace[:14] + span)
        one.parent_span_id = bytes.fromhex(trace[:14] + parent) if parent else b""
        one.name, one.kind, one.status.code = operation, 2, 2 if failed else 0
        one.start_time_unix_nano = int(start.timestamp()) * 10**9 + offset_ms * 10**6
        one.end_time_unix_nano = one.start_time_unix_nano + took_ms * 10**6
        pair = one.attributes.add()
        pair.key, pair.value.int_value = "http.status", 500 if failed else 200
    return message


class TraceContract:
    """The tests."""

    def test_a_search_gives_traces_newest_first(self, trace_store: TraceStore) -> None:
        """One row per trace: its root, its length over all spans, whether anything in it failed."""
        found = trace_store.search("gateway", start=START - timedelta(seconds=1), end=END)

        assert tuple(found.columns) == TRACE_COLUMNS
        assert found["trace_id"].tolist() == [SLOW, FAST]
        assert found["operation"].tolist() == ["POST /checkout", "GET /products"]
        assert found["spans"].tolist() == [3, 2]
        assert found["error"].tolist() == [True, False]
        assert found["duration_s"].iloc[1] == pytest.approx(0.02)

    @pytest.mark.parametrize("given", [{"min_duration_s": 0.5}, {"error": True}, {"operation": "POST /checkout"}])
    def test_a_search_can_ask_for_slow_failed_or_named(self, trace_store: TraceStore, given: dict[str, object]) -> None:
        """Each filter leaves the one trace."""
        found = trace_store.search("gateway", start=START - timedelta(seconds=1), end=END, **given)  # type: ignore[arg-type]
        assert found["trace_id"].tolist() == [SLOW]

    def test_a_trace_has_all_its_spans(self, trace_store: TraceStore) -> None:
        """The agreed columns first, attributes after them, by start."""
        found = trace_store.trace(FAST)

        assert tuple(found.columns[:8]) == SPAN_COLUMNS
        assert found["service"].tolist() == ["gateway", "catalog"]
        assert found["parent_id"].tolist() == ["", found["span_id"].iloc[0]]
        assert found["start"].iloc[0] == pd.Timestamp(START)
        assert found["duration_s"].tolist() == pytest.approx([0.02, 0.01])
        assert [int(value) for value in found["http.status"]] == [200, 200]

    def test_services_are_those_with_spans(self, trace_store: TraceStore) -> None:
        """Sorted, each once."""
        assert trace_store.services() == ["catalog", "gateway", "orders", "payments"]

    def test_dependencies_count_calls_between_services(self, trace_store: TraceStore) -> None:
        """Each span whose parent is of another service is a call."""
        calls = trace_store.dependencies(start=START - timedelta(seconds=1), end=END)
        assert sorted(calls.itertuples(index=False, name=None)) == [
            ("gateway", "catalog", 1),
            ("gateway", "orders", 1),
            ("gateway", "payments", 1),
        ]

    def test_an_unknown_trace_is_no_data(self, trace_store: TraceStore) -> None:
        """Not an empty frame."""
        with pytest.raises(NoData):
            trace_store.trace("f" * 32)

    def test_a_misspelt_service_is_no_data_with_the_nearest(self, trace_store: TraceStore) -> None:
        """The error names what was probably meant."""
        with pytest.raises(NoData, match='"payments"'):
            trace_store.search("payment", start=START, end=END)

    def test_waiting_for_traces_that_are_there_ends_at_once(self, trace_store: TraceStore) -> None:
        """Also for one that is named twice, and for none."""
        trace_store.wait_for([SLOW, FAST, SLOW], timeout_s=0)
        trace_store.wait_for([], timeout_s=0)

    def test_waiting_in_vain_names_what_is_missing(self, trace_store: TraceStore) -> None:
        """Only that: the trace which is there is not in the error."""
        with pytest.raises(NotReady, match=f"{'f' * 32}.*not there") as caught:
            trace_store.wait_for([FAST, "f" * 32], timeout_s=0.5)
        assert FAST not in str(caught.value)

    @pytest.mark.parametrize("wrong", [FAST, ["not an id"], [FAST[:16]]])
    def test_waiting_for_what_is_no_trace_id_is_refused(self, trace_store: TraceStore, wrong: list[str]) -> None:
        """A text instead of a list would be 32 waits for one letter each."""
        with pytest.raises(InvalidValue, match="trace_ids"):
            trace_store.wait_for(wrong, timeout_s=60)
