"""Our rules beside those that Sloth itself makes of the same file: the same alerts at the same instants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from labkit._proc import run
from labkit.errors import NoData
from labkit.observe.prometheus import Prometheus
from labkit.settings import load_settings
from labkit.shop.history import History, build_history, write_history
from labkit.slo import rules
from labkit.slo.spec import read_sloth
from labkit.stack import golang
from labkit.stack.catalogue import GoSource
from tests.prometheus_process import PrometheusProcess
from tests.slo.ruled import Ruled

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]

SLOTH = GoSource(
    kind="go", module="github.com/slok/sloth", package="cmd/sloth", version="0.16.0", megabytes=300, cpu_s=300
)
SPEC = """
version: prometheus/v1
service: gateway
slos:
  - name: checkout-availability
    objective: 99.9
    sli:
      events:
        error_query: sum(rate(http_requests_total{job="shop",service="gateway",status=~"5.."}[{{.window}}]))
        total_query: sum(rate(http_requests_total{job="shop",service="gateway"}[{{.window}}]))
    alerting:
      name: CheckoutAvailability
      page_alert: {labels: {severity: critical}}
      ticket_alert: {labels: {severity: warning}}
"""


@pytest.fixture(scope="module")
def sloth() -> Path:
    """The pinned Sloth, compiled once and kept in the cache."""
    cache = load_settings().cache_dir
    binary = cache / "test-tools" / f"sloth-{SLOTH.version}" / "sloth"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_name("sloth.part")
        golang.build(SLOTH, part, cache=cache)
        part.rename(binary)
    return binary


@pytest.fixture(scope="module")
def theirs(sloth: Path, tmp_path_factory: pytest.TempPathFactory) -> Ruled:
    """What Sloth makes of the file."""
    path = tmp_path_factory.mktemp("sloth") / "slo.yml"
    path.write_text(SPEC)
    return Ruled.of(run([sloth, "generate", "--no-log", "-i", path], timeout_s=60))


@pytest.fixture(scope="module")
def ours() -> Ruled:
    """What we make of the same file, without the alerts about the whole window."""
    spec = read_sloth(SPEC)
    found = Ruled.of(rules.generate(spec.slos, spec.policies))
    return Ruled(found.recorded, [(severity, expr) for severity, expr in found.alerts if "ratio_rate30d" not in expr])


@dataclass(frozen=True)
class Month:
    """A server that holds a seeded month, and that month."""

    client: Prometheus
    past: History


@pytest.fixture(scope="module")
def month(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """A real Prometheus with thirty days of the shop."""
    server = PrometheusProcess(program("prometheus"), tmp_path_factory.mktemp("sloth-month") / "prometheus").start()
    past = build_history(seed=7, end=datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1))
    write_history(server.url, past)
    with Prometheus(server.url) as client:
        yield Month(client, past)
    server.end()


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_the_same_minutes_have_a_reason_to_alert(theirs: Ruled, ours: Ruled, month: Month, severity: str) -> None:
    """Over every incident and the hours after it, minute by minute, both have the same reasons to alert."""
    seen: set[datetime] = set()
    for incident in month.past.incidents:
        start, end = incident.start - timedelta(minutes=10), incident.end + timedelta(hours=7)
        mine = ours.firing(month.client, severity, start, end)
        assert mine == theirs.firing(month.client, severity, start, end), incident.id
        seen |= mine

    assert len(seen) > 60


def test_what_is_recorded_differs_by_a_list(theirs: Ruled, ours: Ruled) -> None:
    """The same names for the same things; each side has a few of its own, and no other."""
    assert set(theirs.recorded) - set(ours.recorded) == {
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "sloth_slo_info",
    }
    assert set(ours.recorded) - set(theirs.recorded) == {"slo:sli_error:ratio_rate29d"}


def test_thresholds_differ_in_the_last_digits_only(theirs: Ruled, ours: Ruled) -> None:
    """They write 14.4 times 1 - 0.999 as floats give it, we the exact product: apart by less than 1e-10 of it."""
    products = {
        round(float(factor) * float(budget), 12): float(factor) * float(budget)
        for _, expr in theirs.alerts
        for factor, budget in re.findall(r"> \(([\d.]+) \* ([\d.e-]+)\)", expr)
    }
    written = {float(number) for _, expr in ours.alerts for number in re.findall(r"> ([\d.e-]+)", expr)}

    assert set(products) == written == {0.0144, 0.006, 0.003, 0.001}
    assert all(abs(theirs_is / mine - 1) < 1e-10 for mine, theirs_is in products.items())


def test_alerts_are_one_of_two_there_and_one_per_window_here(theirs: Ruled, ours: Ruled) -> None:
    """They join a severity's windows by `or`, so the alert does not say which it was; ours carry the windows."""
    assert [severity for severity, _ in theirs.alerts] == ["critical", "warning"]
    assert [severity for severity, _ in ours.alerts] == ["critical", "critical", "warning", "warning"]
    assert all(len(re.findall(r"\bor\b", expr)) == 1 for _, expr in theirs.alerts)


def test_the_optimised_month_weighs_minutes_and_not_requests(theirs: Ruled, ours: Ruled, month: Month) -> None:
    """
    Their 30-day ratio is the mean of 5-minute ratios: a busy minute counts as much as a quiet one.

    On the seeded month it differs from the ratio of sums by over 1 %; that it is their rule's doing and not the
    server's is shown by the same mean computed from the counts.
    """
    at, counts = month.past.end, month.past.request_counts()
    exact = 1 - counts["good"].sum() / counts["total"].sum()
    five = counts.rolling(5).sum().iloc[4:]
    mean = float((1 - five["good"] / five["total"]).mean())

    their_rule = theirs.recorded["slo:sli_error:ratio_rate30d"]
    assert "sum_over_time(slo:sli_error:ratio_rate5m" in their_rule
    of_minutes = month.client.value(f"avg_over_time(({theirs.recorded['slo:sli_error:ratio_rate5m']})[30d:1m])", at=at)
    of_requests = month.client.value(ours.recorded["slo:sli_error:ratio_rate30d"], at=at)

    assert of_requests == pytest.approx(exact, rel=1e-3)
    assert of_minutes == pytest.approx(mean, rel=5e-3)
    assert abs(of_minutes / of_requests - 1) > 0.01


def test_no_series_of_errors_is_nothing_there_and_zero_here(theirs: Ruled, ours: Ruled, month: Month) -> None:
    """A service that never failed has no series of failures: their ratio has no value, ours is 0; neither alerts."""
    never = 'status=~"9.."'

    def without_failures(ruled: Ruled) -> pd.DataFrame:
        return month.client.query(
            ruled.recorded["slo:sli_error:ratio_rate1h"].replace('status=~"5.."', never), at=month.past.end
        )

    with pytest.raises(NoData):
        without_failures(theirs)
    assert without_failures(ours)["value"].tolist() == [0.0]


def test_what_only_we_have(ours: Ruled) -> None:
    """The alerts about the whole window: spent, and spent within a day; Sloth leaves them to plugins."""
    spec = read_sloth(SPEC)
    names = {
        rule.name for group in rules.groups(spec.slos, spec.policies) for rule in group.rules if rule.kind == "alert"
    }

    assert names - {rules.FAST_BURN, rules.SLOW_BURN} == {rules.VIOLATION, rules.EXHAUSTION}
    assert len(ours.alerts) == 4
