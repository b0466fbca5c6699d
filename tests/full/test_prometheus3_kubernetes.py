"""How pods are found, and the alerts on the cluster, by the promtool of the release: Debian's knows no Kubernetes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from labkit._proc import run
from labkit.errors import CommandFailed
from labkit.settings import files_root
from labkit.stack.timings import Edition, write_edition

INFRA = files_root() / "infra"


@pytest.mark.parametrize("edition", get_args(Edition))
def test_the_jobs_of_a_cluster_are_valid(edition: Edition, program3: Callable[[str], Path], tmp_path: Path) -> None:
    """In the place of the jobs of prometheus.yml; and a wrong word in them would be noticed."""
    write_edition(edition, tmp_path)
    path = tmp_path / "prometheus/prometheus.yml"
    text = (INFRA / "prometheus/scrape-kubernetes.yml").read_text()
    text = text.replace("@{address.gateway}", "gateway:8080").replace("@{address['blackbox-exporter']}", "b:9115")
    config = yaml.safe_load(path.read_text())
    config["scrape_configs"] = yaml.safe_load(text)["scrape_configs"]
    path.write_text(yaml.safe_dump(config))
    wrong = path.with_name("wrong.yml")
    wrong.write_text(path.read_text().replace("role: pod", "role: pods"))

    assert "@{" not in text
    assert "SUCCESS" in run([program3("promtool"), "check", "config", path], timeout_s=60)
    with pytest.raises(CommandFailed, match="unknown Kubernetes SD role"):
        run([program3("promtool"), "check", "config", wrong], timeout_s=60)


def test_alerts_on_the_cluster_fire_and_end(program3: Callable[[str], Path], tmp_path: Path) -> None:
    """Ranges of Prometheus 3 leave out their oldest instant; the unit tests hold all the same."""
    write_edition("lab", tmp_path)
    folder = tmp_path / "prometheus"
    shutil.copy(Path(__file__).parents[1] / "infra/kubernetes.test.yml", folder)

    assert "SUCCESS" in run([program3("promtool"), "test", "rules", "kubernetes.test.yml"], timeout_s=60, cwd=folder)
