"""
Docker, started by hand: its own folders, socket and network, so that nothing of this machine's is touched.

It runs in a network namespace of its own (its rules for packets stay there), which is entered with
`nsenter --net=`: `ip netns exec` would mount /sys anew and hide the control groups.  kind and kubectl run in it too,
for the API server listens on its loopback.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from labkit._proc import run, tail
from labkit._wait import wait_until
from labkit.errors import ComponentDied, NotRunning, SetupError
from labkit.stack import apt
from labkit.stack.progress import Progress, silent, step
from tests.kind.rig import runc_wrapper
from tests.kind.rig.cache import digest
from tests.kind.rig.leftovers import (
    allow_watchers,
    mounts_below,
    processes_of,
    read_sysctls,
    remove_groups,
    restore_sysctls,
    unmount_below,
)
from tests.kind.rig.node_image import NODE_IMAGE
from tests.kind.rig.packages import program
from tests.kind.rig.parts import Parts

__all__ = ["Engine", "default_home"]

# Folders that Docker and containerd make wherever they are told to live.
_STRAYS = ("/etc/docker", "/opt/containerd", "/run/containerd", "/run/docker")
_WATCHERS = 512
_LONGEST_HOME = 60
_CLONE_NEWNET = 0x40000000  # from linux/sched.h
# The address of the engine in the network of its containers, where it answers questions about names.
_GATEWAY = "172.17.0.1"
_NAMES = """
. {
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60


def default_home() -> Path:
    """The folder of the running engine: `RIG_HOME`, or a fixed one on disk (images do not fit into a memory disk)."""
    return Path(os.environ.get("RIG_HOME") or "/var/tmp/labkit-rig")


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine below *home*, whether it runs or not."""

    home: Path

    @property
    def netns(self) -> Path:
        """The file that its network is entered by."""
        return self.home / "netns"

    @property
    def group(self) -> str:
        """The control group below which all its containers live, and nothing else does."""
        return f"labkit-rig-{digest(str(self.home))}"

    @property
    def enter(self) -> list[str]:
        """What stands before a command that is to run in the engine's network."""
        return ["nsenter", f"--net={self.netns}"]

    @property
    def environment(self) -> dict[str, str]:
        """Variables for docker, kind and kubectl; `RIG_NODE_IMAGE` is what `kind create cluster --image` wants."""
        return {
            "DOCKER_HOST": f"unix://{self.home / 'docker.sock'}",
            "DOCKER_CONFIG": str(self.home / "client"),
            "KUBECONFIG": str(self.home / "kubeconfig"),
            "KUBECACHEDIR": str(self.home / "kubectl"),
            "RIG_NODE_IMAGE": NODE_IMAGE,
            "PATH": f"{self.home / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        }

    def shell(self) -> str:
        """Lines for `eval`: the environment, and `rig COMMAND`, which runs a command in the engine's network."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return "\n".join([*lines, f'rig() {{ {shlex.join(self.enter)} "$@"; }}'])

    def run(self, *argv: str | Path, timeout_s: float, input_text: str | None = None) -> str:
        """Run a command in the engine's network with its environment; what it wrote, as `labkit._proc.run`."""
        env = {**os.environ, **self.environment}
        return run([*self.enter, *argv], timeout_s=timeout_s, env=env, input_text=input_text)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """
        While the block runs, this thread, and what it starts, is in the engine's network and environment.

        A test process enters it once, before it has other threads: then clients in Python reach the cluster too.
        """
        before = os.environ.copy()
        with Path("/proc/thread-self/ns/net").open("rb") as outside, self.netns.open("rb") as inside:
            _set_namespace(inside.fileno())
            os.environ.update(self.environment)
            try:
                yield
            finally:
                os.environ.clear()
                os.environ.update(before)
                _set_namespace(outside.fileno())

    def is_up(self) -> bool:
        """Whether its daemon answers."""
        if not (self.home / "docker.sock").exists():
            return False
        done = subprocess.run(
            [*self.enter, "docker", "version"], env=self.environment, capture_output=True, timeout=60, check=False
        )
        return done.returncode == 0

    def up(self, parts: Parts, progress: Progress = silent) -> None:
        """
        Start it and load the node image; does nothing when it is up with this image.

        Raises:
            SetupError: the folder's path is too long, this is not root, or the folder holds something else.
            ComponentDied: the daemon ended; carries what it said.
            CommandFailed: the image could not be loaded.
        """
        if self.is_up():
            self._load(parts, progress)
            return
        if len(str(self.home)) > _LONGEST_HOME:
            raise SetupError(
                f"The engine's sockets lie below {self.home}, and a path to a socket has at most 107 characters; these "
                f"would have more. Name a folder of at most {_LONGEST_HOME} characters in RIG_HOME."
            )
        _must_be_root()
        self.down()
        self.home.mkdir(parents=True, exist_ok=True)
        # kubelet changes these for the whole machine.
        self._remember(sysctls=read_sysctls(), strays=[path for path in _STRAYS if not Path(path).exists()])
        try:
            # Several clusters at a time, of two nodes some; kind itself recommends as much.
            allow_watchers(_WATCHERS)
            with step(progress, "start Docker in a network of its own"):
                self._make_network()
                self._write_files(parts)
                self._start(parts)
                self._answer_names(parts)
            self._load(parts, progress)
        except BaseException:
            self.down()
            raise

    def down(self, progress: Progress = silent) -> None:
        """
        Stop all that runs in it, then itself, and delete its folder; does nothing when there is none.

        Settings of the kernel that a node changed are put back to what they were before `up`.

        Raises:
            SetupError: the folder holds something else than an engine.
        """
        state = self._state()
        if state is None:
            return
        with step(progress, "stop the engine and what runs in it"):
            if self.is_up():
                containers = self.run("docker", "ps", "--all", "--quiet", timeout_s=60).split()
                if containers:
                    self.run("docker", "rm", "--force", "--volumes", *containers, timeout_s=180)
            pid_file = self.home / "docker.pid"
            pid = pid_file.read_text(encoding="utf-8").strip() if pid_file.exists() else ""
            # It ends its containerd in order.
            _end(
                [process for process in processes_of(self.netns, self.group) if str(process.pid) == pid],
                _STOP_TIMEOUT_S,
            )
            # What a daemon that was killed left: all in its network, and all in its control group.
            _end(processes_of(self.netns, self.group), 5)
            unmount_below(self.home)
            remove_groups(self.group)
            restore_sysctls(state["sysctls"])
            for stray in state["strays"]:
                shutil.rmtree(stray, ignore_errors=True)
            shutil.rmtree(self.home)

    def status(self) -> list[str]:
        """What there is of it, one fact per line."""
        if self._state() is None:
            return [f"no engine in {self.home}"]
        running = processes_of(self.netns, self.group)
        names = self.run("docker", "ps", "--format", "{{.Names}}", timeout_s=60).split() if self.is_up() else []
        return [
            f"engine in {self.home}: {'up' if self.is_up() else 'down, but not taken away'}",
            f"containers: {', '.join(names) or 'none'}",
            f"{len(running)} processes, {len(mounts_below(self.home))} mounts",
        ]

    def require_up(self) -> None:
        """
        Nothing, when it is up.

        Raises:
            NotRunning: it is not.
        """
        if not self.is_up():
            how = "Run `python -m tests.kind.rig up`."
            raise NotRunning("the engine of the test clusters", seen=f"no daemon answers in {self.home}", how=how)

    def _state(self) -> dict[str, Any] | None:
        file = self.home / "state.json"
        if file.is_file():
            known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return known
        if self.home.is_dir() and any(self.home.iterdir()):
            raise SetupError(
                f"{self.home} is to hold an engine, but there are other things in it and no state.json. "
                "Name another folder in RIG_HOME, or delete it."
            )
        return None

    def _remember(self, **facts: object) -> None:
        file = self.home / "state.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        file.write_text(json.dumps({**known, **facts}), encoding="utf-8")

    def _load(self, parts: Parts, progress: Progress) -> None:
        archive, state = str(parts.node_archive), self._state()
        if state is not None and state.get("loaded") != archive:
            with step(progress, f"load {NODE_IMAGE}"):
                self.run("docker", "load", "--input", archive, timeout_s=900)
            self._remember(loaded=archive)

    def _make_network(self) -> None:
        self.netns.touch()
        run(["unshare", f"--net={self.netns}", "true"], timeout_s=20)
        run([*self.enter, "ip", "link", "set", "lo", "up"], timeout_s=20)

    def _write_files(self, parts: Parts) -> None:
        links = self.home / "bin"
        links.mkdir()
        programs = {"kind": parts.kind / "kind", "kubectl": parts.kubernetes / "kubernetes"}
        programs["docker"] = program(parts.engine, "docker")
        for name in ("iptables", "ip6tables"):
            programs[name] = program(parts.engine, "xtables-nft-multi")
        for name, target in programs.items():
            (links / name).symlink_to(target)
        configuration: dict[str, object] = {
            "data-root": str(self.home / "data"),
            "exec-root": str(self.home / "exec"),
            "pidfile": str(self.home / "docker.pid"),
            "hosts": [f"unix://{self.home / 'docker.sock'}"],
            "group": "root",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{self.group}",
            "oom-score-adjust": 0,
            "bip": f"{_GATEWAY}/16",
            "dns": [_GATEWAY],
        }
        if runc_wrapper.is_needed(Path("/proc/self/status").read_text(encoding="utf-8")):
            wrapper = self.home / "runc-without-resource"
            argv = [os.path.realpath(sys.executable), "-I", "-S", runc_wrapper.__file__, program(parts.engine, "runc")]
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, argv))} "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
            configuration |= {"runtimes": {"rig": {"path": str(wrapper)}}, "default-runtime": "rig"}
        (self.home / "daemon.json").write_text(json.dumps(configuration, indent=2), encoding="utf-8")

    def _start(self, parts: Parts) -> None:
        folders = [parts.engine / "usr/bin", parts.engine / "usr/sbin"]
        env = {
            **os.environ,
            "PATH": ":".join([str(self.home / "bin"), *map(str, folders), os.environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": ":".join(map(str, apt.library_dirs(parts.engine))),
        }
        modules = next(iter(parts.engine.glob("usr/lib/*/xtables")), None)
        if modules is not None:
            env["XTABLES_LIBDIR"] = str(modules)
        argv = [program(parts.engine, "dockerd"), "--config-file", self.home / "daemon.json"]
        log = self._in_background(*argv, env=env)

        def answers() -> bool:
            said = log.read_text(encoding="utf-8", errors="replace")
            if "failed to start" in said:
                raise ComponentDied("dockerd", state="ended", log_path=log, log_tail=tail(said))
            return self.is_up()

        wait_until(answers, "Docker answers", timeout_s=_START_TIMEOUT_S, how=f"Its log is {log}.")

    def _answer_names(self, parts: Parts) -> None:
        """Say at once that names outside are unknown; silence would cost every node that starts five seconds."""
        corefile = self.home / "Corefile"
        corefile.write_text(_NAMES, encoding="utf-8")
        self._in_background(parts.coredns, "-conf", corefile)

    def _in_background(self, *argv: str | Path, env: Mapping[str, str] | None = None) -> Path:
        """Start what outlives this process, in the engine's network, by which `down` finds it; where its log is."""
        log = self.home / f"{Path(argv[0]).name}.log"
        with log.open("wb") as out:
            subprocess.run(
                ["setsid", "--fork", *self.enter, *map(str, argv)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=20,
                check=True,
            )
        return log


def _set_namespace(file: int) -> None:
    # os.setns came with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "this process may not enter another network namespace")


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise SetupError(
            "The rig starts Docker and makes network namespaces, which only root may do; this process is not root. "
            "Run it as root in a container or virtual machine of its own, or use kind with your own Docker."
        )


def _end(processes: Sequence[psutil.Process], grace_s: float) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=grace_s)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace_s)
