"""What the doctor says before anything starts."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import yaml

from labkit.settings import Settings, load_settings
from labkit.stack import doctor
from labkit.stack.acquire import find
from labkit.stack.catalogue import profile_components
from labkit.stack.doctor import Report, examine
from tests.conftest import free_offset


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a machine with an empty cache and no component on PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr("labkit.stack.acquire._MORE_FOLDERS", ())
    return load_settings({"cache_dir": tmp_path / "cache", "port_offset": free_offset()})


def verdicts(report: Report) -> dict[str, str]:
    """Verdict by component title."""
    return {finding.what: finding.verdict for finding in report.components}


def test_a_machine_without_any_source_is_told_what_to_install(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No apt and no release page: required components are missing, each with the way to get it; the verdict is no."""
    monkeypatch.setattr(doctor, "_answers", {"github.com": False})

    report = examine(bare)

    assert not report.fit
    assert verdicts(report)["MariaDB"] == "missing"
    assert verdicts(report)["Alertmanager"] == "warning"
    advice = {finding.what: finding.advice for finding in report.components}
    assert "Put it on PATH" in advice["MariaDB"]
    assert {finding.verdict for finding in report.exercises} == {"missing"}
    assert "cannot run profile core yet" in report.summary


def test_the_prediction_adds_up_what_would_be_fetched(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes are the sum of the sources chosen; minutes follow from them by the stated speed."""
    monkeypatch.setattr(doctor, "_answers", {"github.com": True})

    report = examine(bare)

    expected = sum(
        source.megabytes
        for component in profile_components("core").values()
        if component.program
        for source in component.program.sources[:1]
        if source.kind == "release"
    )
    assert report.fetch_mb == pytest.approx(expected)
    assert report.minutes == pytest.approx((expected / 5 + 15) / 60)


def test_a_component_that_is_here_is_told_with_version_and_place(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program on PATH in an accepted version needs nothing."""
    program = tmp_path / "bin" / "redis-server"
    program.write_text("#!/bin/sh\necho 'Redis server v=7.2.5 sha=0'\n")
    program.chmod(0o755)

    found = next(finding for finding in examine(bare).components if finding.what == "Redis")

    assert found.verdict == "ok"
    assert found.seen == f"7.2.5, on PATH ({program})"


def test_a_taken_port_is_named_with_its_owner(bare: Settings) -> None:
    """The doctor sees before `up` what `up` would stumble over."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 9090 + bare.port_offset))
        taken.listen()
        found = next(finding for finding in examine(bare).limits if finding.what == "Ports")

    assert found.verdict == "missing"
    assert f"{9090 + bare.port_offset} (prometheus)" in found.seen
    assert f"process {os.getpid()}" in found.seen
    assert "--port-offset" in found.advice


def test_too_little_memory_is_a_verdict(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory is compared with what the components of the profile need together."""

    class Memory:
        available = 100e6

    monkeypatch.setattr("psutil.virtual_memory", Memory)

    found = next(finding for finding in examine(bare).limits if finding.what == "Memory")

    assert found.verdict == "missing"
    assert "100 MB free" in found.seen


def test_the_report_is_json_text_and_html_with_the_same_findings(bare: Settings) -> None:
    """Three forms for three readers; none leaves a finding out."""
    report = examine(bare)
    titles = [finding.what for finding in (*report.components, *report.limits, *report.exercises)]

    assert json.loads(json.dumps(report.to_dict()))["fit"] == report.fit
    for title in titles:
        assert title in report.text()
        assert title in report._repr_html_()


def test_examining_changes_nothing(bare: Settings) -> None:
    """No folder is made, nothing is fetched."""
    examine(bare)

    assert not bare.cache_dir.exists()
    assert not bare.run_dir.exists()


def test_only_exercises_that_exist_are_promised(bare: Settings) -> None:
    """The report lists the notebooks of this installation and no others."""
    assert [finding.what.split()[0] for finding in examine(bare).exercises] == [
        path.stem[:2] for path in doctor.exercise_files()
    ]


def kubeconfig(folder: Path, port: int) -> Path:
    """A client configuration for a cluster on this port."""
    path = folder / "kubeconfig"
    cluster = {"name": "lab", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "kind-lab", "context": {"cluster": "lab", "user": "me"}}
    users = [{"name": "me", "user": {}}]
    path.write_text(
        yaml.safe_dump({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "kind-lab"})
    )
    return path


def cluster_finding(settings: Settings) -> str:
    """What the report says about Kubernetes."""
    return next(finding.seen for finding in examine(settings).limits if finding.what == "Kubernetes")


def test_an_unreachable_cluster_costs_seconds_and_no_verdict(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that is configured and off is said, and does not make the machine unfit."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(tmp_path, 9)))

    assert cluster_finding(bare) == "context kind-lab: no answer; the local lab needs none"


def test_a_cluster_within_reach_is_told_with_its_version(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is what the API server answers to the Kubernetes client."""
    body = json.dumps(
        dict.fromkeys(("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "major", "minor"), "x")
        | {"gitVersion": "v1.34.4", "platform": "linux/amd64"}
    ).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/version/" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        path = str(kubeconfig(tmp_path, api.server_address[1]))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", path)
        said = cluster_finding(bare)
        api.shutdown()
        thread.join()

    assert said == "context kind-lab: v1.34.4"


def test_every_program_of_the_core_is_found_here() -> None:
    """The tests themselves run on the real programs: all of them are on this machine in accepted versions."""
    settings = load_settings()
    missing = [c.name for c in profile_components("core").values() if c.program and find(c, settings) is None]

    assert missing == []
