"""The checks of notebook 02, four ways each: nothing done, plausible mistakes, destruction, the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from labkit.course import Outcome, ex02_world
from labkit.course.ex02 import EXERCISES
from labkit.course.ex02_alerts import quiet_month, worst_hour
from labkit.course.ex02_drill import Outage, last_drill, room
from labkit.course.ex02_govern import release_policy
from labkit.shop.history import History
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES
from labkit.slo.release import DEFAULT, ReleasePolicy, decide
from tests.course.test_four_ways import Row, unproven
from tests.course.world02 import DrillWorld, MonthWorld, minutes_ago

MINUTES = 43.2
OUTAGE_MINUTES = 0.001 * 43_200
FAST = BurnAlert(Fraction(2, 100), 3600, 300)
SLOW = BurnAlert(Fraction(2, 100), 6 * 3600, 1800)


def allowed(world: Any) -> float:
    """Checkouts that may fail, from the counts behind the history."""
    return float(0.001 * world.slo.counts(None)["total"].sum())


def prices(world: Any) -> tuple[float, float, float]:
    """The outage by requests, by minutes, by mean: a reference of its own, minute by minute."""
    incident = next(one for one in world.prometheus.past.incidents if one.id == "partial-payments")
    bad = slots = share = 0.0
    # The minute that ends at the start belongs to the time before.
    for row in world.slo.counts(None)[incident.start : incident.end].iloc[1:].itertuples():
        failing = 1 - row.good / row.total
        bad, slots, share = bad + row.total - row.good, slots + (failing > 0.05), share + failing
    return bad / allowed(world), slots / OUTAGE_MINUTES, share / OUTAGE_MINUTES


def price(change: Callable[[tuple[float, float, float]], tuple[Any, ...]]) -> Callable[[Any], tuple[Any, ...]]:
    """An answer made of the right prices."""
    return lambda world: change(prices(world))


def verdicts(world: Any, *, policy: Any = None, objective: float = 0.999, **options: Any) -> Any:
    """What `decide` returns for both changes, with whatever a learner may have changed."""
    slo = replace(ex02_world.checkout(), objective=Fraction(str(objective)))
    found = world.slo.report([slo])
    return tuple(decide(policy or release_policy(), found, change=one, **options) for one in ("feature", "fix"))


def spoil(*spells: tuple[float, float, float], gone: str = "", factor: float = 1, silence: str = "") -> Any:
    """Prepares a timeline: spells of (minutes ago, seconds, share), and what was taken away."""

    def prepare(world: Any) -> None:
        for ago, seconds, share in spells:
            world.timeline.fail(minutes_ago(ago), minutes_ago(ago) + timedelta(seconds=seconds), share)
        world.timeline.gone |= {gone}
        world.timeline.factor = factor
        if silence:
            world.alertmanager.rows.append(("1", "active", silence))

    return prepare


def outage(ago: float, seconds: float) -> Outage:
    """An answer of exercise 6."""
    return Outage(minutes_ago(ago), minutes_ago(ago) + timedelta(seconds=seconds))


def everything_goes() -> ReleasePolicy:
    """A policy of somebody in a hurry."""
    return ReleasePolicy("mine", DEFAULT.steps[-1:])


MONTH_ROWS = [
    Row("02-1", "nothing", "stub", ..., "Replace the dots"),
    Row("02-1", "wrong", "a cause", {"processor", "checkouts answered"}, "`processor` is a cause"),
    Row("02-1", "wrong", "the whole shop", {"all answered"}, "over 30 days 0.078% of all failed, and 0.117% of the"),
    Row("02-1", "wrong", "the customer's fault", ["checkouts sold"], "customers' mistakes would spend your budget"),
    Row("02-1", "wrong", "a quantile", {"95th percentile"}, "a number of seconds and not a share"),
    Row("02-1", "wrong", "a replica", {"payments up"}, "whether a replica answers its scrape"),
    Row("02-1", "wrong", "only answered", {"checkouts answered"}, "A checkout that takes ten seconds"),
    Row("02-1", "wrong", "only in time", {"checkouts in time"}, "A checkout that fails within a millisecond"),
    Row("02-1", "wrong", "unknown", {"uptime"}, "There is no candidate 'uptime'"),
    Row("02-1", "wrong", "none", set(), "Your set is empty"),
    Row("02-1", "wrong", "text", "checkouts answered", "Your answer is a str"),
    Row("02-1", "right", "reference", ("checkouts in time", "checkouts answered"), "seen where the customer is"),
    Row("02-2", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("02-2", "wrong", "half", (MINUTES, ...), "`may_fail` still has its dots"),
    Row("02-2", "wrong", "one number", MINUTES, "checked as (outage_min, may_fail)"),
    Row("02-2", "wrong", "ten days", (14.4, 1), "14.4 minutes, which is less than half of what the arithmetic says"),
    Row("02-2", "wrong", "seconds", (60 * MINUTES, 1), "is in seconds"),
    Row("02-2", "wrong", "hours", (MINUTES / 60, 1), "is in hours"),
    Row("02-2", "wrong", "a year", (525.6, 1), "is for a year"),
    Row("02-2", "wrong", "a day", (1.44, 1), "is for a day"),
    Row("02-2", "wrong", "uptime", (43_156.8, 1), "is how long it must work"),
    Row("02-2", "wrong", "percent", (4320, 1), "`outage_min`: 4,320 takes 0.1 for a tenth of a percent"),
    Row("02-2", "wrong", "four nines", (4.32, 1), "is what 99.99 % allows"),
    Row("02-2", "wrong", "all", lambda w: (MINUTES, 1000 * allowed(w)), "is all checkouts"),
    Row("02-2", "wrong", "good ones", lambda w: (MINUTES, 999 * allowed(w)), "is how many must go well"),
    Row("02-2", "wrong", "percent of checkouts", lambda w: (MINUTES, 100 * allowed(w)), "`may_fail`: 321,808 takes"),
    Row("02-2", "wrong", "all requests", lambda w: (MINUTES, 8 * allowed(w)), "is for requests of all kinds"),
    Row("02-2", "wrong", "what failed", lambda w: (MINUTES, 1.165 * allowed(w)), "is how many failed last month"),
    Row("02-2", "right", "reference", lambda w: (MINUTES, allowed(w)), "an hour at night has fewer"),
    Row("02-3", "nothing", "stub", (..., ..., ...), "Replace the dots"),
    Row("02-3", "wrong", "mixed up", price(lambda p: (p[1], p[0], p[2])), "`by_requests`: 1.134 is `by_minutes`"),
    Row("02-3", "wrong", "percent", price(lambda p: (100 * p[0], *p[1:])), "is a percentage"),
    Row("02-3", "wrong", "minutes", price(lambda p: (p[0], 43.2 * p[1], p[2])), "`by_minutes`: 49 is in minutes"),
    Row("02-3", "wrong", "mean minutes", price(lambda p: (*p[:2], 43.2 * p[2])), "`by_mean`: 16.45 is in minutes"),
    Row("02-3", "wrong", "ratio", price(lambda p: (0.001 * p[0], *p[1:])), "is the share of all that was bad"),
    Row("02-3", "wrong", "weighed", price(lambda p: (p[0], 0.05 * p[1], p[2])), "weighs bad minutes by the bound"),
    Row("02-3", "right", "reference", prices, "One outage, three prices: 0.56, 1.13 and 0.38"),
    Row("02-4", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("02-4", "wrong", "as copied", (0.05, 0.017), "`factor_1h`: 0.05 is the share of the budget"),
    Row("02-4", "wrong", "of the workbook", (14.4, 6), "spends 2 % of the budget in an hour"),
    Row("02-4", "wrong", "days", (1.5, 12), "counts the days of the month"),
    Row("02-4", "wrong", "28 days", (33.6, 12), "belongs to a budget of 28 days"),
    Row("02-4", "wrong", "failures", (0.036, 12), "`factor_1h`: 0.036 is the share of failures at that pace"),
    Row("02-4", "wrong", "slow in the fast", (6, 12), "spends 5 % in six hours"),
    Row("02-4", "wrong", "percent", (3600, 12), "takes 5 for five percent"),
    Row("02-4", "wrong", "a hundred", (100, 12), "100 times the allowed pace, which is more than twice what the ar"),
    Row("02-4", "wrong", "forty", (40, 12), "You have 40 times the allowed pace, which is too high: the arithmetic"),
    Row("02-4", "wrong", "slow as copied", (36, 0.017), "is a share of the budget for each hour"),
    Row("02-4", "wrong", "slow share", (36, 0.1), "how often do six hours go into thirty days"),
    Row("02-4", "wrong", "slow of the workbook", (36, 6), "spends 5 % of the budget in six hours"),
    Row("02-4", "wrong", "slow in an hour", (36, 72), "spends 10 % in one hour"),
    Row("02-4", "wrong", "slow failures", (36, 0.012), "`factor_6h`: 0.012 is the share of failures at that pace"),
    Row("02-4", "right", "reference", (36, Fraction(12)), "At these paces"),
    Row("02-5", "nothing", "stub", ..., "Replace the dots"),
    Row("02-5", "wrong", "threshold", POLICIES["threshold"], "only 3% of it during an incident"),
    Row("02-5", "wrong", "patient", POLICIES["for-duration"], "slept through `outage-database`"),
    Row("02-5", "wrong", "fast only", Policy("fast", (FAST,)), "`fast` slept through `slow-burn-connections`"),
    Row("02-5", "wrong", "long windows", POLICIES["multi-burn-rate"], "rang for up to 6.0 hours after"),
    Row("02-5", "wrong", "as in the book", POLICIES["workbook"], "woke people for good reasons only, 5.4 times"),
    Row("02-5", "wrong", "a name", "workbook", "Your answer is a str; a Policy is expected"),
    Row("02-5", "destroy", "no alert", Policy("silent", ()), "makes the nights quiet by taking the bell away"),
    Row(
        "02-5",
        "destroy",
        "tickets only",
        Policy("later", (replace(FAST, severity="ticket"),)),
        "`later` has no alert that pages",
    ),
    Row(
        "02-5",
        "destroy",
        "never fires",
        Policy("deaf", (BurnAlert(Fraction(1), 600, 60),)),
        "takes the bell away in another way: page 10m/1m: can never fire",
    ),
    Row("02-5", "right", "reference", Policy("mine", (FAST, SLOW)), "100% of them right, no incident missed"),
    Row("02-7", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("02-7", "wrong", "half", lambda w: (verdicts(w)[0], ...), "`fix` is still its dots"),
    Row("02-7", "wrong", "truths", (False, True), "`feature` is a bool; what `decide(…)` returned is expected"),
    Row("02-7", "wrong", "one", True, "checked as (for_feature, for_fix)"),
    Row("02-7", "wrong", "any change", lambda w: (verdicts(w)[0],) * 2, "`fix` was decided as if it were any change"),
    Row("02-7", "wrong", "approved", lambda w: verdicts(w, approved_by="me"), "me approved, and nobody was asked"),
    Row("02-7", "destroy", "a softer objective", lambda w: verdicts(w, objective=0.99), "the one that was promised"),
    Row(
        "02-7",
        "destroy",
        "other rules",
        lambda w: verdicts(w, policy=everything_goes()),
        "rules that are changed until they allow it are no rules",
    ),
    Row(
        "02-7",
        "destroy",
        "left out",
        lambda w: tuple(replace(one, rows=()) for one in verdicts(w)),
        "an objective that is left out cannot be missed",
    ),
    Row("02-7", "right", "reference", verdicts, "The feature: deny. The fix: allow."),
    Row("02-8", "nothing", "stub", ..., "Replace the dots"),
    Row("02-8", "wrong", "events", "increase() of all events", "is a count and no number of budgets"),
    Row("02-8", "wrong", "failures", "increase() of bad events", "hardly differs from the truth"),
    Row("02-8", "wrong", "ratio", "the ratio of the two", "stretching cancels in a ratio"),
    Row("02-8", "wrong", "recorded", "average of a recorded ratio", "comes near and not to the digit"),
    Row("02-8", "wrong", "unknown", "rounding", "There is no way 'rounding'"),
    Row("02-8", "wrong", "a number", 0.94, "Your answer is a float"),
    Row("02-8", "right", "reference", "average of ratios", "a minute at night"),
    Row("02-9", "nothing", "stub", ..., "Replace the dots"),
    Row(
        "02-9",
        "wrong",
        "the worst hour",
        lambda w: [worst_hour(quiet_month(w.slo.counts(None), w.seed))],
        "1.3 times the allowed pace",
    ),
    Row("02-9", "wrong", "often", lambda w: list(w.slo.counts(None).index[:3]), "would have woken somebody 3 times"),
    Row("02-9", "wrong", "None", None, "Your answer is None; a list of instants is expected"),
    Row("02-9", "wrong", "no instant", ["dawn"], "'dawn' is not an instant"),
    Row("02-9", "right", "nothing is wrong", [], "Nobody should have been woken"),
]

DRILL_ROWS = [
    Row("02-6", "nothing", "stub", ..., "Replace the dots"),
    Row("02-6", "wrong", "a word", "done", "Your answer is a str; what `drills.rehearse(…)` returned is expected"),
    Row("02-6", "wrong", "no failure", outage(10, 80), "No checkout failed between"),
    Row("02-6", "wrong", "too little", outage(10, 30), "Your outage was 0.50 error-minutes", spoil((10, 30, 1))),
    Row("02-6", "wrong", "too much", outage(20, 180), "`SLOErrorBudgetSlowBurn` over 6h fired", spoil((20, 180, 1))),
    Row("02-6", "wrong", "too early", outage(4, 80), "still fires, 160 s after your outage", spoil((4, 80, 1))),
    Row(
        "02-6",
        "wrong",
        "rung already",
        outage(20, 60),
        "was firing when your outage began, from an earlier one",
        spoil((22, 60, 1), (20, 60, 1)),
    ),
    Row(
        "02-6",
        "wrong",
        "too much in sum",
        outage(20, 105),
        "that window had room for 1.66",
        spoil((150, 30, 1), (20, 105, 1)),
    ),
    Row(
        "02-6",
        "wrong",
        "failed on",
        outage(20, 80),
        "s after your outage, and 360 s is the limit",
        spoil((20, 80, 1), (18, 180, 0.17)),
    ),
    Row(
        "02-6",
        "destroy",
        "rule taken away",
        outage(20, 80),
        "`SLOErrorBudgetFastBurn` over 1h is not among the rules in force",
        spoil((20, 80, 1), gone="SLOErrorBudgetFastBurn"),
    ),
    Row(
        "02-6",
        "destroy",
        "the other rule taken away",
        outage(20, 180),
        "`SLOErrorBudgetSlowBurn` over 6h is not among the rules in force",
        spoil((20, 180, 1), gone="SLOErrorBudgetSlowBurn"),
    ),
    Row(
        "02-6",
        "destroy",
        "threshold moved",
        outage(20, 80),
        "has another threshold than its specification says",
        spoil((20, 80, 1), factor=2),
    ),
    Row(
        "02-6",
        "destroy",
        "silenced",
        outage(20, 80),
        'A silence (severity="critical") is in force',
        spoil((20, 80, 1), silence='severity="critical"'),
    ),
    Row(
        "02-6",
        "destroy",
        "gateway stopped",
        outage(20, 80),
        "`gateway` (STOPPED) was ready",
        lambda world: world._status.update({"state": {"gateway": "STOPPED"}, "ready": {"gateway": False}}),
    ),
    Row("02-6", "right", "reference", outage(20, 80), "1.33 error-minutes: the fast-burn", spoil((20, 80, 1))),
    Row(
        "02-6",
        "right",
        "half of them",
        outage(20, 160),
        "1.33 error-minutes: the fast-burn",
        spoil((20, 160, 0.5)),
    ),
    Row(
        "02-6",
        "right",
        "after an outage that left no room",
        outage(20, 60),
        "over 6h too, which earlier outages had left no room",
        spoil((150, 180, 1), (20, 60, 1)),
    ),
    Row(
        "02-6",
        "right",
        "others' silence",
        outage(20, 80),
        "no other did",
        spoil((20, 80, 1), silence='service="catalog"'),
    ),
]

ROWS = [*MONTH_ROWS, *DRILL_ROWS]
NO_WORLD = {
    "02-1": "asks for a choice of words",
    "02-2": "asks for numbers about the past, which nobody can change",
    "02-3": "asks for numbers about the past, which nobody can change",
    "02-4": "asks for numbers that do not depend on the lab",
    "02-8": "asks for a name",
    "02-9": "asks about counts that are computed anew for each check",
}
_WANTED = {"nothing": Outcome.NOT_ATTEMPTED, "right": Outcome.CORRECT}
_BY_ID = {exercise.id: exercise for exercise in EXERCISES}


def judged(row: Row, world: Any) -> tuple[Outcome, bool, str]:
    """What the check of a row says."""
    bound = _BY_ID[row.exercise].bind(world)
    if row.prepare:
        row.prepare(world)
    verdict = bound.judge(row.answer(world) if callable(row.answer) else row.answer)
    return verdict.outcome, row.message in verdict.because, verdict.because


def named(row: Row) -> str:
    """The id of a test."""
    return f"{row.exercise}-{row.kind}-{row.name}"


@pytest.fixture
def month_world(past: History) -> MonthWorld:
    """The seeded month with objectives."""
    return MonthWorld(past)


@pytest.fixture
def drill_world(past: History) -> DrillWorld:
    """Three days without failures."""
    return DrillWorld(past)


@pytest.mark.parametrize("row", MONTH_ROWS, ids=named)
def test_answers_about_the_month_get_their_own_verdict(row: Row, month_world: Any) -> None:
    """The outcome is that of its kind, and the message is the one written for this mistake."""
    outcome, told, because = judged(row, month_world)

    assert (outcome, told) == (_WANTED.get(row.kind, Outcome.NOT_YET), True), because


@pytest.mark.parametrize("row", DRILL_ROWS, ids=named)
def test_rehearsals_get_their_own_verdict(row: Row, drill_world: Any) -> None:
    """What fired, what was taken away and what failed is judged by the lab, not by the learner's word."""
    outcome, told, because = judged(row, drill_world)

    assert (outcome, told) == (_WANTED.get(row.kind, Outcome.NOT_YET), True), because


