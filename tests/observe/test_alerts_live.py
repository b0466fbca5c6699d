"""Alerts in the live lab: from a fault to the person who is told, and back."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from labkit._http import get_json, request
from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.errors import InvalidValue, RequestFailed, UnknownName
from labkit.lab import Lab
from labkit.observe.alertmanager import Alertmanager
from labkit.observe.webhook import Received
from labkit.stack.progress import silent

pytestmark = pytest.mark.live


@pytest.fixture
def alertmanager(lab: Lab) -> Alertmanager:
    """The client."""
    return Alertmanager(lab.url("alertmanager"))


@pytest.fixture
def pages(lab: Lab) -> Received:
    """What the webhook received."""
    return Received(lab.url("webhook"), (lab.run_dir / "secrets" / "webhook_token").read_text())


def send(lab: Lab, *alerts: dict[str, str], ends: bool = False) -> None:
    """Give Alertmanager alerts as Prometheus does; *ends* says that they are over."""
    now = utc_now()
    ends_at = now if ends else now + timedelta(minutes=5)
    body = [
        {
            "labels": labels,
            "annotations": {"summary": "of a test"},
            "startsAt": (now - timedelta(seconds=1)).isoformat(),
            "endsAt": ends_at.isoformat(),
        }
        for labels in alerts
    ]
    request("POST", f"{lab.url('alertmanager')}/api/v2/alerts", json=body)


def of_service(pages: Received, after: int, service: str) -> pd.DataFrame:
    """What came for *service* after that number."""
    found = pages.frame(after)
    return found[found["service"] == service]


def test_nothing_fires_in_a_healthy_lab(lab: Lab) -> None:
    """At rest no alert fires but perhaps the one on the machine's processors, which others use too."""
    lab.reset(progress=silent)

    def firing() -> list[str]:
        found = lab.prometheus.alerts()
        return sorted(set(found[found["state"] == "firing"]["name"]) - {"HighCPUUsage"})

    wait_until(firing, "no alert fires", timeout_s=60, every_s=2, ready=lambda names: not names)
    assert set(lab.prometheus.rules()["health"]) == {"ok"}


def test_a_fault_becomes_a_page_and_ends_as_resolved(lab: Lab, pages: Received) -> None:
    """Half of all requests fail: within 60 s the page is there, with its runbook; undone, it is resolved in 60 s."""

    def known() -> set[str]:
        return {"HighErrorRate"} & {*lab.prometheus.alerts()["name"], *lab.alertmanager.alerts()["name"]}

    # Another test's outage pages too, and an alert that fires already pages nobody again.
    wait_until(known, "an earlier outage is over", timeout_s=90, every_s=1, ready=lambda names: not names)
    last = pages.last_number()
    lab.shop.inject("error", on="gateway", share=0.5, for_s=150)
    try:
        wait_until(
            lambda: "firing" in set(of_service(pages, last, "gateway").query("name == 'HighErrorRate'")["status"]),
            "the page arrives",
            timeout_s=60,
            every_s=0.5,
        )
        firing = lab.prometheus.alerts().set_index("name")
        assert firing.loc["HighErrorRate", "state"] == "firing"
    finally:
        lab.shop.undo("error", on="gateway")
    wait_until(
        lambda: "resolved" in set(of_service(pages, last, "gateway").query("name == 'HighErrorRate'")["status"]),
        "the page is resolved",
        timeout_s=60,
        every_s=0.5,
    )
    page = of_service(pages, last, "gateway").query("name == 'HighErrorRate'").iloc[0]

    assert (page["receiver"], page["severity"], page["status"]) == ("page", "critical", "firing")
    assert page["runbook"] == "infra/runbooks/HighErrorRate.md"


