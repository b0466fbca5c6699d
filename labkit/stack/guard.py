"""
The guard of one lab: a small process that ends it when nobody else can.

supervisord restarts the guard if it dies; the guard ends the lab if supervisord dies, which would orphan its
children.  It also ends the lab when its owner dies (after a grace in which a restarted kernel may rejoin it)
and when nobody has used it for its time to live.

    python -m labkit.stack.guard RUN_DIR                watch
    python -m labkit.stack.guard RUN_DIR --end REASON   end it now, from a process that is not part of the lab
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from math import inf
from pathlib import Path

import psutil
from filelock import FileLock

from labkit.stack.state import ClusterRef, State, kill_all, lab_age_s, lab_processes, resume_all

__all__ = ["end_lab", "end_leftover", "main", "verdict"]

_EVERY_S = 0.5
_SUPERVISOR_GRACE_S = 10
_ORPHAN_GRACE_S = 3
_LOCK_TIMEOUT_S = 150
_LEFTOVER = "leftover.json"


def verdict(state: State, *, orphaned_s: float | None, unused_s: float) -> str | None:
    """
    Why the lab must end now, or None if it may live.

    Args:
        state: what `lab.json` says.
        orphaned_s: seconds since its owner was first seen dead; None while it lives or if there is none.
        unused_s: seconds since anybody used the lab.

    >>> lab = State("id", "/r", "core", 7, 0, 0.0, 60.0, 20.0, "up", None, None, {}, {}, {})
    >>> verdict(lab, orphaned_s=None, unused_s=59.0) is None
    True
    >>> verdict(lab, orphaned_s=None, unused_s=61.0)
    'nobody used it for 60 s (its time to live)'
    """
    if state.supervisor is not None and not state.supervisor.alive():
        return "its supervisor died"
    if orphaned_s is not None and state.owner is not None:
        if state.phase == "starting":
            return f"process {state.owner.pid}, which was starting it, died"
        if orphaned_s >= state.owner_grace_s:
            return f"its owner, process {state.owner.pid}, died and nobody rejoined within {state.owner_grace_s:g} s"
    if state.phase == "up" and unused_s > state.ttl_s:
        return f"nobody used it for {state.ttl_s:g} s (its time to live)"
    return None


def end_lab(state: State, reason: str) -> list[str]:
    """
    Stop everything that belongs to a lab and record why.  Safe to repeat.

    What a cluster does not let go now is noted, and tried again by the next start or stop.

    Returns:
        Command names of processes that could not be ended, and what is left on a cluster; an empty list is the rule.
    """
    if state.supervisor is not None and state.supervisor.alive():
        from labkit.stack.supervisor import Supervisor  # noqa: PLC0415  (the guard itself stays small)

        resume_all(lab_processes(state.lab_id))
        # It stops its children by SIGTERM first, which lets databases close their files.
        Supervisor(Path(state.run_dir)).shutdown(timeout_s=_SUPERVISOR_GRACE_S)
        kill_all([psutil.Process(state.supervisor.pid)] if state.supervisor.alive() else [], grace_s=_ORPHAN_GRACE_S)
    left = [process.name() for process in kill_all(lab_processes(state.lab_id), grace_s=_ORPHAN_GRACE_S)]
    if state.cluster is not None:
        left += _remove(Path(state.run_dir), state.cluster, state.lab_id)
    state.end(reason + "".join(f"; left behind: {what}" for what in left))
    return left


def end_leftover(run_dir: Path) -> bool:
    """
    Remove what an earlier ending could not remove from a cluster; returns whether there was anything.

    Raises:
        NotReady: it is still there; says what, and what the cluster says.
    """
    path = run_dir / _LEFTOVER
    if not path.exists():
        return False
    note, began = json.loads(path.read_text(encoding="utf-8")), time.monotonic()
    left = _remove(run_dir, ClusterRef(**note["cluster"]), note["lab_id"])
    if left:
        from labkit.errors import NotReady  # noqa: PLC0415  (the guard itself stays small)

        how = f"If its cluster will never come back, delete {path}."
        seen, waited_s = ", ".join(left).removesuffix("."), time.monotonic() - began
        raise NotReady("nothing of an earlier lab is left on its cluster", waited_s=waited_s, last_seen=seen, how=how)
    return True


def _remove(run_dir: Path, cluster: ClusterRef, lab_id: str) -> list[str]:
    """Take a lab off its cluster, or note that this is still to be done; returns what is left, in words."""
    from labkit.errors import LabkitError  # noqa: PLC0415  (the guard itself stays small)
    from labkit.stack.cluster_end import remove_lab  # noqa: PLC0415

    path = run_dir / _LEFTOVER
    try:
        remove_lab(cluster, lab_id)
    except LabkitError as error:
        path.write_text(json.dumps({"cluster": asdict(cluster), "lab_id": lab_id}, indent=1), encoding="utf-8")
        return [f"namespace {cluster.namespace} on {cluster.context}: {error}"]
    path.unlink(missing_ok=True)
    return []


def main(argv: list[str]) -> int:
    """Entry point of the module."""
    run_dir = Path(argv[1])
    if argv[2:3] == ["--end"]:
        return 1 if _end_unless_rejoined(run_dir, argv[3]) else 0
    watch(run_dir, os.environ.get("LABKIT_LAB_ID", ""))
    return 0


def watch(run_dir: Path, lab_id: str) -> None:
    """Watch one lab until it ends; returns when `lab.json` is gone or belongs to another lab."""
    orphaned_since: float | None = None
    pause = threading.Event()
    while not pause.wait(_EVERY_S):
        state = State.load(run_dir)
        if state is None or state.lab_id != lab_id:
            return
        orphan = state.owner is not None and not state.owner.alive()
        orphaned_since = (orphaned_since or time.monotonic()) if orphan else None
        orphaned_s = time.monotonic() - orphaned_since if orphaned_since is not None else None
        reason = verdict(state, orphaned_s=orphaned_s, unused_s=lab_age_s(run_dir, state))
        if reason is not None:
            _end_from_outside(run_dir, reason)
            return


def _end_from_outside(run_dir: Path, reason: str) -> None:
    """Start the ending in a process without the lab's tag: the guard itself is among those that are ended."""
    env = {key: value for key, value in os.environ.items() if key != "LABKIT_LAB_ID"}
    argv = [sys.executable, "-m", "labkit.stack.guard", str(run_dir), "--end", reason]
    devnull = subprocess.DEVNULL
    with subprocess.Popen(argv, env=env, start_new_session=True, stdin=devnull, stdout=devnull, stderr=devnull):
        pass


def _end_unless_rejoined(run_dir: Path, reason: str) -> list[str]:
    """
    End the lab, unless somebody joined it since the guard decided: a join and an ending exclude one another.

    Returns:
        Command names of processes that could not be ended.
    """
    with FileLock(f"{run_dir}.lock", timeout=_LOCK_TIMEOUT_S):
        state = State.load(run_dir)
        if state is None:
            return []
        orphan = state.owner is not None and not state.owner.alive()
        still = verdict(state, orphaned_s=inf if orphan else None, unused_s=lab_age_s(run_dir, state))
        return end_lab(state, reason) if still is not None else []


if __name__ == "__main__":
    sys.exit(main(sys.argv))
