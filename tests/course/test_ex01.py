"""The checks of notebook 01, four ways each: nothing done, plausible mistakes, destruction, the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labkit.course import Outcome
from labkit.course.ex01 import EXERCISES
from tests.course.test_four_ways import Row, unproven
from tests.course.world01 import FAILED, FINE, ON_ITS_WAY, SLOW, SLOW_ELSEWHERE, UNKNOWN, Month, World, month

pytestmark = pytest.mark.live

REQUESTS = 'http_requests_total{job="shop",service="gateway"}'
ERRORS = 'http_requests_total{job="shop",service="gateway",status=~"5.."}'
BUCKETS = 'http_request_duration_seconds_bucket{job="shop",service="gateway"}'
TRAFFIC = f"sum(rate({REQUESTS}[5m]))"
SHARE = f"sum(rate({ERRORS}[5m])) / sum(rate({REQUESTS}[5m]))"
SLOWEST = f"histogram_quantile(0.95, sum by (le) (rate({BUCKETS}[5m])))"
BY_PAGE = f"sum by (endpoint) (rate({ERRORS}[5m])) / sum by (endpoint) (rate({REQUESTS}[5m]))"


def read(rate: Any = 10.0, trace: Any = FAILED, service: Any = "payments") -> tuple[Any, Any, Any]:
    """An answer to exercise 1."""
    return rate, trace, service


def asked(traffic: Any = TRAFFIC, share: Any = SHARE, slow: Any = SLOWEST) -> tuple[Any, Any, Any]:
    """An answer to exercise 2."""
    return traffic, share, slow


def cause(replica: Any = "catalog-1", operation: Any = "GET /prices", trace: Any = SLOW) -> tuple[Any, Any, Any]:
    """An answer to exercise 7."""
    return replica, operation, trace


def paging(threshold: float) -> str:
    """The ratio of sums above a threshold."""
    return f"{SHARE} > {threshold}"


def silence(world: World) -> None:
    """Somebody silences the noise."""
    world.silenced.append("1")


def stop(name: str, *before: Callable[[World], None]) -> Callable[[World], None]:
    """Somebody stops a process, after what else happened."""

    def prepare(world: World) -> None:
        for step in before:
            step(world)
        world.stop(name)

    return prepare


def call(world: World) -> None:
    """The second call: answers of catalog-1 to one question are late."""
    world.slow_down("catalog-1", "/prices")


def alert(world: World) -> None:
    """An alert fires for payments, and one that nobody needs to look at for the machine."""
    since = world.at - timedelta(minutes=1)
    world.firing += [
        ("ServiceErrorRate", "warning", "firing", since, {"service": "payments"}),
        ("HighCPUUsage", "info", "firing", since, {"service": "machine"}),
    ]


def just_now(world: World) -> None:
    """An alert began between the answer and its check."""
    world.firing.append(("HighLatency", "warning", "firing", world.at - timedelta(seconds=20), {"service": "gateway"}))


ROWS = [
    Row("01-1", "nothing", "stub", (..., ..., ...), "Replace the dots"),
    Row("01-1", "wrong", "one part", 10.0, "Your answer is a float; 3 parts are expected"),
    Row("01-1", "wrong", "two parts", (10.0, FAILED), "Your answer has 2 parts"),
    Row(
        "01-1",
        "wrong",
        "half done",
        read(service=...),
        "Part 3 of (requests a second, trace id,",
    ),
    Row("01-1", "wrong", "all services", read(17.0), "counts every service"),
    Row("01-1", "wrong", "a minute", read(600.0), "is the number of requests in a minute"),
    Row("01-1", "wrong", "counter", read(112_000.0), "is the counter itself"),
    Row("01-1", "wrong", "no data", read(float("nan")), "no data is not a number of requests a second"),
    Row("01-1", "wrong", "no id", read(trace="checkout"), "is a text of 32 hexadecimal digits, you have 'checkout'"),
    Row("01-1", "wrong", "unknown id", read(trace=UNKNOWN), "when these exercises began, has the trace id 0000"),
    Row("01-1", "wrong", "no error", read(trace=FINE), "the lines of this trace have no error"),
    Row("01-1", "wrong", "too early", read(trace=ON_ITS_WAY), "`lab.traces.wait_for([…])` waits for it"),
    Row("01-1", "wrong", "who reported", read(service="gateway"), "failed because a span below it failed"),
    Row("01-1", "wrong", "who took part", read(service="cart"), "`cart` took part, at most 2.0 ms"),
    Row("01-1", "wrong", "who did not", read(service="mailer"), "it has no span of 'mailer'; it has cart,"),
    Row("01-1", "destroy", "stopped payments", read(), "`payments-1` (STOPPED) was ready", stop("payments-1")),
    Row("01-1", "right", "reference", read(), "One request, three views"),
    Row("01-2", "nothing", "stub", (..., ..., ...), "Replace the dots"),
    Row("01-2", "wrong", "no text", asked(traffic=10), "`traffic`: a query is a text, you have 10"),
    Row("01-2", "wrong", "rate of sum", asked(traffic=f"rate(sum({REQUESTS})[5m:1m])"), "it takes a rate of a sum"),
    Row("01-2", "wrong", "no syntax", asked(traffic="sum(rate("), "Prometheus could not evaluate the query"),
    Row("01-2", "wrong", "no sum", asked(traffic=f"rate({REQUESTS}[5m])"), "`traffic`: it gives"),
    Row("01-2", "wrong", "increase", asked(traffic=f"sum(increase({REQUESTS}[5m]))"), "is a number in five minutes"),
    Row("01-2", "wrong", "counter", asked(traffic=f"sum({REQUESTS})"), "is the counter, everything since its start"),
    Row("01-2", "wrong", "average", asked(traffic=f"avg(rate({REQUESTS}[5m]))"), "is the average over series"),
    Row(
        "01-2",
        "wrong",
        "every service",
        asked(traffic='sum(rate(http_requests_total{job="shop"}[5m]))'),
        "17 counts a request again in every service",
    ),
    Row(
        "01-2",
        "wrong",
        "label by label",
        asked(share=f"rate({ERRORS}[5m]) / rate({REQUESTS}[5m])"),
        "so each series divided itself",
    ),
    Row(
        "01-2",
        "wrong",
        "label by label, one",
        asked(share=f"max(rate({ERRORS}[5m]) / rate({REQUESTS}[5m]))"),
        "it is 1, every request fails?",
    ),
    Row("01-2", "wrong", "average of ratios", asked(share=f"avg({BY_PAGE})"), "is an average of ratios"),
    Row("01-2", "wrong", "worst page", asked(share=f"max({BY_PAGE})"), "is the share of the worst page"),
    Row("01-2", "wrong", "percent", asked(share=f"100 * {SHARE}"), "is a percentage; shares here are fractions"),
    Row("01-2", "wrong", "failures", asked(share=f"sum(rate({ERRORS}[5m]))"), "is failures a second"),
    Row("01-2", "wrong", "no such label", asked(share=SHARE.replace("5..", "6..")), "it matched nothing at"),
    Row("01-2", "wrong", "another window", asked(share=SHARE.replace("5m", "2h")), "and the right one another number"),
    Row(
        "01-2",
        "wrong",
        "average of percentiles",
        asked(slow=f"avg(histogram_quantile(0.95, rate({BUCKETS}[5m])))"),
        "is an average of percentiles",
    ),
    Row(
        "01-2",
        "wrong",
        "slowest page",
        asked(slow=f"max(histogram_quantile(0.95, rate({BUCKETS}[5m])))"),
        "is the percentile of the slowest page",
    ),
    Row("01-2", "wrong", "median", asked(slow=SLOWEST.replace("0.95", "0.5")), "is the median"),
    Row(
        "01-2",
        "wrong",
        "ever",
        asked(slow=f"histogram_quantile(0.95, sum by (le) ({BUCKETS}))"),
        "is the percentile since the counters began",
    ),
    Row("01-2", "wrong", "milliseconds", asked(slow=f"1000 * {SLOWEST}"), "is in milliseconds"),
    Row("01-2", "wrong", "not finite", asked(slow=f"0 * {SLOWEST} / 0"), "Did a sum drop the label `le`?"),
    Row(
        "01-2",
        "wrong",
        "not summed",
        asked(slow=f"histogram_quantile(0.95, rate({BUCKETS}[5m]))"),
        "There is one percentile for each page",
    ),
    Row("01-2", "right", "reference", asked(), "in the quiet and in the incident"),
    Row("01-4", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("01-4", "wrong", "no tuple", paging(0.03), "Your answer is a str; 2 parts are expected"),
    Row("01-4", "wrong", "no text", (0.03, 120), "The condition is a text, you have 0.03"),
    Row("01-4", "wrong", "no seconds", (paging(0.03), "2m"), "`must_hold_s` is a number of seconds from 0 to 900"),
    Row("01-4", "wrong", "no syntax", ("sum(", 120), "Prometheus could not evaluate the query"),
    Row(
        "01-4",
        "wrong",
        "as it was",
        (f"rate({ERRORS}[5m]) / rate({REQUESTS}[5m]) > 0.05", 120),
        "every series of errors was divided by itself",
    ),
    Row("01-4", "wrong", "too low", (paging(0.0005), 0), "Half of these pages are over after"),
    Row(
        "01-4",
        "wrong",
        "by the clock",
        (f"sum(rate({REQUESTS}[5m])) > 0 and on () (hour() == 3) and on () (day_of_week() == 6)", 0),
        "pages came while nothing was wrong that anybody should be woken for",
    ),
    Row("01-4", "wrong", "as quiet as before", (paging(0.05), 120), "better is asked for"),
    Row("01-4", "destroy", "never fires", (paging(2), 120), "That destroys the alert; it does not improve it"),
    Row("01-4", "destroy", "silenced", (paging(0.03), 120), "1 silence holds alerts back", silence),
    Row("01-4", "destroy", "stopped", (paging(0.03), 120), "`alertmanager` (STOPPED) was ready", stop("alertmanager")),
    Row("01-4", "right", "lower", (paging(0.03), 120), "pages a week, precision"),
    Row("01-5", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("01-5", "wrong", "too early", ("shop_customer_request_seconds", "user"), "nothing was deployed that makes"),
    Row(
        "01-5",
        "wrong",
        "no tuple",
        "user",
        "Your answer is a str; 2 parts are expected: (metric, label)",
        World.deploy_statistics,
    ),
    Row("01-5", "wrong", "no texts", (60, "user"), "Names are texts; you have 60", World.deploy_statistics),
    Row(
        "01-5",
        "wrong",
        "another metric",
        ("http_requests_total", "user"),
        "`http_requests_total` had 4 series when these exercises began; another metric has 60",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "wrong",
        "no metric",
        ("customers", "user"),
        "The shop had no metric `customers`",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "wrong",
        "bounds",
        ("shop_customer_request_seconds_bucket", "le"),
        "`le` has 3 values, however many customers come",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "wrong",
        "bounded",
        ("shop_customer_request_seconds_bucket", "endpoint"),
        "`endpoint` has 1 value, and that number stands still",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "wrong",
        "no label",
        ("shop_customer_request_seconds_bucket", "customer"),
        "has no label `customer`; it has endpoint, instance",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "wrong",
        "still there",
        ("shop_customer_request_seconds_bucket", "user"),
        "You found it, and 60 series",
        World.deploy_statistics,
    ),
    Row(
        "01-5",
        "destroy",
        "stopped the gateway",
        ("shop_customer_request_seconds_bucket", "user"),
        "`gateway` (STOPPED) was ready",
        stop("gateway", World.undo_statistics),
    ),
    Row(
        "01-5",
        "right",
        "undone",
        ("shop_customer_request_seconds_bucket", "user"),
        "Found by its growth, undone at its cause",
        World.undo_statistics,
    ),
    Row("01-5", "right", "base name", ("shop_customer_request_seconds", "user"), "undone", World.undo_statistics),
    Row("01-6", "nothing", "stub", (..., ...), "Replace the dots"),
    Row("01-6", "wrong", "the rumour", (["catalog"], 0.0), "You named `catalog`, for which no alert fires"),
    Row("01-6", "wrong", "no list", ("catalog", 0.0), "The services are a list; you have 'catalog'"),
    Row("01-6", "wrong", "no evidence", [], "Your answer has 0 parts; 2 are expected"),
    Row("01-6", "wrong", "no data", ([], float("nan")), "say `or vector(0)` where you mean 0"),
    Row("01-6", "wrong", "another share", ([], 0.5), "You have 0.5 as the failing share"),
    Row("01-6", "wrong", "overlooked", ([], 0.0), "1 of the services that you did not name", alert),
    Row("01-6", "destroy", "restarted for ever", ([], 0.0), "`catalog-1` (STOPPED) was ready", stop("catalog-1")),
    Row("01-6", "right", "nothing is wrong", ([], 0.0), "Nothing is wrong: no alert"),
    Row("01-6", "right", "a moment ago nothing was", ([], 0.0), "Nothing is wrong: no alert", just_now),
    Row("01-6", "right", "something is", (["payments"], 0.0), "Something is wrong indeed", alert),
    Row("01-7", "nothing", "stub", (..., ..., ...), "Replace the dots"),
    Row("01-7", "wrong", "no call", cause(), "Begin the call again"),
    Row("01-7", "wrong", "one part", "catalog-1", "Your answer is a str; 3 parts are expected", call),
    Row("01-7", "wrong", "no trace", cause(trace=UNKNOWN), "is no trace in the store", call),
    Row("01-7", "wrong", "a fast one", cause(trace=FINE), "Your trace took 30 ms, as in quiet times", call),
    Row("01-7", "wrong", "slow elsewhere", cause(trace=SLOW_ELSEWHERE), "is slow for another reason", call),
    Row(
        "01-7",
        "wrong",
        "who waits",
        cause(operation="POST /checkout/{user}"),
        "`POST /checkout/{user}` took 640 ms, nearly all of it waiting",
        call,
    ),
    Row("01-7", "wrong", "who is quick", cause(operation="POST /charges"), "`POST /charges` took 10.0 ms", call),
    Row("01-7", "wrong", "no operation", cause(operation="prices"), "Your trace has no operation 'prices'", call),
    Row("01-7", "wrong", "the other replica", cause(replica="catalog-2"), "`catalog-2` is not the replica", call),
    Row("01-7", "destroy", "stopped it", cause(), "`catalog-1` (STOPPED) was ready", stop("catalog-1", call)),
    Row("01-7", "right", "reference", cause(), "From a percentile by an exemplar", call),
]

NO_WORLD = {
    "01-2": "asks for queries, evaluated in a past that nobody can change",
    "01-3": "asks for a class, which is run on a source of the check's own; proven in test_ex01_exporter.py",
}
_WANTED = {
    "nothing": Outcome.NOT_ATTEMPTED,
    "wrong": Outcome.NOT_YET,
    "destroy": Outcome.NOT_YET,
    "right": Outcome.CORRECT,
}


@pytest.fixture(scope="module")
def seeded(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """A real Prometheus with the month."""
    with month(program("prometheus"), tmp_path_factory.mktemp("month")) as found:
        yield found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.exercise}-{row.kind}-{row.name}")
def test_each_way_of_answering_gets_its_own_verdict(row: Row, seeded: Month) -> None:
    """The outcome is that of its kind, and the message is the one written for this mistake."""
    world = World(seeded)
    bound = next(one for one in EXERCISES if one.id == row.exercise).bind(world)
    if row.prepare:
        row.prepare(world)

    verdict = bound.judge(row.answer)

    assert (_WANTED[row.kind], True) == (verdict.outcome, row.message in verdict.because), verdict


def test_every_exercise_is_proven_four_ways() -> None:
    """No exercise ships without all four kinds of proof, or a reason why it has no world to destroy."""
    others = [one for one in EXERCISES if one.id != "01-3"]

    assert unproven(others, ROWS, NO_WORLD) == {}
    assert not [one.id for one in EXERCISES if one.id in NO_WORLD and one.baseline is not None]


def test_wrong_answers_are_told_apart() -> None:
    """No two plausible mistakes of one exercise share a message."""
    told = [(row.exercise, row.message) for row in ROWS if row.kind == "wrong"]

    assert sorted(set(told)) == sorted(told)


def test_a_harmed_world_that_was_put_right_is_accepted(seeded: Month) -> None:
    """A silence that was ended leaves no trace in the verdict."""
    world = World(seeded)
    bound = next(one for one in EXERCISES if one.id == "01-4").bind(world)
    silence(world)
    world.silenced.clear()

    assert bound.judge((paging(0.03), 120)).outcome is Outcome.CORRECT