def test_the_cause_goes_out_and_its_echoes_are_held_back(lab: Lab, alertmanager: Alertmanager, pages: Received) -> None:
    """ApplicationDown inhibits what follows from it for the same service, and nothing of another."""
    last = pages.last_number()
    alerts = [
        {"alertname": "ApplicationDown", "service": "echo", "severity": "critical"},
        {"alertname": "HighErrorRate", "service": "echo", "severity": "critical"},
        {"alertname": "HighErrorRate", "service": "other", "severity": "critical"},
    ]
    send(lab, alerts[0])
    try:
        wait_until(lambda: len(of_service(pages, last, "echo")), "the cause", timeout_s=20)
        send(lab, *alerts[1:])
        wait_until(lambda: len(of_service(pages, last, "other")), "the other service's page", timeout_s=20)
        known = alertmanager.alerts().set_index(["name", "service"])

        assert set(of_service(pages, last, "echo")["name"]) == {"ApplicationDown"}
        assert known.loc[("HighErrorRate", "echo"), "state"] == "suppressed"
        assert known.loc[("HighErrorRate", "echo"), "inhibited_by"]
    finally:
        send(lab, *alerts, ends=True)


def test_nothing_is_lost_while_the_receiver_is_down(lab: Lab, pages: Received) -> None:
    """Alertmanager tries in vain, counts it, and delivers when the receiver is back."""
    alert = {"alertname": "Waiting", "service": "waits", "severity": "critical"}
    failed = 'alertmanager_notification_requests_failed_total{integration="webhook"}'

    def failures() -> float:
        text = request("GET", f"{lab.url('alertmanager')}/metrics").text
        rows = (line for line in text.splitlines() if line.startswith(failed[:-1]))
        return sum(float(line.rpartition(" ")[2]) for line in rows)

    last, before = pages.last_number(), failures()
    supervisor = lab._runtime.supervisor
    supervisor.stop_process("webhook")
    try:
        send(lab, alert)
        wait_until(lambda: failures() > before, "a delivery fails", timeout_s=30, every_s=0.3)
        with pytest.raises(RequestFailed, match="labkit logs webhook"):
            pages.frame()
    finally:
        lab.reset(progress=silent)
    wait_until(lambda: len(of_service(pages, last, "waits")), "it arrives", timeout_s=60, every_s=0.5)
    send(lab, alert, ends=True)

    assert pages.last_number() > last


def test_a_silence_holds_back_and_ends(lab: Lab, alertmanager: Alertmanager, pages: Received) -> None:
    """Within the block the alert is suppressed and nobody is told; afterwards the silence is gone."""
    last, alert = pages.last_number(), {"alertname": "Quiet", "service": "quiet", "severity": "critical"}
    with alertmanager.silenced({"service": "quiet"}, for_s=60, comment="a test") as silence:
        send(lab, alert)
        wait_until(
            lambda: "suppressed" in set(alertmanager.alerts().query("service == 'quiet'")["state"]),
            "the alert is suppressed",
            timeout_s=20,
        )
        row = alertmanager.silences().set_index("id").loc[silence]
        assert (row["matchers"], row["state"], row["comment"]) == ('service="quiet"', "active", "a test")
        assert of_service(pages, last, "quiet").empty
        send(lab, alert, ends=True)

    assert silence not in set(alertmanager.silences()["id"])
    assert silence in set(alertmanager.silences(expired=True)["id"])


def test_a_silence_needs_labels_a_reason_and_a_length(alertmanager: Alertmanager) -> None:
    """What would silence everything, or be understood by nobody, is refused; an unknown id names the known ones."""
    with pytest.raises(InvalidValue, match="at least one label"):
        alertmanager.silence({}, for_s=60, comment="x")
    with pytest.raises(InvalidValue, match="a reason"):
        alertmanager.silence({"service": "x"}, for_s=60, comment=" ")
    with pytest.raises(InvalidValue, match="above 0"):
        alertmanager.silence({"service": "x"}, for_s=0, comment="x")
    with pytest.raises(UnknownName, match="not a silence"):
        alertmanager.expire("00000000-0000-0000-0000-000000000000")


def test_the_receiver_needs_its_token(lab: Lab) -> None:
    """Neither reading nor sending works without it."""
    with pytest.raises(RequestFailed, match="401"):
        get_json(f"{lab.url('webhook')}/notifications")
    with pytest.raises(RequestFailed, match="401"):
        request("POST", f"{lab.url('webhook')}/notify/page", json={"alerts": []})
