"""The kind cluster that labkit makes, in Docker, with a kubeconfig of its own: that of the user is never touched."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import ClusterGone, CommandFailed, NotReady, SetupError
from labkit.settings import files_root, load_settings
from labkit.stack.engine import pull_problem
from labkit.stack.progress import Progress, silent, step
from labkit.stack.state import kill_all

__all__ = ["KindCluster", "Node"]

_LABEL = "io.x-k8s.kind.cluster"
_ASK_TIMEOUT_S = 30
_DYING_S = 5
_CREATE_TIMEOUT_S = 900
_DELETE_TIMEOUT_S = 180
_LOAD_TIMEOUT_S = 600
_READY_TIMEOUT_S = 180
# kind ends with the reason, and what a command said below it; a traceback of Go may follow.
_TAIL_LINES = 40
_ADMIN = "--kubeconfig=/etc/kubernetes/admin.conf"
_FULL = "no space left on device"
_TAKEN = ("port is already allocated", "address already in use")
_NOT_BOOTED = ("could not find a log line that matches", "too many open files", "failed to init node")


@dataclass(frozen=True, slots=True)
class Node:
    """A container that is a node: its name, whether it runs, and Docker's word for its state."""

    name: str
    running: bool
    state: str = field(default="", compare=False)

    @property
    def word(self) -> str:
        """Running, paused or stopped: stopped is all that must be started."""
        return self.state if self.state in {"running", "paused"} else "stopped"


