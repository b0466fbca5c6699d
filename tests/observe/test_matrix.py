"""From the bytes of a range answer to a frame, without a server."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.observe import _explain, _matrix


def body(*series: dict[str, Any]) -> bytes:
    """An answer as Prometheus writes it: no spaces."""
    answer = {"status": "success", "data": {"resultType": "matrix", "result": list(series)}}
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def spelt(value: float) -> str:
    """A float as Go spells it."""
    return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else repr(value))


samples = st.lists(st.tuples(st.integers(0, 4_000_000_000_000), st.floats()), min_size=1, max_size=30)
label_sets = st.dictionaries(st.text(max_size=12), st.text(max_size=30) | st.just('"values":[[1,"2"]]'), max_size=4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.tuples(label_sets, samples), max_size=4))
def test_every_float_and_every_label_survives(series: list[tuple[dict[str, str], list[tuple[int, float]]]]) -> None:
    """Bit by bit, also infinities, and also labels that look like the structure around them."""
    answer = body(
        *(
            {"metric": labels, "values": [[ms / 1000, spelt(value)] for ms, value in points]}
            for labels, points in series
        )
    )
    found = _matrix.parse_matrix(answer)

    assert [one.labels for one in found] == [labels for labels, _ in series]
    for one, (_, points) in zip(found, series, strict=True):
        np.testing.assert_array_equal(one.values, [value for _, value in points])
        np.testing.assert_array_equal(np.rint(one.times_s * 1000), [ms for ms, _ in points])


def test_series_of_native_histograms_are_empty() -> None:
    """They have no float samples; the client refuses them in words."""
    (found,) = _matrix.parse_matrix(body({"metric": {}, "histograms": [[1, {"count": "3", "sum": "1"}]]}))

    assert len(found.values) == len(found.times_s) == 0


def test_the_order_of_keys_does_not_matter() -> None:
    """Values before labels are the same answer."""
    (found,) = _matrix.parse_matrix(body({"values": [[1, "2"]], "metric": {"a": "b"}}))

    assert (found.labels, found.values.tolist(), found.times_s.tolist()) == ({"a": "b"}, [2.0], [1.0])


@pytest.mark.parametrize("text", [b"", b"<html>", b'{"data":{"result":[{"metric":{},"values":[[1,"2"],[3'])
def test_half_an_answer_is_no_answer(text: bytes) -> None:
    """A body that breaks off raises; it never gives fewer samples."""
    with pytest.raises(json.JSONDecodeError):
        _matrix.parse_matrix(text)


def series(labels: dict[str, str], times_s: list[float], values: list[float]) -> _matrix.SeriesSamples:
    """One series."""
    return _matrix.SeriesSamples(labels, np.array(times_s), np.array(values))


def test_samples_land_on_their_instants_and_the_rest_is_nan() -> None:
    """Gaps at the start, in the middle and at the end; two series with different gaps; names sorted."""
    frame = _matrix.to_frame(
        [series({"a": "2", "c": "x"}, [100.5, 102.5], [1, 2]), series({"a": "1", "c": "x"}, [101.5], [3])],
        start_ms=99_500,
        step_ms=1000,
        instants=5,
    )

    nan = math.nan
    assert list(frame.columns) == [("1",), ("2",)]
    np.testing.assert_array_equal(frame.to_numpy(), [[nan, nan], [nan, 1], [3, nan], [nan, 2], [nan, nan]])
    assert frame.index[0].timestamp() == 99.5
    assert frame.index.freq.n * frame.index.freq.base.nanos == 1e9
    assert frame.attrs["labels"] == {"c": "x"}


@pytest.mark.parametrize(
    ("labels", "names", "columns", "shared"),
    [
        ([{}], ["series"], [("value",)], {}),
        ([{"a": "1"}], ["series"], [("value",)], {"a": "1"}),
        ([{"a": "1"}, {"a": "2"}], ["a"], [("1",), ("2",)], {}),
        ([{"b": "x", "a": "1"}, {"a": "2", "b": "x"}], ["a"], [("1",), ("2",)], {"b": "x"}),
        ([{"a": "1"}, {}], ["a"], [("1",), ("",)], {}),
        ([{"b": "1", "a": "1"}, {"b": "2", "a": "3"}], ["a", "b"], [("1", "1"), ("3", "2")], {}),
    ],
)
def test_columns_are_the_labels_that_differ(
    labels: list[dict[str, str]], names: list[str], columns: list[tuple[str, ...]], shared: dict[str, str]
) -> None:
    """Always a MultiIndex with names, in alphabetical order; what all share goes to attrs."""
    found, common = _matrix.columns_of(labels)

    assert (list(found.names), list(found), common) == (names, columns, shared)
    assert found.nlevels == len(names)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("up", [("up", ())]),
        ('up{job="a",x!="b",y=~"c"}', [("up", (("job", "a"),))]),
        ("sum by (job) (rate(http_requests_total[5m] offset 1h))", [("http_requests_total", ())]),
        ('a{b="}"} + on (c) group_left (d) e', [("a", (("b", "}"),)), ("e", ())]),
        ('{__name__="x",job="y"}', [("x", (("job", "y"),))]),
        ("job:up:sum > bool 0.5 and 1e3 < x_2", [("job:up:sum", ()), ("x_2", ())]),
        ('label_replace(up, "a", "b$1", "c", "d")', [("up", ())]),
        ("time() - 5", []),
        ("up{job='single'} or down{job=`raw`}", [("up", (("job", "single"),)), ("down", (("job", "raw"),))]),
    ],
)
def test_selectors_are_found_among_everything_else(query: str, expected: list[_explain.Selector]) -> None:
    """Functions, keywords, groupings, durations, numbers and strings are not metrics."""
    assert list(_explain.selectors(query)) == expected


@pytest.mark.parametrize(
    ("message", "position", "text"),
    [
        ('invalid parameter "query": 1:12: parse error: unclosed left parenthesis', 12, "unclosed left parenthesis"),
        ("invalid parameter 'query': 1:3: parse error: bad", 3, "bad"),
        ("1:3: parse error: bad", 3, "bad"),
        ("2:1: bad", 13, "bad"),
        ("query timed out in expression evaluation", None, "query timed out in expression evaluation"),
    ],
)
def test_positions_are_read_from_what_the_server_says(message: str, position: int | None, text: str) -> None:
    """Of the versions that labkit accepts, with and without their prefixes."""
    error = _explain.rejected("rate(up[5m]\n+ 1", message)

    assert (error.position, error.server_message) == (position, text)


@pytest.mark.parametrize(("query", "says", "position"), [("up)", "1:4", 3), ("up )", "1:5", 4), ("a\n+ b)", "2:5", 6)])
def test_the_caret_is_under_the_parenthesis_that_closes_nothing(query: str, says: str, position: int) -> None:
    """Prometheus reports the place behind it."""
    assert _explain.rejected(query, f"{says}: parse error: unexpected right parenthesis ')'").position == position
