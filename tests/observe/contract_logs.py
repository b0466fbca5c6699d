"""
What every `LogStore` must do: inherit `LogContract` and give a fixture `log_store` that holds `lines(START)`.

    class TestOther(LogContract):
        @pytest.fixture(scope="class")
        def log_store(self): ...
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest

from labkit._time import utc_now
from labkit.errors import InvalidValue, NoData
from labkit.observe.log_lines import LogLine
from labkit.observe.shipper import Placed
from labkit.observe.stores import LOG_COLUMNS, LogStore

TRACE = "0af7651916cd43dd8448eb211c80319c"
# A whole minute, ten minutes ago.
START = (utc_now() - timedelta(minutes=10)).replace(second=0, microsecond=0)
END = START + timedelta(minutes=3)


def lines(start: datetime) -> list[Placed]:
    """Three minutes: each second an info line of gateway; of orders 2, 0 and 1 errors; one line within a trace."""

    def at(offset_s: float) -> int:
        return int(start.timestamp()) * 10**9 + int(offset_s * 10**9)

    found = [LogLine(at(s), "gateway", "info", f"request {s} served", fields={"status": 200}) for s in range(180)]
    found += [LogLine(at(s), "orders", "error", "Database timed out", fields={"wait_s": 0.5}) for s in (10.5, 20, 130)]
    found += [LogLine(at(60.25), "cart", "warning", "slow", TRACE, "b7ad6b7169203331", {"user": "ann"})]
    return [Placed(line, "contract", number) for number, line in enumerate(found)]


class LogContract:
    """The tests."""

    def test_a_search_gives_the_newest_lines_oldest_first(self, log_store: LogStore) -> None:
        """The frame has the agreed columns first, its fields after them, and ends with the newest line."""
        found = log_store.search(service="gateway", start=START, end=END, limit=5)

        assert tuple(found.columns[:6]) == LOG_COLUMNS
        assert found["message"].tolist() == [f"request {n} served" for n in range(175, 180)]
        assert found["status"].tolist() == [200] * 5
        assert found["time"].iloc[-1] == pd.Timestamp(START) + pd.Timedelta(seconds=179)

    def test_text_is_found_in_any_case(self, log_store: LogStore) -> None:
        """A part of the message is enough."""
        assert len(log_store.search("database TIMED", start=START, end=END)) == 3

    def test_an_interval_has_its_start_and_not_its_end(self, log_store: LogStore) -> None:
        """Two neighbouring intervals share no line."""
        middle = START + timedelta(seconds=90)
        first, second = (
            log_store.search(service="gateway", start=a, end=b, limit=1000) for a, b in ((START, middle), (middle, END))
        )
        assert (len(first), len(second)) == (90, 90)

    def test_lines_of_a_trace_are_found_by_its_id(self, log_store: LogStore) -> None:
        """From a trace to what was logged in it."""
        (row,) = log_store.search(trace_id=TRACE, start=START, end=END).to_dict("records")
        assert (row["service"], row["span_id"], row["user"]) == ("cart", "b7ad6b7169203331", "ann")

    def test_errors_per_minute_are_counted_on_a_complete_grid(self, log_store: LogStore) -> None:
        """A minute without an error is 0: the store was there and heard of none."""
        table = log_store.errors_per_minute(start=START, end=END)
        assert table["orders"].tolist() == [2.0, 0.0, 1.0]
        assert table.index.tolist() == list(pd.date_range(START, periods=3, freq="min"))

    def test_counts_by_service_and_level_add_up_to_all_lines(self, log_store: LogStore) -> None:
        """No line is counted twice or left out."""
        table = log_store.aggregate(("service", "level"), step_s=30, start=START, end=END)
        assert table.to_numpy().sum() == 184
        assert table[("orders", "error")].sum() == 3

    def test_services_are_those_with_lines(self, log_store: LogStore) -> None:
        """Sorted, each once."""
        assert log_store.services() == ["cart", "gateway", "orders"]

    @pytest.mark.parametrize(
        ("given", "advice"),
        [({"service": "gatway"}, '"gateway"'), ({"service": "orders", "level": "eror"}, '"error"')],
    )
    def test_nothing_found_names_the_nearest(self, log_store: LogStore, given: dict[str, str], advice: str) -> None:
        """A misspelt service or level is `NoData`, with the one that was probably meant."""
        with pytest.raises(NoData) as caught:
            log_store.search(start=START, end=END, **given)  # type: ignore[arg-type]
        assert advice in str(caught.value)

    def test_no_lines_in_an_interval_is_no_data(self, log_store: LogStore) -> None:
        """Neither an empty frame nor zeros."""
        before = START - timedelta(minutes=20)
        with pytest.raises(NoData):
            log_store.aggregate(start=before, end=before + timedelta(minutes=5))

    def test_a_limit_out_of_range_is_refused(self, log_store: LogStore) -> None:
        """Before anything is asked."""
        with pytest.raises(InvalidValue, match="limit"):
            log_store.search(limit=0)
