"""
Docker: what is wrong with it, before anything is made.

It is asked by its command-line client, as kind does.  Podman, which kind can use as well, is not supported here.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit._proc import run
from labkit.errors import CommandFailed, SetupError

if TYPE_CHECKING:
    from labkit.stack.doctor import Finding

__all__ = ["EngineUnfit", "check_engine", "engine_findings", "pull_problem"]

_ANSWER_TIMEOUT_S = 15.0
_DISK_MB = 6_000.0
_MIB = 1 << 20
# A node without a lab was seen to take 30 instances and 1,000 watches of its user, who has other programs too.  What is
# below the first number is refused; the second is what kind's documentation recommends.
_INOTIFY = {"max_user_instances": (100, 512), "max_user_watches": (8_192, 524_288)}

# Words of Docker, containerd and registries, and what they mean; the first that is found counts.
_PULL_PROBLEMS = {
    "the registry's limit of pulls is used up for now (rate limit)": (
        *("toomanyrequests", "pull rate limit", "429 too many"),
    ),
    "the registry's name cannot be resolved (no network?)": (
        *("no such host", "dial tcp: lookup", "server misbehaving", "name resolution"),
    ),
    "the registry does not answer (no network?)": (
        *("i/o timeout", "connection refused", "network is unreachable", "tls handshake timeout"),
        *("client.timeout exceeded", "context deadline exceeded"),
    ),
    "the registry has no such image, or refuses it to this user": (
        *("manifest unknown", "manifest for", "repository does not exist", "pull access denied", "unauthorized"),
        *("no match for platform", "denied: "),
    ),
}


class EngineUnfit(SetupError):
    """Docker cannot carry the cluster; `problems` are pairs of what was seen and what to do."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        lines = "".join(f"\n  - {seen}. {advice}" for seen, advice in problems)
        super().__init__(f"A lab on kind needs Docker on this machine, and it is not fit for one:{lines}")


class _Silent(Exception):
    """The engine gave no description of itself; carries what was seen and what to do."""


def check_engine(needed_mib: float, *, docker: str = "docker") -> list[str]:
    """
    Make sure that Docker can carry a cluster, before anything is made.

    Args:
        needed_mib: memory that the pods and the node ask for, in MiB.
        docker: the command-line client; its environment says which engine.

    Returns:
        What may become a problem, in a sentence each; empty if nothing.

    Raises:
        EngineUnfit: it is not installed, does not run, may not be used, or has too little of something; all of it is
            listed, each with what to do.
    """
    findings = engine_findings(needed_mib, docker=docker)
    problems = [(f"{f.what}: {f.seen}", f.advice) for f in findings if f.verdict == "missing"]
    if problems:
        raise EngineUnfit(problems)
    return [f"{f.what}: {f.seen}. {f.advice}" for f in findings if f.verdict == "warning"]


def engine_findings(needed_mib: float, *, docker: str = "docker") -> list[Finding]:
    """The lines of `labkit doctor` about Docker; arguments as for `check_engine`.  Nothing is raised."""
    from labkit.stack.doctor import Finding  # noqa: PLC0415  (the doctor asks this module)

    try:
        info = _ask(docker)
    except _Silent as silence:
        seen, advice = silence.args
        return [Finding("Docker", "missing", seen, advice)]
    found = [Finding("Docker", "ok", f"{info.get('ServerVersion', 'unknown version')} on {info.get('Name', '?')}")]
    found += [_memory(info, needed_mib), *_disk(info), *_rootless(info)]
    return [*found, *_inotify()] if sys.platform == "linux" else found


def pull_problem(said: str) -> str:
    """
    Why an image could not be pulled, in words that start in lower case; empty when *said* is about something else.

    >>> pull_problem("dial tcp: lookup registry-1.docker.io: no such host")
    "the registry's name cannot be resolved (no network?)"
    >>> pull_problem("exec format error")
    ''
    """
    lowered = said.lower()
    for meaning, words in _PULL_PROBLEMS.items():
        if any(word in lowered for word in words):
            return meaning
    return ""


def _ask(docker: str) -> dict[str, Any]:
    """What the engine says of itself."""
    if shutil.which(docker) is None:
        raise _Silent("it is not installed: no `docker` on PATH", _INSTALL)
    try:
        info: dict[str, Any] = json.loads(run([docker, "info", "--format", "{{json .}}"], timeout_s=_ANSWER_TIMEOUT_S))
    except CommandFailed as error:
        if error.returncode is None:
            seen = f"it did not answer within {_ANSWER_TIMEOUT_S:g} s at {_address()}"
            raise _Silent(seen, f"Start it again: {_START}.") from error
        raise _refused(error.stderr_tail) from error
    except json.JSONDecodeError as error:
        raise _Silent("its `docker info` is no JSON", "Use the client that Docker publishes.") from error
    if errors := info.get("ServerErrors"):
        raise _refused("\n".join(errors))
    if "host" in info:
        advice = "Install Docker, and see with `type docker` that its client comes first on PATH."
        raise _Silent("the `docker` on PATH is Podman, which labkit does not drive", advice)
    return info


