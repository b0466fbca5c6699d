"""A lab on kind that is cut short, refused, left alone and come back to: clear words, and nothing left."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
import yaml

from labkit._wait import wait_until
from labkit.stack.ports import port_is_free
from labkit.stack.state import State
from tests.conftest import free_offset
from tests.kind.cut_short import Command, containers_of, left_of, what_is_told
from tests.kind.kind_lab import KindLab, settings_on
from tests.kind.rig.engine import Engine

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

CLUSTER = "labkit-cycle"
USAGE, SETUP, INTERRUPTED = 2, 3, 130


@pytest.fixture
def offset() -> int:
    return free_offset()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def environment(inside: Engine, run_dir: Path, offset: int) -> dict[str, str]:
    """Of a lab of the test's own; it is on whatever cluster the command means."""
    # The fixture of all tests has put the user's settings away.
    return {
        **os.environ,
        **inside.environment,
        **settings_on(inside),
        "LABKIT_RUN_DIR": str(run_dir),
        "LABKIT_PORT_OFFSET": str(offset),
    }


@pytest.fixture
def from_nothing(inside: Engine) -> Iterator[None]:
    """There is no cluster of the tests' name, before and afterwards."""

    def sweep() -> None:
        inside.run("kind", "delete", "cluster", "--name", CLUSTER, timeout_s=120)

    sweep()
    yield
    sweep()


def listening(offset: int) -> list[int]:
    return [port for port in (8080, 8181, 9090, 9093, 13306, 16379) if not port_is_free(port + offset)]


def said_by(*arguments: str, environment: dict[str, str], cluster: str = CLUSTER, code: int) -> str:
    """What a command wrote that must end with this exit code."""
    command = Command(*arguments, environment=environment, cluster=cluster)
    assert command.end() == code, command.said
    return command.said


def namespaces(lab: KindLab) -> list[str]:
    """Those that labkit made on the cluster of the shared lab."""
    return lab.kubectl("get", "namespaces", "-l", "app.kubernetes.io/managed-by=labkit", "-o", "name").split()


class TestNothingIsMade:
    """What is refused before anything is made, and at once."""

    def test_without_docker(self, environment: dict[str, str], run_dir: Path, tmp_path: Path) -> None:
        """The one line says what is missing, and that a lab of processes needs no Docker."""
        for program in ("kind", "kubectl"):
            found = shutil.which(program, path=environment["PATH"])
            assert found
            (tmp_path / program).symlink_to(found)

        said = said_by("up", "--on", "kind", environment={**environment, "PATH": str(tmp_path)}, code=SETUP)

        assert "A lab on kind needs Docker on this machine, and it is not fit for one" in said
        assert "it is not installed: no `docker` on PATH" in said
        assert "as processes" in said
        assert not run_dir.exists()

    def test_with_a_docker_that_does_not_answer(
        self, environment: dict[str, str], run_dir: Path, tmp_path: Path
    ) -> None:
        """The address is named, and who named it."""
        nobody = f"unix://{tmp_path}/nobody.sock"

        said = said_by("up", "--on", "kind", environment={**environment, "DOCKER_HOST": nobody}, code=SETUP)

        assert f"nothing answers at {nobody}; DOCKER_HOST names this place" in said
        assert "Start it" in said
        assert not run_dir.exists()


