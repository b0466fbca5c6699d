"""
The way of a span out of the process: a bounded queue, and a thread that sends batches as OTLP over HTTP.

A request never waits for it.  A store that is down, hung or slow costs spans, which are counted, and one log line.
Imported only by a service that has somewhere to send spans to: the SDK takes a tenth of a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import Counter

from labkit.shop.logs import log

__all__ = ["SpanQueue", "otlp_exporter"]

QUEUE_SPANS: Final = 2048
BATCH_SPANS: Final = 512
EVERY_S: Final = 0.5
SEND_S: Final = 1.0
PAUSE_S: Final = 2.0  # after a failure: a store that comes back should not be met by a crowd
ATTEMPTS: Final = 10  # then the batch is given up: there may be something in it that the store cannot take
LAST_WORDS_S: Final = 1.0


def otlp_exporter(url: str) -> SpanExporter:
    """The exporter to the store at *url* (without /v1/traces); never through a proxy of the environment."""
    # It says every failed attempt; here one line per change of state does.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    session = requests.Session()
    session.trust_env = False
    return OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=SEND_S, session=session)


class SpanQueue(SpanProcessor):
    """
    Takes ended spans and has a thread send them, the oldest first.

    Args:
        exporter: sends a batch and says whether it arrived; its wait is bounded.
        outcomes: counts spans by what became of them: sent, queue_full, not_taken.
        capacity: spans that may wait; the ones that end while so many wait are dropped.
        pause_s: how long to leave the store alone after a failure, in seconds.
    """

    def __init__(
        self, exporter: SpanExporter, outcomes: Counter, *, capacity: int = QUEUE_SPANS, pause_s: float = PAUSE_S
    ) -> None:
        self._exporter, self._outcomes, self._capacity, self._pause_s = exporter, outcomes, capacity, pause_s
        self._waiting: deque[ReadableSpan] = deque()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._failures, self._down = 0, False
        # A daemon: a store that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span is of interest when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue *span*, or count it as dropped; returns at once."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if len(self._waiting) >= self._capacity:
            self._outcomes.labels("queue_full").inc()
            return
        self._waiting.append(span)
        if len(self._waiting) >= BATCH_SPANS and not self._down:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what waits, for at most `LAST_WORDS_S` seconds."""
        self._closing.set()
        self._wake.set()
        self._thread.join(LAST_WORDS_S)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until nothing waits; False if that took longer than *timeout_millis*."""
        limit = time.monotonic() + timeout_millis / 1000
        while self._waiting and time.monotonic() < limit:
            self._wake.set()
            self._closing.wait(0.01)
        return not self._waiting

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(EVERY_S)
            self._wake.clear()
            while self._waiting and self._send():
                pass
            if self._down:
                self._closing.wait(self._pause_s)
        while self._waiting and self._send():
            pass

    def _send(self) -> bool:
        """One batch; it stays in the queue until the store has it."""
        batch = list(islice(self._waiting, BATCH_SPANS))
        arrived = self._exporter.export(batch) is SpanExportResult.SUCCESS
        self._failures = 0 if arrived else self._failures + 1
        if arrived or self._failures >= ATTEMPTS:
            for _ in batch:
                self._waiting.popleft()
            self._outcomes.labels("sent" if arrived else "not_taken").inc(len(batch))
            self._failures = 0
        self._say(down=not arrived)
        return arrived

    def _say(self, *, down: bool) -> None:
        if down and not self._down:
            log(logging.WARNING, "the trace store does not take spans; they wait, and are dropped when too many do")
        elif self._down and not down:
            log(logging.INFO, "the trace store takes spans again")
        self._down = down