def _refused(said: str) -> _Silent:
    lowered = said.lower()
    # The client may have a context of its own, which only its message tells.
    named = re.search(r"\b(?:unix|tcp|ssh|npipe)://[^\s\"]+?(?=[.:,]?(?:\s|\"|$))", said)
    address = named.group() if named else _address()
    if "permission denied" in lowered:
        return _Silent(f"this user may not use its socket at {address}", _permission(address))
    if any(words in lowered for words in ("cannot connect", "is the docker daemon running", "error during connect")):
        elsewhere = "; DOCKER_HOST names this place" if "DOCKER_HOST" in os.environ else ""
        return _Silent(f"nothing answers at {address}{elsewhere}", f"Start it: {_START}.")
    return _Silent(f"`docker info` failed: {said.splitlines()[-1] if said else 'without a word'}", f"{_START}.")


_INSTALL = (
    "Install Docker Desktop, or Colima with `brew install colima docker`."
    if sys.platform == "darwin"
    else "Install it (docs.docker.com/engine/install); without it, `labkit up` runs the lab as processes."
)
_START = "open Docker Desktop, or `colima start`" if sys.platform == "darwin" else "`sudo systemctl restart docker`"


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _permission(address: str) -> str:
    """How to be let in: by the group of the socket, unless that is root's, or by an engine of one's own."""
    rootless = "use Docker without root (docs.docker.com/engine/security/rootless)"
    path = Path(address.removeprefix("unix://"))
    try:
        name = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        name = "docker"
    if name == "root":
        return f"The socket belongs to root alone: let its owner give it to a group of yours, or {rootless}."
    return f"Join the group `{name}` (`sudo usermod -aG {name} $USER`) and log in again, or {rootless}."


def _memory(info: Mapping[str, Any], needed_mib: float) -> Finding:
    from labkit.stack.doctor import Finding  # noqa: PLC0415

    has_mib = float(info.get("MemTotal", 0)) / _MIB
    seen = f"Docker has {has_mib:,.0f} MiB, {needed_mib:,.0f} needed"
    if has_mib >= needed_mib:
        return Finding("Memory for Docker", "ok", seen)
    more = "Give its virtual machine more (Settings, Resources)" if _in_a_machine(info) else "Use a larger machine"
    return Finding(
        "Memory for Docker", "missing", seen, f"{more}, or run the lab as processes: `labkit up --on local`."
    )


def _in_a_machine(info: Mapping[str, Any]) -> bool:
    return sys.platform == "darwin" or "desktop" in str(info.get("OperatingSystem", "")).lower()


def _disk(info: Mapping[str, Any]) -> Iterator[Finding]:
    """The disk of its images, where this machine can see it."""
    from labkit.stack.doctor import Finding  # noqa: PLC0415

    root = Path(str(info.get("DockerRootDir", "")))
    if _in_a_machine(info) or not root.is_absolute():
        return
    try:
        existing = next(path for path in (root, *root.parents) if os.access(path, os.X_OK))
        free_mb = shutil.disk_usage(existing).free / 1e6
    except OSError:
        return
    seen = f"{free_mb:,.0f} MB free in {root}, {_DISK_MB:,.0f} needed"
    advice = "" if free_mb >= _DISK_MB else "Free some space: `docker system df` shows what images and volumes take."
    yield Finding("Disk for Docker", "missing" if advice else "ok", seen, advice)


def _rootless(info: Mapping[str, Any]) -> Iterator[Finding]:
    from labkit.stack.doctor import Finding  # noqa: PLC0415

    rootless = any("name=rootless" in option for option in info.get("SecurityOptions") or [])
    if rootless and str(info.get("CgroupVersion")) == "1":
        advice = "Boot with `systemd.unified_cgroup_hierarchy=1`, or use Docker as root."
        yield Finding("Control groups", "missing", "version 1, and Docker without root needs version 2", advice)


def _inotify(folder: Path = Path("/proc/sys/fs/inotify")) -> Iterator[Finding]:
    """Limits of watched files, which the kernel counts per user and not per container."""
    from labkit.stack.doctor import Finding  # noqa: PLC0415

    for name, (least, good) in _INOTIFY.items():
        try:
            has = int((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        seen = f"{has:,}, {good:,} recommended for kind"
        advice = f"Run `sudo sysctl fs.inotify.{name}={good}`; /etc/sysctl.conf keeps it." if has < good else ""
        verdict = "missing" if has < least else "warning" if has < good else "ok"
        yield Finding(f"fs.inotify.{name}", verdict, seen, advice)  # type: ignore[arg-type]
