"""The client against a real Prometheus: frames on the way in, errors that help on the way out."""

from __future__ import annotations

import http.server
import math
import pickle
import threading
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from labkit._time import utc_now
from labkit.errors import NoData, QueryError, QueryRejected, RequestFailed
from labkit.observe.prometheus import Prometheus
from tests.prometheus_process import Observed, free_port

pytestmark = pytest.mark.live

MINUTE = timedelta(minutes=1)


def test_a_range_is_a_complete_grid_of_the_series(observed: Observed) -> None:
    """Every instant is there, columns are the labels that differ, the rest is in attrs, values are as written."""
    past = observed.past
    start, end = past.end - timedelta(hours=6), past.end - timedelta(hours=3)
    frame = observed.client.query_range('http_requests_total{instance="seeded"}', start, end, step_s=60)

    assert frame.index.name == "time"
    assert str(frame.index.tz) == "UTC"
    assert list(frame.index) == list(pd.date_range(start, end, freq="60s", unit="ns"))
    assert frame.columns.names == ["endpoint", "method", "status"]
    assert (frame.dtypes == "float64").all()
    assert frame.attrs["labels"] == {
        "__name__": "http_requests_total",
        "instance": "seeded",
        "job": "shop",
        "service": "gateway",
    }
    assert frame.attrs["step_s"] == 60
    assert frame.columns.is_monotonic_increasing
    times = pd.DatetimeIndex(past.times_ms.astype("datetime64[ms]"), tz="UTC")
    for labels, row in zip(past.series, past.values, strict=True):
        if labels["__name__"] == "http_requests_total":
            written = row[np.searchsorted(times, frame.index)]
            column = (labels["endpoint"], labels["method"], labels["status"])
            np.testing.assert_array_equal(frame[column], written)


def test_an_instant_without_a_sample_is_nan(observed: Observed) -> None:
    """Before a series begins there is nan, not zero and not a shorter frame."""
    past = observed.past
    start = past.start - timedelta(minutes=30)
    frame = observed.client.query_range("shop_history_info", start, past.start + timedelta(minutes=30), step_s=300)

    assert len(frame) == 13
    before = frame.index < past.start
    assert frame[before].isna().all(axis=None)
    assert (frame[~before] == 1).all(axis=None)


def test_a_range_that_the_step_does_not_divide_ends_before_its_end(observed: Observed) -> None:
    """The last instant is the last that fits, as in Prometheus; an interval of no length is one instant."""
    end = observed.past.end
    frame = observed.client.query_range("vector(1)", end - timedelta(seconds=100), end, step_s=30)

    assert len(frame) == 4
    assert frame.index[-1] == end - timedelta(seconds=10)
    assert len(observed.client.query_range("vector(1)", end, end)) == 1


def test_steps_and_starts_below_a_second_are_exact(prometheus: Prometheus, observed: Observed) -> None:
    """The grid starts at the millisecond that was asked for, which the library below would round away."""
    start = observed.past.end - timedelta(minutes=2) + timedelta(milliseconds=250)
    frame = prometheus.query_range("time()", start, start + timedelta(seconds=2), step_s=0.5)

    assert len(frame) == 5
    assert frame.index[0] == start
    np.testing.assert_allclose(frame["value"].to_numpy().ravel(), start.timestamp() + np.arange(5) * 0.5, atol=1e-6)


def test_a_single_series_has_one_column_named_value(prometheus: Prometheus, observed: Observed) -> None:
    """When no label differs the column is ("value",), so that code and plots need not ask how many there are."""
    end = observed.past.end
    frame = prometheus.query_range("sum(rate(http_requests_total[5m]))", end - 10 * MINUTE, end)

    assert list(frame.columns) == [("value",)]
    assert frame.columns.names == ["series"]
    assert frame.attrs["labels"] == {}
    assert frame.squeeze(axis=1).iloc[-1] == pytest.approx(10, rel=0.05)


def test_labels_that_only_some_series_have_are_empty_in_the_others(prometheus: Prometheus, observed: Observed) -> None:
    """A missing label is the empty string, as in Prometheus itself."""
    end = observed.past.end
    query = 'sum(http_requests_total) or sum by (status) (http_requests_total{status="200"})'
    frame = prometheus.query_range(query, end - MINUTE, end)

    assert list(frame.columns) == [("",), ("200",)]
    assert frame.columns.names == ["status"]


