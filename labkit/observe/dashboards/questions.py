"""
Is the dashboard usable?  Five questions that a person on call asks, each with the panel and the reading that answer it.

A dashboard is usable when every question has an answer on it without a query of one's own.  The table is data; tests
put faults into a live lab and hold the answers to what was broken.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["QUESTIONS", "Question", "answers"]

_BAD = ("warning", "critical")


@dataclass(frozen=True, slots=True)
class Question:
    """
    A question, where to look, and what to read.

    `panels` are titles; `series` are the names of the series that count, all of them when empty.  The answer is yes
    when one of them is in the state warning or critical.
    """

    asks: str
    panels: tuple[str, ...]
    series: tuple[str, ...]
    reading: str


QUESTIONS: tuple[Question, ...] = (
    Question(
        "Is anything down?",
        ("Service Health Overview",),
        (),
        "a tile below 100 % names the service; 50 % is one of two replicas; `from outside` is what customers see",
    ),
    Question(
        "Are users failing, since when, and where?",
        ("Error Rate",),
        (),
        "a line above 1 %: its name is the endpoint, where it leaves the ground is since when",
    ),
    Question(
        "Is it slow?",
        ("Response Time (95th percentile)",),
        ("95th percentile", "50th percentile"),
        "the 95th percentile above 500 ms; if the database's rises with it, it is the database that is slow",
    ),
    Question(
        "Is something used up?",
        ("System Resources", "Database Performance"),
        (),
        "a share above 90 %, or callers that wait for a connection to the database",
    ),
    Question(
        "Does the business suffer?",
        ("Business Metrics",),
        ("orders/min",),
        "orders a minute below 50, where the steady load makes about 75",
    ),
)


def answers(readings: pd.DataFrame) -> pd.DataFrame:
    """
    The answers to the five questions.

    Args:
        readings: as from `labkit.observe.readings.readings`.

    Returns:
        One row per question: `question, panel, answer` (yes, no, or unknown when there is nothing to read and nothing
        bad), `because` (the series that say so, with their readings), `since` (when the first of them began; NaT).
    """
    rows = [_answer(one, readings) for one in QUESTIONS]
    frame = pd.DataFrame(rows, columns=["question", "panel", "answer", "because", "since"])
    frame["since"] = pd.to_datetime(frame["since"], utc=True)
    return frame


def _answer(question: Question, readings: pd.DataFrame) -> tuple[str, str, str, str, object]:
    rows = readings[readings["panel"].isin(question.panels)]
    if question.series:
        rows = rows[rows["series"].isin(question.series)]
    bad = rows[rows["state"].isin(_BAD)]
    if len(bad):
        because = "; ".join(
            f"{series} {reading}" for series, reading in zip(bad["series"], bad["reading"], strict=True)
        )
        return question.asks, ", ".join(dict.fromkeys(bad["panel"])), "yes", because, bad["since"].min()
    known = rows["state"].isin(["ok"]).any()
    return question.asks, ", ".join(question.panels), "no" if known else "unknown", "", None
