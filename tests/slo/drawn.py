"""Hypothesis strategies: counts, objectives and frames of counts."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st

from labkit.slo.counts import frame
from labkit.slo.model import Budgeting, EventSli, Slo, Window

START = datetime(2026, 3, 1, tzinfo=UTC)
SLI = EventSli("sum(increase(all[$window]))", good="sum(increase(good[$window]))")

# Fewer examples than usual, since all tests share few seconds; no limit of time for one on a slow machine.
facts = settings(max_examples=30, deadline=None, derandomize=True)

objectives = st.fractions(Fraction(1, 1000), Fraction(99_999, 100_000), max_denominator=100_000)


@st.composite
def events(draw: st.DrawFn, at_least: int = 0, at_most: int = 10**9) -> tuple[int, int]:
    """Bad and total events."""
    total = draw(st.integers(at_least, at_most))
    return draw(st.integers(0, total)), total


@st.composite
def frames(draw: st.DrawFn, *, step_s: int = 60, rows: int = 40, gaps: bool = False, most: int = 1000) -> pd.DataFrame:
    """A frame of counts; with *gaps*, some steps are unknown."""
    number = draw(st.integers(1, rows))
    total = draw(st.lists(st.integers(0, most), min_size=number, max_size=number))
    bad = [draw(st.integers(0, one)) for one in total]
    known = draw(st.lists(st.booleans(), min_size=number, max_size=number)) if gaps else [True] * number
    end = START + pd.Timedelta(seconds=step_s * number)
    good = [all_ - one for all_, one in zip(total, bad, strict=True)]
    made = frame(good, total, end=end, step_s=step_s)
    return frame(made["good"].where(known), made["total"].where(known), end=end, step_s=step_s) if gaps else made


def slo(objective: Fraction | str, window: Window, budgeting: Budgeting | None = None) -> Slo:
    """An objective of the shop."""
    return Slo("shop", "gateway", Fraction(objective), window, SLI, budgeting=budgeting or Budgeting())
