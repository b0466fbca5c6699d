"""The shipper: what a line says, and that each line arrives once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from labkit.errors import ConfigInvalid, RequestFailed, UnknownName
from labkit.observe.grok import Grok, load_patterns
from labkit.observe.log_lines import line_reader
from labkit.observe.shipper import Placed, Shipper
from tests.observe.contract_logs import TRACE

READ = line_reader()


class Kept:
    """A sink that can refuse, and leaves out what it has, as the store does."""

    def __init__(self) -> None:
        self.lines: list[Placed] = []
        self.refuse: int | None = None
        self.lose_answer = False

    def send(self, lines: Sequence[Placed]) -> None:
        """Keep or refuse."""
        if self.refuse is None:
            marks = {placed.source: placed.position for placed in self.lines}
            self.lines += [p for p in lines if p.position > marks.get(p.source, -1)]
        if self.refuse is not None or self.lose_answer:
            raise RequestFailed("POST", "store", status=self.refuse, reason="refused")

    @property
    def messages(self) -> list[str]:
        """What arrived, in order."""
        return [placed.line.message for placed in self.lines]


@pytest.fixture
def sink() -> Kept:
    """An empty one."""
    return Kept()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file with two whole lines and the beginning of a third."""
    path = tmp_path / "log" / "gateway.log"
    path.parent.mkdir()
    path.write_text("one\ntwo\nthr")
    return path


def shipper(log: Path, sink: Kept) -> Shipper:
    """A new one over the same folder and the same offsets."""
    return Shipper(log.parent, log.parent.parent / "offsets.json", sink)


def test_a_line_of_the_shop_becomes_fields() -> None:
    """Time, level and ids have their places; what else it says is a field; null is no field."""
    line = READ(
        json.dumps(
            {
                "time": "2026-03-01T10:00:00.250+00:00",
                "level": "WARN",
                "service": "cart",
                "message": "slow",
                "trace_id": TRACE,
                "span_id": None,
                "request_id": None,
                "took_s": 0.5,
            }
        ),
        "cart-1",
    )
    assert (line.time_ns, line.service, line.level) == (1772359200_250_000_000, "cart", "warning")
    assert (line.message, line.trace_id, line.span_id, line.fields) == ("slow", TRACE, "", {"took_s": 0.5})


def test_an_application_line_is_parsed() -> None:
    """`TIME LEVEL LOGGER - MESSAGE`, as the pattern says."""
    line = READ("2026-03-01 10:00:00,250 ERROR shop.orders - could not - write", "app")
    assert (line.time_ns, line.level, line.message) == (1772359200_250_000_000, "error", "could not - write")
    assert line.fields == {"logger": "shop.orders"}


def test_a_combined_access_line_is_parsed() -> None:
    """Status and bytes are numbers; a server error is an error."""
    text = '10.0.0.1 - ann [01/Mar/2026:10:00:00 +0000] "GET /a HTTP/1.1" 503 17 "-" "curl/8"'
    line = READ(text, "proxy")
    assert (line.time_ns, line.level, line.message) == (1772359200_000_000_000, "error", text)
    assert (line.fields["response"], line.fields["bytes"], line.fields["verb"]) == (503, 17, "GET")
    assert line.fields["agent"] == '"curl/8"'


def test_any_other_line_is_kept_as_it_is() -> None:
    """With the level that it names."""
    line = READ("level=warn something", "prometheus")
    assert (line.service, line.level, line.message, line.time_ns) == (
        "prometheus",
        "warning",
        "level=warn something",
        0,
    )
    assert READ('{"half', "x").message == '{"half'


def test_a_number_that_is_none_is_kept_as_text() -> None:
    """JSON has no NaN, and no store should refuse the line because of it."""
    line = READ('{"message": "a", "a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}', "app")
    assert line.fields == {"a": "NaN", "b": "-Infinity", "c": "1e999", "d": 1.5}


def test_formats_can_be_left_to_the_store() -> None:
    """A line that is not JSON is then marked, and its text whole; JSON is read all the same."""
    read, text = line_reader(formats=False), "2026-03-01 10:00:00,250 ERROR shop.orders - could not - write"
    line = read(text, "app")
    assert (line.raw, line.message, line.level, line.time_ns, line.fields) == (True, text, "error", 0, {})
    line = read('{"message": "a", "level": "warn"}', "app")
    assert (line.raw, line.message, line.level) == (False, "a", "warning")


def test_an_access_line_of_an_ipv6_client_is_parsed() -> None:
    """Short addresses begin with a colon."""
    line = READ('::1 - - [01/Mar/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5', "proxy")
    assert (line.fields["clientip"], line.fields["response"]) == ("::1", 200)