def test_every_exercise_is_proven_four_ways() -> None:
    """No exercise ships without all four kinds of proof, or a reason why it has nothing to destroy."""
    assert unproven(EXERCISES, ROWS, NO_WORLD) == {}


def test_wrong_answers_are_told_apart() -> None:
    """No two plausible mistakes of one exercise share a message."""
    told = [(row.exercise, row.message) for row in ROWS if row.kind == "wrong"]

    assert sorted(set(told)) == sorted(told)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_hints_come_in_steps(exercise: Any) -> None:
    """There are three hints, each different, none empty."""
    assert len({hint for hint in exercise.hints if hint}) == 3


def test_an_instant_without_a_time_zone_is_asked_for_one(month_world: MonthWorld) -> None:
    """Naive times are refused in words, not by an exception of a comparison."""
    verdict = _BY_ID["02-9"].bind(month_world).judge(["2026-02-03 04:00"])

    assert (verdict.outcome, "with a time zone" in verdict.because) == (Outcome.NOT_YET, True)


def test_the_room_for_a_rehearsal_is_what_earlier_outages_left(drill_world: DrillWorld) -> None:
    """
    In a fresh lab 0.864 to 2.16 error-minutes; after one of 1.5 the hour needs only what fills the short window.

    After one of 2.5 there is none: the most is below the least.
    """
    found = []
    for ago, seconds in ((None, 0), (30, 90), (90, 60)):
        if ago:
            drill_world.timeline.fail(minutes_ago(ago), minutes_ago(ago) + timedelta(seconds=seconds))
        found.append(tuple(round(bound, 3) for bound in room(drill_world)))

    assert found == [(0.864, 2.16), (0.072, 0.66), (0.072, -0.34)]


