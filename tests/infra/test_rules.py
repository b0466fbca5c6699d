"""Rules, routes and timings below infra/, checked by the programs that will read them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from labkit._time import parse_duration
from labkit.settings import files_root
from labkit.slo.rules import ALERT_NAMES
from labkit.stack.catalogue import load_catalogue
from labkit.stack.timings import Edition, load_timings, write_edition

INFRA = files_root() / "infra"
EDITIONS = get_args(Edition)
HERE = Path(__file__).parent


def alerts(folder: Path) -> list[dict[str, Any]]:
    """Every alerting rule below *folder*."""
    groups = [g for path in sorted(folder.glob("*.yml")) for g in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


ALERTS = alerts(INFRA / "prometheus" / "rules")


def said(*argv: str | Path, cwd: Path | None = None) -> str:
    """What a program wrote; it must succeed."""
    done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_programs_accept_both_editions(edition: Edition, program: Callable[[str], Path], tmp_path: Path) -> None:
    """Neither promtool nor amtool finds anything wrong in the configuration of the lab and of production."""
    write_edition(edition, tmp_path)

    assert "SUCCESS: 4 rule files found" in said(
        program("promtool"), "check", "config", tmp_path / "prometheus/prometheus.yml"
    )
    assert "SUCCESS" in said(program("amtool"), "check-config", tmp_path / "alertmanager/alertmanager.yml")


def test_every_alert_fires_and_ends_as_its_unit_test_says(program: Callable[[str], Path], tmp_path: Path) -> None:
    """`promtool test rules`, with the timings of the lab; each alert has a test that sees it fire and end."""
    write_edition("lab", tmp_path)
    tests = sorted(HERE.glob("*.test.yml"))
    for path in tests:
        shutil.copy(path, tmp_path / "prometheus")
    names = {case["name"].split()[0] for path in tests for case in yaml.safe_load(path.read_text())["tests"]}

    assert names == {alert["alert"] for alert in ALERTS}
    assert "FAILED" not in said(
        program("promtool"), "test", "rules", *(path.name for path in tests), cwd=tmp_path / "prometheus"
    )


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_a_person_needs(alert: dict[str, Any]) -> None:
    """Summary, description, a severity, a service (its own label or the expression's), and a runbook that exists."""
    notes, labels = alert["annotations"], alert["labels"]

    assert notes["summary"] != notes["description"]
    assert notes["runbook"] == f"infra/runbooks/{alert['alert']}.md"
    assert (files_root() / notes["runbook"]).read_text().startswith(f"# {alert['alert']}\n")
    assert labels["severity"] in {"critical", "warning", "info"}
    assert "service" in labels or "by (service" in alert["expr"]


def test_every_runbook_belongs_to_an_alert() -> None:
    """A runbook that no alert links to would be found by nobody."""
    alerts = {alert["alert"] for alert in ALERTS} | set(ALERT_NAMES)

    assert {path.stem for path in (INFRA / "runbooks").glob("*.md")} == alerts


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_no_alert_depends_on_the_instance(alert: dict[str, Any]) -> None:
    """Every expression aggregates, and none keeps `instance`: the seeded past has one of its own."""
    assert any(word in alert["expr"] for word in ("sum", "max", "min", "count", "absent"))
    assert "by (instance" not in alert["expr"]
    assert ", instance" not in alert["expr"]


def test_the_lab_is_quick_and_production_is_patient() -> None:
    """The bounds that the lab promises; no value of production is shorter than the lab's."""
    lab, production = (
        {name: parse_duration(text) for name, text in load_timings(edition).items()} for edition in EDITIONS
    )

    assert max(value for name, value in lab.items() if name.startswith("for_")) <= 15
    assert (lab["scrape_interval"], lab["evaluation_interval"], lab["window"]) == (5, 5, 20)
    assert (lab["group_wait"], lab["group_interval"]) == (1, 5)
    assert all(production[name] >= lab[name] for name in lab)
    assert all(column["window"] >= 4 * column["scrape_interval"] for column in (lab, production))
    assert all(column["scrape_timeout"] < column["scrape_interval"] for column in (lab, production))


def test_no_timing_stands_outside_the_table() -> None:
    """Files that are made of the table have no duration of their own."""
    texts = [path.read_text() for path in (INFRA / "prometheus/rules").glob("*.yml")]

    assert all(f"[{digit}" not in text for text in texts for digit in range(10))
    assert all(rule.get("for", "@{timing.").startswith("@{timing.") for rule in ALERTS)


def test_every_rule_file_reaches_prometheus() -> None:
    """A file of rules that the component does not list would be silent; what only a cluster knows is put there only."""
    listed = {name for name in load_catalogue()["prometheus"].files if name.startswith("prometheus/rules/")}
    files = {f"prometheus/rules/{path.name}" for path in (INFRA / "prometheus/rules").glob("*.yml")}

    assert files - listed == {"prometheus/rules/kubernetes.yml"}
    assert listed <= files


def test_a_cluster_has_the_same_jobs() -> None:
    """Rules and dashboards ask for jobs by name: where pods are found there are all of them, and kube-state-metrics."""
    here, cluster = (
        {job["job_name"] for job in yaml.safe_load((INFRA / "prometheus" / name).read_text())["scrape_configs"]}
        for name in ("prometheus.yml", "scrape-kubernetes.yml")
    )

    assert cluster == here | {"kube-state-metrics"}


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=HighErrorRate", "severity=critical", "service=gateway"), "page"),
        (("alertname=HighLatency", "severity=warning", "service=orders"), "desk"),
        (("alertname=HighCPUUsage", "severity=info", "service=machine"), "desk"),
        (("alertname=Unknown",), "desk"),
    ],
)
def test_alerts_go_where_their_severity_says(
    labels: tuple[str, ...], receiver: str, program: Callable[[str], Path], tmp_path: Path
) -> None:
    """`amtool config routes test`: critical pages, everything else waits at the desk, nothing is lost."""
    write_edition("lab", tmp_path)
    config = tmp_path / "alertmanager/alertmanager.yml"

    route = said(program("amtool"), "config", "routes", "test", f"--config.file={config}", *labels)

    assert route.splitlines()[-1] == receiver or receiver in route.splitlines()
