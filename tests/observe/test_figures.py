"""What the figures show, asked from the axes; how they look is judged by eye."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from labkit import style
from labkit.observe import figures
from labkit.shop.history import History, build_history

mpl.use("agg")

import itertools

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def past() -> History:
    """Thirty days."""
    return build_history(seed=7, end=START)


def frame(*names: tuple[str, ...], rows: int = 6) -> pd.DataFrame:
    """Columns whose values are their number."""
    index = pd.date_range(START, periods=rows, freq="60s", name="time")
    columns = pd.MultiIndex.from_tuples(names, names=[f"l{i}" for i in range(len(names[0]))])
    return pd.DataFrame(np.tile(np.arange(1.0, len(names) + 1), (rows, 1)), index=index, columns=columns)


def texts(ax: Axes) -> list[str]:
    """All annotations of the axes."""
    return [one.get_text() for one in ax.texts]


def test_lines_are_named_beside_their_ends() -> None:
    """Labels instead of a legend, joined with a space, in the colours of their lines."""
    ax = figures.timeseries(frame(("/a", "200"), ("/b", "")), unit="requests/s", title="Both are steady")

    assert texts(ax) == ["/a 200", "/b"]
    assert [one.get_color() for one in ax.texts] == [line.get_color() for line in ax.get_lines()]
    assert ax.get_legend() is None
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left") or ax.get_title()) == (
        "time (UTC)",
        "requests/s",
        "Both are steady",
    )
    assert ax.get_ylim()[0] == 0


def test_a_single_series_needs_no_name() -> None:
    """Its axis says what it is."""
    assert texts(figures.timeseries(frame(("value",)))) == []


def test_many_lines_get_a_legend() -> None:
    """More names than fit beside the lines."""
    ax = figures.timeseries(frame(*((str(i),) for i in range(9))))

    assert texts(ax) == []
    assert len(ax.get_legend().get_texts()) == 9


def test_names_of_lines_that_end_together_do_not_overlap() -> None:
    """Pushed apart by at least their height."""
    together = frame(("a",), ("b",), ("c",))
    together[:] = 5.0
    ax = figures.timeseries(together)
    ax.figure.canvas.draw()
    boxes = sorted((one.get_window_extent() for one in ax.texts), key=lambda box: box.y0)

    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_no_data_is_a_gap() -> None:
    """A nan is not drawn, and a series of nothing has no name."""
    data = frame(("a",), ("b",))
    data.iloc[2, 0] = math.nan
    data.iloc[:, 1] = math.nan
    ax = figures.timeseries(data)

    assert math.isnan(ax.get_lines()[0].get_ydata()[2])
    assert texts(ax) == ["a"]


def test_negative_values_are_not_cut_off() -> None:
    """Zero is the floor only of what cannot be negative."""
    assert figures.timeseries(-frame(("a",))).get_ylim()[0] < -1


def test_an_empty_frame_is_refused() -> None:
    """An empty picture would look like quiet."""
    with pytest.raises(ValueError, match="no data is not zero"):
        figures.timeseries(pd.DataFrame())


def test_given_axes_are_drawn_on() -> None:
    """The notebook decides where."""
    ax = style.new_axes()
    counts = pd.DataFrame({"good": [9], "total": [10]}, index=pd.DatetimeIndex([START]))

    assert figures.timeseries(frame(("a",)), ax) is ax
    assert figures.thirty_days(counts, ax=ax) is ax


def test_thirty_days_show_objective_and_incidents(past: History) -> None:
    """Every incident is shaded and says what it cost; the objective is a named line."""
    incidents = past.labels()["incidents"]
    ax = figures.thirty_days(past.request_counts(), incidents)
    said = texts(ax)

    assert said[0] == "99.9 % objective: 0.1 % may fail"
    assert "outage database: 12 %" in said
    assert "latency product: none fails" in said
    assert len(said) == 1 + len(incidents)
    assert len([patch for patch in ax.patches if patch.get_alpha()]) == len(incidents)
    assert ax.get_xlabel() == "time (UTC)"
    assert "share" in ax.get_ylabel()
    assert ax.get_yscale() == "log"


def test_the_share_is_that_of_the_hour() -> None:
    """Bad over total per hour; an hour without errors or without requests is a gap."""
    index = pd.date_range(START + timedelta(minutes=30), periods=8, freq="30min", name="time")
    counts = pd.DataFrame({"good": [10, 5, 10, 10, 0, 0, 9, 10], "total": [10, 10, 10, 10, 0, 0, 10, 10]}, index=index)
    line = figures.thirty_days(counts, objective=0.99).get_lines()[0]

    np.testing.assert_array_equal(line.get_ydata(), [0.25, math.nan, math.nan, 0.05])


def test_incidents_may_come_from_a_file(past: History) -> None:
    """Instants as ISO texts and as datetimes draw the same."""
    incident = past.labels()["incidents"][0]
    parsed = incident | {key: datetime.fromisoformat(incident[key]) for key in ("start", "end")}
    shown = [figures.thirty_days(past.request_counts(), [one]).texts[1].xy for one in (incident, parsed)]

    assert shown[0] == shown[1]


@pytest.mark.parametrize(("share", "shown"), [(1.304, "x: 130 %"), (0.12, "x: 12 %"), (0.003, "x: 0.3 %")])
def test_shares_are_written_for_people(share: float, shown: str) -> None:
    """Whole per cent, also above a hundred; one digit below one."""
    counts = pd.DataFrame({"good": [9], "total": [10]}, index=pd.DatetimeIndex([START]))
    incident = {"id": "x", "kind": "availability", "start": START, "end": START, "budget_share": share}

    assert texts(figures.thirty_days(counts, [incident]))[1] == shown


@pytest.mark.parametrize("bad", [pd.DataFrame(), pd.DataFrame({"good": [1]})])
def test_counts_of_another_shape_are_refused(bad: pd.DataFrame) -> None:
    """The message says what is needed and what came."""
    with pytest.raises(ValueError, match=r"columns good and total, got \d"):
        figures.thirty_days(bad)


def test_the_style_is_put_back() -> None:
    """A block leaves the settings as they were."""
    before = mpl.rcParams["axes.grid"], mpl.rcParams["axes.spines.top"]
    with style.context():
        assert mpl.rcParams["axes.spines.top"] is False
    assert (mpl.rcParams["axes.grid"], mpl.rcParams["axes.spines.top"]) == before


def test_use_sets_the_style_for_good() -> None:
    """Until someone sets another."""
    with mpl.rc_context():
        style.use()
        assert mpl.rcParams["axes.titlelocation"] == "left"
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"][0] == style.COLOURS["blue"]


def test_a_threshold_is_labelled_where_it_is_asked() -> None:
    """Above or below the line, at the left or at the right."""
    ax = style.new_axes()
    style.threshold(ax, 3, "limit")
    style.threshold(ax, 4, "other", above=False, right=True)

    assert [(one.get_text(), one.get_va(), one.get_ha()) for one in ax.texts] == [
        ("limit", "bottom", "left"),
        ("other", "top", "right"),
    ]
    assert [line.get_ydata()[0] for line in ax.get_lines()] == [3, 4]


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_can_be_read_on_white() -> None:
    """Colours that carry text have a contrast of at least 4.5 to 1."""
    for name in ("ink", "grey", "blue"):
        assert 1.05 / (_luminance(style.COLOURS[name]) + 0.05) > 4.4, name
