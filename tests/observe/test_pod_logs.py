"""The collector of pods' logs: where a line goes, and that it is written once whatever ends when."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from labkit._wait import wait_until
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.observe import pod_logs
from labkit.observe._pod_api import PodApi, api_url
from labkit.observe._pod_journal import Journal, nanoseconds
from labkit.observe.pod_logs import Collector
from labkit.observe.shipper import Placed, Shipper
from tests.observe.kubelet_server import OnePod, Run, serving

NOW = 1_772_359_200 * 10**9
Start = Callable[..., Collector]


@pytest.fixture
def pod() -> Iterator[OnePod]:
    """A pod that is served."""
    with serving(OnePod()) as one:
        yield one


@pytest.fixture
def start(pod: OnePod, tmp_path: Path) -> Start:
    """Starts a collector for the pod, which writes below `logs`; another one is what a restart would begin."""

    def begin(**bounds: int) -> Collector:
        (file := tmp_path / f"token-{pod.token}").write_text(f"{pod.token}\n")
        api = PodApi(pod.url, "lab", file, tmp_path / "ca")
        collector = Collector(api, tmp_path / "logs", **bounds)
        threading.Thread(target=collector.watch, daemon=True).start()
        return collector

    return begin


def numbered(count: int, first: int = 0) -> list[tuple[int, bytes]]:
    """So many lines, 40 a second; a few have the time of the one before, a few an earlier one, as two streams give."""
    return [(NOW + (n - n % 3) * 25 * 10**6 + (-5 if n % 7 == 0 else 0), b"line %d\n" % n) for n in range(first, count)]


def texts(lines: list[tuple[int, bytes]]) -> list[str]:
    """Without their times and ends."""
    return [text.decode().strip("\n") for _, text in lines]


def written(folder: Path) -> list[str]:
    """The lines of all files, those that were rotated away first."""
    paths = [*sorted(folder.glob("logs/*.log.1")), *sorted(folder.glob("logs/*.log"))]
    return [line for path in paths for line in path.read_text().splitlines()]


def until(folder: Path, expected: list[str]) -> None:
    """Wait for exactly these lines."""
    wait_until(lambda: len(written(folder)) >= len(expected), f"{len(expected)} lines", timeout_s=60)
    time.sleep(0.5)
    assert written(folder) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2026-03-01T10:00:00.000000007Z", NOW + 7),
        (b"2026-03-01T12:00:00.5+02:00", NOW + 500_000_000),
        (b"2026-03-01T10:00:00Z", NOW),
        (b"2026-03-01 10:00:00Z", None),
        (b"unable", None),
    ],
)
def test_a_time_is_read_to_the_nanosecond(text: bytes, expected: int | None) -> None:
    """In any zone; what is no time is none."""
    assert nanoseconds(text) == expected


def test_cuts_in_the_middle_of_lines_lose_and_double_nothing(pod: OnePod, start: Start, tmp_path: Path) -> None:
    """Every kilobyte or so the connection ends; the second after each line's is asked for again and passed over."""
    lines = numbered(700)
    pod.runs.append(Run("a", lines[:50]))
    pod.cut_after = 9000
    start()
    for begin in range(50, 700, 50):
        time.sleep(0.02)
        pod.runs[0].lines.extend(lines[begin : begin + 50])
    until(tmp_path, texts(lines))
    assert len(pod.asked) > 3
    assert any("sinceTime" in asked for asked in pod.asked)


def test_a_restart_during_a_cut_loses_nothing_of_the_run_before(pod: OnePod, start: Start, tmp_path: Path) -> None:
    """The rest of it comes from `previous`, also a last line without an end; then the new run from its beginning."""
    lines = numbered(300)
    pod.runs.append(Run("a", lines[:100]))
    start()
    wait_until(lambda: len(written(tmp_path)) == 100, "the first lines", timeout_s=20)
    pod.cut_after = 1
    pod.runs[0].lines.append((NOW, b"wakes the reader\n"))
    time.sleep(0.1)
    pod.runs[0].lines[100:] = [*lines[100:200], (lines[199][0], b"end")]
    pod.runs[0].ended = True
    pod.runs.append(Run("b", lines[200:]))
    pod.cut_after = 0
    until(tmp_path, [*texts(lines[:200]), "end", *texts(lines[200:])])


