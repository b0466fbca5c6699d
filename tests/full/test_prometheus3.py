"""The release that users download is Prometheus 3: the whole lab on it, compiled once from its module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import labkit
from labkit._proc import run
from labkit.errors import NoData, QueryRejected
from labkit.lab import Lab
from labkit.settings import load_settings
from labkit.shop.rates import LIVE_RATES_PER_S
from labkit.stack import golang
from labkit.stack.catalogue import GoSource, load_catalogue
from labkit.stack.progress import silent
from tests.conftest import free_offset

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]

PINNED = next(s.version for s in load_catalogue()["prometheus"].program.sources if s.kind == "release")  # type: ignore[union-attr]
# Prometheus 3.5.0 is version 0.305.0 of its Go module: one minor version per release, in hundreds for each major.
SOURCE = GoSource(
    kind="go",
    module="github.com/prometheus/prometheus",
    package="cmd/prometheus",
    version=PINNED,
    module_version="0.{}{:02}.{}".format(*map(int, PINNED.split("."))),
    megabytes=400,
    cpu_s=400,
    ldflags="-X github.com/prometheus/common/version.Version=@{version}",
)


@pytest.fixture(scope="module")
def prometheus3() -> Path:
    """The pinned Prometheus, compiled once and kept in the cache."""
    cache = load_settings().cache_dir
    binary = cache / "test-tools" / f"prometheus-{PINNED}" / "prometheus"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_name("prometheus.part")
        golang.build(SOURCE, part, cache=cache)
        part.rename(binary)
    return binary


@pytest.fixture(scope="module")
def lab3(prometheus3: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A whole lab whose Prometheus is the pinned release, found on PATH as a user's own would be."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "prometheus").symlink_to(prometheus3)
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


def test_the_configuration_is_valid_for_it(lab3: Lab, prometheus3: Path) -> None:
    """Nothing in its log says that a flag or an option is deprecated or unknown."""
    log = lab3._runtime.log_path("prometheus").read_text(encoding="utf-8")

    assert "deprecat" not in log.lower()
    assert "level=ERROR" not in log
    assert f"version {PINNED}" in run([prometheus3, "--version"], timeout_s=20)
