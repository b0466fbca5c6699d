"""The designs of the workbook as data, and what lint says of policies, held against back-tests of what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit._time import parse_duration
from labkit.errors import InvalidValue, UnknownName
from labkit.slo.backtest import backtest
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES, alert_names, budget_share, designs, get, highest_burn, lint, threshold

NINES = Fraction(999, 1000)
MONTH_S = 30 * 86_400
PAGE = BurnAlert(Fraction(2, 100), long_s=3600, short_s=300)


def outage(minutes: float, *, before_h: float = 12, after_h: float = 48, step_s: int = 60) -> pd.DataFrame:
    """Even traffic in which everything fails for some minutes."""
    rows = [round(hours * 3600 / step_s) for hours in (before_h, minutes / 60, after_h)]
    good = [100] * rows[0] + [0] * rows[1] + [100] * rows[2]
    index = pd.date_range("2026-03-01", periods=len(good), freq=f"{step_s}s", tz="UTC", name="time")
    counts = pd.DataFrame({"good": good, "total": 100}, index=index)
    counts.attrs["step_s"] = step_s
    return counts


def one(alert: BurnAlert) -> Policy:
    """A policy of one alert."""
    return Policy("mine", (alert,))


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("threshold", [1]),
        ("long-window", [1]),
        ("for-duration", [1]),
        ("burn-rate", [36]),
        ("multi-burn-rate", [Fraction("14.4"), 6, 1]),
        ("workbook", [Fraction("14.4"), 6, 1]),
        ("four-window", [Fraction("14.4"), 6, 3, 1]),
    ],
)
def test_the_factors_of_the_designs_are_those_of_the_workbook(name: str, factors: list[Fraction]) -> None:
    """They are derived from the share, the window and 30 days, and come out as published, exactly."""
    assert [alert.factor(MONTH_S) for alert in POLICIES[name].alerts] == factors


def test_short_windows_are_a_twelfth_of_the_long() -> None:
    """As the workbook advises."""
    alerts = [*POLICIES["workbook"].alerts, *POLICIES["four-window"].alerts]

    assert all(alert.short_s is not None and alert.long_s == 12 * alert.short_s for alert in alerts)


def test_another_period_changes_factors_and_not_what_they_mean() -> None:
    """Over 28 days 2 % in an hour is a burn rate of 13.44, and the objective itself still one of 1."""
    found = designs(28 * 86_400)

    assert found["workbook"].alerts[0].factor(28 * 86_400) == Fraction("13.44")
    assert found["threshold"].alerts[0].factor(28 * 86_400) == 1


def test_the_designs_cannot_be_changed_by_accident() -> None:
    """A policy of one's own is a new one; the shared ones stay what they are."""
    with pytest.raises(TypeError):
        POLICIES["workbook"] = POLICIES["threshold"]  # type: ignore[index]


@given(
    share=st.fractions(Fraction(1, 10**6), 1),
    long_s=st.integers(60, 10 * 86_400),
    period_s=st.integers(86_400, 365 * 86_400),
)
@settings(max_examples=50)
def test_share_and_factor_are_inverse(share: Fraction, long_s: int, period_s: int) -> None:
    """For any window and period, exactly."""
    factor = BurnAlert(share, long_s).factor(period_s)

    assert budget_share(factor, long_s, period_s) == share


def test_the_threshold_is_the_number_that_one_would_write() -> None:
    """14.4 at 99.9 % is 0.0144 and not 0.014400000000000001."""
    assert [threshold(alert, 0.999) for alert in POLICIES["four-window"].alerts] == [0.0144, 0.006, 0.003, 0.001]


def test_names_tell_alerts_apart() -> None:
    """Equal ones get a number; a name says severity, windows and wait."""
    policy = Policy("twice", (PAGE, PAGE, replace(PAGE, short_s=None, for_s=120), replace(PAGE, severity="ticket")))

    assert alert_names(policy) == ("page 1h/5m", "page 1h/5m #2", "page 1h for 2m", "ticket 1h/5m")


def test_an_unknown_name_lists_the_known_ones() -> None:
    """And names the nearest."""
    with pytest.raises(UnknownName, match="did you mean 'workbook'"):
        get("workbok")


@pytest.mark.parametrize("name", ["workbook", "four-window", "threshold"])
def test_nothing_is_wrong_with_a_good_policy(name: str) -> None:
    """At three nines over 30 days; whether it is worth its pages is for the back-test to say."""
    assert lint(POLICIES[name], NINES) == []


