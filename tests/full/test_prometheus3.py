"""The release that users download is Prometheus 3: the whole lab on it, compiled once from its module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import labkit
from labkit._proc import run
from labkit.errors import NoData, QueryRejected
from labkit.lab import Lab
from labkit.shop.rates import LIVE_RATES_PER_S
from labkit.stack.progress import silent
from tests.conftest import free_offset
from tests.full.prometheus3 import PINNED

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def lab3(program3: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A whole lab whose Prometheus is the pinned release, found on PATH as a user's own would be."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "prometheus").symlink_to(program3("prometheus"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        run_dir = tmp_path_factory.mktemp("lab3") / "run"
        with labkit.up(run_dir=run_dir, port_offset=free_offset(), progress=silent) as lab:
            yield lab


def test_the_lab_runs_on_the_pinned_release(lab3: Lab) -> None:
    """Everything is ready and Prometheus says the version of the catalogue."""
    assert lab3.status().ready.all()
    assert lab3.prometheus.version() == PINNED


def test_the_month_is_there_and_meets_the_present(lab3: Lab) -> None:
    """Written by remote write before the first scrape; the 5-minute rate at the end is the live rate."""
    requests = 'http_requests_total{job="shop",service="gateway"}'

    assert len(
        lab3.prometheus.query_range(
            f"sum(increase({requests}[1d]))", lab3.now() - timedelta(days=29), lab3.now(), 86_400
        )
    )
    rate = lab3.prometheus.value(f"sum(rate({requests}[5m]))")
    assert rate == pytest.approx(sum(LIVE_RATES_PER_S.values()), rel=0.05)


def test_mistakes_and_absence_are_told_as_on_the_other_version(lab3: Lab) -> None:
    """A malformed query is pointed at, a query without data names the nearest label value."""
    with pytest.raises(QueryRejected) as caught:
        lab3.prometheus.query("rate(up[5m]")
    assert caught.value.position is not None
    with pytest.raises(NoData, match='"gateway"'):
        lab3.prometheus.query('http_requests_total{service="gatewya"}')


def test_the_configuration_is_valid_for_it(lab3: Lab, program3: Callable[[str], Path]) -> None:
    """Nothing in its log says that a flag or an option is deprecated or unknown."""
    log = lab3._runtime.log_path("prometheus").read_text(encoding="utf-8")

    assert "deprecat" not in log.lower()
    assert "level=ERROR" not in log
    assert f"version {PINNED}" in run([program3("prometheus"), "--version"], timeout_s=20)
