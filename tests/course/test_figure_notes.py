"""Figures say what they show and what they lack."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from labkit.course.figure_notes import describe


@pytest.fixture
def figure() -> Iterator[Figure]:
    """An empty figure that no backend knows."""
    with mpl.rc_context():
        yield Figure()


def test_a_complete_figure_is_described_in_a_sentence(figure: Figure) -> None:
    """Title, axes and the names of lines make the alternative text; nothing is missing."""
    ax = figure.subplots()
    ax.plot([1, 2], label="gateway")
    ax.set(xlabel="time (UTC)", ylabel="requests/s")
    ax.set_title("It rises", loc="left")

    assert describe(figure) == {
        "title": "It rises",
        "alt": "Chart: It rises. requests/s against time (UTC); lines: gateway.",
        "missing": [],
    }


def test_a_bare_figure_lacks_everything(figure: Figure) -> None:
    """Each missing label is named."""
    figure.subplots().plot([1, 2])

    assert describe(figure)["missing"] == ["title", "x label", "y label"]


def test_shared_axes_need_one_label(figure: Figure) -> None:
    """The label below the lower of two charts that share their time axis serves both."""
    upper, lower = figure.subplots(2, sharex=True)
    for ax in (upper, lower):
        ax.plot([1, 2])
        ax.set_ylabel("s")
    lower.set_xlabel("time (UTC)")
    figure.suptitle("Both")

    assert describe(figure)["missing"] == []


def test_empty_and_hidden_axes_need_no_labels(figure: Figure) -> None:
    """What draws nothing cannot mislead."""
    figure.subplots()

    assert describe(figure)["missing"] == []
