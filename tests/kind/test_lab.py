"""A lab on kind from nothing: what works as on local, and what only a cluster can show."""

from __future__ import annotations

from datetime import timedelta

import pytest
import requests

from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.shop.config import SERVICES
from labkit.stack.progress import silent
from tests.kind.kind_lab import KindLab
from tests.test_telemetry import SIGNAL_MATRIX

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]

REQUESTS = 'http_requests_total{job="shop",service="gateway"'


class TestUp:
    """`labkit up --on kind`."""

    def test_it_says_what_it_does_and_how_long_it_took(self, kind_lab: KindLab) -> None:
        """Every step is an event: cluster, image, namespace, objects, ports, waiting, history."""
        done = " / ".join(event.what for event in kind_lab.events if event.kind == "done")

        for what in ("kind cluster", "into the cluster", "namespace", "apply", "ports", "wait for all", "history"):
            assert what in done
        assert not [event for event in kind_lab.events if event.kind == "failed"]

    def test_every_target_is_scraped_and_the_past_is_there(self, kind_lab: KindLab) -> None:
        """All that local scrapes, and kube-state-metrics; thirty days of the shop, in one series with the present."""
        ask = kind_lab.lab.prometheus

        assert ask.value("count(up == 1)") == 14
        assert ask.value(f"sum(increase({REQUESTS}}}[30d]))") > 1_000_000
        assert wait_until(
            lambda: ask.value(f'sum(rate({REQUESTS},instance!="seeded"}}[30s])) or vector(0)'),
            "customers ask",
            timeout_s=60,
            ready=lambda rate: rate > 5,
        )

    @pytest.mark.parametrize("service", SIGNAL_MATRIX)
    def test_every_service_is_in_every_store(self, kind_lab: KindLab, service: str) -> None:
        """Its counter moved, it has a line, it has a span."""
        lab, seen = kind_lab.lab, SIGNAL_MATRIX[service]
        start = lab.now() - timedelta(minutes=30)
        wait_until(
            lambda: (
                lab.prometheus.value(f'sum({seen.metric}{{service="{service}",instance!="seeded"}})')
                and len(lab.logs.search(service=service, start=start, limit=1))
                and len(lab.traces.search(service, seen.operation, start=start, limit=1))
            ),
            f"metrics, logs and traces of {service}",
            timeout_s=120,
            every_s=1,
            tolerate=(NoData,),
        )

    def test_coverage_finds_nothing_missing(self, kind_lab: KindLab) -> None:
        """The score is as on local: 1."""
        found = wait_until(kind_lab.lab.coverage, "all signals", timeout_s=120, every_s=2, ready=lambda c: c.score == 1)

        assert sorted(found.table.index) == sorted(SERVICES)

    def test_a_second_up_joins(self, kind_lab: KindLab) -> None:
        """From the command line, in another process: nothing is made, the exit code is 0."""
        said = kind_lab.command("up", "--on", "kind")

        assert "joined the lab that is up" in said

    def test_status_and_logs_are_told_from_the_command_line(self, kind_lab: KindLab) -> None:
        """Every pod is a row; a log is that of the pod."""
        assert "kube-state-metrics" in kind_lab.command("status")
        assert "started" in kind_lab.command("logs", "gateway", "-n", "2000")


class TestAlerts:
    """A fault becomes an alert, and a notification."""

    def test_an_error_pages_and_ends(self, kind_lab: KindLab) -> None:
        """The alert is in Alertmanager and the page has arrived; after `reset` it is gone."""
        lab = kind_lab.lab
        before = lab.pages.last_number()
        lab.shop.inject("error", on="orders", share=1.0, for_s=120)
        try:
            wait_until(
                lambda: {labels["alertname"] for labels in lab.alertmanager.alerts()["labels"]},
                "an alert about errors",
                timeout_s=120,
                every_s=1,
                ready=lambda names: names & {"HighErrorRate", "ServiceErrorRate"},
            )
            wait_until(lambda: lab.pages.last_number() > before, "a notification", timeout_s=60, every_s=1)
        finally:
            lab.reset(progress=silent)

        assert not any(lab.shop.faults().values())

    def test_objectives_are_loaded_reported_and_unloaded(self, kind_lab: KindLab) -> None:
        """Their rules reach the pod, their past is written, a broken one is refused and changes nothing."""
        room = kind_lab.lab.slo
        loaded = room.load()
        try:
            groups = requests.get(kind_lab.lab.url("prometheus") + "/api/v1/rules", timeout=10).json()["data"]["groups"]
            assert any(group["file"].endswith("slo.rules.yml") for group in groups)
            assert loaded.samples > 100_000
            assert {row.slo.name for row in room.report().rows} == {slo.name for slo in loaded.slos}
        finally:
            assert room.unload()
        assert not room.loaded


class TestPodsComeAndGo:
    """What a cluster does with pods, and what the shop and the forwarder make of it."""

    def test_a_restarted_replica_is_another_pod_at_the_same_address(self, kind_lab: KindLab) -> None:
        """The forwarder goes on; customers see no more than a few errors, since the other replica answers."""
        lab = kind_lab.lab
        before = kind_lab.get("pod", "catalog-1")["metadata"]["uid"]
        lab.restart("catalog-1")

        assert kind_lab.get("pod", "catalog-1")["metadata"]["uid"] != before
        assert requests.get(lab.url("catalog-1") + "/healthz", timeout=10).status_code == 200

    def test_a_rollout_of_the_gateway_loses_no_request(self, kind_lab: KindLab) -> None:
        """The old pod answers until the new one is ready."""
        url = kind_lab.lab.url("gateway") + "/products"
        kind_lab.kubectl("rollout", "restart", "deployment/gateway")
        failed = 0
        for _ in range(60):
            try:
                failed += requests.get(url, timeout=10).status_code >= 500
            except requests.RequestException:
                failed += 1
        kind_lab.kubectl("rollout", "status", "deployment/gateway", "--timeout=120s", timeout_s=150)

        assert failed <= 2

    def test_eviction_respects_the_budget(self, kind_lab: KindLab) -> None:
        """Of two replicas one may go; the second is refused while the first is not back (HTTP 429)."""
        assert kind_lab.evict("payments-1") == 201
        assert kind_lab.evict("payments-2") == 429
        wait_until(lambda: all(r.ready for r in kind_lab.lab._runtime.status()), "all ready", timeout_s=120, every_s=1)

    def test_reset_brings_back_what_was_scaled_to_zero(self, kind_lab: KindLab) -> None:
        """The alert of the cluster says it meanwhile; afterwards the lab is as it was."""
        lab = kind_lab.lab
        kind_lab.kubectl("scale", "deployment/worker", "--replicas=0")
        wait_until(
            lambda: [r.state for r in lab._runtime.status() if r.name == "worker"],
            "no pod of worker",
            timeout_s=60,
            ready=lambda states: states == ["NO POD"],
        )
        lab.reset(progress=silent)

        assert {row.state for row in lab._runtime.status()} == {"RUNNING"}

    def test_a_pod_that_runs_out_of_memory_is_named(self, kind_lab: KindLab) -> None:
        """OOMKilled with its limit, and a restart that the metrics of the cluster count."""
        lab = kind_lab.lab
        kind_lab.kubectl("set", "resources", "deployment/cart", "--limits=memory=12Mi", "--requests=memory=12Mi")
        try:
            wait_until(
                lambda: " ".join(row.note for row in lab._runtime.status()),
                "the reason",
                timeout_s=120,
                every_s=1,
                ready=lambda notes: "memory" in notes and "12" in notes,
            )
        finally:
            lab.reset(progress=silent)
