"""Notebook 02, when to wake somebody: burn rates mended, a policy found by back-test, a month without trouble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from labkit.course import ex02_world as world
from labkit.course.ex02_world import kind_of, several
from labkit.course.exercise import Bound, Exercise, Verdict, correct, not_yet
from labkit.course.judges import Slip, number_judge
from labkit.shop.rates import BASE_ERROR_SHARE
from labkit.slo.arithmetic import burn_rate
from labkit.slo.backtest import BackTest, backtest, range_semantics
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES, lint

__all__ = ["CONTROL", "FACTORS", "MONTH_S", "MOST_A_WEEK", "POLICY", "SOON_S", "quiet_month", "worst_hour"]

MONTH_S = 30 * world.DAY_S


def _factor(percent: int, hours: float) -> float:
    return float(BurnAlert(Fraction(percent, 100), round(hours * 3600)).factor(MONTH_S))


def _number(value: float) -> Any:
    return lambda _: value


FACTORS = Exercise(
    id="02-4",
    title="the factors that the comments meant",
    judge=several(
        factor_1h=number_judge(
            _number(_factor(5, 1)),
            unit="times the allowed pace",
            says="the arithmetic says",
            tolerance=0.005,
            slips=[
                Slip(
                    _number(0.05),
                    "{answer} is the share of the budget. A burn rate says how many times faster than allowed it goes: "
                    "how often does one hour go into thirty days?",
                ),
                Slip(_number(_factor(2, 1)), "{answer} spends 2 % of the budget in an hour; the comment says 5 %."),
                Slip(_number(0.05 * 30), "{answer} counts the days of the month; the window is an hour."),
                Slip(_number(0.05 * 24 * 28), "{answer} belongs to a budget of 28 days; this one is for 30."),
                Slip(
                    _number(0.036), "{answer} is the share of failures at that pace; how often is it the allowed one?"
                ),
                Slip(_number(_factor(5, 6)), "{answer} spends 5 % in six hours; this window is one hour."),
                Slip(_number(100 * _factor(5, 1)), "{answer} takes 5 for five percent; ratios here are fractions."),
            ],
        ),
        factor_6h=number_judge(
            _number(_factor(10, 6)),
            unit="times the allowed pace",
            says="the arithmetic says",
            tolerance=0.005,
            slips=[
                Slip(
                    _number(0.017), "{answer} is a share of the budget for each hour; divide it by the share allowed."
                ),
                Slip(_number(0.1), "{answer} is the share of the budget; how often do six hours go into thirty days?"),
                Slip(_number(_factor(5, 6)), "{answer} spends 5 % of the budget in six hours; the comment says 10 %."),
                Slip(_number(_factor(10, 1)), "{answer} spends 10 % in one hour; this window is six."),
                Slip(
                    _number(0.012), "{answer} is the share of failures at that pace; how often is it the allowed one?"
                ),
            ],
            debrief="At these paces the rules fire when their comments say. At 0.05 and 0.017 a healthy month does.",
        ),
    ),
    hints=(
        "A burn rate of 1 spends the budget in thirty days. Which spends it in thirty days divided by something?",
        "share of the budget = burn rate * window / month. Solve for the burn rate.",
        "factor_1h = 0.05 * 720 / 1 and factor_6h = 0.10 * 720 / 6, with all lengths in hours.",
    ),
)


MOST_A_WEEK = 3
FEWEST_RIGHT = 0.75
SOON_S = 3600


def tested(lab: Any, month: pd.DataFrame, policy: Policy) -> BackTest:
    """Back-test *policy* on a month of checkouts, as the lab's Prometheus would run it, against what happened."""
    closed = range_semantics(lab.prometheus.version())
    objective = world.checkout().objective
    return backtest(month, objective, policy, period_s=MONTH_S, closed=closed, incidents=world.incidents(lab))


def _without_a_bell(policy: Policy) -> str:
    """How *policy* makes sure that nobody is ever woken; empty if somebody may be."""
    pages = [alert for alert in policy.alerts if alert.severity == "page"]
    if not pages:
        return (
            f"`{policy.name}` has no alert that pages: it makes the nights quiet by taking the bell away, and nobody "
            "would have come."
        )
    never = [one for one in lint(policy, world.checkout().objective, MONTH_S) if "can never fire" in one]
    return f"`{policy.name}` takes the bell away in another way: {never[0]}" if len(never) >= len(pages) else ""


def _faults(done: BackTest) -> Iterator[str]:
    """What is wrong with a policy on the lab's month, the gravest first."""
    name, row = done.policy.name, done.summary().iloc[0]
    known = done.incidents
    assert known is not None  # noqa: S101  (`tested` gives the incidents)
    missed = known[(known["response"] == "page") & ~known["answered"].astype(bool)]
    if len(missed):
        listed = ", ".join(f"`{one}`" for one in missed["id"])
        yield f"`{name}` slept through {listed}. Whose failures were spread over too long a time?"
    if row["precision"] < FEWEST_RIGHT:
        yield (
            f"`{name}` rang {row['per_week']:.1f} times a week, and only {row['precision']:.0%} of it during an "
            "incident that deserved it. Which failures did it ring for the rest of the time?"
        )
    if row["reset_max_s"] > SOON_S:
        yield (
            f"`{name}` rang for up to {row['reset_max_s'] / 3600:.1f} hours after an incident was over. "
            "Which part of an alert lets it stop?"
        )
    if row["per_week"] > MOST_A_WEEK:
        yield (
            f"`{name}` woke people for good reasons only, {row['per_week']:.1f} times a week. It rang again and again "
            "during one incident that burns near a factor: what if that factor were lower?"
        )


