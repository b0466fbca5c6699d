"""The dashboard's source, its arithmetic and its drawing, without a lab."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, UnknownName
from labkit.observe import dashboards, drawing
from labkit.observe.dashboards import operations
from labkit.observe.dashboards.questions import QUESTIONS, answers
from labkit.observe.panels import (
    Step,
    Style,
    boundaries,
    expand,
    format_value,
    interval_s,
    parse_panels,
    rate_interval_s,
    variables_of,
)
from labkit.observe.readings import Collected, PanelData, Series, readings
from labkit.settings import files_root

mpl.use("agg")

from matplotlib import pyplot as plt

END = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = END - timedelta(minutes=15)
OPERATIONS = dashboards.load("operations")
TITLES = [
    "Service Health Overview",
    "Request Rate",
    "Error Rate",
    "Response Time (95th percentile)",
    "System Resources",
    "Database Performance",
    "Business Metrics",
]


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def line(name: str, values: list[float], style: Style) -> Series:
    """A series over the quarter of an hour."""
    index = pd.date_range(START, END, periods=len(values), name="time")
    return Series(name, pd.Series(values, index=index, dtype=float), style)


def collected(values: dict[str, dict[str, list[float]]]) -> Collected:
    """The operations dashboard with these series per panel; panels that are not named have none."""
    panels = [
        PanelData(panel, tuple(line(n, v, panel.style_of(n)) for n, v in values.get(panel.title, {}).items()))
        for panel in parse_panels(OPERATIONS)
    ]
    return Collected("Test", START, END, tuple(panels))


def test_the_generated_files_are_what_the_definitions_make() -> None:
    """`python -m labkit.observe.dashboards` would change nothing, and there is no file without a definition."""
    made = dashboards.generate()

    assert {path.name: path.read_text(encoding="utf-8") for path in dashboards.folder().iterdir()} == dict(made)
    assert dashboards.names() == [name.removesuffix(".json") for name in sorted(made)]


def test_the_seven_panels_are_there_with_units_and_descriptions() -> None:
    """In reading order, on Grafana's grid of 24 columns, without overlap; the uid never changes."""
    panels = parse_panels(OPERATIONS)
    cells = [(x + i, y + j) for x, y, w, h in (panel.box for panel in panels) for i in range(w) for j in range(h)]

    assert OPERATIONS["uid"] == operations.UID == "labkit-operations"
    assert [panel.title for panel in panels] == TITLES
    assert all(panel.description and panel.style.unit for panel in panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_query_aggregates_the_instance_away() -> None:
    """No query keeps `instance`, takes a rate of a sum, or a quantile of what was not summed by `le`."""
    queries = [target.expr for panel in parse_panels(OPERATIONS) for target in panel.targets]

    assert [q for q in queries if "instance" in q] == []
    assert [q for q in queries if "rate(sum" in q.replace(" ", "")] == []
    assert all("sum by (le) (rate(" in q for q in queries if "histogram_quantile" in q)
    assert all("[$__rate_interval]" in q for q in queries if "rate(" in q)


def test_every_link_names_a_runbook_of_an_alert() -> None:
    """By a variable, so that there is one address to set; the alert rules name the same files."""
    links = {url for panel in parse_panels(OPERATIONS) for _, url in panel.links}
    rules = sorted((files_root() / "infra" / "prometheus" / "rules").glob("*.yml"))
    named = {
        found for path in rules for found in re.findall(r"infra/runbooks/\w+\.md", path.read_text(encoding="utf-8"))
    }

    assert len(links) >= 5
    assert all(re.fullmatch(r"infra/runbooks/\w+\.md", url) for url in links)
    assert links <= named
    assert [url for url in sorted(links) if not (files_root() / url).is_file()] == []


def test_an_unknown_dashboard_is_named_with_the_nearest() -> None:
    """A slip of the keyboard gets an answer that helps."""
    with pytest.raises(UnknownName, match="did you mean 'operations'"):
        dashboards.load("operation")


@pytest.mark.parametrize(
    ("range_s", "least_s", "interval"),
    [(900, 5, 5), (3600, 5, 5), (6 * 3600, 5, 30), (86_400, 5, 120), (30 * 86_400, 60, 3600), (60, 15, 15)],
)
def test_the_interval_is_rounded_as_grafana_rounds(range_s: float, least_s: float, interval: float) -> None:
    """The range over 500 points, then the table of round intervals; never below the scrape interval."""
    assert interval_s(range_s, least_s=least_s) == interval


@settings(max_examples=60, derandomize=True)
@given(st.floats(1, 1e8), st.sampled_from([1.0, 5.0, 15.0, 60.0]))
def test_a_rate_always_has_samples_and_leaves_nothing_out(range_s: float, scrape_s: float) -> None:
    """The window holds four scrapes at least, and overlaps the step by a scrape."""
    interval = interval_s(range_s, least_s=scrape_s)
    window = rate_interval_s(interval, scrape_s)

    assert window >= 4 * scrape_s
    assert window >= interval + scrape_s


def test_variables_are_filled_in() -> None:
    """Both ways of writing them, with Grafana's own; one without a value is an error that lists the others."""
    text = expand(
        'rate(a{s=~"$s",t="${t}"}[$__rate_interval]) # $__interval', {"s": "x", "t": "y"}, interval=30, scrape_s=5
    )

    assert text == 'rate(a{s=~"x",t="y"}[35s]) # 30s'
    assert variables_of(OPERATIONS)["service"] == "gateway"
    with pytest.raises(ConfigInvalid, match=r"\$nobody has no value; known: .*__rate_interval, s"):
        expand("a{b='$nobody'}", {"s": ""}, interval=5, scrape_s=5)


def test_a_panel_that_lacks_something_is_refused() -> None:
    """All that is missing is listed."""
    broken = {"title": "x", "panels": [{"title": "a", "gridPos": {"x": 0}}, {"id": 3, "targets": [1]}]}

    with pytest.raises(ConfigInvalid, match="3 mistakes") as caught:
        parse_panels(broken)
    assert "panel 'a' lacks `targets`" in str(caught.value)


def test_steps_that_rise_and_steps_that_fall_say_so() -> None:
    """Where it becomes worse is named, whichever way."""
    rising = [Step(None, "ok"), Step(0.01, "warning"), Step(0.05, "critical")]
    falling = [Step(None, "critical"), Step(20, "warning"), Step(50, "ok")]

    assert [(at, words) for at, _, words in boundaries(rising)] == [(0.01, "warning from"), (0.05, "critical from")]
    assert [(at, words) for at, _, words in boundaries(falling)] == [(20, "critical below"), (50, "warning below")]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0213, "percentunit", "2.13 %"),
        (12.5, "percentunit", "1250 %"),
        (0.9996, "s", "1 s"),
        (1234.5, "short", "1,234"),
        (17.0, "ops", "17/s"),
        (math.nan, "s", "no data"),
    ],
)
def test_values_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    """Three digits; nothing is "no data" and not 0."""
    assert format_value(value, unit) == text


