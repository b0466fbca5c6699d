"""
Write what the pods of a namespace say into files: `python -m labkit.observe.pod_logs --into FOLDER`.

The shipper carries them on as it carries the files of a lab of processes.  A file is called
`SERVICE.log.POD.CONTAINER.UID.log`: the shipper takes what stands before the first `.log` for the name of who writes,
and a pod that takes another's place has a file of its own.  SERVICE is the label `app.kubernetes.io/name`, or the
container's name if the pod has several and none of them is called like that.

Every line is written once: a stream that was cut is asked for again from where it ended, also after this program's own
end, and also if the container was restarted meanwhile, as long as kubelet keeps its log.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import RequestFailed
from labkit.observe._pod_api import ACCOUNT, PodApi, api_url
from labkit.observe._pod_journal import Journal, nanoseconds

__all__ = ["Collector", "main"]

_log = logging.getLogger(__name__)
_PAUSE_S = 0.3
_LONGEST_PAUSE_S = 5.0
# Waiting for it is a pause; the process ends all its threads at once when it is told to.
_NEVER = threading.Event()
# A change that the watch missed is noticed after this.
_LOOK_AGAIN_S = 60
# How long the log of a run that has ended is asked for when kubelet says that it has none.
_GIVE_UP_S = 15
# Bytes of a line that are kept; the shipper passes on less.
_LONGEST_LINE = 1024 * 1024
_MOST_BYTES = 5_000_000
_MOST_OF_GONE = 50_000_000
# The shipper has seen that a file is empty after this.
_SEEN_S = 30


class _NoLine(Exception):
    """Kubelet sent a remark of its own instead of a line."""


class _Follower(threading.Thread):
    """Follows one container of one pod until the pod is gone."""

    def __init__(self, api: PodApi, pod: Mapping[str, Any], container: str, journal: Journal) -> None:
        super().__init__(name=f"{pod['metadata']['name']}/{container}", daemon=True)
        self._api, self._container, self._journal = api, container, journal
        self._pod, self._uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        self._refused: dict[str, float] = {}
        self.changed = threading.Event()
        self.path, self.save = journal.path, journal.save

    def run(self) -> None:
        pause_s, said = _PAUSE_S, ""
        while True:
            self.changed.clear()
            try:
                pod = self._api.pod(self._pod)
                if pod is None or pod["metadata"]["uid"] != self._uid:
                    break
                self.changed.wait(_PAUSE_S if self._catch_up(_status(pod, self._container)) else _LOOK_AGAIN_S)
                pause_s, said = _PAUSE_S, ""
            except (RequestFailed, _NoLine, OSError) as error:
                # That the server is away is said once, by who watches the pods.
                if getattr(error, "status", 0) is not None and str(error) != said:
                    said = str(error)
                    _log.warning("%s: trying again: %s", self.name, said)
                _NEVER.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._journal.close()

    def _catch_up(self, status: Mapping[str, Any]) -> bool:
        """Read the runs of the container that are not here whole; returns whether there was one."""
        found = False
        for run, previous, running in _runs(status):
            if run in self._journal.done:
                continue
            found = True
            self._journal.begin(run)
            try:
                # Whole is what has nothing more when it is asked for again: a server that ends may end an answer early.
                while self._read(follow=running, previous=previous) and not running:
                    pass
            except (RequestFailed, _NoLine) as error:
                # A kubelet that is busy says the same of a log that it has.
                if running or not _lost(error):
                    raise
                if time.monotonic() - self._refused.setdefault(run, time.monotonic()) < _GIVE_UP_S:
                    raise
                _log.warning("%s: the rest of the log of its last run is gone: %s", self.name, error)
            if not running:
                self._journal.finish(run)
        return found

    def _read(self, *, follow: bool, previous: bool) -> bool:
        """Read on from the position; returns whether there was anything new."""
        found, position = False, self._journal.position
        known, newest_ns = position.known(), position.newest_ns
        pieces = self._api.log(self._pod, self._container, since_s=position.since_s, follow=follow, previous=previous)
        for lines in _lines(pieces, ended=not follow):
            fresh = []
            for time_ns, text in lines:
                if known and time_ns <= newest_ns:
                    known -= 1
                else:
                    known = 0
                    fresh.append((time_ns, text))
            self._journal.add(fresh)
            found = found or bool(fresh)
        return found


def _lines(pieces: Iterable[bytes], *, ended: bool) -> Iterator[list[tuple[int, bytes]]]:
    """
    The whole lines of each piece; with *ended* also the last one without an end, which a cut would leave half.

    Raises:
        _NoLine: something else than a line is among them, or at their end.
    """
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        rest = rest[:_LONGEST_LINE]
        if whole:
            yield [_parted(line) for line in whole]
    when, blank, _ = rest.partition(b" ")
    if rest and (ended or (blank and nanoseconds(when) is None)):
        yield [_parted(rest)]


def _parted(line: bytes) -> tuple[int, bytes]:
    when, _, text = line.partition(b" ")
    time_ns = nanoseconds(when)
    if time_ns is None:
        raise _NoLine(line[:300].decode(errors="replace"))
    return time_ns, text[:_LONGEST_LINE]


def _status(pod: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    """Of the container; empty before the pod is on a node."""
    status = pod["status"]
    known = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((one for one in known if one["name"] == container), {})


def _runs(status: Mapping[str, Any]) -> list[tuple[str, bool, bool]]:
    """The runs whose logs kubelet has, oldest first: id, whether it is the previous one, whether it goes on."""
    current = status.get("containerID", "")
    last = status.get("lastState", {}).get("terminated", {}).get("containerID", "")
    runs = [(last, True, False)] if last and last != current else []
    return [*runs, (current, False, "running" in status["state"])] if current else runs


def _lost(error: Exception) -> bool:
    """Whether kubelet says that there is no such log."""
    return isinstance(error, _NoLine) or getattr(error, "status", None) in {400, 404}


def _service(pod: Mapping[str, Any], container: str) -> str:
    name = str(pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", pod["metadata"]["name"]))
    containers = [one["name"] for one in pod["spec"]["containers"]]
    return container if container in containers and len(containers) > 1 and container != name else name


class Collector:
    """
    Follows every container of every pod.

    Args:
        api: of the namespace.
        folder: of the files; it is made if it is not there.
        most_bytes: of one file, before it is renamed to `….log.1`; of each container two are kept.
        most_of_gone: bytes of all files of pods that are gone; the oldest go first.
    """

    def __init__(
        self, api: PodApi, folder: Path, *, most_bytes: int = _MOST_BYTES, most_of_gone: int = _MOST_OF_GONE
    ) -> None:
        self._api, self._folder, self._most, self._most_of_gone = api, folder, most_bytes, most_of_gone
        self._positions = folder / "positions"
        self._positions.mkdir(parents=True, exist_ok=True)
        self._followers: dict[tuple[str, str], _Follower] = {}
        self._listed = False

    def watch(self) -> None:
        """Begin to follow what comes; never returns."""
        pause_s = _PAUSE_S
        while True:
            try:
                pods, version = self._api.pods()
                for pod in pods:
                    self._see(pod)
                if pause_s > _PAUSE_S:
                    _log.info("the API server answers again")
                self._listed, pause_s = True, _PAUSE_S
                while True:
                    version = self._follow_changes(version)
            except RequestFailed as error:
                if error.status != 410 and pause_s <= _PAUSE_S:
                    _log.warning("the pods cannot be watched, trying again: %s", error)
                _NEVER.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def save(self) -> None:
        """Write the positions down, and remove what is too much of pods that are gone."""
        for key, follower in list(self._followers.items()):
            if follower.is_alive():
                follower.save()
            else:
                del self._followers[key]
        if self._listed:
            self._tidy({follower.path for follower in list(self._followers.values())})

    def _follow_changes(self, version: str) -> str:
        for kind, pod in self._api.changes(version):
            version = pod["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self._see(pod)
        return version

    def _see(self, pod: Mapping[str, Any]) -> None:
        spec = pod["spec"]
        for container in (one["name"] for one in (*spec.get("initContainers", ()), *spec["containers"])):
            key = (pod["metadata"]["uid"], container)
            if key in self._followers:
                self._followers[key].changed.set()
            else:
                self._followers[key] = follower = _Follower(self._api, pod, container, self._journal(pod, container))
                follower.start()

    def _journal(self, pod: Mapping[str, Any], container: str) -> Journal:
        meta = pod["metadata"]
        name = f"{_service(pod, container)}.log.{meta['name']}.{container}.{meta['uid'][:8]}"
        return Journal(self._folder / f"{name}.log", self._positions / f"{name}.json", most_bytes=self._most)

    def _tidy(self, followed: set[Path]) -> None:
        gone = {path: path.stat() for path in self._folder.glob("*.log") if path not in followed}
        size = sum(status.st_size for status in gone.values())
        for path, status in sorted(gone.items(), key=lambda item: item[1].st_mtime):
            # Emptied first, removed later: the shipper, which knows files by inode, must not take a new one for this.
            rotated = path.with_name(path.name + ".1")
            if size > self._most_of_gone and status.st_size:
                size -= status.st_size
                for one in (path, rotated):
                    if one.exists():
                        os.truncate(one, 0)
            elif not status.st_size and time.time() - status.st_mtime > _SEEN_S:
                for one in (path, rotated, self._positions / f"{path.stem}.json"):
                    one.unlink(missing_ok=True)


def main() -> None:
    """Entry point; runs until SIGTERM or SIGINT, and then ends at once."""
    parser = argparse.ArgumentParser(prog="labkit.observe.pod_logs", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder of the files")
    parser.add_argument("--namespace", default="", help="that of this pod if not given")
    parser.add_argument("--api", default="", help="address of the API server; that of this pod's cluster if not given")
    parser.add_argument("--token-file", type=Path, default=ACCOUNT / "token", help="read anew for every request")
    parser.add_argument("--ca-file", type=Path, default=ACCOUNT / "ca.crt", help="who signed the server's certificate")
    parser.add_argument("--most-bytes", type=int, default=_MOST_BYTES, help="of a file, before it is rotated")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    namespace = given.namespace or (ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    api = PodApi(given.api or api_url(os.environ), namespace, given.token_file, given.ca_file)
    collector = Collector(api, given.into, most_bytes=given.most_bytes)
    threading.Thread(target=collector.watch, name="watch", daemon=True).start()
    while not stop.wait(1):
        collector.save()
    collector.save()


if __name__ == "__main__":
    main()