def test_a_collector_that_was_killed_goes_on_where_its_file_ends(pod: OnePod, start: Start, tmp_path: Path) -> None:
    """With a position of long ago, or without one; half a line at the end of the file is written anew."""
    lines = numbered(400)
    pod.runs.append(Run("a", lines[:150]))
    first = start()
    wait_until(lambda: len(written(tmp_path)) == 150, "the first lines", timeout_s=20)
    first.save()
    pod.runs[0].lines.extend(lines[150:300])
    wait_until(lambda: len(written(tmp_path)) == 300, "more lines", timeout_s=20)
    # The first one is cut off for good, as if it were dead; its follower waits for a server that refuses it.
    pod.token = "other"
    pod.cut_after = 1
    pod.runs[0].lines.append(lines[300])
    time.sleep(0.3)
    pod.cut_after, pod.runs[0].lines[300:] = 0, lines[300:]
    (path,) = tmp_path.glob("logs/*.log")
    with path.open("a") as file:
        file.write("line 3")
    start()
    until(tmp_path, texts(lines))


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_survives_a_crash_at_any_line(seed: int, tmp_path: Path) -> None:
    """Saved sometimes, rotated once, reopened without a last word: replayed lines are in the files once."""
    chance = random.Random(seed)
    lines = [(when, text.strip()) for when, text in numbered(300)]
    size = sum(len(text) + 1 for _, text in lines)
    at = 0
    while at < len(lines):
        journal = Journal(tmp_path / "a.log", tmp_path / "a.json", most_bytes=size * 2 // 3)
        journal.begin("a")
        since, known = journal.position.since_s, journal.position.known()
        replay = [line for line in lines if line[0] >= since * 10**9][known:]
        end = min(len(lines), at + chance.randrange(1, 80))
        for line in replay[: end - (len(lines) - len(replay))]:
            journal.add([line])
            if chance.random() < 0.05:
                journal.save()
        at = end
        journal._file.close()
    files = [tmp_path / "a.log.1", tmp_path / "a.log"]
    assert b"".join(path.read_bytes() for path in files).split() == b" ".join(text for _, text in lines).split()


def test_a_full_disk_takes_nothing_of_a_batch(tmp_path: Path) -> None:
    """What was not written is not counted, so that it comes again."""
    journal = Journal(tmp_path / "a.log", tmp_path / "a.json", most_bytes=10**6)
    journal.begin("a")
    journal.add([(NOW, b"one")])
    journal._file.close()
    with Path("/dev/full").open("r+b", buffering=0) as journal._file, pytest.raises(OSError, match=r"\[Errno"):
        journal.add([(NOW + 1, b"two")])
    assert (journal.position.newest_ns, journal.position.known()) == (NOW, 1)


def test_a_remark_of_kubelet_is_no_line(
    pod: OnePod, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the log of the collector, and the lines come when they can be had."""
    pod.remark = b"unable to retrieve container logs for containerd://1"
    pod.runs.append(Run("a", numbered(3)))
    start()
    wait_until(lambda: "unable to retrieve" in caplog.text, "it is said", timeout_s=20)
    pod.remark = b""
    until(tmp_path, texts(numbered(3)))


def test_a_run_whose_log_is_gone_holds_nothing_up(
    pod: OnePod, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubelet has removed the log of the run before: after a while the present one is followed all the same."""
    monkeypatch.setattr(pod_logs, "_GIVE_UP_S", 1)
    pod.runs += [Run("a", ended=True), Run("b", numbered(3))]
    pod.runs[0].lines.append((NOW, b"unable to retrieve container logs for containerd://1"))
    start()
    wait_until(lambda: "line 2" in written(tmp_path), "the present run", timeout_s=20)


def test_a_kubelet_that_has_no_log_for_a_moment_is_asked_again(pod: OnePod, start: Start, tmp_path: Path) -> None:
    """Of a run that has ended, too: when it is busy it says the same as when the log is gone."""
    pod.runs += [Run("a", numbered(3), ended=True), Run("b", numbered(6, 3))]
    pod.remark = b"unable to retrieve container logs for containerd://1"
    start()
    wait_until(lambda: len(pod.asked) >= 3, "it asks again", timeout_s=20)
    pod.remark = b""
    until(tmp_path, texts(numbered(6)))


def test_what_is_too_much_of_pods_that_are_gone_is_removed(
    pod: OnePod, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First emptied, then removed; the file of a pod that is there stays however large it is."""
    pod.runs.append(Run("a", numbered(100)))
    collector = start(most_of_gone=500)
    wait_until(lambda: len(written(tmp_path)) == 100, "the lines", timeout_s=20)
    collector.save()
    assert len(written(tmp_path)) == 100
    pod.gone = True
    wait_until(lambda: not any(f.is_alive() for f in collector._followers.values()), "nobody follows", timeout_s=20)
    collector.save()
    (path,) = (tmp_path / "logs").glob("*.log")
    assert path.stat().st_size == 0
    collector.save()
    assert path.exists()
    monkeypatch.setattr(pod_logs, "_SEEN_S", 0)
    collector.save()
    assert not path.exists()
    assert not list((tmp_path / "logs/positions").iterdir())


@pytest.mark.parametrize(
    ("label", "containers", "container", "expected"),
    [
        ("prometheus", ["main"], "main", "prometheus"),
        ("shipper", ["pod-logs", "shipper"], "shipper", "shipper"),
        ("shipper", ["pod-logs", "shipper"], "pod-logs", "pod-logs"),
        ("mariadb", ["mariadb", "other"], "init", "mariadb"),
    ],
)
def test_a_file_is_named_by_its_service(label: str, containers: list[str], container: str, expected: str) -> None:
    """The label says it; a second container speaks for itself, one that prepares speaks for its pod."""
    pod = {
        "metadata": {"name": "p", "labels": {"app.kubernetes.io/name": label}},
        "spec": {"containers": [{"name": name} for name in containers]},
    }
    assert pod_logs._service(pod, container) == expected


def test_the_shipper_takes_the_files_for_what_they_are(pod: OnePod, start: Start, tmp_path: Path) -> None:
    """Both of a container that wrote much, under the name of its service."""

    class Kept:
        lines: list[Placed] = []  # noqa: RUF012

        def send(self, lines: Sequence[Placed]) -> None:
            self.lines += lines

    pod.runs.append(Run("a", numbered(60)))
    start(most_bytes=300)
    wait_until(lambda: len(written(tmp_path)) == 60, "the lines", timeout_s=20)
    pod.runs[0].lines.extend(numbered(70, 60))
    wait_until(lambda: len(written(tmp_path)) == 70, "the lines after the rotation", timeout_s=20)
    Shipper(tmp_path / "logs", tmp_path / "offsets.json", Kept()).ship()
    assert list((tmp_path / "logs").glob("*.log.1"))
    assert sorted(placed.line.message for placed in Kept.lines) == sorted(texts(numbered(70)))
    assert {placed.line.service for placed in Kept.lines} == {"gateway"}


def test_what_is_forbidden_is_named_and_a_new_token_is_used(pod: OnePod, tmp_path: Path) -> None:
    """Tokens are renewed in their file; nobody has to be restarted for it."""
    token = tmp_path / "token"
    token.write_text("old")
    api = PodApi(pod.url, "lab", token, tmp_path / "ca")
    with pytest.raises(RequestFailed, match=r"403.*role must allow get, list and watch"):
        api.pods()
    token.write_text("t")
    assert [one["metadata"]["name"] for one in api.pods()[0]] == ["gateway-1"]


def test_outside_of_a_pod_the_api_has_to_be_named() -> None:
    """Inside it is in the environment."""
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert api_url(environ) == "https://10.96.0.1:443"
    assert api_url({**environ, "KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"
    with pytest.raises(ConfigInvalid, match="--api"):
        api_url({})


def test_it_ends_at_once_when_told_to(tmp_path: Path) -> None:
    """Also while no server answers."""
    (tmp_path / "token").write_text("t")
    argv = [sys.executable, "-m", "labkit.observe.pod_logs", "--into", tmp_path / "logs", "--namespace", "lab"]
    argv += ["--api", "http://127.0.0.1:1", "--token-file", tmp_path / "token", "--ca-file", tmp_path / "ca"]
    process = subprocess.Popen([*map(str, argv)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "cannot be watched" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - began < 1
    process.stderr.close()