def test_since_is_when_it_stopped_being_ok() -> None:
    """The beginning of the present run, not the first time ever; the start when it always was bad; None when ok."""
    style = Style("percentunit", (Step(None, "ok"), Step(0.05, "critical")), lines=True)
    again = line("a", [0.1, 0, 0.2, 0.3], style)

    assert again.since == START + timedelta(minutes=10)
    assert line("a", [0.1, 0.2], style).since == START
    assert line("a", [0.2, 0.0], style).since is None
    assert line("a", [0.0, math.nan], style).state == "unknown"


def test_readings_have_a_row_for_a_panel_without_data() -> None:
    """Otherwise its silence would look like health."""
    frame = readings(collected({"Error Rate": {"all": [0, 0.5]}})).set_index("panel")

    assert frame.loc["Error Rate", ["series", "reading", "state"]].tolist() == ["all", "50 %", "critical"]
    assert frame.loc["Request Rate", ["reading", "state"]].tolist() == ["no data", "unknown"]


def test_the_questions_are_answered_from_the_readings() -> None:
    """Yes with the series that say so, no when all is well, unknown without data; each names a panel that exists."""
    frame = readings(
        collected(
            {
                "Error Rate": {"all": [0, 0.02], "POST /checkout/{user}": [0.0, 0.5], "GET /products": [0.0, 0.0]},
                "Business Metrics": {"active users": [3, 3], "orders/min": [75.0, 70.0]},
            }
        )
    )
    said = answers(frame).set_index("question")["answer"].tolist()

    assert said == ["unknown", "yes", "unknown", "unknown", "no"]
    assert answers(frame).loc[1, "because"] == "all 2 %; POST /checkout/{user} 50 %"
    assert {title for one in QUESTIONS for title in one.panels} <= set(TITLES)