@dataclass(frozen=True, slots=True)
class KindCluster:
    """
    The cluster *name*, whether it is there or not.

    Args:
        name: as `kind get clusters` lists it.
        kubeconfig: the file that is written for it; its context is `kind-NAME`.
        kind: the program.
    """

    name: str
    kubeconfig: Path
    kind: Path

    @property
    def context(self) -> str:
        """The name of its context in its kubeconfig."""
        return f"kind-{self.name}"

    def nodes(self) -> list[Node]:
        """Its nodes by name, stopped ones included; empty if there is no such cluster."""
        said = self._docker("ps", "--all", "--filter", f"label={_LABEL}={self.name}", "--format", "{{json .}}")
        rows = [json.loads(line) for line in said.splitlines()]
        return sorted(
            (Node(row["Names"], row["State"] == "running", row["State"]) for row in rows), key=lambda node: node.name
        )

    def exists(self) -> bool:
        """Whether it has a node, running or stopped."""
        return bool(self.nodes())

    def ensure(self, node_image: str = "", progress: Progress = silent) -> None:
        """
        Make it if it is not there, start its nodes if they are stopped, and write its kubeconfig.

        Two labs that come at the same time wait for one another.  Arguments and errors as for `create`.

        Raises:
            ClusterGone: its nodes run and its API server does not answer.
        """
        with self.held():
            if self.end_unfinished():
                self.delete()
            if not self.exists():
                self.create(node_image, progress)
                return
            self.start_nodes(progress)
            self.export_kubeconfig()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs no other labkit of this user makes or deletes it."""
        locks = load_settings().cache_dir / "kind"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(str(locks / f"{self.name}.lock")):
            yield

    def end_unfinished(self) -> bool:
        """
        End a `kind` that is making it for a labkit which was killed; only for who holds it.

        Returns:
            Whether there was one; then there may be a node that is half made.
        """
        makers = [process for process in psutil.process_iter(["cmdline"]) if self._makes_it(process)]
        kill_all(makers, grace_s=_DYING_S)
        if makers:
            self._wait_for_late_nodes()
        return bool(makers)

    def started_at(self) -> float:
        """When the newest start of a node was, in seconds since 1970; 0 without nodes."""
        said = [self._docker("inspect", "--format", "{{.State.StartedAt}}", node.name) for node in self.nodes()]
        # Docker gives nanoseconds.
        return max((datetime.fromisoformat(text[:19] + "+00:00").timestamp() for text in said), default=0.0)

    def create(self, node_image: str = "", progress: Progress = silent) -> None:
        """
        Make it from infra/kind/cluster.yaml, and wait until its node is ready.

        When that fails or is interrupted, nothing of it is left.

        Args:
            node_image: what the nodes are made of; the image that kind was released with if empty.
            progress: told what is being done.

        Raises:
            SetupError: there is one of this name; the image cannot be pulled; a port is taken; the disk is full; the
                node does not boot.  Says which.
            CommandFailed: kind failed for another reason.
        """
        if self.exists():
            raise SetupError(
                f"The kind cluster {self.name!r} is to be made, and there is one of this name. "
                f"Use it, or delete it: `kind delete cluster --name {self.name}`."
            )
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [self.kind, "create", "cluster", "--name", self.name, "--kubeconfig", self.kubeconfig]
        argv += ["--config", files_root() / "infra" / "kind" / "cluster.yaml"]
        argv += ["--image", node_image] if node_image else []
        with step(progress, f"make the kind cluster {self.name}"):
            try:
                self._create(argv, node_image)
                self._wait_ready()
            except BaseException:
                self._sweep()
                raise

    def wait_for_answer(self, timeout_s: float) -> None:
        """
        Wait until its API server is ready, *timeout_s* seconds at most.

        Raises:
            NotReady: it is not; says why.
        """

        def answers() -> bool:
            self._require_answer()
            return True

        what = f"the API server of the kind cluster {self.name!r} answers"
        how = f"`docker logs {self.name}-control-plane` has what its node said."
        wait_until(answers, what, timeout_s=timeout_s, every_s=1, tolerate=(ClusterGone,), how=how)

    def export_kubeconfig(self) -> None:
        """
        Write its context into its kubeconfig.

        Raises:
            ClusterGone: it has no node that runs, or its API server does not answer.
        """
        self._require_answer()
        self._run_kind("export", "kubeconfig", "--kubeconfig", self.kubeconfig)

    def delete(self) -> None:
        """Delete it, and its context from its kubeconfig; nothing happens if it is not there."""
        self._run_kind("delete", "cluster", "--kubeconfig", self.kubeconfig, timeout_s=_DELETE_TIMEOUT_S)

    def load(self, image: str | Path, progress: Progress = silent) -> None:
        """
        Give its nodes an image; those that have it already are left alone.

        Args:
            image: the name of an image that the engine has, or the path of an archive of `docker save`.
            progress: told what is being done.

        Raises:
            SetupError: the disk is full.
            CommandFailed: the engine has no such image, or a node did not take it.
        """
        how = ["image-archive", image] if isinstance(image, Path) else ["docker-image", image]
        with step(progress, f"load {image} into the cluster"):
            try:
                self._run_kind("load", *how, timeout_s=_LOAD_TIMEOUT_S)
            except CommandFailed as error:
                if _FULL in error.stderr_tail.lower():
                    raise self._no_space(f"Loading {image}") from error
                raise

    def start_nodes(self, progress: Progress = silent) -> bool:
        """
        Start nodes that are stopped, as after a restart of the machine, and wait until all are ready.

        Returns:
            Whether one had to be started.

        Raises:
            NotReady: they did not become ready; says which.
            CommandFailed: the engine could not start one.
        """
        stopped = [node for node in self.nodes() if not node.running]
        if not stopped:
            return False
        with step(progress, f"start {', '.join(node.name for node in stopped)}"):
            for node in stopped:
                self._docker("unpause" if node.state == "paused" else "start", node.name, timeout_s=_READY_TIMEOUT_S)
            self._wait_ready()
        return True

    def _create(self, argv: list[str | Path], node_image: str) -> None:
        what = f"Making the kind cluster {self.name!r}"
        # Not `labkit._proc.run`: the reason stands above what it would keep of a long message.
        process = subprocess.Popen(
            [str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace",
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=_CREATE_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise NotReady(what, waited_s=_CREATE_TIMEOUT_S, last_seen="kind is still at it") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if process.returncode == 0:
            return
        failure = CommandFailed(
            [str(part) for part in argv], returncode=process.returncode, took_s=0,
            stderr_tail="\n".join(said.strip().splitlines()[:_TAIL_LINES]),
        )  # fmt: skip
        raise self._explained(what, said, node_image) or failure

    def _explained(self, what: str, said: str, node_image: str) -> SetupError | None:
        """What *said* means, if it is one of the things that people can change."""
        lowered = said.lower()
        if _FULL in lowered:
            return self._no_space(what)
        if any(words in lowered for words in _TAKEN):
            taken = re.search(r"(?:[\d.]+|\[[^]]*\]):(\d+)[^\n]*(?:already)", said)
            port = f"port {taken.group(1)}" if taken else "a port of this machine"
            return SetupError(
                f"{what} failed: {port} is taken. End what listens there (`ss -ltnp` shows it), and try again."
            )
        if "failed to pull image" in lowered:
            reason = pull_problem(said) or "the engine does not say why"
            image = node_image or _pulled(said)
            return SetupError(
                f"{what} failed: the image of its node, {image}, cannot be pulled: {reason}. Try again later, or give "
                f"the engine an image (`docker load`) and name it in LABKIT_NODE_IMAGE."
            )
        if any(words in lowered for words in _NOT_BOOTED):
            return SetupError(
                f"{what} failed: its node did not boot. Often the limits of inotify are too low: "
                f"`labkit doctor --on kind` shows them. kind said: {said.strip().splitlines()[-1]}"
            )
        return None

    def _no_space(self, what: str) -> SetupError:
        return SetupError(
            f"{what} failed: the disk of Docker is full. `docker system df` shows what takes space there; "
            "`docker system prune` frees what nothing uses."
        )

    def _sweep(self) -> None:
        """Leave nothing of a creation that ended early."""
        self._wait_for_late_nodes()
        self.delete()

    def _wait_for_late_nodes(self) -> None:
        # A `docker run` outlives a kind that was killed, and would add its container a moment later.
        late = [process for process in psutil.process_iter(["cmdline"]) if self._makes_a_node(process)]
        psutil.wait_procs(late, timeout=_ASK_TIMEOUT_S)

    def _makes_it(self, process: psutil.Process) -> bool:
        said = process.info["cmdline"] or []
        return said[1:5] == ["create", "cluster", "--name", self.name] and Path(said[0]).name == self.kind.name

    def _makes_a_node(self, process: psutil.Process) -> bool:
        return f"{_LABEL}={self.name}" in (process.info["cmdline"] or []) and "run" in process.info["cmdline"]

    def _wait_ready(self) -> None:
        """Until every node said that it is ready since its container started: what it said before does not count."""
        names = [node.name for node in self.nodes()]
        started = {name: self._docker("inspect", "--format", "{{.State.StartedAt}}", name).strip() for name in names}

        def not_ready() -> list[str]:
            said = self._inside("kubectl", _ADMIN, "get", "nodes", "-o", "json")
            ready = {node["metadata"]["name"] for node in json.loads(said)["items"] if _is_ready(node, started)}
            return [name for name in names if name not in ready]

        wait_until(
            not_ready,
            f"the nodes of the kind cluster {self.name!r} are ready",
            timeout_s=_READY_TIMEOUT_S,
            every_s=0.5,
            ready=lambda waiting: not waiting,
            tolerate=(CommandFailed,),
            how=f"`docker logs {self.name}-control-plane` has what it said; `labkit down` takes it away.",
        )

    def _require_answer(self) -> None:
        stopped = [node for node in self.nodes() if not node.running]
        try:
            if not stopped:
                self._inside("kubectl", _ADMIN, "get", "--raw=/readyz")
                return
            reason = f"the node {stopped[0].name} is {stopped[0].word}"
        except CommandFailed as error:
            reason = error.stderr_tail.splitlines()[-1] if error.stderr_tail else "no answer"
        how = f"`labkit up` starts a node that is stopped; `kind delete cluster --name {self.name}` takes it away."
        raise ClusterGone("in its node", context=self.context, reason=reason, since=None, how=how)

    def _inside(self, *command: str) -> str:
        """Run a command in the first node; it has kubectl and the right to everything."""
        node = next(
            (node.name for node in self.nodes() if node.name.endswith("control-plane")), f"{self.name}-control-plane"
        )
        return self._docker("exec", node, *command)

    def _docker(self, *arguments: str, timeout_s: float = _ASK_TIMEOUT_S) -> str:
        return run(["docker", *arguments], timeout_s=timeout_s, how="Run `labkit doctor --on kind`.")

    def _run_kind(self, *arguments: str | Path, timeout_s: float = _ASK_TIMEOUT_S) -> str:
        return run([self.kind, *arguments, "--name", self.name], timeout_s=timeout_s)


def _is_ready(node: dict[str, Any], started: dict[str, str]) -> bool:
    since = started.get(node["metadata"]["name"])
    conditions = {condition["type"]: condition for condition in node["status"].get("conditions", [])}
    ready = conditions.get("Ready", {})
    if since is None or ready.get("status") != "True":
        return False
    # Docker gives nanoseconds, Kubernetes whole seconds.
    began = datetime.fromisoformat(since[:19] + "+00:00")
    return datetime.fromisoformat(ready["lastHeartbeatTime"]) >= began


def _pulled(said: str) -> str:
    found = re.search(r'failed to pull image "([^"]+)"', said)
    return found.group(1) if found else "of kind's release"
