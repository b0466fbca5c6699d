"""Every notebook on a lab on kind: solved and strict; and what its checks make of pods that are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit._wait import wait_until
from labkit.course import Outcome, exercises
from labkit.course.editions import Edition, edition_path, sources
from labkit.course.ex01_calls import troubled
from labkit.shop.config import SERVICES
from labkit.stack.progress import silent
from tests.kind.kind_lab import KindLab
from tests.notebooks.test_live import assert_solved, run

pytestmark = [
    pytest.mark.kind,
    pytest.mark.timeout(1800),
    # Of the tools that execute notebooks: pyzmq, jupyter_client and nbconvert, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ON_KIND = {"lab": "kind", "profile": "core"}


@pytest.fixture
def put_back(kind_lab: KindLab) -> Iterator[None]:
    """The lab is healthy before the test and after it, whatever the test takes away."""
    kind_lab.lab.reset(progress=silent)
    yield
    kind_lab.lab.reset(progress=silent)


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_the_solved_edition_passes_strictly(source: Path, kind_lab: KindLab, tmp_path: Path) -> None:
    """What a batch runs with `-p lab=kind`: it joins the lab that is up, every check is correct, nothing is stopped."""
    path = edition_path(source, Edition.SOLVED)

    result = run(path, kind_lab.lab, tmp_path / "out", ON_KIND, env=dict(kind_lab.environment()))

    assert_solved(result, kind_lab.lab, path.read_text().count('"check"'))
    assert result.notebooks[0].stopped == []


def test_an_untouched_one_has_a_lab_of_its_own_beside_another(kind_lab: KindLab, tmp_path: Path) -> None:
    """It starts a second lab on the cluster, reaches its last cell without an answer, and leaves the first alone."""
    path = edition_path(sources()[0], Edition.LEARNER)
    offset = str(kind_lab.lab.settings.port_offset + 40)
    env = {**kind_lab.environment(), "LABKIT_RUN_DIR": str(tmp_path / "own"), "LABKIT_PORT_OFFSET": offset}

    result = run(path, kind_lab.lab, tmp_path / "out", ON_KIND, strict=False, env=env)

    assert (result.notebooks[0].error, result.exit_code, result.notebooks[0].stopped) == (None, 0, [])
    assert {check.outcome for check in result.notebooks[0].checks} == {"not_attempted"}
    assert "left behind" not in (tmp_path / "own" / "ended.json").read_text()
    ours = kind_lab.get("namespaces", "-l", "app.kubernetes.io/managed-by=labkit")["items"]
    assert [namespace["metadata"]["name"] for namespace in ours] == [kind_lab.namespace]
    assert {row.state for row in kind_lab.lab._runtime.status()} == {"RUNNING"}


def test_a_target_says_of_which_service_it_is(kind_lab: KindLab) -> None:
    """Names of pods have digests in them; the services are those of the shop, and who is none of them has none."""
    targets = kind_lab.lab.prometheus.targets()

    assert set(targets.loc[targets["job"] == "shop", "service"]) == set(SERVICES)
    assert set(targets.loc[targets["job"] == "node", "service"]) == {""}
    assert list(targets.loc[targets["service"] == "catalog", "instance"]) == ["catalog-1", "catalog-2"]


@pytest.mark.usefixtures("put_back")
def test_a_control_notices_a_pod_that_was_taken_away(kind_lab: KindLab) -> None:
    """In notebook 00: no target is down, since a pod that is gone is none; the state of the lab tells all the same."""
    lab = kind_lab.lab
    ex = exercises("00", lab)
    before = ex.q3.judge([])

    kind_lab.kubectl("scale", "statefulset/catalog", "--replicas=1")
    wait_until(
        lambda: "catalog-2" not in set(lab.prometheus.targets()["instance"]), "catalog-2 is no target", timeout_s=60
    )
    after = ex.q3.judge([])

    assert set(lab.prometheus.targets()["health"]) == {"up"}
    assert (before.outcome, after.outcome) == (Outcome.CORRECT, Outcome.NOT_YET), (before, after)
    assert "`catalog-2` (NO POD) was ready" in after.because


@pytest.mark.usefixtures("put_back")
def test_a_service_without_a_pod_is_in_trouble(kind_lab: KindLab) -> None:
    """In notebook 01, exercise 6: it is no target any more, and an alert on the cluster's state names it."""
    lab = kind_lab.lab
    assert "orders" not in troubled(lab)[1]

    kind_lab.kubectl("scale", "deployment/orders", "--replicas=0")

    def seen() -> tuple[bool, bool]:
        """Whether it is a target, and whether it is in trouble; while its pod ends it is both."""
        is_target = "orders" in set(lab.prometheus.targets()["service"])
        return is_target, "orders" in troubled(lab)[0]

    wait_until(seen, "orders is in trouble", timeout_s=180, every_s=1, ready=lambda found: found == (False, True))

    alerts = lab.prometheus.alerts()
    assert "orders" in {labels.get("service") for labels in alerts.loc[alerts["name"] == "NoPodAvailable", "labels"]}
