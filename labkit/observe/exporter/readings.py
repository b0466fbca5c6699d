"""
What a source says, and the page that is made of it.

Each source is read by a thread of its own, so one that hangs keeps only its own figures back.  A scrape reads
memory and waits for nothing.  Figures that are too old are left out: no data is not the last known value.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["STALE_AFTER_S", "Metrics", "Poller", "Reading", "Source", "SourceFailed"]

# Three readings of 5 s: one that was missed does not make a gap, a source that is gone does.
STALE_AFTER_S = 15.0

_log = logging.getLogger("labkit.exporter")


class SourceFailed(Exception):
    """A source could not be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of one source: its values by label values.  `labels` names the labels, in order."""

    name: str
    doc: str
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()
    counter: bool = False

    def family(self) -> Metric:
        """The metric as prometheus_client exposes it."""
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        found = kind(self.name, self.doc, labels=self.labels)
        for labels, value in self.values.items():
            found.add_metric(labels, value)
        return found


class Source(Protocol):
    """Something that can be read; every call inside must have a time-out."""

    name: str

    def read(self) -> Sequence[Reading]:
        """The figures of now, or SourceFailed."""
        ...


@dataclass(slots=True)
class _Record:
    readings: Sequence[Reading] = ()
    read_at: float | None = None
    began_at: float | None = None
    ok: bool = False
    errors: int = 0
    duration_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Poller:
    """
    Reads one source again and again in a thread.

    Args:
        source: what is read.
        every_s: pause between two readings, in seconds.
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(self, source: Source, *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.source, self._every_s, self._clock = source, every_s, clock
        self._record = _Record()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to read, in a thread that does not keep the process alive."""
        threading.Thread(target=self._run, name=f"read-{self.source.name}", daemon=True).start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.read_once()
            self._stop.wait(self._every_s)

    def read_once(self) -> None:
        """One reading; a failure is counted, the figures before it stay until they are too old."""
        began = self._clock()
        with self._record.lock:
            self._record.began_at = began
        try:
            readings: Sequence[Reading] | None = self.source.read()
        except SourceFailed as error:
            readings = None
            _log.warning("%s could not be read: %s", self.source.name, error)
        ended = self._clock()
        with self._record.lock:
            record = self._record
            record.began_at, record.duration_s, record.ok = None, ended - began, readings is not None
            if readings is None:
                record.errors += 1
            else:
                record.readings, record.read_at = readings, ended

    def snapshot(self, stale_after_s: float) -> tuple[Sequence[Reading], Mapping[str, float]]:
        """
        What may be shown now.

        Returns:
            The readings (none when older than *stale_after_s* seconds), and the state of the source: `success`
            (0 or 1), `age_seconds` (nan before the first reading), `errors`, `duration_seconds`.
        """
        with self._record.lock:
            now, record = self._clock(), self._record
            age_s = now - record.read_at if record.read_at is not None else float("nan")
            fresh = age_s <= stale_after_s
            hanging_s = now - record.began_at if record.began_at is not None else 0.0
            state = {
                "success": float(record.ok and fresh),
                "age_seconds": age_s,
                "errors": float(record.errors),
                "duration_seconds": max(record.duration_s, hanging_s),
            }
            return (record.readings if fresh else ()), state


class Metrics(Collector):
    """Everything that a scrape gets: the figures of all sources that are fresh, and how each source fares."""

    def __init__(
        self, pollers: Iterable[Poller], histograms: Iterable[Histogram] = (), stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self._pollers, self._histograms, self._stale_after_s = tuple(pollers), tuple(histograms), stale_after_s

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment; reads memory only."""
        states = {}
        for poller in self._pollers:
            readings, states[poller.source.name] = poller.snapshot(self._stale_after_s)
            yield from (reading.family() for reading in readings)
        for histogram in self._histograms:
            yield from histogram.collect()
        yield from (reading.family() for reading in _own(states))


def _own(states: Mapping[str, Mapping[str, float]]) -> list[Reading]:
    def of(key: str) -> dict[tuple[str, ...], float]:
        return {(name,): state[key] for name, state in states.items()}

    return [
        Reading("exporter_source_success", "1 if the last reading was good and is fresh.", of("success"), ("source",)),
        Reading("exporter_source_age_seconds", "Age of the last good reading.", of("age_seconds"), ("source",)),
        Reading("exporter_source_errors_total", "Readings that failed.", of("errors"), ("source",), counter=True),
        Reading(
            "exporter_source_duration_seconds",
            "Length of the last reading, or of the present one if it is longer.",
            of("duration_seconds"),
            ("source",),
        ),
    ]
