"""supervisord waits between events, whatever became of a descriptor that it watched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from supervisor import poller

from labkit.stack.supervisord import ForgetfulPoller

pytestmark = pytest.mark.skipif(not poller.implements_poll(), reason="this system has no poll")


@pytest.fixture
def stale() -> Iterator[int]:
    """The writing end of a pipe that nobody reads: what a process without standard input leaves to supervisord."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def rounds(watching: poller.PollPoller, seconds: float) -> int:
    """How often the poller comes back within *seconds* when it is to wait for a second each time."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end and count < 1000:
        watching.poll(seconds)
        count += 1
    return count


def test_a_stale_descriptor_is_forgotten(stale: int) -> None:
    """The first round drops it, the second waits; the poller that comes with supervisor spins."""
    ours, theirs = ForgetfulPoller(None), poller.PollPoller(None)
    for one in (ours, theirs):
        one.register_readable(stale)

    assert rounds(ours, 0.3) <= 3
    assert rounds(theirs, 0.3) > 50


def test_what_can_be_read_is_still_told() -> None:
    """A pipe with something in it is reported, and again until it is read."""
    reading, writing = os.pipe()
    watching = ForgetfulPoller(None)
    watching.register_readable(reading)
    os.write(writing, b"x")

    assert watching.poll(1) == ([reading], [])
    assert watching.poll(1) == ([reading], [])
    os.close(writing)
    os.close(reading)