@pytest.mark.parametrize(
    ("promql", "expected"),
    [
        ("vector(1) / 0", math.inf),
        ("-vector(1) / 0", -math.inf),
        ("vector(0) / 0", math.nan),
        ("vector(1e-300)", 1e-300),
    ],
)
def test_special_floats_arrive(prometheus: Prometheus, promql: str, expected: float) -> None:
    """Infinities, nan and the very small are numbers, in instants and in ranges."""
    now = utc_now()
    ranged = prometheus.query_range(promql, now - MINUTE, now)

    np.testing.assert_array_equal(ranged.to_numpy(), np.full((5, 1), expected))
    np.testing.assert_equal(prometheus.value(promql), expected)


def test_an_instant_is_a_row_per_series(observed: Observed) -> None:
    """All labels are columns, sorted, and the value comes last."""
    frame = observed.client.query('http_requests_total{instance="seeded",method="GET"}', at=observed.past.end)

    assert list(frame.columns) == ["__name__", "endpoint", "instance", "job", "method", "service", "status", "value"]
    assert len(frame) == 6
    assert frame["value"].dtype == "float64"
    row = frame[(frame["endpoint"] == "/products") & (frame["status"] == "200")]
    written = next(
        values[-1]
        for labels, values in zip(observed.past.series, observed.past.values, strict=True)
        if labels.get("endpoint") == "/products" and labels.get("status") == "200"
    )
    assert row["value"].item() == written


def test_the_instant_that_is_asked_for_is_the_one_that_is_answered(observed: Observed) -> None:
    """`at` reaches the server: an hour earlier the counter is lower, and `time()` is that time."""
    end = observed.past.end
    query = "sum(http_requests_total)"
    now, earlier = (observed.client.value(query, at=at) for at in (end, end - timedelta(hours=1)))

    assert now - earlier == pytest.approx(36_000, rel=0.02)
    assert observed.client.value("time()", at=end) == end.timestamp()


def test_scalars_and_strings_are_one_row(prometheus: Prometheus) -> None:
    """A number is a value; a string is a text, and asking for its value says so."""
    assert prometheus.query("2 * 3")["value"].tolist() == [6.0]
    assert prometheus.value("2 * 3") == 6
    assert prometheus.query('"hello"')["value"].tolist() == ["hello"]


def test_a_label_called_value_does_not_hide_the_value(prometheus: Prometheus) -> None:
    """`count_values` names its label freely; the sample keeps the column `value`."""
    frame = prometheus.query('count_values("value", up)')

    assert set(frame["label_value"]) == {"0", "1"}
    assert frame["value"].tolist() == [1.0, 1.0]


def test_raw_samples_have_their_own_instants(observed: Observed) -> None:
    """A range selector in an instant query gives what is stored, sample by sample."""
    at = observed.past.end
    frame = observed.client.query('http_requests_total{instance="seeded",endpoint="/products",status="200"}[21s]', at)

    assert list(frame.columns)[-2:] == ["time", "value"]
    assert [at - one for one in frame["time"]] == [timedelta(seconds=s) for s in (20, 15, 10, 5, 0)]
    assert frame["value"].is_monotonic_increasing


def test_one_value_of_many_series_lists_them(observed: Observed) -> None:
    """The message shows what tells the series apart and how to make one of them."""
    with pytest.raises(QueryError) as caught:
        observed.client.value("http_requests_total", at=observed.past.end)
    text = str(caught.value)
    assert "has 10 series" in text
    assert 'http_requests_total{endpoint="/products", method="GET", status="200"}' in text
    assert "sum(http_requests_total)" in text


@pytest.mark.parametrize(
    ("promql", "position", "says"),
    [
        ("rate(up[5m]", 12, "unclosed left parenthesis"),
        ("rate(up)", 6, "expected type range vector"),
        ("sum by (job) (\n  rate(up[5m])\n  + foo bar\n)", 39, "unexpected identifier"),
        ('up{job="müsli"} + + )', 21, "unexpected"),
        ("", 1, "no expression found"),
    ],
)
def test_a_refused_query_points_at_the_character(prometheus: Prometheus, promql: str, position: int, says: str) -> None:
    """The caret stands under the character, in the right line, also behind letters of two bytes."""
    now = utc_now()
    for ask in (lambda: prometheus.query(promql), lambda: prometheus.query_range(promql, now - MINUTE, now)):
        with pytest.raises(QueryRejected, match=says) as caught:
            ask()
        assert caught.value.position == position
        line, caret = str(caught.value).split("\n")[-2:]
        assert promql.split("\n")[promql[: position - 1].count("\n")] == line
        assert caret.strip() == "^"
        assert len(caret) - 1 == position - 1 - (promql[: position - 1].rfind("\n") + 1)


