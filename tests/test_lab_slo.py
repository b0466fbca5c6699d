"""Objectives in a live lab: rules in force with a month behind them, taken out again, and never half of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit._http import get_json, request
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid, NoData, QueryRejected, UnknownName
from labkit.slo import rules
from labkit.slo.counts import sums
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.recorded import series
from labkit.stack.progress import silent
from labkit.stack.prometheus_config import LOADED_RULES
from tests.slo_room import check_restart

if TYPE_CHECKING:
    from labkit.lab import Lab

pytestmark = pytest.mark.live

REQUESTS = 'http_requests_total{job="shop",service="gateway"'
# Orders as if they were errors: one request in eight, always, so that the fast alert has a reason at once.
ALWAYS_BAD = Slo(
    "orders-are-errors", "gateway", Fraction(999, 1000), Rolling(30 * 86_400),
    EventSli(f"sum(increase({REQUESTS}}}[$window]))", bad=f'sum(increase({REQUESTS},status="201"}}[$window]))'),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _unloaded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the shared lab without rules of objectives."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").slo.unload()


def groups_in_force(lab: Lab) -> set[str]:
    """The names of the rule groups that Prometheus evaluates for objectives."""
    found: list[dict[str, Any]] = get_json(f"{lab.url('prometheus')}/api/v1/rules")["data"]["groups"]
    return {group["name"] for group in found if group["name"].startswith("slo:")}


def configuration(lab: Lab) -> tuple[str, str | None]:
    """Prometheus' configuration as it is in force, and the file of loaded rules."""
    text: str = get_json(f"{lab.url('prometheus')}/api/v1/status/config")["data"]["yaml"]
    path = lab.run_dir / "etc" / LOADED_RULES
    return text, path.read_text() if path.exists() else None


def test_loading_puts_rules_in_force_and_a_month_behind_them(lab: Lab) -> None:
    """
    All over the month the recorded series are exact, and near what the rule itself would have computed there.

    Near: the rule's answer differs by what Prometheus extrapolates at the edges of a window. Its error ratio lies
    within 1 % of the exact one, or within one and a half events where there are few.
    """
    loaded = lab.slo.load()
    ask, counts = lab.prometheus, {slo.name: lab.slo.counts(slo) for slo in loaded.slos}

    assert {slo.name for slo in loaded.slos} >= {"visit-availability", "product-latency"}
    assert groups_in_force(lab) == {group.name for group in rules.groups(loaded.slos)}
    for slo in loaded.slos[:3]:
        labels = {"slo": slo.name, "service": slo.service}
        incident = lab.history.incidents["start"].iloc[3] + timedelta(hours=1)
        last = lab.now() - timedelta(hours=3)
        for about in (incident, last, last - timedelta(days=20)):
            at = recorded_instant(lab, slo, about)
            for window_s in (300, 3600, 3 * 86_400, 30 * 86_400):
                there = ask.value(rules.selector(rules.ratio_name(window_s), labels), at=at)
                exact = sums(counts[slo.name], at - timedelta(seconds=window_s), at)
                assert there == pytest.approx(float(exact.bad / exact.total), abs=1e-12)
                by_rule = ask.value(slo.sli.error_ratio(rules.promql_duration(window_s)), at=at)
                assert by_rule == pytest.approx(there, rel=0.01, abs=1.5 / float(exact.total))


def recorded_instant(lab: Lab, slo: Slo, about: Any) -> Any:
    """The instant of the last recorded sample up to *about*."""
    name = rules.selector(rules.ratio_name(300), {"slo": slo.name, "service": slo.service})
    at_s = lab.prometheus.value(f"timestamp({name})", at=about)
    return datetime.fromtimestamp(at_s, UTC)


def test_loading_twice_writes_nothing_twice(lab: Lab) -> None:
    """The second time everything is there; a policy that needs another window gets that window's past alone."""
    first = lab.slo.load()
    again = lab.slo.load()
    slo = next(slo for slo in first.slos if slo.name == "visit-availability")
    wider = lab.slo.load([replace(slo, policy="four-window")])

    assert again.samples < 100
    two_windows = 2 * 30 * 288
    assert two_windows <= wider.samples < two_windows + 200
    assert lab.prometheus.value(
        f'count_over_time(slo:sli_error:ratio_rate2h{{slo="{slo.name}"}}[30d])'
    ) == pytest.approx(30 * 288, abs=30)


def test_unloading_takes_the_rules_and_leaves_the_past(lab: Lab) -> None:
    """No rule, no file, no open window for late samples; what was recorded can be asked for; twice is fine."""
    before = configuration(lab)
    lab.slo.load()
    lab.reset(progress=silent)
    assert lab.slo.loaded, "reset mends the shop, not the monitoring"

    assert lab.slo.unload()

    assert (groups_in_force(lab), lab.slo.loaded) == (set(), False)
    assert configuration(lab) == before
    assert lab.prometheus.value("count(count_over_time(slo:sli_error:ratio_rate1h[7d]))") >= 4
    assert not lab.slo.unload()


