"""
Notebook 02, a rehearsal: checkouts fail for a minute and a half, one alert fires, and stops by itself.

    drill = rehearse(lab, share=1.0, for_s=84)     fail checkouts on purpose, and say when it began and ended
    until_reset(lab, drill)                        wait for what the alerts make of it
    held(lab)                                      how much of each window is used up already
    room(lab)                                      error-minutes that make the fast alert fire and no other

The minutes of an outage count as *error-minutes*: a minute in which every second checkout fails is half of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from labkit._wait import wait_until
from labkit.course import ex02_world as world
from labkit.course.ex02_world import kind_of
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import harm_done, ready_components
from labkit.errors import NoData
from labkit.slo.model import Slo
from labkit.slo.rules import FAST_BURN, Burn, Plan, plan, promql_duration, ratio_name
from labkit.stack.progress import printer, step

__all__ = ["DRILL", "Outage", "firings", "held", "last_drill", "rehearse", "room", "until_reset"]

RESET_S = 360
_STEP_S = 5
# A scrape, the rules after it, and the time that a busy machine takes for both.
_LATE_S = 45
_AGO_S = 55 * 60
_STATUS = 500
# So many times the least outage that the fast alert sees must fit into the other windows: six requests more or less
# are a matter of chance.
_ROOM = 1.5


@dataclass(frozen=True, slots=True)
class Outage:
    """When checkouts failed on purpose: aware instants, UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Seen:
    """One alert since an instant: its rule, and when it fired; `end` is NaT while it does."""

    burn: Burn
    spans: pd.DataFrame


def the_plan() -> Plan:
    """What is recorded and alerted for the promise about checkouts."""
    return plan(world.checkout())


def held(lab: Any, at: datetime | None = None) -> pd.DataFrame:
    """
    How near each alert is, in error-minutes.

    Args:
        lab: a lab that is up.
        at: aware instant; now if None.

    Returns:
        One row per alert, index `long` (the long window: "1h"): `alert`, `severity`, `crosses_at_min` (error-minutes
        in the window at which it fires), `held_min` (error-minutes that are in it) and `left_min`.
    """
    made = the_plan()
    rows = [
        (promql_duration(burn.alert.long_s), burn, _ratio(lab, made.slo, burn.alert.long_s, at)) for burn in made.burns
    ]
    frame = pd.DataFrame(
        {
            "alert": [burn.name for _, burn, _ in rows],
            "severity": [burn.alert.severity for _, burn, _ in rows],
            "crosses_at_min": [burn.threshold * burn.alert.long_s / 60 for _, burn, _ in rows],
            "held_min": [ratio * burn.alert.long_s / 60 for _, burn, ratio in rows],
        },
        index=pd.Index([long for long, _, _ in rows], name="long"),
    )
    return frame.assign(left_min=frame["crosses_at_min"] - frame["held_min"])


def room(lab: Any, at: datetime | None = None) -> tuple[float, float]:
    """
    The least and the most error-minutes of an outage that makes the fast-burn alert fire and no other.

    Args:
        lab: a lab that is up.
        at: aware instant before the outage; now if None.

    Returns:
        Both in error-minutes.  When earlier outages have filled the longer windows, the most is below the least: then
        there is no such outage until they are forgotten.
    """
    table, fast = held(lab, at), the_plan().burns[0]
    left = table.set_index("alert", append=True)["left_min"]
    short = fast.threshold * (fast.alert.short_s or 0) / 60
    return max(short, float(left.xs(FAST_BURN, level="alert").iloc[0])), float(
        left.drop(FAST_BURN, level="alert").min()
    )


def _ratio(lab: Any, slo: Slo, window_s: int, at: datetime | None = None) -> float:
    return float(lab.prometheus.value(slo.sli.error_ratio(promql_duration(window_s)), at))


