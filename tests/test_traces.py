"""From a number to its cause on the live lab: metric, exemplar, trace, and who took part."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from labkit._http import get_json
from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.lab import Lab
from labkit.observe.traces import EmbeddedTraces
from labkit.shop.config import SERVICES
from labkit.stack.state import State

pytestmark = pytest.mark.live


@pytest.fixture
def traces(lab: Lab) -> EmbeddedTraces:
    """The trace store of the lab."""
    state = State.load(lab.run_dir)
    assert state is not None
    return EmbeddedTraces(f"http://127.0.0.1:{state.ports['store']['http']}")


def exemplars(lab: Lab, query: str) -> list[dict[str, Any]]:
    """What Prometheus keeps for *query* of the last two minutes, the newest last."""
    now = utc_now()
    span = {"start": (now - timedelta(minutes=2)).timestamp(), "end": now.timestamp()}
    found = get_json(f"{lab.prometheus.url}/api/v1/query_exemplars", params={"query": query, **span})["data"]
    return sorted((e for series in found for e in series["exemplars"]), key=lambda e: e["timestamp"])


def test_an_exemplar_in_prometheus_leads_to_a_trace_in_the_store(lab: Lab, traces: EmbeddedTraces) -> None:
    """A checkout's bucket of the gateway names a trace, which has the spans of all six services."""
    query = 'http_request_duration_seconds_bucket{service="gateway",endpoint="/checkout/{user}"}'

    def whole() -> pd.DataFrame | None:
        for found in reversed(exemplars(lab, query)):
            spans = traces.trace(found["labels"]["trace_id"])
            if set(spans.service) == set(SERVICES):
                return spans
        return None

    spans = wait_until(
        whole, "a checkout's trace is whole", ready=lambda found: found is not None, timeout_s=60, tolerate=(NoData,)
    )
    assert spans is not None
    root = spans[spans.parent_id.isna() | (spans.parent_id == "")]
    assert root[["service", "operation"]].to_numpy().tolist() == [["gateway", "POST /checkout/{user}"]]
    assert set(spans.parent_id.dropna()) - {""} <= set(spans.span_id)


def test_every_service_is_in_the_trace_store(lab: Lab, traces: EmbeddedTraces) -> None:
    """Each of the six services sends spans."""
    wait_until(lambda: set(SERVICES) <= set(traces.services()), "all services traced", timeout_s=60, tolerate=(NoData,))
