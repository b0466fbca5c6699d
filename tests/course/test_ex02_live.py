"""What the stand-ins prove without processes holds on the live lab: the checks of notebook 02 that ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from labkit._wait import wait_until
from labkit.course import Outcome, exercises
from labkit.course.ex02_drill import Outage, held
from labkit.course.ex02_govern import release_policy
from labkit.course.ex02_world import checkout
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import POLICIES
from labkit.slo.release import decide
from labkit.stack.progress import silent

if TYPE_CHECKING:
    from labkit.course import ExerciseSet
    from labkit.lab import Lab

pytestmark = pytest.mark.live

TWO_PERCENT = Fraction(2, 100)


@pytest.fixture
def promised(lab: Lab) -> Iterator[Lab]:
    """The lab with the promise in force, healthy again after whatever other tests did."""
    lab.reset(progress=silent)
    lab.slo.load([checkout()])
    yield lab
    lab.slo.unload()


@pytest.fixture
def ex(promised: Lab) -> ExerciseSet:
    """The exercises, bound to it."""
    return exercises("02", promised)


def quiet_spell(lab: Lab) -> Outage:
    """Twenty seconds that just passed without a failed checkout."""
    ratio = checkout().sli.error_ratio("40s")
    wait_until(lambda: lab.prometheus.value(ratio), "no checkout fails", timeout_s=90, ready=lambda share: share == 0)
    return Outage(lab.now() - timedelta(seconds=30), lab.now() - timedelta(seconds=10))


def test_checks_about_the_month_hold_on_the_live_lab(promised: Lab, ex: ExerciseSet) -> None:
    """Right and wrong are told apart by the lab's own counts, its Prometheus' version and its report."""
    found = promised.slo.report([checkout()])
    both = tuple(decide(release_policy(), found, change=change) for change in ("feature", "fix"))
    mine = Policy("mine", (BurnAlert(TWO_PERCENT, 3600, 300), BurnAlert(TWO_PERCENT, 6 * 3600, 1800)))

    assert "mixes seven other requests" in ex.q1.judge({"all answered"}).because
    assert ex.q5.judge(mine).outcome is Outcome.CORRECT
    assert "only" in ex.q5.judge(POLICIES["threshold"]).because
    assert ex.q7.judge(both).outcome is Outcome.CORRECT
    assert ex.q8.judge("average of ratios").outcome is Outcome.CORRECT
    assert ex.q9.judge([]).outcome is Outcome.CORRECT


def test_a_rehearsal_that_was_none_and_one_that_nobody_could_hear(promised: Lab, ex: ExerciseSet) -> None:
    """Without a failure nothing is proven; a silence and rules taken out of force are named as what they are."""
    spell = quiet_spell(promised)
    nothing = ex.q6.judge(spell)
    with promised.alertmanager.silenced({"slo": checkout().name}, for_s=60, comment="a test"):
        silenced = ex.q6.judge(spell)
    promised.slo.unload()
    unloaded = ex.q6.judge(spell)

    assert "No checkout failed" in nothing.because
    assert "A silence" in silenced.because
    assert "is not among the rules in force" in unloaded.because


def test_what_an_hour_holds_is_counted(promised: Lab) -> None:
    """Each alert crosses after its error-minutes; three days hold at least what their everyday trickle is."""
    table = held(promised)

    assert table["crosses_at_min"].round(3).to_dict() == {"1h": 0.864, "6h": 2.16, "3d": 4.32}
    assert (table["held_min"] >= 0).all()
    assert table["held_min"]["3d"] > 0.5