def rehearse(lab: Any, *, share: float, for_s: float) -> Outage:
    """
    Fail a *share* of checkouts at the gateway for *for_s* seconds, and return when that was.

    Waits first until the fast-burn alert does not fire from an earlier outage: one that fires already wakes nobody
    again.  The fault ends by itself, and at once when the cell is interrupted.

    Args:
        lab: a lab that is up.
        share: fraction of checkouts that fail, above 0 and at most 1.
        for_s: length, in seconds.

    Raises:
        NotReady: an earlier outage keeps the alert firing for more than seven minutes.
        InvalidValue: *share* or *for_s* is out of the fault's bounds.
    """
    wait_until(
        lambda: _fires(lab),
        "no earlier outage keeps the fast-burn alert firing",
        timeout_s=420,
        every_s=2,
        ready=lambda fires: not fires,
        how="Is a fault still in force? `lab.reset()` ends all of them.",
    )
    start = lab.now()
    lab.shop.inject("error", on="gateway", endpoint=world.ENDPOINT, status=_STATUS, share=share, for_s=for_s)
    try:
        with step(printer(), f"fail {share:.0%} of the checkouts for {for_s:g} s"):
            wait_until(
                lambda: not lab.shop.faults("gateway")["gateway"],
                "the fault is over",
                timeout_s=for_s + 30,
                every_s=0.5,
            )
    finally:
        lab.shop.undo("error", on="gateway")
    return Outage(start, lab.now())


def _fires(lab: Any) -> bool:
    """Whether the fast-burn alert fires, by the rules, or is about to, by the counters."""
    made = the_plan()
    fast = made.burns[0]
    alerts = lab.prometheus.alerts()
    if any(made.slo.name == labels.get("slo") for labels in alerts.loc[alerts["name"] == fast.name, "labels"]):
        return True
    lengths = (fast.alert.long_s, fast.alert.short_s or fast.alert.long_s)
    return all(_ratio(lab, made.slo, length) > fast.threshold for length in lengths)


def last_drill(lab: Any) -> Outage | None:
    """
    The latest rehearsal in the last 55 minutes that made the fast-burn alert fire; None if there is none.

    Rehearsed failures have the status 500; what fails because something is down or busy has others.

    An hour remembers: failing checkouts again within it would cost more budget and show less.
    """
    now = lab.now()
    failures = _failures(lab, now)
    if failures.empty:
        return None
    gap = failures["since"] - failures["time"].shift() > pd.Timedelta(seconds=60)
    last = failures[gap.cumsum() == gap.cumsum().iloc[-1]]
    found = Outage(last["since"].iloc[0].to_pydatetime(), last["time"].iloc[-1].to_pydatetime())
    fast = _seen(lab, the_plan().burns[0], found.start, now).spans
    return found if (fast["start"] > pd.Timestamp(found.start)).any() else None


def _failures(lab: Any, now: datetime) -> pd.DataFrame:
    """Scrapes that found more checkouts failed on purpose than the one before: `since` (the one before) and `time`."""
    labels = f'job="shop",service="gateway",endpoint="{world.ENDPOINT}",status="{_STATUS}",instance!="seeded"'
    try:
        samples = lab.prometheus.query(f"http_requests_total{{{labels}}}[{_AGO_S}s]", now)
    except NoData:
        return pd.DataFrame({"since": [], "time": []})
    failed = samples.groupby("time")["value"].sum().sort_index()
    grown = failed.diff().fillna(failed.iloc[0] if failed.index[0] > now - timedelta(seconds=_AGO_S - 60) else 0) > 0
    times = pd.Series(failed.index, index=failed.index)
    since = times.shift().fillna(times - pd.Timedelta(seconds=_STEP_S))
    return pd.DataFrame({"since": since[grown], "time": times[grown]})


def firings(lab: Any, since: datetime) -> pd.DataFrame:
    """
    When the burn-rate alerts about checkouts fired since an instant, as Prometheus recorded it.

    Returns:
        One row per firing: `alert, long, severity, start, end`; `end` is NaT while it fires.  Empty when none did.
    """
    rows = [
        (one.burn.name, promql_duration(one.burn.alert.long_s), one.burn.alert.severity, span.start, span.end)
        for one in (_seen(lab, burn, since, lab.now()) for burn in the_plan().burns)
        for span in one.spans.itertuples()
    ]
    return pd.DataFrame(rows, columns=["alert", "long", "severity", "start", "end"])