class TestOthersClusters:
    """A cluster that may be somebody's real one is not used unless somebody says so."""

    @pytest.fixture
    def production(self, kind_lab: KindLab, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
        """The cluster of the shared lab, under a name that looks like production."""
        assert kind_lab.state.cluster is not None
        config = yaml.safe_load(Path(kind_lab.state.cluster.kubeconfig).read_text())
        config["contexts"][0]["name"] = "shop-prod"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        return {**environment, "KUBECONFIG": str(tmp_path / "kubeconfig")}

    def test_one_that_looks_like_production_is_refused_without_a_terminal(
        self, kind_lab: KindLab, production: dict[str, str], run_dir: Path
    ) -> None:
        """The message has the reason and both ways to say yes; nothing was made."""
        before = namespaces(kind_lab)

        said = said_by("up", "--on", "shop-prod", environment=production, code=SETUP)

        assert "Context 'shop-prod' was not used, and nothing was made" in said
        assert "the context's name `shop-prod` looks like production" in said
        assert "--yes-this-cluster" in said
        assert "LABKIT_TRUST_CONTEXT=shop-prod" in said
        assert namespaces(kind_lab) == before
        assert not run_dir.exists()

    def test_one_that_is_elsewhere_is_refused_without_asking_it(
        self, environment: dict[str, str], run_dir: Path, tmp_path: Path
    ) -> None:
        """An address that nothing answers at is not even tried."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "team", "cluster": {"server": "https://10.255.0.1:6443"}}],
            "contexts": [{"name": "team", "context": {"cluster": "team", "user": ""}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))

        said = said_by(
            "up", "--on", "team", environment={**environment, "KUBECONFIG": str(tmp_path / "config")}, code=SETUP
        )

        assert "its API server https://10.255.0.1:6443 is not on this machine" in said
        assert not run_dir.exists()

    def test_who_says_so_is_believed(self, kind_lab: KindLab, production: dict[str, str]) -> None:
        """Then the lab begins: it makes its namespace, and takes it away on Ctrl-C."""
        before = namespaces(kind_lab)

        environment = {**production, "LABKIT_SHOP_IMAGE": "labkit-shop:none"}
        command = Command("up", "--on", "shop-prod", "--yes-this-cluster", environment=environment)
        command.wait_for("make namespace labkit-")
        command.interrupt()

        assert command.end() == INTERRUPTED, command.said
        assert namespaces(kind_lab) == before

    @pytest.mark.parametrize("how", ["environment", "file"])
    def test_a_setting_says_so_as_well(self, how: str, production: dict[str, str], run_dir: Path) -> None:
        """It comes as far as the next thing that is missing, and nothing was made."""
        if how == "environment":
            production["LABKIT_TRUST_CONTEXT"] = "shop-prod"
        else:
            file = Path(production["XDG_CONFIG_HOME"]) / "labkit" / "labkit.toml"
            file.parent.mkdir(parents=True)
            file.write_text('trust_context = "shop-prod"\n')

        said = said_by("up", "--on", "shop-prod", environment=production, code=USAGE)

        assert "the nodes of this cluster cannot see images that are built on this machine" in said
        assert not run_dir.exists()

    @pytest.mark.parametrize("answer", ["n", "y"])
    def test_on_a_terminal_somebody_is_asked(self, answer: str, production: dict[str, str], run_dir: Path) -> None:
        """No is no; yes comes as far as the next thing that is missing."""
        said, code = on_terminal(["up", "--on", "shop-prod"], answer, production)

        assert "Make a lab in namespace labkit-" in said
        assert "looks like production. [y/N]" in said
        assert ("the answer was no" if answer == "n" else "cannot see images that are built") in said
        assert code == (SETUP if answer == "n" else USAGE)
        assert not run_dir.exists()


def on_terminal(arguments: list[str], answer: str, environment: dict[str, str]) -> tuple[str, int]:
    """Run `labkit` on a terminal and answer its question; what it wrote, and its exit code."""
    terminal, other = pty.openpty()
    argv = [sys.executable, "-c", "from labkit.cli import main; main()", *arguments]
    process = subprocess.Popen(
        argv, env=environment, stdin=other, stdout=other, stderr=other, start_new_session=True, close_fds=True
    )
    os.close(other)
    said, answered, deadline = "", False, time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    said += os.read(terminal, 4096).decode("utf-8", "replace")
                except OSError:  # the other side is closed
                    break
            if "[y/N]" in said and not answered:
                os.write(terminal, f"{answer}\n".encode())
                answered = True
        return said, process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.usefixtures("from_nothing")
class TestFromNothing:
    """A start that makes the cluster and does not come to its end."""

    def test_ctrl_c_while_the_cluster_is_made(self, environment: dict[str, str], run_dir: Path, offset: int) -> None:
        """It says that all was taken down, and it was; the exit code is that of an interrupt."""
        command = Command("up", "--on", "kind", environment=environment, cluster=CLUSTER)
        lab_id = what_is_told(run_dir).lab_id
        wait_until(lambda: containers_of(CLUSTER), "the node's container", timeout_s=120)
        command.interrupt()

        assert command.end() == INTERRUPTED, command.said
        assert "the start did not succeed; stopping what was started" in command.said
        assert command.lines[-1] == "Interrupted; what this command had started was stopped and taken down."
        assert "Traceback" not in command.said
        assert containers_of(CLUSTER) == []
        assert left_of(run_dir, lab_id) == []
        assert listening(offset) == []

    def test_kill_while_the_cluster_is_made(self, environment: dict[str, str], run_dir: Path, offset: int) -> None:
        """The guard ends the kind that goes on alone, and takes away what it made."""
        command = Command("up", "--on", "kind", environment=environment, cluster=CLUSTER)
        lab_id = what_is_told(run_dir).lab_id
        wait_until(lambda: containers_of(CLUSTER), "the node's container", timeout_s=120)
        command.kill()
        command.end()

        wait_until((run_dir / "ended.json").exists, "the guard has ended the lab", timeout_s=180, every_s=0.5)
        assert "which was starting it, died" in (run_dir / "ended.json").read_text()
        assert containers_of(CLUSTER) == []
        assert left_of(run_dir, lab_id) == []
        assert listening(offset) == []
        assert "No lab is up" in said_by("status", environment=environment, code=1)

    def test_an_image_that_cannot_be_pulled(self, environment: dict[str, str], run_dir: Path, offset: int) -> None:
        """The wait ends early, with which image, why and what helps; the cluster is gone again."""
        # The image of the shop is not built and loaded, which would take the longest: nothing comes as far as that.
        environment |= {"LABKIT_OVERLAY": "small", "LABKIT_SHOP_IMAGE": "labkit-shop:none"}
        command = Command("up", "--on", "kind", environment=environment, cluster=CLUSTER)
        lab_id = what_is_told(run_dir).lab_id

        assert command.end(timeout_s=420) == SETUP, command.said
        assert "✗ WillNotStart" in command.said
        assert "cannot be pulled: the node does not reach the registry" in command.said
        assert "LABKIT_IMAGE_REGISTRY" in command.said
        assert containers_of(CLUSTER) == []
        assert left_of(run_dir, lab_id) == []
        assert listening(offset) == []
        assert "No lab is up" in said_by("status", environment=environment, code=1)
        assert "no lab is up" in said_by("down", environment=environment, code=0)


class TestBeside:
    """A second lab on the cluster of the first; whatever becomes of it, the first one stays."""

    @pytest.fixture
    def waiting(self, kind_lab: KindLab, environment: dict[str, str]) -> Iterator[Command]:
        """A second lab whose pods are being waited for."""
        command = Command("up", "--on", "kind", environment=environment)
        command.wait_for("forward ")
        assert len(namespaces(kind_lab)) == 2
        yield command
        if command.is_running:
            command.kill()
            command.end()
        said_by("down", environment=environment, code=0)

    def test_ctrl_c_while_pods_are_waited_for(
        self, waiting: Command, kind_lab: KindLab, run_dir: Path, offset: int
    ) -> None:
        """Its namespace goes, and the other's does not."""
        lab_id = what_is_told(run_dir).lab_id
        waiting.interrupt()

        assert waiting.end() == INTERRUPTED, waiting.said
        assert waiting.lines[-1] == "Interrupted; what this command had started was stopped and taken down."
        assert namespaces(kind_lab) == [f"namespace/{kind_lab.namespace}"]
        assert left_of(run_dir, lab_id) == []
        assert listening(offset) == []
        assert requests.get(kind_lab.lab.url("gateway") + "/products", timeout=10).status_code == 200

    def test_kill_while_pods_are_waited_for(
        self, waiting: Command, kind_lab: KindLab, run_dir: Path, offset: int
    ) -> None:
        """The guard takes its namespace away."""
        lab_id = what_is_told(run_dir).lab_id
        waiting.kill()
        waiting.end()

        wait_until((run_dir / "ended.json").exists, "the guard has ended the lab", timeout_s=180, every_s=0.5)
        assert namespaces(kind_lab) == [f"namespace/{kind_lab.namespace}"]
        assert left_of(run_dir, lab_id) == []
        assert listening(offset) == []

    def test_a_namespace_that_does_not_go(
        self, waiting: Command, kind_lab: KindLab, environment: dict[str, str], run_dir: Path
    ) -> None:
        """What holds it is named and noted, what runs here ends; when it is let go, the next `down` finishes."""
        lab_id = what_is_told(run_dir).lab_id
        namespace = next(name for name in namespaces(kind_lab) if not name.endswith(kind_lab.namespace))[10:]
        held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/x"]}}
        kind_lab.kubectl("-n", namespace, "apply", "-f", "-", input_text=yaml.safe_dump(held))
        try:
            waiting.interrupt()
            assert waiting.end() == INTERRUPTED, waiting.said
            assert "`labkit down` has to try again to remove" in waiting.said
            assert waiting.lines[-1].endswith("not all of it is gone: run `labkit down`.")
            assert "ConfigMap held has the finalizers example.com/x" in waiting.said
            assert left_of(run_dir, lab_id) == ["leftover.json"]
        finally:
            patch = ["patch", "configmap", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}']
            kind_lab.kubectl("-n", namespace, *patch)

        assert "remove what an earlier lab had left" in said_by("down", environment=environment, code=0)
        assert left_of(run_dir, lab_id) == []
        assert namespaces(kind_lab) == [f"namespace/{kind_lab.namespace}"]


class TestAway:
    """The node is gone for a while, or for good."""

    def test_after_a_restart_of_the_node(self, kind_lab: KindLab, inside: Engine) -> None:
        """`up` joins and waits; the metrics of before are there, and calls go through toxiproxy's links."""
        lab = kind_lab.lab
        node = f"{kind_lab.state.cluster.kind}-control-plane"  # type: ignore[union-attr]
        asked = 'sum(max_over_time(http_requests_total{job="shop",instance!="seeded",service="gateway"}[1h]))'
        before, cut_at = lab.prometheus.value(asked), lab.now()
        inside.run("docker", "restart", "--time", "20", node, timeout_s=120)

        said = kind_lab.command("up", "--on", "kind", timeout_s=420)

        assert "joined the lab that is up" in said
        assert lab.prometheus.value(asked, at=cut_at) == pytest.approx(before, rel=0.05)
        links = requests.get(lab.url("toxiproxy") + "/proxies", timeout=10).json()
        assert {"cart", "catalog-1", "mariadb", "redis"} <= links.keys()
        assert requests.get(lab.url("gateway") + "/products", timeout=20).status_code == 200

    def test_a_node_that_was_stopped(self, kind_lab: KindLab, inside: Engine) -> None:
        """`status` says it at once, `up` starts it."""
        node = f"{kind_lab.state.cluster.kind}-control-plane"  # type: ignore[union-attr]
        inside.run("docker", "stop", "--time", "20", node, timeout_s=120)

        said = said_by("status", environment=kind_lab.surroundings(), code=SETUP)
        assert f"the node {node} of its kind cluster is stopped. `labkit up --on kind` lets it run again" in said

        said = kind_lab.command("up", "--on", "kind", timeout_s=420)
        assert f"start {node}" in said
        assert "joined the lab that is up" in said
        assert requests.get(kind_lab.lab.url("gateway") + "/products", timeout=20).status_code == 200

    def test_an_api_server_that_is_silent(
        self, kind_lab: KindLab, inside: Engine, environment: dict[str, str], run_dir: Path
    ) -> None:
        """A wait bears some seconds of it, and not a minute; `status` says what Docker knows."""
        node = f"{kind_lab.state.cluster.kind}-control-plane"  # type: ignore[union-attr]
        command = Command("up", "--on", "kind", environment=environment)
        command.wait_for("forward ")
        lab_id = what_is_told(run_dir).lab_id
        inside.run("docker", "pause", node, timeout_s=60)
        try:
            said = said_by("status", environment=kind_lab.surroundings(), code=SETUP)
            assert f"the node {node} of its kind cluster is paused" in said
            assert command.end(timeout_s=300) == SETUP, command.said
        finally:
            if "true" in inside.run("docker", "inspect", "-f", "{{.State.Paused}}", node, timeout_s=60):
                inside.run("docker", "unpause", node, timeout_s=60)

        assert "✗ ClusterGone" in command.said
        assert "does not answer" in command.said
        assert left_of(run_dir, lab_id) == []
        assert namespaces(kind_lab) == [f"namespace/{kind_lab.namespace}"]

    @pytest.mark.late
    def test_a_cluster_that_was_deleted_by_hand(self, kind_lab: KindLab, inside: Engine) -> None:
        """`status` says so, `up` begins anew, `down` clears away; none of them waits for an answer."""
        state = State.load(kind_lab.run_dir)
        assert state is not None
        assert state.cluster is not None
        name, environment = state.cluster.kind, kind_lab.surroundings()
        inside.run("kind", "delete", "cluster", "--name", name, timeout_s=120)

        said = said_by("status", environment=environment, cluster=name, code=SETUP)
        assert f"its kind cluster {name} is gone. `labkit up --on kind` makes all of it anew" in said

        command = Command("up", "--on", "kind", environment=environment, cluster=name)
        command.wait_for("cannot be joined")
        assert f"its kind cluster {name} is gone" in command.said
        wait_until(lambda: containers_of(name), "the node's container", timeout_s=120)
        command.interrupt()
        assert command.end() == INTERRUPTED, command.said

        assert "no lab is up" in said_by("down", environment=environment, cluster=name, code=0)
        assert containers_of(name) == []
        assert left_of(kind_lab.run_dir, state.lab_id) == []
