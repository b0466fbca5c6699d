"""
The answer of a range query, from bytes to a frame, without a Python object per sample.

Decoding JSON first makes a list and a string of each sample, which takes longer than Prometheus
needs to answer.  Here the numbers of each series go to numpy as text, and only what is left (the
labels) is decoded as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["SeriesSamples", "columns_of", "parse_matrix", "to_frame"]

Floats = npt.NDArray[np.float64]

_OPEN, _CLOSE = b'"values":[', b"]]"


@dataclass(frozen=True, slots=True)
class SeriesSamples:
    """One series of a range answer: its labels, instants (seconds since 1970) and values."""

    labels: Mapping[str, str]
    times_s: Floats
    values: Floats


def parse_matrix(body: bytes) -> list[SeriesSamples]:
    """
    The series of an answer of `/api/v1/query_range`.

    Series that hold native histograms have no float samples and come back empty.

    Raises:
        json.JSONDecodeError, KeyError: this is no answer of Prometheus.

    >>> (found,) = parse_matrix(b'{"data":{"result":[{"metric":{"job":"shop"},"values":[[1,"0.5"],[2,"NaN"]]}]}}')
    >>> found.labels, found.values.tolist()
    ({'job': 'shop'}, [0.5, nan])
    """
    # A quote inside a JSON string is escaped, so this key cannot be part of a label.
    head, *parts = body.split(_OPEN)
    skeleton, numbers = [head], []
    for part in parts:
        end = part.find(_CLOSE)
        numbers.append(_numbers(part[:end]))
        skeleton += (_OPEN, str(len(numbers) - 1).encode(), b"]", part[end + len(_CLOSE) :])
    result = json.loads(b"".join(skeleton))["data"]["result"]
    return [_series(entry, numbers) for entry in result]


def _numbers(text: bytes) -> Floats:
    return np.fromstring(text.translate(None, b'[]"').decode(), dtype=np.float64, sep=",").reshape(-1, 2)


def _series(entry: Mapping[str, Any], numbers: Sequence[Floats]) -> SeriesSamples:
    held = entry.get("values", [])
    table = numbers[held[0]] if held else np.empty((0, 2))
    return SeriesSamples(entry["metric"], table[:, 0], table[:, 1])


def columns_of(labels: Sequence[Mapping[str, str]]) -> tuple[pd.MultiIndex, dict[str, str]]:
    """
    Columns by the labels that differ, and the labels that all share.

    A label that some series lack is "" there, as in Prometheus.  When nothing differs, there is one
    series: its column is `("value",)` in a level named `series`.

    >>> columns_of([{"job": "a", "le": "1"}, {"job": "a"}])
    (MultiIndex([('1',),
                ( '',)],
               names=['le']), {'job': 'a'})
    """
    names = sorted({name for one in labels for name in one})
    shared = {name: labels[0][name] for name in names if len({one.get(name, "") for one in labels}) == 1}
    differ = [name for name in names if name not in shared]
    if not differ:
        return pd.MultiIndex.from_tuples([("value",)], names=["series"]), shared
    return pd.MultiIndex.from_arrays([[one.get(name, "") for one in labels] for name in differ], names=differ), shared


def to_frame(found: Sequence[SeriesSamples], *, start_ms: int, step_ms: int, instants: int) -> pd.DataFrame:
    """Samples on the complete grid, one column per series, in the order of their labels; nan where there is none."""
    values = np.full((instants, len(found)), np.nan, order="F")
    for column, one in enumerate(found):
        rows = np.rint((one.times_s * 1000 - start_ms) / step_ms).astype(np.int64)
        values[rows, column] = one.values
    columns, shared = columns_of([one.labels for one in found])
    index = pd.date_range(
        pd.Timestamp(start_ms, unit="ms", tz="UTC"),
        periods=instants,
        freq=pd.Timedelta(milliseconds=step_ms),
        unit="ns",
        name="time",
    )
    frame = pd.DataFrame(values, index=index, columns=columns)
    if len(found) > 1:
        frame = frame.sort_index(axis=1)
    frame.attrs["labels"] = shared
    return frame
