"""
Prometheus remote write 1.0: many samples to one request body, without a loop over samples.

The body is a snappy-compressed protobuf message:

    WriteRequest { repeated TimeSeries timeseries = 1 }
    TimeSeries   { repeated Label labels = 1;  repeated Sample samples = 2 }
    Label        { string name = 1;            string value = 2 }
    Sample       { double value = 1;           int64 timestamp = 2 }

Milliseconds since 1970 take six varint bytes from November 1971 to May 2109, so every sample is
exactly 18 bytes and a whole series is one numpy array of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cramjam
import numpy as np
import numpy.typing as npt

from labkit import _http

__all__ = ["HEADERS", "Bools", "Floats", "Ints", "compress", "encode", "label_bytes", "push"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

_SAMPLE_BYTES = 18
_TIMESTAMP_BYTES = 6
_FIRST_MS, _LAST_MS = 1 << 35, (1 << 42) - 1


def encode(series: Sequence[bytes], times_ms: Ints, values: Floats) -> bytes:
    """
    One WriteRequest, not yet compressed.

    Args:
        series: the labels of each series, from `label_bytes`.
        times_ms: shape (samples,), ascending, milliseconds since 1970 UTC; shared by all series.
        values: shape (series, samples); nan where a series has no sample.

    Returns:
        Protobuf bytes; empty when there is no sample.

    Raises:
        ValueError: shapes disagree, or a time is before November 1971 or after May 2109.
    """
    if values.shape != (len(series), len(times_ms)):
        raise ValueError(f"values must have shape {(len(series), len(times_ms))}, got {values.shape}")
    if not len(times_ms):
        return b""
    if times_ms.min() < _FIRST_MS or times_ms.max() > _LAST_MS:
        raise ValueError(
            f"times must be milliseconds between {_FIRST_MS} and {_LAST_MS}, got {times_ms.min()} to {times_ms.max()}"
        )
    rows = _sample_rows(times_ms, values)
    parts: list[bytes] = []
    there = ~np.isnan(values)
    for labels, all_samples, mask in zip(series, rows, there, strict=True):
        samples = all_samples if mask.all() else all_samples[mask]
        if not len(samples):
            continue
        parts += (b"\x0a" + _varint(len(labels) + samples.nbytes), labels, samples.tobytes())
    return b"".join(parts)


def _sample_rows(times_ms: Ints, values: Floats) -> npt.NDArray[np.uint8]:
    rows = np.empty((*values.shape, _SAMPLE_BYTES), dtype=np.uint8)
    # field 2 of TimeSeries, 16 bytes: field 1 (double) of Sample ... field 2 (varint)
    rows[..., :3] = (0x12, _SAMPLE_BYTES - 2, 0x09)
    rows[..., 3:11] = np.ascontiguousarray(values, dtype="<f8").view(np.uint8).reshape(*values.shape, 8)
    rows[..., 11] = 0x10
    shifts = 7 * np.arange(_TIMESTAMP_BYTES)
    groups = (times_ms[:, None] >> shifts & 0x7F).astype(np.uint8)
    groups[:, :-1] |= 0x80
    rows[..., 12:] = groups
    return rows


def label_bytes(labels: Mapping[str, str]) -> bytes:
    r"""
    The labels of one series as protobuf, sorted by name as the protocol demands.

    >>> label_bytes({"job": "shop", "__name__": "up"})
    b'\n\x0e\n\x08__name__\x12\x02up\n\x0b\n\x03job\x12\x04shop'
    """
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, labels[name].encode())) for name in sorted(labels))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def compress(body: bytes) -> bytes:
    """The body as the receiver wants it: raw snappy, without the framing of snappy files."""
    compressed: Any = cramjam.snappy.compress_raw(body)
    return bytes(compressed)


def push(prometheus_url: str, body: bytes, *, how: str, timeout_s: float = 60) -> None:
    """
    Send one compressed body and return when Prometheus has it in its write-ahead log.

    Raises:
        RequestFailed: no answer, or a refusal (receiver off, samples out of order or too old); *how* ends the message.
    """
    _http.request(
        "POST", f"{prometheus_url.rstrip('/')}/api/v1/write", data=body, headers=HEADERS, timeout_s=timeout_s, how=how
    )
