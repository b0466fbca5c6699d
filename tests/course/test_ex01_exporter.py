"""The check of the exporter, notebook 01: collectors as people write them, each scraped over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily

from labkit.course import Outcome, ex01_exporter, wait_until
from labkit.course.ex01_exporter import EXPORTER

# The check ends the threads of a collector with SystemExit, which Python takes for an end and pytest for an error.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

NEVER = float("-inf")


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes right is given up earlier than for a learner; a reading is fresh for 1.5 s."""
    monkeypatch.setattr(ex01_exporter, "_PATIENCE_S", 3.5)


class Right:
    """A thread reads; a scrape looks at what was read, and when."""

    success, jobs = "queue_source_success", "queue_jobs"

    def __init__(self, read: Callable[[], dict[str, int]], every_s: float) -> None:
        self.read, self.every_s, self.lengths, self.read_at = read, every_s, {}, NEVER
        threading.Thread(target=self.poll, daemon=True).start()

    def poll(self) -> None:
        """Read for ever."""
        while True:
            self.read_once()
            threading.Event().wait(self.every_s)

    def read_once(self) -> None:
        """One reading."""
        try:
            self.lengths, self.read_at = self.read(), time.monotonic()
        except OSError:
            self.failed()

    def failed(self) -> None:
        """What a failure leaves."""
        self.lengths, self.read_at = {}, NEVER

    def fresh(self) -> bool:
        """Whether there is a reading."""
        return time.monotonic() - self.read_at < 3 * self.every_s

    def collect(self) -> Iterator[Any]:
        """The page."""
        yield GaugeMetricFamily(self.success, "Whether it was read.", value=self.fresh())
        yield from self.figures(self.lengths if self.fresh() else {})

    def figures(self, lengths: dict[str, int]) -> Iterator[Any]:
        """The lengths."""
        family = GaugeMetricFamily(self.jobs, "Jobs.", labels=["queue"])
        for queue, length in lengths.items():
            family.add_metric([queue], length)
        yield family


class Waits(Right):
    """Reads when it is scraped."""

    def poll(self) -> None:
        """Nothing."""

    def collect(self) -> Iterator[Any]:
        """Read, then tell."""
        self.read_once()
        yield from super().collect()


class LetsThrough(Waits):
    """Reads when it is scraped, and catches nothing."""

    def read_once(self) -> None:
        """One reading, or its error."""
        self.lengths, self.read_at = self.read(), time.monotonic()


class KeepsTheLast(Right):
    """Says that its source fails, and shows what it knew."""

    def failed(self) -> None:
        """Keep the lengths."""
        self.read_at = NEVER

    def collect(self) -> Iterator[Any]:
        """The page."""
        yield GaugeMetricFamily(self.success, "Whether it was read.", value=self.fresh())
        yield from self.figures(self.lengths)


class SaysZero(KeepsTheLast):
    """Says 0 for what it does not know."""

    def failed(self) -> None:
        """All is empty."""
        self.read_at, self.lengths = NEVER, dict.fromkeys(self.lengths, 0)


class NeverOld(Right):
    """Believes its last reading for ever."""

    def fresh(self) -> bool:
        """Whether there was a reading."""
        return self.read_at > NEVER


class NeverFails(Right):
    """Does not say that its source fails."""

    def fresh(self) -> bool:
        """Always."""
        return True


class EndsWithTheFirst(Right):
    """Its thread is over when the source has hung once."""

    def poll(self) -> None:
        """Read until a reading takes long."""
        while True:
            began = time.monotonic()
            self.read_once()
            if time.monotonic() - began > self.every_s:
                self.failed()
                return
            threading.Event().wait(self.every_s)


class WrongName(Right):
    """Calls the lengths otherwise."""

    jobs = "queue_size_total"


class NoSuccess(Right):
    """Calls the success otherwise."""

    success = "up"


class Doubles(Right):
    """Counts every job twice."""

    def figures(self, lengths: dict[str, int]) -> Iterator[Any]:
        """Twice the lengths."""
        yield from super().figures({queue: 2 * length for queue, length in lengths.items()})


WRONG = [
    (3, "Your answer is 3; a class is expected"),
    (Right(dict, 60), "Your answer is"),
    (lambda read: Right(read, 1), "It could not be made or registered: TypeError"),
    (Waits, "a scrape got no answer within 2 s"),
    (LetsThrough, "the page could not be had at all"),
    (KeepsTheLast, "still has the last known lengths"),
    (SaysZero, "says 0: empty queues look just like that"),
    (NeverOld, "A reading that is older than three times `every_s` is no reading"),
    (NeverFails, "While the source fails, `queue_source_success` still says 1.0"),
    (EndsWithTheFirst, "Did the thread end with its first error?"),
    (WrongName, "has no `queue_jobs`; it has queue_size_total, queue_source_success"),
    (NoSuccess, "has no `queue_source_success`"),
    (Doubles, "and the source said"),
]


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(("answer", "message"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_a_collector_that_waits_lies_or_dies_is_not_yet_right(answer: Any, message: str) -> None:
    """Each mistake has a message of its own."""
    verdict = EXPORTER.bind(None).judge(answer)  # type: ignore[arg-type]

    assert (verdict.outcome, message in verdict.because) == (Outcome.NOT_YET, True), verdict


def test_the_untouched_stub_is_not_attempted() -> None:
    """Dots are not a class."""
    assert EXPORTER.bind(None).judge(...).outcome is Outcome.NOT_ATTEMPTED  # type: ignore[arg-type]


def test_a_collector_that_never_waits_is_right_and_its_threads_end() -> None:
    """It is correct, and nothing that the check started still reads."""
    before = threading.active_count()
    verdict = EXPORTER.bind(None).judge(Right)  # type: ignore[arg-type]

    assert verdict.outcome is Outcome.CORRECT, verdict
    wait_until(lambda: threading.active_count() <= before, "the threads end", timeout_s=20)
