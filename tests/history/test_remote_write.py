"""The encoder against a decoder that was written from the protocol, not from the encoder."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.shop import _remote_write as remote


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, data[at : at + 8]
                at += 8
            case 2:
                length, at = _varint(data, at)
                assert at + length <= len(data)
                yield key >> 3, data[at : at + length]
                at += length
            case other:
                raise AssertionError(f"wire type {other}")


Decoded = list[tuple[list[tuple[str, str]], list[tuple[int, float]]]]


def decode(body: bytes) -> Decoded:
    """Labels and samples of each TimeSeries of a WriteRequest."""
    series: Decoded = []
    for number, timeseries in _fields(body):
        assert number == 1
        labels, samples = [], []
        for kind, content in _fields(timeseries):
            parts = dict(_fields(content))
            if kind == 1:
                labels.append((parts[1].decode(), parts[2].decode()))
            else:
                assert kind == 2
                samples.append((parts[2], struct.unpack("<d", parts[1])[0]))
        series.append((labels, samples))
    return series


label_sets = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name == name.encode(errors="ignore").decode()),
    st.text(max_size=200),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_encoded_is_what_a_reader_of_the_protocol_finds(data: st.DataObject) -> None:
    """Labels sorted by name, every instant and every value bit by bit, whatever they are."""
    labels = data.draw(st.lists(label_sets, min_size=1, max_size=4))
    times = data.draw(st.lists(st.integers(1 << 35, (1 << 42) - 1), min_size=1, max_size=12, unique=True).map(sorted))
    shape = (len(labels), len(times))
    values = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(allow_nan=False, width=64)))

    found = decode(remote.encode([remote.label_bytes(one) for one in labels], np.array(times), values))

    assert [one for one, _ in found] == [sorted(one.items()) for one in labels]
    for row, (_, samples) in zip(values, found, strict=True):
        assert [at for at, _ in samples] == times
        assert [struct.pack("<d", value) for _, value in samples] == [struct.pack("<d", value) for value in row]


def test_nan_is_no_sample() -> None:
    """Where a series is nan it has no sample, and a series of nothing is left out."""
    values = np.array([[1.0, math.nan, 3.0], [math.nan, math.nan, math.nan]])
    times = np.array([1 << 40, (1 << 40) + 5, (1 << 40) + 9])

    found = decode(remote.encode([remote.label_bytes({"a": "b"}), remote.label_bytes({"c": "d"})], times, values))

    assert found == [([("a", "b")], [(1 << 40, 1.0), ((1 << 40) + 9, 3.0)])]


def test_a_request_without_samples_is_empty() -> None:
    """No instants, no bytes."""
    assert remote.encode([b""], np.array([], dtype=np.int64), np.empty((1, 0))) == b""


@pytest.mark.parametrize("time_ms", [(1 << 35) - 1, 1 << 42, -1])
def test_times_that_do_not_fit_in_six_bytes_are_refused(time_ms: int) -> None:
    """Outside of 1971 to 2109 a row would have another length, so encoding stops instead of lying."""
    with pytest.raises(ValueError, match="milliseconds between"):
        remote.encode([b""], np.array([time_ms]), np.zeros((1, 1)))


def test_values_of_another_shape_are_refused() -> None:
    """Shape and series must agree; the message says both shapes."""
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(2, 1\)"):
        remote.encode([b""], np.array([1 << 40, 1 << 41]), np.zeros((2, 1)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.binary(max_size=3000))
def test_compression_is_raw_snappy(body: bytes) -> None:
    """The receiver decodes blocks without framing; the first bytes are the length of the plain body."""
    packed = remote.compress(body)

    assert bytes(cramjam.snappy.decompress_raw(packed)) == body
    assert _varint(packed, 0)[0] == len(body)
