"""Waiting until traces are whole, whatever store they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import pytest

from labkit._time import utc_now
from labkit.errors import NoData, NotReady
from labkit.observe.stores import wait_for_traces

FIRST = "a" * 32
ROOT, CHILD, GRANDCHILD = ("01", ""), ("02", "01"), ("03", "02")


def arriving(**by_letter: Sequence[Sequence[tuple[str, str]]]) -> Callable[[str], pd.DataFrame]:
    """A store into which spans come: what it has of each trace at the first look, the second, … and from then on."""
    looks = {letter * 32: list(states) for letter, states in by_letter.items()}

    def spans_of(trace_id: str) -> pd.DataFrame:
        states = looks[trace_id]
        spans = states.pop(0) if len(states) > 1 else states[0]
        if not spans:
            now = utc_now()
            raise NoData(trace_id, start=now, end=now, what="span")
        return pd.DataFrame(spans, columns=["span_id", "parent_id"])

    return spans_of


def test_a_trace_counts_when_its_root_and_every_parent_is_there() -> None:
    """Neither an absent trace, nor one without its root, nor one with a gap ends the wait."""
    store = arriving(a=[[], [GRANDCHILD], [ROOT, GRANDCHILD], [ROOT, CHILD, GRANDCHILD]])

    wait_for_traces(store, [FIRST], timeout_s=60, how="", every_s=0)

    assert len(store(FIRST)) == 3


def test_what_is_missing_is_said_for_each_trace() -> None:
    """Not there, without a root, with a gap: three different things to look for; and the advice of the store."""
    store = arriving(a=[[]], b=[[CHILD]], c=[[ROOT, GRANDCHILD]], d=[[ROOT]])

    with pytest.raises(NotReady, match=r"Take a newer trace\.") as caught:
        wait_for_traces(store, [c * 32 for c in "abcd"], timeout_s=0, how="Take a newer trace.", every_s=0)

    assert caught.value.last_seen == {
        "a" * 32: "not there",
        "b" * 32: "1 span, its root is not there",
        "c" * 32: "2 spans, 1 of their parents not there",
    }
