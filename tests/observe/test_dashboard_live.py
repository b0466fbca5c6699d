"""The operations dashboard on a live lab: every query has data, and a person on call finds what was broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
import pytest

from labkit._wait import wait_until
from labkit.errors import NoData
from labkit.observe import dashboards, drawing
from labkit.observe.dashboards.questions import QUESTIONS, answers
from labkit.observe.panels import Target, expand, parse_panels, variables_of
from labkit.observe.readings import collect, readings
from labkit.stack.progress import silent

mpl.use("agg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from labkit.lab import Lab

pytestmark = pytest.mark.live

OPERATIONS = dashboards.load("operations")
TARGETS = [(panel.title, target) for panel in parse_panels(OPERATIONS) for target in panel.targets]
DOWN, FAILING, SLOW, USED_UP, BUSINESS = (one.asks for one in QUESTIONS)
FAULT_FOR_S = 120


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title}-{one.ref}" for title, one in TARGETS])
def test_every_query_of_every_panel_has_data(lab: Lab, title: str, target: Target) -> None:
    """As Grafana would send it, now; a number, not NaN."""
    promql = expand(target.expr, variables_of(OPERATIONS), interval=5, scrape_s=5)

    frame = wait_until(
        lambda: lab.prometheus.query(promql),
        f"{title}, query {target.ref}, has data",
        timeout_s=40,
        every_s=1,
        ready=lambda found: bool(found["value"].notna().any()),
        tolerate=(NoData,),
    )
    assert len(frame) >= 1


def asked(lab: Lab) -> pd.DataFrame:
    """What the dashboard says now: the answers to the five questions, by question."""
    now = lab.now()
    found = collect(OPERATIONS, lab.prometheus, now - timedelta(minutes=3), now)
    return answers(readings(found)).set_index("question")


def matches(said: pd.DataFrame, expected: Mapping[str, str | None]) -> dict[str, Any]:
    """The questions whose answer is not the one expected: None for no, else a name among the reasons."""
    return {
        question: tuple(said.loc[question, ["answer", "because"]])
        for question, name in expected.items()
        if not (
            said.loc[question, "answer"] == "no"
            if name is None
            else said.loc[question, "answer"] == "yes" and name in said.loc[question, "because"]
        )
    }


def wait_for_answers(lab: Lab, expected: Mapping[str, str | None], what: str) -> pd.DataFrame:
    """Until the dashboard gives these answers; returns them."""
    wait_until(
        lambda: matches(asked(lab), expected),
        what,
        timeout_s=60,
        every_s=1,
        ready=lambda wrong: not wrong,
    )
    return asked(lab)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        pytest.param(
            [("error", "gateway", {"endpoint": "/checkout/{user}", "share": 1})],
            {DOWN: None, FAILING: "POST /checkout/{user}", BUSINESS: "orders/min"},
            id="checkouts-fail",
        ),
        pytest.param(
            [
                ("hang", "payments-2", {"endpoint": "*"}),
                ("latency", "catalog", {"ms": 600}),
                ("cpu", "worker", {"share": 1}),
            ],
            {DOWN: "payments 50 %", SLOW: "95th percentile", USED_UP: "process"},
            id="one-replica-hangs-another-is-slow-a-third-burns",
        ),
    ],
)
def test_the_questions_find_what_was_broken(
    lab: Lab, faults: list[tuple[str, str, dict[str, Any]]], expected: Mapping[str, str | None]
) -> None:
    """
    Each question that a fault touches is answered yes and names the place; one that it does not touch stays no.

    What burns shows as the busiest process, or as the machine where others take their share of it.
    """
    before = lab.now()
    try:
        for fault, on, parameters in faults:
            lab.shop.inject(fault, on=on, for_s=FAULT_FOR_S, **parameters)
        said = wait_for_answers(lab, expected, "the dashboard shows the fault")
    finally:
        for fault, on, _ in faults:
            lab.shop.undo(fault, on=on)
        lab.reset(progress=silent)

    since = said.loc[[question for question, name in expected.items() if name], "since"]
    assert (since >= pd.Timestamp(before - timedelta(minutes=3))).all()


def test_the_lab_is_drawn_from_the_same_json(lab: Lab) -> None:
    """Seven panels with lines or tiles, and the words for them."""
    now = lab.now()
    figure = drawing.draw(OPERATIONS, lab.prometheus, now - timedelta(minutes=15), now)
    text = drawing.describe(OPERATIONS, lab.prometheus, now - timedelta(minutes=15), now)

    assert len(figure.axes) == 7
    assert all(ax.get_lines() for ax in figure.axes[1:])
    assert "no data" not in text
    assert "catalog" in text.splitlines()[1]


def test_the_past_has_its_own_grid(lab: Lab) -> None:
    """A week ago samples are a minute apart: rates are taken over windows that hold four of them."""
    end = lab.now() - timedelta(days=7)
    found = collect(OPERATIONS, lab.prometheus, end - timedelta(hours=2), end)

    errors = found.panel("Error Rate").series
    assert {one.name for one in errors} >= {"all", "POST /checkout/{user}"}
    assert all(one.values.notna().all() for one in errors)
    assert found.panel("Database Performance").series == ()