def test_a_query_that_fails_while_it_runs_has_no_position(prometheus: Prometheus) -> None:
    """Prometheus names no place then, and neither do we; its words are passed on, without its prefix."""
    with pytest.raises(QueryRejected, match="invalid destination label name") as caught:
        prometheus.query("label_replace(up, '9a', '', '', '')")
    assert caught.value.position is None
    assert "^" not in str(caught.value)


def test_a_range_selector_in_a_range_query_is_refused_in_words(prometheus: Prometheus) -> None:
    """The type is wrong, not the spelling."""
    with pytest.raises(QueryRejected, match="range vector"):
        prometheus.query_range("up[5m]", utc_now() - MINUTE, utc_now())


@pytest.mark.parametrize(
    ("promql", "advice"),
    [
        ('http_requests_total{job="shpo"}', 'nearest value of `job` with data is "shop"'),
        ("htp_requests_total", 'nearest metric name with data is "http_requests_total"'),
        ('sum(rate(http_requests_total{job="shop",status="204"}[5m]))', 'nearest value of `status` with data is "20'),
        ('http_requests_total{jobb="shop"}', "has a label `jobb`"),
        ('http_requests_total{method="GET",status="201"}', "the combination has none"),
        ('up{job="zzz"}', 'with data: "dead", "prometheus"'),
        ('{__name__="http_request_total",job="shop"}', 'nearest metric name with data is "http_requests_total"'),
    ],
)
def test_no_data_names_the_nearest_that_has(observed: Observed, promql: str, advice: str) -> None:
    """A typo in a name or a value is found; a combination that never occurs is told from it."""
    now = utc_now()
    for ask in (lambda: observed.client.query(promql), lambda: observed.client.query_range(promql, now - MINUTE, now)):
        with pytest.raises(NoData) as caught:
            ask()
        assert advice in str(caught.value)
        assert "No data is not zero" in str(caught.value)
        assert caught.value.query == promql


def test_no_data_before_anything_was_recorded(observed: Observed) -> None:
    """What has data now is not offered for a time when it had none."""
    with pytest.raises(NoData, match="no metric name with data at all") as caught:
        observed.client.query("up", at=observed.past.start - timedelta(days=3))
    assert "at 20" in str(caught.value)


def test_an_empty_comparison_is_no_data_too(prometheus: Prometheus) -> None:
    """A filter that nothing passes gives no series: an exception, never an empty frame in arithmetic."""
    with pytest.raises(NoData):
        prometheus.value("up > 7")


def test_targets_are_rows(observed: Observed) -> None:
    """Who is scraped, whether it answers, and why not."""
    frame = observed.client.targets()

    assert list(frame["job"]) == ["dead", "prometheus"]
    assert list(frame["health"]) == ["down", "up"]
    assert list(frame["service"]) == ["", ""]
    assert "refused" in frame["last_error"][0]
    assert frame["last_error"][1] == ""
    assert str(frame["last_scrape"].dt.tz) == "UTC"
    assert (utc_now() - frame["last_scrape"].max()) < timedelta(seconds=10)
    assert frame["scrape_s"][1] > 0
    assert frame["instance"][0] == f"127.0.0.1:{observed.dead_port}"
    assert frame["url"][1].endswith("/metrics")


def test_rules_are_rows(prometheus: Prometheus) -> None:
    """Recording and alerting rules in one table; what does not apply to a kind is nan or empty."""
    frame = prometheus.rules().set_index("name")

    assert list(frame.index) == ["shop:requests:rate5m", "TargetDown", "NeverTrue"]
    assert list(frame["kind"]) == ["recording", "alerting", "alerting"]
    assert math.isnan(frame["for_s"].iloc[0])
    assert list(frame["for_s"].iloc[1:]) == [0, 90]
    assert list(frame["state"]) == ["", "firing", "inactive"]
    assert list(frame["health"]) == ["ok"] * 3
    assert set(frame["group"]) == {"shop"}
    assert frame["query"]["TargetDown"] == "up == 0"


def test_alerts_are_rows(prometheus: Prometheus) -> None:
    """What fires, how bad, since when, and about what."""
    (alert,) = prometheus.alerts().to_dict("records")

    assert alert["name"] == "TargetDown"
    assert alert["severity"] == "page"
    assert alert["state"] == "firing"
    assert alert["value"] == 0.0
    assert alert["summary"] == "dead does not answer"
    assert alert["labels"]["job"] == "dead"
    assert "alertname" not in alert["labels"]
    assert timedelta(0) < utc_now() - alert["active_since"] < timedelta(minutes=5)


