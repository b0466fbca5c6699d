"""
At which instants the past has samples: sparse in the middle, as dense as scrapes at its ends.

`rate` stretches what it sees towards the edges of its window by at most 1.1 mean intervals.  Where a
sparse grid met a dense one at once, windows across the border would read up to 18 % too little,
so the interval changes slowly: by less than a tenth within any five minutes.
"""

from __future__ import annotations

import numpy as np

from labkit.shop._remote_write import Ints

__all__ = ["COARSE_S", "STEADY_S", "grid_ms", "offsets_s"]

COARSE_S = 60
_FINE_S, _FINE_SPAN_S = 5, 600
# Within this distance from its end the past is steady and its samples grow dense.
STEADY_S = 7200


def offsets_s() -> Ints:
    """
    Distances of samples from an end of the past, in whole seconds, from 0 to two hours.

    >>> found = offsets_s()
    >>> found[:3].tolist(), found[-3:].tolist(), len(found)
    ([0, 5, 10], [7081, 7140, 7200], 420)
    """
    span_s = STEADY_S - _FINE_SPAN_S
    growth = (COARSE_S - _FINE_S) / span_s
    steps = np.arange(1, np.ceil(np.log(COARSE_S / _FINE_S) / growth) + 1)
    # The interval grows linearly with the distance, so the distance grows exponentially with the count.
    taper = np.expm1(growth * steps)
    tapered = _FINE_SPAN_S + np.rint(span_s * taper / taper[-1])
    return np.concatenate([np.arange(0, _FINE_SPAN_S + 1, _FINE_S), tapered.astype(np.int64)])


def grid_ms(start_ms: int, end_ms: int, *, dense_start: bool = False) -> Ints:
    """
    Instants after *start_ms* up to *end_ms* itself, in milliseconds.

    Args:
        start_ms: where the past begins; it is not part of the grid.
        end_ms: its end.
        dense_start: whether samples are as dense after the start as before the end, because scrapes ended there.

    >>> len(grid_ms(0, 86_400_000)), len(grid_ms(0, 86_400_000, dense_start=True))
    (1739, 2038)
    """
    span_ms = end_ms - start_ms
    near_ms = 1000 * offsets_s()
    far_ms = np.arange(near_ms[-1] + 1000 * COARSE_S, span_ms + 1, 1000 * COARSE_S, dtype=np.int64)
    distances_ms = np.concatenate([near_ms, far_ms])
    if not dense_start:
        return end_ms - distances_ms[distances_ms < span_ms][::-1]
    half_ms = _up_to(distances_ms, span_ms / 2)
    return np.concatenate([start_ms + half_ms[1:], end_ms - half_ms[half_ms < span_ms - half_ms[-1]][::-1]])


def _up_to(distances_ms: Ints, half_ms: float) -> Ints:
    """The distances up to the middle, stretched a little beyond the dense part so that they end in it."""
    dense = _FINE_SPAN_S // _FINE_S
    dense_ms = distances_ms[dense]
    if half_ms <= dense_ms:
        return distances_ms[distances_ms < half_ms]
    last = max(int(np.abs(distances_ms - half_ms).argmin()), dense + 1)
    stretch = (half_ms - dense_ms) / (distances_ms[last] - dense_ms)
    rest = dense_ms + np.rint(stretch * (distances_ms[dense + 1 : last + 1] - dense_ms)).astype(np.int64)
    return np.concatenate([distances_ms[: dense + 1], rest])
