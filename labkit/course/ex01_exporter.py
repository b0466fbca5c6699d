"""
Notebook 01, exercise 3: the learner's own collector, scraped over HTTP while its source answers, fails and hangs.

The answer is a class (or any callable) that takes `read` and `every_s` and gives a collector of prometheus_client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from labkit._http import request
from labkit._wait import wait_until
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.errors import LabkitError, NotReady, RequestFailed
from labkit.observe.exporter.__main__ import serve

__all__ = ["EXPORTER", "Source"]

# Short, so that the check is short; long enough that a busy machine does not make a good reading look old.
EVERY_S = 0.5
# The lab's scrapes give up after 4 s.
_SCRAPE_S = 2.0
_PATIENCE_S = 15.0
_JOBS, _SUCCESS = "queue_jobs", "queue_source_success"
_FIGURES: Mapping[str, int] = {"email_queue": 3, "processing_queue": 0, "notification_queue": 11}


class Source:
    """Queue lengths that answer, fail or hang as they are told."""

    def __init__(self) -> None:
        self._mode, self._changed = "answers", threading.Condition()

    def now(self, mode: str) -> None:
        """From now on it "answers", "fails" (ConnectionError), "hangs", or is "over" (ends the thread that reads)."""
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def read(self) -> dict[str, int]:
        """The lengths, or what the mode says; whoever hangs goes on when the mode changes."""
        with self._changed:
            self._changed.wait_for(lambda: self._mode != "hangs")
            if self._mode == "over":
                raise SystemExit
            if self._mode == "fails":
                raise ConnectionError("the source of this exercise is gone")
        return dict(_FIGURES)


Page = dict[str, dict[str, float]]


class _Rejected(Exception):
    """Carries the sentence that explains what is wrong."""


@contextmanager
def _served(make: Callable[..., Any], source: Source) -> Iterator[str]:
    """The learner's collector behind a real HTTP server; yields its address."""
    registry = CollectorRegistry()
    server = None
    try:
        registry.register(make(source.read, EVERY_S))
        server = serve(registry, 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        source.now("over")
        if server is not None:
            server.shutdown()
            server.server_close()


def _scrape(url: str, state: str) -> Page:
    """What the page says: metric → value of `queue` (or "") → number."""
    began = time.monotonic()
    try:
        text = request("GET", url, timeout_s=_SCRAPE_S).text
    except RequestFailed as error:
        took_s = time.monotonic() - began
        if took_s >= _SCRAPE_S:
            raise _Rejected(
                f"While the source {state}, a scrape got no answer within {_SCRAPE_S:g} s: `collect` waits for the "
                "source. Read it in a thread of its own; a scrape reads memory only."
            ) from error
        raise _Rejected(
            f"While the source {state}, the page could not be had at all: `collect` lets an error through. A failure "
            "is a reading too, of another metric."
        ) from error
    page: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            page.setdefault(sample.name, {})[sample.labels.get("queue", "")] = sample.value
    return page


def _until(url: str, state: str, ready: Callable[[Page], bool]) -> tuple[Page, bool]:
    """The page when it is *ready*, or the last one, and whether it was."""
    seen: list[Page] = []

    def probe() -> bool:
        seen.append(_scrape(url, state))
        return ready(seen[-1])

    try:
        wait_until(probe, "the page", timeout_s=_PATIENCE_S, every_s=0.1)
    except NotReady:
        return seen[-1], False
    return seen[-1], True


def _judge(exercise: Bound, answer: Any) -> Verdict:  # noqa: ARG001  (the world is the source of the exercise itself)
    if not callable(answer):
        return not_yet(f"Your answer is {answer!r}; a class is expected: `QueueCollector(read, every_s)`.")
    source = Source()
    try:
        with _served(answer, source) as url:
            _answers(url)
            for mode in ("fails", "hangs"):
                _fails(url, source, mode)
                _comes_back(url, source, mode)
    except _Rejected as rejected:
        return not_yet(str(rejected))
    except (LabkitError, TypeError, AttributeError, ValueError, OSError) as error:
        return not_yet(f"It could not be made or registered: {type(error).__name__}: {error}")
    return correct("It answers whatever its source does, and says how its source fares.")


def _answers(url: str) -> None:
    page, ready = _until(url, "answers", lambda page: page.get(_SUCCESS, {}).get("") == 1 and _JOBS in page)
    if not ready:
        names = ", ".join(sorted(page)) or "nothing"
        for name in (_SUCCESS, _JOBS):
            if name not in page:
                raise _Rejected(f"While the source answers, the page has no `{name}`; it has {names}.")
        raise _Rejected(f"While the source answers, `{_SUCCESS}` is {page[_SUCCESS]}; 1 and no label is expected.")
    if page[_JOBS] != _FIGURES:
        raise _Rejected(f"`{_JOBS}` says {page[_JOBS]} by `queue`, and the source said {dict(_FIGURES)}.")


def _fails(url: str, source: Source, mode: str) -> None:
    source.now(mode)
    page, ready = _until(url, mode, lambda page: page.get(_SUCCESS, {}).get("") == 0 and _JOBS not in page)
    if ready:
        return
    if page.get(_SUCCESS, {}).get("") != 0:
        late = f"`{_SUCCESS}` still says {page.get(_SUCCESS, {}).get('', 'nothing')}"
        aged = " A reading that is older than three times `every_s` is no reading." if mode == "hangs" else ""
        raise _Rejected(f"While the source {mode}, {late} after {_PATIENCE_S:g} s: nobody would notice.{aged}")
    if not any(page[_JOBS].values()):
        raise _Rejected(
            f"While the source {mode}, `{_JOBS}` says 0: empty queues look just like that. No data is not 0."
        )
    raise _Rejected(
        f"While the source {mode}, `{_JOBS}` still has the last known lengths, {page[_JOBS]}. Old figures look like "
        "new ones: leave them out."
    )


def _comes_back(url: str, source: Source, mode: str) -> None:
    source.now("answers")
    _, ready = _until(url, "answers again", lambda page: page.get(_SUCCESS, {}).get("") == 1 and _JOBS in page)
    if not ready:
        raise _Rejected(
            f"The source {mode}, then answers again; {_PATIENCE_S:g} s later the page does not say so. Did the thread "
            "end with its first error?"
        )


EXPORTER = Exercise(
    id="01-3",
    title="an exporter that never waits",
    judge=_judge,
    hints=(
        "Who may wait: the thread that reads the source, or the scrape? What does a scrape say when nothing is new?",
        (
            "Start a daemon thread in `__init__` that keeps the lengths and the instant at which they were read; "
            "`collect` looks at both."
        ),
        (
            '`collect` yields `GaugeMetricFamily("queue_source_success", …, value=…)`; and, if the reading is younger '
            'than 3 * every_s, `GaugeMetricFamily("queue_jobs", …, labels=["queue"])`, filled by `add_metric`.'
        ),
    ),
)