@pytest.mark.parametrize(
    ("alert", "objective", "said"),
    [
        (PAGE, "0.9", "can never fire: it needs a burn rate above 14.4, and at 90 % the highest is 10"),
        (BurnAlert(Fraction(1, 100), 86_400), "0.999", "fires at a burn rate of 0.3"),
        (
            BurnAlert(Fraction(5, 100), 6 * 3600),
            "0.999",
            "go on firing for 5 h 58 min after the cause is gone: without",
        ),
        (BurnAlert(Fraction(1, 10), 86_400, 7200), "0.999", "go on firing for 2 h after .* short window is 2h"),
        (BurnAlert(Fraction(2, 1), 31 * 86_400, 300), "0.999", "long window of 31d is longer than the period of 30d"),
        (BurnAlert(Fraction(2, 100), 3600, 3600), "0.999", "short window of 1h is not shorter than the long one of 1h"),
        (BurnAlert(Fraction(2, 1), 86_400, 300), "0.999", "200 % of the budget may be spent before it fires"),
        (BurnAlert(Fraction(0), 3600, 300), "0.999", "share of the budget is 0, so that a single bad event is enough"),
        (BurnAlert(Fraction(2, 100), 3600, 0), "0.999", "has a length that is not above 0"),
        (POLICIES["for-duration"].alerts[0], "0.999", "overlooks outages shorter than 59 min, total ones included"),
    ],
)
def test_each_mistake_is_told_with_its_numbers(alert: BurnAlert, objective: str, said: str) -> None:
    """A sentence of its own for each, the name of the alert first."""
    found = lint(one(alert), Fraction(objective))

    assert all(line.startswith(f"{alert_names(one(alert))[0]}: ") for line in found)
    assert sum(re.search(said, line) is not None for line in found) == 1, found


def test_alerts_that_say_the_same_are_told() -> None:
    """In either order: whichever fires only when the other does."""
    louder, quieter = PAGE, replace(PAGE, budget_share=Fraction(5, 100), for_s=60)

    for alerts in ((louder, quieter), (quieter, louder)):
        assert lint(Policy("both", alerts), NINES) == [
            "page 1h/5m for 1m: says nothing new: whenever it fires, page 1h/5m does."
        ]
    assert lint(Policy("both", (louder, replace(quieter, severity="ticket"))), NINES) == []


def test_a_policy_without_alerts_is_told() -> None:
    """It would be silent, and nobody would know why."""
    assert lint(Policy("empty", ()), NINES) == ["empty has no alerts: nothing can fire."]


@pytest.mark.parametrize("objective", [0, 1, 99.9, float("nan")])
def test_an_objective_that_is_none_is_refused(objective: float) -> None:
    """Nothing is computed with 1, 0, a percentage or nan."""
    with pytest.raises(InvalidValue, match="objective must be a fraction strictly between 0 and 1"):
        lint(POLICIES["workbook"], objective)


@pytest.mark.parametrize("period_s", [0, -1])
def test_a_period_of_no_length_is_refused(period_s: int) -> None:
    """The message names it and says what it must be."""
    with pytest.raises(InvalidValue, match="period_s must be a length of time above 0"):
        designs(period_s)


def test_what_can_never_fire_never_does() -> None:
    """With a factor of exactly the highest burn rate a total outage does not fire; a hair below it does."""
    top = highest_burn(NINES)
    never, barely = (one(BurnAlert(budget_share(f, 300), 300)) for f in (top, top - Fraction(1, 100)))
    counts = outage(60)

    assert "can never fire" in lint(never, NINES)[0]
    assert backtest(counts, NINES, never).pages.empty
    assert not any("never" in line for line in lint(barely, NINES))
    assert len(backtest(counts, NINES, barely).pages) == 1


@pytest.mark.parametrize("alert", [BurnAlert(Fraction(5, 100), 6 * 3600), BurnAlert(Fraction(20, 100), 3600)])
def test_it_stays_on_for_as_long_as_lint_says(alert: BurnAlert) -> None:
    """A total outage that fills the window: the back-test clears it at the time that lint told, to the step."""
    (said,) = lint(one(alert), NINES)
    told_s = sum(parse_duration(part) for part in _durations(said))
    counts = outage(7 * 60)
    over = counts.index[counts["good"].eq(0)][-1]

    (end,) = backtest(counts, NINES, one(alert), closed="closed").pages["end"]

    assert abs((end - over).total_seconds() - told_s) <= 60


@pytest.mark.parametrize("alert", [replace(PAGE, for_s=1800), BurnAlert(Fraction(2, 100), 3600, for_s=2 * 3600)])
def test_it_overlooks_what_lint_says(alert: BurnAlert) -> None:
    """Outages two steps shorter than told go unseen, outages two steps longer page."""
    said = next(line for line in lint(one(alert), NINES) if "overlooks" in line)
    told = timedelta(seconds=sum(parse_duration(part) for part in _durations(said.split("than ")[1].split(",")[0])))

    def pages(length: timedelta) -> int:
        counts = outage(length / timedelta(minutes=1), before_h=2, after_h=3, step_s=10)
        return len(backtest(counts, NINES, one(alert), closed="closed").pages)

    assert pages(told - timedelta(seconds=20)) == 0
    assert pages(told + timedelta(seconds=20)) == 1


def _durations(text: str) -> list[str]:
    """The parts of a duration such as `5 h 58 min` in a sentence, as Prometheus writes them."""
    words = text.split()
    units = {"d": "d", "h": "h", "min": "m", "s": "s"}
    pairs = ((number, unit.rstrip(",.")) for number, unit in pairwise(words) if number.isdigit())
    return [number + units[unit] for number, unit in pairs if unit in units]
