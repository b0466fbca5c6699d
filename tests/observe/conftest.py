"""One Prometheus with a past, rules, a live and a dead target for all tests of this room."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.observe.prometheus import Prometheus
from labkit.shop.history import build_history, write_history
from tests.prometheus_process import NO_JOBS, Observed, PrometheusProcess, free_port

_RULES = """
groups:
  - name: shop
    rules:
      - {record: "shop:requests:rate5m", expr: "sum(rate(http_requests_total[5m]))"}
      - alert: TargetDown
        expr: up == 0
        labels: {severity: page}
        annotations: {summary: "{{ $labels.job }} does not answer"}
      - {alert: NeverTrue, expr: vector(1) > 2, for: 90s}
"""


@pytest.fixture(scope="session")
def observed(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Two days of past up to now; itself and a port where nobody listens as targets; three rules."""
    folder = tmp_path_factory.mktemp("observed")
    server = PrometheusProcess(program("prometheus"), folder)
    dead_port = free_port()
    (folder / "rules.yml").write_text(_RULES)
    try:
        server.start()
        past = build_history(seed=7, end=utc_now() - timedelta(seconds=5), days=2)
        write_history(server.url, past)
        jobs = "".join(
            f"  - {{job_name: {name}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
            for name, port in (("prometheus", server.port), ("dead", dead_port))
        )
        fast = NO_JOBS.replace("5s", "1s")
        server.reload(f"{fast}rule_files: ['{folder / 'rules.yml'}']\nscrape_configs:\n{jobs}")
        with Prometheus(server.url) as client:
            wait_until(lambda: len(client.alerts()) == 1, "the alert on the dead target", timeout_s=30)
            wait_until(lambda: "unknown" not in set(client.targets()["health"]), "both targets scraped", timeout_s=30)
            wait_until(lambda: set(client.rules()["health"]) == {"ok"}, "all rules evaluated", timeout_s=30)
            yield Observed(server, client, past, dead_port)
    finally:
        server.end(signal.SIGKILL)


@pytest.fixture
def prometheus(observed: Observed) -> Prometheus:
    """The client."""
    return observed.client