def everything() -> Collected:
    """A value in every panel, some of them bad; eleven endpoints, more than can be named."""
    many = {f"GET /endpoint/{i}": [0.0, 0.001 * i, 0.01 * i] for i in range(11)}
    return collected(
        {
            "Service Health Overview": {"catalog": [1, 0.5], "cart": [1, 1]},
            "Request Rate": many,
            "Error Rate": many,
            "Response Time (95th percentile)": {"95th percentile": [0.1, math.nan, 0.4], "50th percentile": [0.01] * 3},
            "Database Performance": {"waiting callers": [0, 9], "queries/s": [17.0, 90.0]},
            "Business Metrics": {"active users": [40, 40], "orders/min": [75, 10]},
        }
    )


def test_the_figure_shows_every_panel_with_its_state() -> None:
    """A thousand pixels wide, titled, with a named time axis; a panel without data says so."""
    figure = drawing.draw_collected(everything())
    words = [text.get_text() for ax in figure.axes for text in ax.texts]

    assert [ax.get_title(loc="left") for ax in figure.axes] == TITLES
    assert round(figure.get_figwidth() * figure.dpi) == 1000
    assert "no data" in words
    assert "✗ critical" in words
    assert {"critical from 5 %", "waiting callers: critical from 5", "orders/min: warning below 50"} <= set(words)
    assert [ax.get_xlabel() for ax in figure.axes][-2:] == ["time (UTC)", "time (UTC)"]


def test_nothing_overlaps_and_nothing_leaves_the_picture() -> None:
    """Names beside lines keep apart, and all words lie within the figure."""
    figure = drawing.draw_collected(everything())
    figure.canvas.draw()
    for ax in figure.axes[1:]:
        names = [text for text in ax.texts if "  " in text.get_text()]
        boxes = sorted((text.get_window_extent() for text in names), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes)), ax.get_title(loc="left")
        extents = [text.get_window_extent() for text in (*ax.texts, ax.yaxis.label, ax.xaxis.label) if text.get_text()]
        assert all(box.x0 >= 0 and box.x1 <= 1001 and box.y0 >= 0 for box in extents), ax.get_title(loc="left")


@settings(max_examples=80, derandomize=True)
@given(st.lists(st.floats(0, 100), max_size=8))
def test_names_are_spread_in_order_and_within_bounds(wanted: list[float]) -> None:
    """Falling, a gap apart, inside as long as they fit."""
    placed = drawing.spread(sorted(wanted, reverse=True), 10, low=0, high=100)

    assert all(high - low >= 10 - 1e-6 for high, low in itertools.pairwise(placed))
    assert all(-1e-6 <= one <= 100 + 1e-6 for one in placed)


def test_the_words_say_what_the_picture_shows() -> None:
    """Every panel, the state of each, since when, and the runbook of what is wrong."""
    text = drawing.describe_collected(everything())

    assert [row.partition(":")[0].partition(" (")[0] for row in text.splitlines()[1:]] == [
        title.partition(" (")[0] for title in TITLES
    ]
    assert "catalog 50 %, warning since 12:00:00" in text
    assert "System Resources: no data." in text
    assert "orders/min 10, critical since" in text
    assert ".md." in text


def test_an_empty_dashboard_is_an_empty_figure() -> None:
    """Nothing to show is no error."""
    figure = drawing.draw_collected(Collected("Empty", START, END, ()))

    assert figure.axes == []
    assert drawing.describe_collected(Collected("Empty", START, END, ())).startswith("Empty, 2026-03-01")


def test_grafana_is_provisioned_with_the_uid_that_the_panels_ask() -> None:
    """The data source of every target is the one that infra/grafana/provisioning makes."""
    import yaml

    path = files_root() / "infra" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    asked: list[Any] = [target["datasource"]["uid"] for panel in OPERATIONS["panels"] for target in panel["targets"]]

    assert set(asked) == {source["uid"]}
    assert json.loads(operations.to_json())["refresh"] == "30s"
    assert np.isclose(float(source["jsonData"]["timeInterval"].removesuffix("s")), 5)
