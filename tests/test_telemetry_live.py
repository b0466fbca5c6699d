"""Every service of the shop is in the store of logs and in the store of traces."""

from __future__ import annotations

import pytest

from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.lab import Lab
from labkit.observe.logs import EmbeddedLogs
from labkit.observe.trace_views import tree
from labkit.observe.traces import EmbeddedTraces

pytestmark = pytest.mark.live
SERVICES = {"gateway", "catalog", "cart", "orders", "payments", "worker"}


def test_every_service_has_lines_and_spans(lab: Lab) -> None:
    """What the shop says and does arrives by itself, within a minute of its start."""
    logs, traces = EmbeddedLogs(lab.url("store")), EmbeddedTraces(lab.url("store"))
    for what, client in (("log lines", logs), ("spans", traces)):
        wait_until(
            lambda client=client: SERVICES - set(client.services()),  # type: ignore[attr-defined]
            f"every service has {what}",
            timeout_s=60,
            ready=lambda missing: not missing,
        )


def test_a_checkout_is_one_trace_over_services(lab: Lab) -> None:
    """From the gateway through payments and orders; the tree names each."""
    traces = EmbeddedTraces(lab.url("store"))

    def checkout() -> str:
        found = traces.search("orders", "POST /orders", limit=1)
        return tree(traces.trace(str(found["trace_id"].iloc[0])))

    shown = wait_until(checkout, "a checkout is in the store whole", timeout_s=60, tolerate=(NoData,), ready=_whole)
    assert shown.startswith("gateway POST /checkout")


def _whole(shown: str) -> bool:
    # A root ends last, so it arrives last.
    return "parent is not here" not in shown and {"gateway", "cart", "payments", "orders"} <= {
        row.split()[0] for row in shown.splitlines()
    }
