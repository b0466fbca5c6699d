"""The exporter without components: a source that hangs, fails or is slow harms nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from statistics import median

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from labkit._http import request
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid
from labkit.observe.exporter.__main__ import main, serve
from labkit.observe.exporter.readings import Metrics, Poller, Reading, SourceFailed
from labkit.observe.exporter.sources import MariaDb
from labkit.settings import files_root
from labkit.shop.names import QUEUES


class Given:
    """A source that says what it is told to."""

    name = "given"

    def __init__(self) -> None:
        self.value = 1.0
        self.fails = False

    def read(self) -> list[Reading]:
        """The value, or the failure."""
        if self.fails:
            raise SourceFailed("told to")
        return [Reading("given", "A value.", {(): self.value})]


class Hung:
    """A source that does not come back until it is released."""

    name = "hung"

    def __init__(self) -> None:
        self.release = threading.Event()

    def read(self) -> list[Reading]:
        """Nothing, much later."""
        self.release.wait(30)
        return []


def page(*pollers: Poller, stale_after_s: float = 15) -> str:
    """What a scrape gets."""
    registry = CollectorRegistry()
    registry.register(Metrics(pollers, stale_after_s=stale_after_s))
    return generate_latest(registry).decode()


@pytest.fixture
def hung() -> Iterator[Hung]:
    """A hung source, released at the end."""
    source = Hung()
    yield source
    source.release.set()


def test_a_hung_source_does_not_delay_a_scrape(hung: Hung) -> None:
    """With one source in the middle of an endless call, the page with the others takes under 20 ms over HTTP."""
    pollers = [Poller(hung), Poller(Given(), every_s=0.05)]
    registry = CollectorRegistry()
    registry.register(Metrics(pollers))
    with serve(registry, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for poller in pollers:
            poller.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
        wait_until(lambda: "\ngiven 1.0" in request("GET", url).text, "the good source is read", timeout_s=10)
        took = []
        for _ in range(15):
            start = time.perf_counter()
            request("GET", url)
            took.append(time.perf_counter() - start)
        for poller in pollers:
            poller.stop()
        server.shutdown()

    assert median(took) < 0.02


def test_a_hang_is_seen_while_it_lasts(hung: Hung) -> None:
    """The duration of a reading that has not ended grows, and the source does not count as good."""
    now = [100.0]
    poller = Poller(hung, clock=lambda: now[0])
    poller.start()
    wait_until(lambda: poller._record.began_at is not None, "the reading began", timeout_s=10)
    now[0] = 107.0
    poller.stop()

    text = page(poller)

    assert 'exporter_source_success{source="hung"} 0.0' in text
    assert 'exporter_source_duration_seconds{source="hung"} 7.0' in text


def test_a_failure_is_counted_and_old_figures_are_dropped_in_time() -> None:
    """After a failure the last figures stay until they are 15 s old, then the series is gone."""
    now = [100.0]
    source = Given()
    poller = Poller(source, clock=lambda: now[0])
    poller.read_once()
    source.fails = True
    now[0] = 110.0
    poller.read_once()
    soon = page(poller)
    now[0] = 115.1
    late = page(poller)

    assert "\ngiven 1.0" in soon
    assert 'exporter_source_success{source="given"} 0.0' in soon
    assert 'exporter_source_errors_total{source="given"} 1.0' in soon
    assert 'exporter_source_age_seconds{source="given"} 10.0' in soon
    assert "\ngiven " not in late


def test_a_source_that_was_never_read_has_no_age() -> None:
    """Before the first reading the age is not a number, and nothing is claimed."""
    text = page(Poller(Given()))

    assert 'exporter_source_age_seconds{source="given"} NaN' in text
    assert "\ngiven " not in text


def test_a_source_that_recovers_is_good_again() -> None:
    """The next good reading brings the figures back."""
    source = Given()
    source.fails = True
    poller = Poller(source)
    poller.read_once()
    source.fails, source.value = False, 5.0
    poller.read_once()

    assert "\ngiven 5.0" in page(poller)
    assert 'exporter_source_success{source="given"} 1.0' in page(poller)


def test_every_wrong_variable_is_named() -> None:
    """Without its environment the exporter does not start, and says what is missing."""
    with pytest.raises(ConfigInvalid, match="EXPORTER_REDIS_URL is missing") as caught:
        main({"EXPORTER_PORT": "1"})

    assert len(caught.value.problems) == 4


def test_the_password_is_never_shown() -> None:
    """Neither in a log nor in a traceback."""
    assert "secret" not in repr(MariaDb("h", 1, "monitor", "secret", "shop"))


def test_the_queues_are_those_of_the_shop() -> None:
    """The exporter knows no shop; its component file names the queues that the shop has."""
    text = (files_root() / "infra/components/exporter.yaml").read_text()

    assert f"EXPORTER_QUEUES: {','.join(QUEUES)}" in text
