"""What the doctor says of a lab on a cluster, without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.settings import load_settings
from labkit.stack.doctor import examine
from labkit.stack.manifests import static_requests


def lines(report: object) -> dict[str, str]:
    """What was seen, by what it is about."""
    return {finding.what: finding.seen for finding in (*report.components, *report.limits)}  # type: ignore[attr-defined]


def test_it_prints_what_each_overlay_asks_for(tmp_path: Path) -> None:
    """Computed from the requests of the manifests; the one in force is marked."""
    seen = lines(examine(load_settings({"lab": "kind", "run_dir": tmp_path})))
    asked = static_requests("small", "core")

    assert f"memory {asked.memory_mib:,.0f} MiB asked for" in seen["small, core ← this one"]
    assert {"small, jaeger-opensearch", "ci, core", "ci, jaeger-opensearch"} <= set(seen)
    assert seen["ci, core"] != seen["small, core ← this one"]


def test_without_docker_it_is_not_fit_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab as processes is named as the way out."""
    monkeypatch.setenv("PATH", str(tmp_path))
    report = examine(load_settings({"lab": "kind", "run_dir": tmp_path / "run"}))
    docker = next(finding for finding in report.components if finding.what == "Docker")

    assert not report.fit
    assert (docker.verdict, "no `docker` on PATH" in docker.seen) == ("missing", True)
    assert "`labkit up` runs the lab as processes" in docker.advice


def test_a_context_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig at all: the verdict is no, and no Docker is asked for."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    report = examine(load_settings({"lab": "shop-staging", "run_dir": tmp_path / "run"}))
    seen = lines(report)

    assert not report.fit
    assert str(tmp_path / "none") in seen["Context shop-staging"]
    assert "Docker" not in seen
    assert os.environ["KUBECONFIG"] in report.text()


@pytest.mark.parametrize("near", ["knid", "Kind", "kindd", "locl", "LOCAL", ""])
def test_what_is_nearly_a_place_is_no_context(near: str) -> None:
    """A slip of the finger must not look for a cluster of that name."""
    with pytest.raises(ValueError, match="expected local, kind or the name of a kubectl context"):
        load_settings({"lab": near})