@pytest.mark.parametrize(
    ("spells", "found"),
    [
        ((), None),
        (((20, 80),), (20, 80)),
        (((20, 30),), None),
        (((40, 80), (20, 60)), (20, 60)),
        (((120, 80),), None),
    ],
    ids=["nothing", "one", "too little to fire", "the latest of two", "forgotten"],
)
def test_the_last_rehearsal_is_found_in_the_counters(drill_world: DrillWorld, spells: Any, found: Any) -> None:
    """To a scrape: where failures began and ended in the last 55 minutes, if the alert fired for them."""
    for ago, seconds in spells:
        drill_world.timeline.fail(minutes_ago(ago), minutes_ago(ago) + timedelta(seconds=seconds))
    drill = last_drill(drill_world)

    assert drill == (found and outage(*found))


def test_the_timeline_crosses_where_the_arithmetic_says(drill_world: DrillWorld) -> None:
    """51.84 s in which all fail are the first that the alert over an hour sees: 50 s are not enough, 55 s are."""
    timeline = drill_world.timeline
    seen = []
    for minutes, seconds in ((120, 50), (30, 55)):
        start = minutes_ago(minutes)
        timeline.fail(start, start + timedelta(seconds=seconds))
        seen.append(timeline.value(ex02_world.checkout().sli.error_ratio("1h"), start + timedelta(minutes=5)) > 0.0144)

    assert seen == [False, True]