def _seen(lab: Any, burn: Burn, since: datetime, now: datetime) -> _Seen:
    slo, long = world.checkout(), promql_duration(burn.alert.long_s)
    labels = f'alertname="{burn.name}",slo="{slo.name}",service="{slo.service}",long="{long}",alertstate="firing"'
    try:
        found = lab.prometheus.query_range(f"max(ALERTS{{{labels}}})", since, now, step_s=_STEP_S)
    except NoData:
        never = pd.DatetimeIndex([], tz="UTC")
        return _Seen(burn, pd.DataFrame({"start": never, "end": never}))
    on = found.notna().any(axis=1).to_numpy()
    edges = np.diff(np.concatenate([[False], on, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    # One instant beyond the last: a firing that has not ended ends at NaT.
    instants = pd.DatetimeIndex([*found.index, pd.NaT])
    return _Seen(burn, pd.DataFrame({"start": instants[starts], "end": instants[stops]}))


def until_reset(lab: Any, drill: Outage, *, timeout_s: float = 420) -> pd.DataFrame:
    """
    Wait until the fast-burn alert has fired after the start of *drill* and is over; return all firings since.

    Returns:
        As `firings`.  When nothing fired within 45 s after the end of the outage there is nothing to wait for: empty.

    Raises:
        NotReady: it still fires *timeout_s* seconds from now.
    """

    def state() -> tuple[bool, pd.DataFrame]:
        seen = firings(lab, drill.start)
        fast = seen[seen["alert"] == FAST_BURN]
        too_late = fast.empty and lab.now() > drill.end + timedelta(seconds=_LATE_S)
        return too_late or (len(fast) > 0 and bool(fast["end"].notna().all())), seen

    what = "the fast-burn alert fired and is over"
    with step(printer(), f"wait until {what}"):
        return wait_until(state, what, timeout_s=timeout_s, every_s=2, ready=lambda found: found[0])[1]


def _destroyed(exercise: Bound, made: Plan) -> Iterator[str]:
    """What was taken away so that nothing could ring, or nothing could fail."""
    harmed = harm_done(exercise)
    if harmed:
        yield harmed
    rules = exercise.lab.prometheus.rules()
    queries = rules[rules["kind"] == "alerting"][["name", "query"]].itertuples(index=False)
    alerts = [(name, query) for name, query in queries if f'slo="{made.slo.name}"' in query]
    for burn in made.burns:
        series, long = ratio_name(burn.alert.long_s), promql_duration(burn.alert.long_s)
        there = [query for name, query in alerts if name == burn.name and f"{series}{{" in query]
        if not there:
            yield (
                f"The alert `{burn.name}` over {long} is not among the rules in force: what was taken away cannot "
                "ring. `lab.slo.load()` brings it back."
            )
        elif not any(f"> {burn.threshold!r}" in query for query in there):
            yield (
                f"The alert `{burn.name}` over {long} has another threshold than its specification says. "
                "`lab.slo.load()` puts it right."
            )
    silences = exercise.lab.alertmanager.silences()
    for matchers in silences.loc[silences["state"] == "active", "matchers"]:
        if _holds_back(matchers, {"alertname": FAST_BURN, "severity": "critical", **made.labels}):
            yield (
                f"A silence ({matchers}) is in force: the alert fires, and nobody hears it. "
                "`lab.alertmanager.expire_all()` ends it."
            )


def _holds_back(matchers: str, labels: dict[str, str]) -> bool:
    """Whether a silence could mean an alert with these labels: no label of the alert contradicts it."""
    equal = re.findall(r'(\w+)="([^"]*)"', matchers)
    return all(labels.get(name, value) == value for name, value in equal)


def _judge_drill(exercise: Bound, answer: Any) -> Verdict:
    made = the_plan()
    objection = next(_destroyed(exercise, made), None)
    if objection is None and not isinstance(answer, Outage):
        objection = f"Your answer is {kind_of(answer)}; what `drills.rehearse(…)` returned is expected."
    if objection is None:
        objection = next(_shortfalls(exercise.lab, made, answer), None)
    if objection:
        return not_yet(objection)
    fired = firings(exercise.lab, answer.start)
    fast = fired[fired["alert"] == FAST_BURN].iloc[0]
    others = sorted({f"{long}" for long in fired.loc[fired["alert"] != FAST_BURN, "long"]})
    told = f"over {' and '.join(others)} too, which earlier outages had left no room" if others else "no other did"
    return correct(
        f"{_error_minutes(exercise.lab, made.slo, answer):.2f} error-minutes: the fast-burn alert fired "
        f"{_after_s(fast['start'], answer.start):.0f} s after the first failure, {told}, and it was over "
        f"{_after_s(fast['end'], answer.end):.0f} s after the last."
    )


def _after_s(later: pd.Timestamp, earlier: datetime) -> float:
    return (later - pd.Timestamp(earlier)).total_seconds()


def _shortfalls(lab: Any, made: Plan, drill: Outage) -> Iterator[str]:
    """Why the rehearsal did not do what it should, the first reason first."""
    fired, minutes = firings(lab, drill.start), _error_minutes(lab, made.slo, drill)
    before = held(lab, drill.start)
    fast = fired[fired["alert"] == FAST_BURN]
    if minutes == 0:
        yield "No checkout failed between the start and the end of your outage; was the fault undone before it began?"
    if fast.empty:
        row = before.loc[promql_duration(made.burns[0].alert.long_s)]
        yield (
            f"Nothing fired. Your outage was {minutes:.2f} error-minutes, and the hour held {row['held_min']:.2f} "
            f"before it; the fast-burn alert crosses at {row['crosses_at_min']:.3f}."
        )
        return
    if (fast["start"] <= pd.Timestamp(drill.start) + pd.Timedelta(seconds=_STEP_S)).any():
        yield (
            "The fast-burn alert was firing when your outage began, from an earlier one: nobody is woken twice. Wait "
            "until it is over, then rehearse again."
        )
    least, _ = room(lab, drill.start)
    for name, long in fired.loc[fired["alert"] != FAST_BURN, ["alert", "long"]].to_numpy():
        left = float(before["left_min"][long])
        # An alert that earlier outages left without room for this exercise says nothing about this outage.
        if left > _ROOM * least:
            yield (
                f"`{name}` over {long} fired too: your outage was {minutes:.2f} error-minutes, and that window had "
                f"room for {left:.2f}. Which outage does only the fast one see?"
            )
    if fast["end"].isna().any():
        ago = (lab.now() - drill.end).total_seconds()
        yield (
            f"The alert still fires, {ago:.0f} s after your outage: its short window of five minutes holds failures "
            "yet. Check again when it is over."
        )
    late_s = _after_s(fast["end"].max(), drill.end)
    if late_s > RESET_S:
        yield f"The alert was over {late_s:.0f} s after your outage, and {RESET_S} s is the limit. What failed later?"


def _error_minutes(lab: Any, slo: Slo, drill: Outage) -> float:
    """Error-minutes of the outage: the share that failed, times how long it was; from whole counts."""
    # Two scrapes more: the last failures are seen after the end.
    span_s = max(6 * _STEP_S, round((drill.end - drill.start).total_seconds()) + 2 * _STEP_S)
    at = drill.end + timedelta(seconds=2 * _STEP_S)
    return _ratio(lab, slo, span_s, min(at, lab.now())) * span_s / 60


DRILL = Exercise(
    id="02-6",
    title="an outage that one alert sees",
    judge=_judge_drill,
    hints=(
        "Look at `drills.held(lab)`: the outage must cross the one-hour window and leave the others room.",
        "At share 1.0 an error-minute takes a minute. Between 1.2 and 1.8 of them is safe in a fresh lab.",
        "drill = drills.rehearse(lab, share=1.0, for_s=84), then drills.until_reset(lab, drill).",
    ),
    baseline=ready_components,
)