def test_alerts_end_with_their_rules(lab: Lab) -> None:
    """Who looks at Alertmanager after `unload` sees no alert of an objective, and every other one as before."""
    ours = {"alertname": "SLOErrorBudgetFastBurn", "slo": "of-a-test", "service": "gateway", "severity": "critical"}
    others = {"alertname": "OfATest", "service": "gateway", "severity": "info"}

    def known() -> set[str]:
        return set(lab.alertmanager.alerts()["name"]) & {ours["alertname"], others["alertname"]}

    lab.slo.load()
    request_json = [{"labels": labels, "annotations": {"summary": "of a test"}} for labels in (ours, others)]
    request("POST", f"{lab.url('alertmanager')}/api/v2/alerts", json=request_json)
    wait_until(known, "both alerts are there", timeout_s=30, ready=lambda names: len(names) == 2)

    lab.slo.unload()

    wait_until(known, "the one of the objective has ended", timeout_s=30, ready=lambda names: names == {"OfATest"})
    found = lab.alertmanager.alerts()
    lab.alertmanager.end(found[found["name"] == "OfATest"])
    wait_until(known, "the other has ended", timeout_s=30, ready=lambda names: not names)


def test_a_loaded_alert_fires_with_what_a_person_needs(lab: Lab) -> None:
    """
    An objective that is always broken: its burn-rate alerts fire at the first evaluation, since the past is there.

    Asked of Prometheus: while it reads its configuration anew it knows no Alertmanager, and sends again after a minute.
    """
    lab.slo.load([ALWAYS_BAD])

    def firing() -> dict[str, dict[str, Any]]:
        alerts: list[dict[str, Any]] = get_json(f"{lab.url('prometheus')}/api/v1/alerts")["data"]["alerts"]
        mine = [a for a in alerts if a["labels"].get("slo") == ALWAYS_BAD.name and a["state"] == "firing"]
        return {a["labels"]["long"]: a for a in mine}

    alerts = wait_until(
        firing, "the burn alerts fire", timeout_s=60, every_s=1, ready=lambda found: {"1h", "6h", "3d"} <= set(found)
    )

    severities = {long: (alert["labels"]["alertname"], alert["labels"]["severity"]) for long, alert in alerts.items()}
    assert severities["1h"] == (rules.FAST_BURN, "critical")
    assert severities["6h"] == (rules.SLOW_BURN, "critical")
    assert severities["3d"] == (rules.SLOW_BURN, "warning")
    assert alerts["1h"]["labels"]["service"] == "gateway"
    assert re.search(r" 1[1-4](\.\d+)?% of events were bad", alerts["1h"]["annotations"]["description"])
    assert lab.slo.report()["orders-are-errors"].status == "violated"


def test_a_wrong_specification_touches_nothing(lab: Lab, tmp_path: Path) -> None:
    """Every mistake is named before anything is written; what was in force stays."""
    lab.slo.load([ALWAYS_BAD])
    before = configuration(lab)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("slos:\n- name: a\n  target: 100\n  window: 30\n  sli: {target_type: availability, total: x}\n")

    with pytest.raises(ConfigInvalid, match="mistakes"):
        lab.slo.load(wrong)
    with pytest.raises(UnknownName, match="workbook"):
        lab.slo.load([replace(ALWAYS_BAD, policy="workbok")])
    with pytest.raises(QueryRejected):
        lab.slo.load([replace(ALWAYS_BAD, name="b", sli=EventSli("sum(increase(up[$window])", good="sum(up)"))])
    with pytest.raises(NoData):
        lab.slo.load([replace(ALWAYS_BAD, name="c", sli=EventSli("sum(increase(x_total[$window]))", good="sum(y)"))])

    assert configuration(lab) == before
    assert groups_in_force(lab) == {f"slo:gateway:{ALWAYS_BAD.name}", f"slo:gateway:{ALWAYS_BAD.name}:period"}


def test_rules_that_prometheus_refuses_are_rolled_back(lab: Lab) -> None:
    """A label that is a broken template: the server's own words, and the rules of before are in force."""
    lab.slo.load([ALWAYS_BAD])
    before = configuration(lab)

    with pytest.raises(ConfigInvalid, match=r"(?s)broken.*Everything is as it was"):
        lab.slo.load([replace(ALWAYS_BAD, name="refused", labels={"team": "{{ broken"})])

    assert configuration(lab) == before
    assert groups_in_force(lab) == {f"slo:gateway:{ALWAYS_BAD.name}", f"slo:gateway:{ALWAYS_BAD.name}:period"}


def test_another_meaning_under_the_same_name_is_refused(lab: Lab) -> None:
    """What is recorded cannot be changed: two meanings in one series would be neither."""
    lab.slo.load([ALWAYS_BAD])

    with pytest.raises(ConfigInvalid, match=r"gateway/orders-are-errors has a recorded past.*(?s:.)*another name"):
        lab.slo.load([replace(ALWAYS_BAD, objective=Fraction(99, 100))])


def test_counts_go_from_the_seeded_month_into_the_present(lab: Lab) -> None:
    """One frame per objective, complete, exact in the past and near the live rate after it; unknown names are named."""
    assert not lab.slo.loaded
    counts = lab.slo.counts("visit-availability")
    labels = json.loads((lab.run_dir / "data" / f"seed-{lab.seed}" / "history.json").read_text())

    assert counts.attrs["step_s"] == 60
    assert len(counts) >= 30 * 1440
    live = counts[counts.index > labels["end"]]
    assert len(live) == 0 or 400 < live["total"].mean() < 800
    assert series(counts, lab.slo.get("visit-availability")).notna().all(axis=None)
    with pytest.raises(UnknownName, match="did you mean 'checkout-latency'"):
        lab.slo.counts("checkout-latence")


def test_a_restart_ends_what_was_loaded_and_keeps_what_was_recorded(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    """As `down` and `up` do it: no rules of objectives, their past is there, and loading again completes it."""
    check_restart(program("prometheus"), tmp_path)
