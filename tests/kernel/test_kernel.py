"""Waiting, calling, running, telling the time."""

from __future__ import annotations

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit._http import get_json, is_up, request
from labkit._proc import run, stop_running, tail
from labkit._time import as_utc, format_duration, parse_duration
from labkit._wait import wait_until
from labkit.errors import CommandFailed, NotReady, RequestFailed, ToolMissing
from labkit.testing import FakeClock


def test_wait_returns_the_first_ready_result_and_asks_at_least_once() -> None:
    """A condition that holds at once needs no time, even with a limit of zero."""
    assert wait_until(lambda: "yes", "anything", timeout_s=0, sleep=lambda s: pytest.fail(f"slept {s} s")) == "yes"


def test_wait_gives_up_at_its_limit_with_the_last_thing_seen() -> None:
    """The error has the condition, the limit, what was last seen and what to do."""
    clock = FakeClock(100)

    with pytest.raises(NotReady) as caught:
        wait_until(lambda: {"up": 2}, "3 targets up", timeout_s=60, ready=lambda s: s["up"] == 3, how="See the log.",
                   clock=clock, sleep=clock.sleep, every_s=1)  # fmt: skip

    assert str(caught.value) == "3 targets up: not true after 60 s; last seen: {'up': 2}. See the log."
    assert clock.slept_s == pytest.approx(60, abs=1)


def test_wait_tolerates_the_named_errors_only() -> None:
    """An error that was not named is not 'not yet': it passes through at once."""

    def probe() -> bool:
        raise KeyError("x")

    with pytest.raises(NotReady, match="last seen: KeyError"):
        wait_until(probe, "x", timeout_s=0, tolerate=(KeyError,))
    with pytest.raises(KeyError):
        wait_until(probe, "x", timeout_s=60, tolerate=(ValueError,))


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """A server that answers every GET alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def test_a_refused_connection_is_told_in_plain_words() -> None:
    """Nothing of urllib3 reaches the reader."""
    with pytest.raises(RequestFailed) as caught:
        request("GET", "http://127.0.0.1:9/", how="Run `labkit status`.")

    said = "GET http://127.0.0.1:9/ failed: connection refused: nothing listens there. Run `labkit status`."
    assert str(caught.value) == said
    assert not is_up("http://127.0.0.1:9/")


def test_a_status_of_400_and_above_raises_with_what_the_server_said() -> None:
    """The answer's text is part of the error; `ok` lets a status through."""
    with server(503, b"queue is full") as url:
        with pytest.raises(RequestFailed, match="HTTP 503: queue is full"):
            request("GET", url)
        assert request("GET", url, ok=(503,)).status_code == 503


def test_json_is_decoded() -> None:
    """The usual case."""
    with server(200, b'{"a": 1}') as url:
        assert get_json(url) == {"a": 1}
        assert is_up(url)


def test_an_environment_proxy_is_not_used_for_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy must not stand between the lab and its own loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with server(200, b"{}") as url:
        assert get_json(url) == {}


def test_a_command_gives_its_output() -> None:
    """Standard output is the result; standard input can be given."""
    assert run([sys.executable, "-c", "print(input())"], timeout_s=20, input_text="hello\n") == "hello\n"


def test_a_failing_command_carries_code_and_last_lines() -> None:
    """`CommandFailed` has the exit code and what the program said."""
    with pytest.raises(CommandFailed) as caught:
        run([sys.executable, "-c", "import sys; sys.exit('no recipe')"], timeout_s=20, how="Write one.")

    assert caught.value.returncode == 1
    assert "no recipe\nWrite one." in str(caught.value)


def test_a_command_over_its_limit_is_killed() -> None:
    """The limit is real: the process is gone when the error arrives."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"

    with pytest.raises(CommandFailed, match="was stopped at its limit") as caught:
        run([sys.executable, "-c", code], timeout_s=1)

    with pytest.raises(ProcessLookupError):
        os.kill(int(caught.value.stderr_tail), 0)


def test_running_commands_can_be_stopped_from_another_thread() -> None:
    """Ctrl-C reaches the main thread only; it then ends what the others wait for."""
    timer = threading.Timer(0.5, stop_running)
    timer.start()

    with pytest.raises(CommandFailed):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=50)
    timer.join()


def test_a_missing_program_is_named() -> None:
    """Not FileNotFoundError: [Errno 2]."""
    with pytest.raises(ToolMissing, match="labkit-no-such-program"):
        run(["labkit-no-such-program"], timeout_s=5)


def test_the_tail_skips_blank_lines() -> None:
    """The last lines that say something."""
    assert tail("a\n\nb\n \nc\n", 2) == "b\nc"


def test_a_time_without_zone_is_refused_with_the_fix() -> None:
    """Guessing a zone would move data by hours without a word."""
    with pytest.raises(ValueError, match=r"write it as UTC, for example 2026-03-01T01:00:00\+00:00"):
        as_utc(datetime(2026, 3, 1, 1))  # noqa: DTZ001  (the mistake under test)


@pytest.mark.parametrize("text", ["", "30", "0d", "1h 30m", "-5m", "1.5h", "5 m", "1m1h", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Numbers without unit, zero, wrong order, fractions."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
@settings(max_examples=60, derandomize=True)
def test_a_written_duration_reads_back(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Units add up, in seconds."""
    expected = days * 86_400 + hours * 3600 + minutes * 60 + seconds
    if expected:
        assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s") == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "42 ms"), (59.94, "59.9 s"), (60, "1 min"), (90, "1 min 30 s"), (3600, "1 h"), (5400, "1 h 30 min"),
     (86_399, "1 d"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    """At most two units, rounded for display only."""
    assert format_duration(seconds) == text