def _judge_policy(exercise: Bound, answer: Any) -> Verdict:
    if not isinstance(answer, Policy):
        return not_yet(f"Your answer is {kind_of(answer)}; a Policy is expected, as POLICIES['workbook'] is one.")
    deaf = _without_a_bell(answer)
    if deaf:
        return not_yet(deaf)
    done = tested(exercise.lab, world.counts(exercise.lab), answer)
    fault = next(_faults(done), None)
    if fault:
        return not_yet(fault)
    row = done.summary().iloc[0]
    return correct(
        f"{row['per_week']:.1f} pages a week, {row['precision']:.0%} of them right, no incident missed, quiet "
        f"{row['reset_max_s'] / 60:.0f} minutes after the end at the latest. "
        "It fits this month; the next one may need another."
    )


POLICY = Exercise(
    id="02-5",
    title="a policy that lets people sleep",
    judge=_judge_policy,
    hints=(
        "Begin with the alerts of POLICIES['workbook'], and look in the table of pages at which of them rang most.",
        "The leak burns between 6 and 7, next to the factor of the six-hour alert. A smaller share lowers the factor.",
        "Policy('mine', (BurnAlert(Fraction(2, 100), 3600, 300), BurnAlert(Fraction(2, 100), 6 * 3600, 1800)))",
    ),
)


def quiet_month(month: pd.DataFrame, seed: int) -> pd.DataFrame:
    """
    A month with the traffic of *month* in which nothing happens: every checkout fails with the same small chance.

    Args:
        month: counts per step; only `total` is used.
        seed: the same seed gives the same month.

    Returns:
        A frame of counts on the same index.
    """
    total = month["total"].fillna(0).round().astype(np.int64)
    failed = np.random.default_rng([seed, 2]).binomial(total, BASE_ERROR_SHARE)
    made = pd.DataFrame({"good": total - failed, "total": total}, index=month.index)
    made.attrs = dict(month.attrs)
    return made


def worst_hour(month: pd.DataFrame) -> pd.Timestamp:
    """The end of the hour with the highest share of failures, on the grid of *month*."""
    hour = month[["good", "total"]].rolling(3600 // month.attrs["step_s"]).sum()
    return pd.Timestamp(str((1 - hour["good"] / hour["total"]).idxmax()))


def _judge_control(exercise: Bound, answer: Any) -> Verdict:
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        return not_yet(
            f"Your answer is {kind_of(answer)}; a list of instants is expected. The empty list, [], says: none."
        )
    named = [_instant(one) for one in answer]
    if None in named:
        listed = ", ".join(repr(one) for one in answer if _instant(one) is None)
        return not_yet(f"{listed} is not an instant with a time zone, as those in the index of the month are.")
    month = quiet_month(world.counts(exercise.lab), exercise.lab.seed)
    due = tested(exercise.lab, month, POLICIES["workbook"]).notifications("page")
    unfounded = [at for at in named if not ((due["start"] <= at) & (at <= due["end"])).any()]
    if unfounded:
        return not_yet(_how_bad(month, len(unfounded)))
    if len(due) > len(named):
        return not_yet(f"The policy has {len(due)} pages in this month, and your list has {len(named)}.")
    return correct("Nobody should have been woken. Some hour is always the worst one; that is not an incident.")


def _instant(value: Any) -> pd.Timestamp | None:
    try:
        found = pd.Timestamp(value)
    except (ValueError, TypeError):
        return None
    return found if found.tz is not None else None


def _how_bad(month: pd.DataFrame, pages: int) -> str:
    """What the worst hour of *month* amounts to, for somebody who would have rung so many times."""
    at = worst_hour(month)
    hour = month[(month.index > at - pd.Timedelta(hours=1)) & (month.index <= at)]
    failed, total = int((hour["total"] - hour["good"]).sum()), int(hour["total"].sum())
    pace = float(burn_rate(failed, total, world.checkout().objective) or 0)
    return (
        f"You would have woken somebody {'once' if pages == 1 else f'{pages} times'}. In the worst hour {failed} of "
        f"{total:,} checkouts failed, {pace:.1f} times the allowed pace: at that pace the budget lasts "
        f"{30 / pace:.0f} days, and the next hour was better."
    )


CONTROL = Exercise(
    id="02-9",
    title="a month in which nothing is wrong",
    judge=_judge_control,
    hints=(
        "With 720 hours in a month, what does chance alone make of the worst one?",
        "Back-test POLICIES['workbook'] on `quiet`, and look at its pages.",
        "list(backtest(quiet, objective, POLICIES['workbook']).pages['start'])",
    ),
)