def test_the_server_says_what_it_is(observed: Observed) -> None:
    """Version and the number of series."""
    assert observed.client.version().split(".")[0] in {"2", "3"}
    assert observed.client.series_count() > len(observed.past.series)
    assert observed.server.url in repr(observed.client)


def test_times_without_a_zone_are_refused(prometheus: Prometheus) -> None:
    """In every place where an instant goes in."""
    naive, aware = datetime(2026, 3, 1), utc_now()  # noqa: DTZ001
    for ask in (
        lambda: prometheus.query("up", at=naive),
        lambda: prometheus.query_range("up", naive, aware),
        lambda: prometheus.query_range("up", aware - MINUTE, naive),
    ):
        with pytest.raises(ValueError, match="no time zone"):
            ask()


def test_more_instants_than_prometheus_gives_are_refused_with_a_step_that_works(observed: Observed) -> None:
    """The message names the smallest step, and that step is accepted."""
    end = observed.past.end
    start = end - timedelta(seconds=11_000)
    assert len(observed.client.query_range("vector(1)", start + timedelta(seconds=1), end, step_s=1)) == 11_000
    with pytest.raises(ValueError, match=r"11,001 instants .* step_s=1\.001 or more"):
        observed.client.query_range("vector(1)", start, end, step_s=1)
    assert len(observed.client.query_range("vector(1)", start, end, step_s=1.001)) <= 11_000


@pytest.mark.parametrize(
    ("step_s", "seconds", "says"), [(0, 60, "at least 0.001"), (-15, 60, "at least"), (15, -1, "before")]
)
def test_intervals_that_make_no_sense_are_refused(
    prometheus: Prometheus, step_s: float, seconds: int, says: str
) -> None:
    """Before anything is sent."""
    now = utc_now()
    with pytest.raises(ValueError, match=says):
        prometheus.query_range("up", now, now + timedelta(seconds=seconds), step_s=step_s)


def test_nobody_there_is_said_at_once_with_what_to_do() -> None:
    """Not a trace of the HTTP library: the address, the reason, the command."""
    port = free_port()
    began = utc_now()
    with pytest.raises(RequestFailed, match=rf"127.0.0.1:{port}.*nothing listens there.*labkit status"):
        Prometheus(f"http://127.0.0.1:{port}").query("up")
    assert utc_now() - began < timedelta(seconds=3)


def test_a_path_that_is_not_the_api_is_said(observed: Observed) -> None:
    """A wrong base address answers with 404, which is not a refused query."""
    with pytest.raises(RequestFailed, match="HTTP 404"):
        Prometheus(f"{observed.server.url}/wrong").query("up")


def test_something_else_that_answers_is_said() -> None:
    """HTML instead of JSON: an error of ours, not of the decoder."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            client = Prometheus(f"http://127.0.0.1:{server.server_port}")
            now = utc_now()
            for ask in (lambda: client.query("up"), lambda: client.query_range("up", now, now), client.alerts):
                with pytest.raises(RequestFailed, match="not Prometheus"):
                    ask()
        finally:
            client.close()
            server.shutdown()
            thread.join()


def test_errors_survive_the_way_between_processes(prometheus: Prometheus) -> None:
    """A batch runner gets them pickled, message and data whole."""
    with pytest.raises(QueryRejected) as caught:
        prometheus.query("rate(up[5m]")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301

    assert str(again) == str(caught.value)
    assert again.position == 12


def test_a_frame_plots_as_it_is(prometheus: Prometheus, observed: Observed) -> None:
    """Pandas draws one line per series without help."""
    mpl = pytest.importorskip("matplotlib")
    mpl.use("agg")
    from matplotlib import pyplot as plt

    end = observed.past.end
    frame = prometheus.query_range("sum by (status) (rate(http_requests_total[5m]))", end - 10 * MINUTE, end)
    ax = frame.plot()

    assert len(ax.get_lines()) == frame.shape[1] == 3
    plt.close(ax.figure)


def test_without_exemplars_the_frame_is_empty(observed: Observed) -> None:
    """No exemplar is a frame without rows, with its columns; what is no selector is refused with its place."""
    end = utc_now()

    found = observed.client.exemplars("http_request_duration_seconds_bucket", end - MINUTE, end)

    assert (len(found), list(found)) == (0, ["time", "trace_id", "value", "labels"])
    with pytest.raises(QueryRejected, match="sum"):
        observed.client.exemplars("sum(", end - MINUTE, end)
    with pytest.raises(ValueError, match="time zone"):
        observed.client.exemplars("up", datetime(2026, 1, 1), end)  # noqa: DTZ001  (that is what is refused)