def test_only_whole_lines_are_sent(log: Path, sink: Kept) -> None:
    """The rest of a line comes with its end."""
    ships = shipper(log, sink)
    ships.ship()
    assert sink.messages == ["one", "two"]
    with log.open("a") as file:
        file.write("ee\n")
    ships.ship()
    assert sink.messages == ["one", "two", "three"]


def test_a_restart_goes_on_where_it_was(log: Path, sink: Kept) -> None:
    """Nothing is sent twice."""
    shipper(log, sink).ship()
    assert shipper(log, sink).ship() == 0


def test_lines_wait_in_the_file_while_the_store_is_down(log: Path, sink: Kept) -> None:
    """And arrive when it is back."""
    ships, sink.refuse = shipper(log, sink), 507
    with pytest.raises(RequestFailed):
        ships.ship()
    sink.refuse = None
    ships.ship()
    assert sink.messages == ["one", "two"]


def test_a_lost_answer_makes_no_line_twice(log: Path, sink: Kept) -> None:
    """The store kept the batch, its answer was lost, the shipper died: file and position tell the store."""
    sink.lose_answer = True
    with pytest.raises(RequestFailed):
        shipper(log, sink).ship()
    sink.lose_answer = False
    with log.open("a") as file:
        file.write("ee\n")
    shipper(log, sink).ship()
    assert sink.messages == ["one", "two", "three"]


def test_a_batch_refused_for_good_does_not_stop_the_rest(log: Path, sink: Kept) -> None:
    """HTTP 400 will be 400 tomorrow: said in the log, left out, and on with the next."""
    ships, sink.refuse = shipper(log, sink), 400
    ships.ship()
    sink.refuse = None
    with log.open("a") as file:
        file.write("ee\n")
    ships.ship()
    assert sink.messages == ["three"]


def test_rotation_loses_and_repeats_nothing(log: Path, sink: Kept) -> None:
    """What was written before and after the file was renamed arrives once."""
    ships = shipper(log, sink)
    ships.ship()
    with log.open("a") as file:
        file.write("ee\n")
    log.rename(log.with_name("gateway.log.1"))
    log.write_text("four\n")
    ships.ship()
    assert sorted(sink.messages) == ["four", "one", "three", "two"]
    assert {placed.line.service for placed in sink.lines} == {"gateway"}


def test_a_file_that_was_emptied_is_read_from_its_beginning(log: Path, sink: Kept) -> None:
    """`supervisorctl clear` does that."""
    ships = shipper(log, sink)
    ships.ship()
    log.write_text("new\n")
    ships.ship()
    assert sink.messages == ["one", "two", "new"]


def test_a_line_without_an_end_is_cut_and_the_next_one_arrives(log: Path, sink: Kept) -> None:
    """A megabyte without a line end is one marked line; memory holds a piece of it at a time."""
    log.write_text("first\n" + "x" * 1_000_000 + "\nlast\n")
    ships = shipper(log, sink)
    while ships.ship() or sink.messages[-1] != "last":
        pass
    assert sink.messages[0] == "first"
    assert "… [cut:" in sink.messages[1]
    assert sink.messages[2:] == ["last"]


def test_damaged_offsets_mean_reading_again(log: Path, sink: Kept) -> None:
    """The store leaves out what it has."""
    shipper(log, sink).ship()
    (log.parent.parent / "offsets.json").write_text("{")
    shipper(log, sink).ship()
    assert sink.messages == ["one", "two"]


def test_an_unknown_pattern_is_named(tmp_path: Path) -> None:
    """With the nearest one; a line without an expression is a mistake with its place."""
    with pytest.raises(UnknownName, match="'INT'"):
        Grok("%{INTT:n}", {"INT": r"\d+"})
    (tmp_path / "a").write_text("# fine\nINT\n")
    with pytest.raises(ConfigInvalid, match="line 2"):
        load_patterns(tmp_path)


def test_without_a_store_the_shipper_says_so_and_waits(log: Path) -> None:
    """A lab without a store of logs must not have a component that dies again and again; it still ends when told to."""
    argv = [sys.executable, "-m", "labkit.observe.shipper", "--logs", log.parent, "--to", "nowhere"]
    argv += ["--offsets", log.parent / "offsets.json"]
    with subprocess.Popen([str(part) for part in argv], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            assert "lines stay in their files" in process.stderr.readline()
        finally:
            process.terminate()
    assert process.returncode == 0
    assert not (log.parent / "offsets.json").exists()
