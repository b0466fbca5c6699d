"""The past as arithmetic: what it promises holds on the counts, for several seeds."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labkit.errors import ConfigInvalid
from labkit.shop import history_counts as counts
from labkit.shop.history import History, Incident, build_history, load_labels
from labkit.shop.history_grid import grid_ms
from labkit.shop.history_plan import PRODUCT, QUIET_DAYS, SCENARIOS, place
from labkit.shop.metrics import DURATION_BUCKETS_S
from labkit.shop.rates import LIVE_RATES_PER_S, REQUESTS_PER_S

END = datetime(2026, 3, 4, 11, 17, 23, tzinfo=UTC)
BUDGET = 0.001


def _instants(past: History) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(past.times_ms.astype("datetime64[ms]"), tz="UTC")


def _within(past: History, start: datetime, end: datetime) -> np.ndarray:
    ends = _instants(past)[1:]
    return np.asarray((ends > start) & (ends <= end))


def _select(past: History, name: str, **labels: str) -> dict[tuple[str, ...], np.ndarray]:
    """Values by the remaining labels method, endpoint, status and le."""
    keys = [key for key in ("method", "endpoint", "status", "le") if key not in labels]
    return {
        tuple(one[key] for key in keys if key in one): row
        for one, row in zip(past.series, past.values, strict=True)
        if one["__name__"] == name and labels.items() <= one.items()
    }


def test_the_same_seed_gives_the_same_bytes(past: History) -> None:
    """A past is a function of its arguments."""
    again = build_history(seed=past.seed, end=END)

    assert again.values.tobytes() == past.values.tobytes()
    assert again.labels() == past.labels()
    assert again.series == past.series


def test_another_seed_tells_another_story() -> None:
    """Seeds differ in the order and the instants of what happens, not only in the noise."""
    orders = {tuple(slot.scenario.id for slot in place(seed, 30)) for seed in range(6)}

    assert len(orders) == 6


def test_incidents_keep_their_distance_from_the_end() -> None:
    """The lab started a week later has the same past, a week later."""
    one, other = (build_history(seed=3, end=END + timedelta(weeks=weeks)) for weeks in (0, 1))

    assert [i.start + timedelta(weeks=1) for i in one.incidents] == [i.start for i in other.incidents]
    assert one.values.tobytes() == other.values.tobytes()


def test_counters_are_whole_and_never_fall(past: History) -> None:
    """Every series but the sums and the constants counts requests."""
    for labels, row in zip(past.series, past.values, strict=True):
        if labels["__name__"] != "shop_build_info":
            assert (np.diff(row) >= 0).all(), labels
        if not labels["__name__"].endswith(("_sum", "_info")):
            assert row[0] == 0
            assert (row == np.rint(row)).all(), labels


def test_buckets_agree_with_count_sum_and_requests(past: History) -> None:
    """Buckets are cumulative, +Inf is the count, the count is all statuses, the sum lies within the bounds."""
    for method, endpoint in counts.HISTOGRAMS:
        buckets = _select(past, "http_request_duration_seconds_bucket", method=method, endpoint=endpoint)
        rows = np.stack([buckets[(repr(float(bound)),)] for bound in DURATION_BUCKETS_S] + [buckets[("+Inf",)]])
        assert (np.diff(np.diff(rows, axis=1), axis=0) >= 0).all()
        count = _select(past, "http_request_duration_seconds_count", method=method, endpoint=endpoint)[()]
        requests = _select(past, "http_requests_total", method=method, endpoint=endpoint)
        assert len(requests) == 2
        np.testing.assert_array_equal(rows[-1], count)
        np.testing.assert_array_equal(count, sum(requests.values()))
        total_s = _select(past, "http_request_duration_seconds_sum", method=method, endpoint=endpoint)[()][-1]
        in_bucket = np.diff(rows[:, -1], prepend=0)
        assert (in_bucket[:-1] * [0, *DURATION_BUCKETS_S[:-1]]).sum() < total_s
        assert total_s < (in_bucket * [*DURATION_BUCKETS_S, 10]).sum()


def test_labels_are_those_of_the_live_gateway(past: History) -> None:
    """Every seeded series is told apart by `instance` alone, and there are few."""
    assert all((one["job"], one["service"], one["instance"]) == ("shop", "gateway", "seeded") for one in past.series)
    assert {(k[0], k[1]) for k in _select(past, "http_requests_total")} == set(LIVE_RATES_PER_S)
    assert len({tuple(sorted(one.items())) for one in past.series}) == len(past.series) <= 60


def _bad_and_total(past: History, incident: Incident) -> tuple[int, int]:
    """Counted from the series, as Prometheus would."""
    bad = total = 0.0
    inside = np.concatenate([[False], _within(past, incident.start, incident.end)])
    before = np.concatenate([inside[1:], [False]])
    for method, endpoint in incident.endpoints:
        requests = _select(past, "http_requests_total", method=method, endpoint=endpoint)
        gained = {status: np.diff(row)[before[:-1]].sum() for (status,), row in requests.items()}
        total += sum(gained.values())
        if incident.kind == "latency":
            fast = _select(past, "http_request_duration_seconds_bucket", method=method, endpoint=endpoint)[("0.25",)]
            bad += sum(gained.values()) - np.diff(fast)[before[:-1]].sum()
        else:
            bad += sum(gain for status, gain in gained.items() if status >= "500")
    return round(bad), round(total)


def test_each_incident_costs_its_share_to_the_request(past: History) -> None:
    """Bad requests in the counters between start and end are the share of what the objective allows in 30 days."""
    all_requests = sum(row[-1] for row in _select(past, "http_requests_total").values())
    product = sum(r[-1] for r in _select(past, "http_requests_total", method=PRODUCT[0], endpoint=PRODUCT[1]).values())
    for incident in past.incidents:
        allowed = 0.01 * product if incident.kind == "latency" else BUDGET * all_requests
        bad, total = _bad_and_total(past, incident)
        assert (bad, total) == (incident.bad, incident.total), incident.id
        assert abs(bad - incident.budget_share * allowed) <= 1, incident.id


def test_the_catalogue_is_diverse() -> None:
    """Six to nine incidents of different causes, one that costs no availability, and some that should wake nobody."""
    assert 6 <= len(SCENARIOS) <= 9
    assert len({one.id for one in SCENARIOS}) == len(SCENARIOS)
    assert len({one.cause for one in SCENARIOS}) >= 6
    assert {one.kind for one in SCENARIOS} == {"availability", "latency"}
    assert {one.response for one in SCENARIOS} == {"page", "ticket", "none"}
    assert 0.4 < sum(one.budget_share for one in SCENARIOS if one.kind == "availability") < 0.75


def test_incidents_come_one_after_another_and_end_before_the_quiet_days(past: History) -> None:
    """All are there, none overlaps the next, and the last is over three days before the end."""
    assert len(past.incidents) == len(SCENARIOS)
    for one, following in zip(past.incidents, past.incidents[1:], strict=False):
        assert one.start < one.end < following.start
    assert past.incidents[-1].end <= END - timedelta(days=QUIET_DAYS)
    assert past.incidents[0].start > past.start


def test_shapes_are_what_the_titles_say(past: History) -> None:
    """The outage is short and nearly total, the slow burn lasts most of a day, the blip a minute."""
    by_id = {one.id: one for one in past.incidents}
    lasted = {name: one.end - one.start for name, one in by_id.items()}
    assert lasted["outage-database"] < timedelta(minutes=15)
    assert by_id["outage-database"].bad / by_id["outage-database"].total > 0.75
    assert timedelta(hours=12) < lasted["slow-burn-connections"] < timedelta(hours=40)
    assert lasted["harmless-blip"] <= timedelta(minutes=3)
    assert lasted["slow-drip"] > timedelta(days=1)
    flap = by_id["flapping-replica"]
    counted = past.request_counts()[flap.start : flap.end]
    failing = counted["total"] - counted["good"] > 5
    assert np.abs(np.diff(failing.astype(int))).sum() >= 10


def test_an_incident_hits_its_endpoints_alike(past: History) -> None:
    """Each endpoint fails in proportion to its traffic; none is spared and none pays for the others."""
    for incident in past.incidents:
        if incident.kind == "availability" and len(incident.endpoints) > 1:
            overall = incident.bad / incident.total
            for endpoint in incident.endpoints:
                during = past.request_counts(endpoint=endpoint)[incident.start + timedelta(seconds=1) : incident.end]
                bad, total = (during["total"] - during["good"]).sum(), during["total"].sum()
                noise = 4 * np.sqrt(overall * (1 - overall) / total)
                assert abs(bad / total - overall) < noise, (incident.id, endpoint)


def test_the_retry_storm_brings_traffic(past: History) -> None:
    """Clients that retry ask about twice as often as just before."""
    storm = next(one for one in past.incidents if one.id == "retry-storm")
    counted = past.request_counts()["total"]
    during = counted[storm.start + timedelta(minutes=2) : storm.start + timedelta(minutes=8)].mean()
    before = counted[storm.start - timedelta(minutes=30) : storm.start].mean()

    assert 2.0 < during / before < 2.8


def _worst_burn(good: pd.Series, total: pd.Series, hours: int) -> float:
    bad = (total - good).rolling(hours * 60).sum()
    return float((bad / total.rolling(hours * 60).sum()).max() / BUDGET)


def test_the_last_three_days_are_quiet(past: History) -> None:
    """Burn stays under 0.5 over every window of an hour and longer, of the whole gateway and of each endpoint."""
    for endpoint in (None, *past.traffic.endpoints):
        frame = past.request_counts(endpoint=endpoint).iloc[-3 * 1440 :]
        for hours in (1, 2, 6, 24, 72):
            assert _worst_burn(frame["good"], frame["total"], hours) < 0.5, (endpoint, hours)


def test_the_end_is_the_live_rate(past: History) -> None:
    """In the last two hours, and in any five minutes of them, each endpoint is asked exactly as the live load asks."""
    for endpoint, rate in LIVE_RATES_PER_S.items():
        minutes = past.request_counts(endpoint=endpoint)["total"].iloc[-120:]
        assert minutes.rolling(5).sum().dropna().between(rate * 300 - 1.01, rate * 300 + 1.01).all()


def test_traffic_has_days_and_weeks(past: History) -> None:
    """15:00 UTC is the peak, 03:00 the trough, and Saturday and Sunday are quieter than other days."""
    hourly = past.request_counts(step_s=3600)["total"].iloc[:-12]
    by_hour = hourly.groupby((hourly.index - timedelta(minutes=30)).hour).mean()
    by_day = hourly.groupby(hourly.index.day_of_week).mean()

    assert by_hour.idxmax() in range(13, 18)
    assert by_hour.idxmin() in (*range(1, 6),)
    assert by_day.iloc[5:].max() < by_day.iloc[:5].min()
    assert 0.93 < past.traffic.requests.sum() / (REQUESTS_PER_S * 30 * 86_400) < 1.07


def test_ordinary_traffic_varies_a_little_more_than_poisson() -> None:
    """Minutes of the same expected rate scatter wider than their mean: real traffic is over-dispersed."""
    past = build_history(seed=5, end=END, days=3)
    rate = past.request_counts()["total"].iloc[: 24 * 60]
    trend = rate.rolling(121, center=True).mean()
    dispersion = (((rate - trend) ** 2) / trend).dropna().mean()

    assert 1.05 < dispersion < 2.5


def test_request_counts_follow_the_contract(past: History) -> None:
    """Index `time` in UTC on a complete grid that ends with the past; good and total counts; the step as attribute."""
    frame = past.request_counts()

    assert frame.index.name == "time"
    assert str(frame.index.tz) == "UTC"
    assert frame.index[-1] == END
    assert len(frame) == 30 * 1440
    assert frame.index.to_series().diff().dropna().eq(pd.Timedelta(minutes=1)).all()
    assert list(frame.columns) == ["good", "total"]
    assert frame.attrs["step_s"] == 60
    assert (frame["good"] <= frame["total"]).all()
    requests = _select(past, "http_requests_total")
    assert frame["total"].sum() == sum(row[-1] for row in requests.values())
    assert frame["good"].sum() == sum(row[-1] for (*_, status), row in requests.items() if status < "500")


def test_larger_steps_hold_the_same_requests(past: History) -> None:
    """Adding up minutes to hours loses nothing; endpoints add up to the whole."""
    hourly = past.request_counts(step_s=3600)
    parts = sum(past.request_counts(endpoint=one, step_s=3600)["total"] for one in past.traffic.endpoints)

    assert hourly["total"].sum() == past.request_counts()["total"].sum()
    assert parts.eq(hourly["total"]).all()
    assert hourly.attrs["step_s"] == 3600


@pytest.mark.parametrize("step_s", [0, 5, 90, 7 * 60 * 60, -60])
def test_a_step_that_does_not_fit_is_refused(step_s: int) -> None:
    """The message says what fits."""
    past = build_history(seed=1, end=END, days=1)
    with pytest.raises(ValueError, match="multiple of 60 that divides 86400"):
        past.request_counts(step_s=step_s)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    """The message lists the endpoints that are."""
    with pytest.raises(KeyError, match="/products"):
        build_history(seed=1, end=END, days=1).request_counts(endpoint=("GET", "/produkts"))


def test_the_grid_is_fine_at_the_end(past: History) -> None:
    """Every 60 s up to two hours before the end, every 5 s in the last ten minutes, up to the end itself."""
    steps = np.diff(past.times_ms) / 1000

    assert (steps[-120:] == 5).all()
    assert (steps[:-419] == 60).all()
    assert (np.diff(steps[-420:]) <= 1).all()
    assert past.times_ms[-1] == END.timestamp() * 1000
    assert past.start == END - timedelta(days=30)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 40_000_000), st.integers(0, 5000), st.booleans())
def test_a_grid_lies_between_its_ends(span_ms: int, offset_ms: int, dense_start: bool) -> None:
    """Instants ascend from after the start to the end, whatever the span, and no step exceeds two minutes."""
    start_ms = 1_700_000_000_000 + offset_ms
    grid = grid_ms(start_ms, start_ms + span_ms, dense_start=dense_start)

    assert grid[0] > start_ms
    assert grid[-1] == start_ms + span_ms
    assert (np.diff(grid, prepend=start_ms) > 0).all()
    assert (np.diff(grid, prepend=start_ms) <= 120_000).all()


def _extrapolated_s(times_s: np.ndarray, at_s: float, window_s: float = 300) -> float:
    """How many seconds of a steady counter `rate` takes its window for: the rule of Prometheus, without its counter."""
    inside = times_s[(times_s >= at_s - window_s) & (times_s <= at_s)]
    mean_s = (inside[-1] - inside[0]) / (len(inside) - 1)
    edges = (inside[0] - (at_s - window_s), at_s - inside[-1])
    return float(inside[-1] - inside[0] + sum(edge if edge < 1.1 * mean_s else mean_s / 2 for edge in edges))


@pytest.mark.parametrize(
    ("span_s", "dense_start"),
    [(86_400, False), (86_400, True), (601, True), (1201, True), (5400, True), (12_199, True), (14_712, True)],
)
def test_no_five_minute_rate_reads_more_than_five_percent_off(span_s: int, dense_start: bool) -> None:
    """However the window lies on the growing intervals, what `rate` extrapolates stays close to the window."""
    times_s = np.concatenate([[0], grid_ms(0, span_s * 1000, dense_start=dense_start) / 1000])
    found = [_extrapolated_s(times_s, float(at)) for at in range(max(301, span_s - 9000), span_s, 3)]

    assert min(found) > 285
    assert max(found) < 315


def test_deploys_are_many_and_one_is_guilty(past: History) -> None:
    """The bad one goes live with its incident and is rolled back at its end; the last leaves the live version."""
    bad = next(one for one in past.incidents if one.id == "bad-deploy-product")
    guilty = [one for one in past.deploys if one.incident]

    assert [(one.time, one.kind, one.incident) for one in guilty] == [
        (bad.start, "deploy", bad.id),
        (bad.end, "rollback", bad.id),
    ]
    before = [one.version for one in past.deploys if one.time < bad.start]
    assert guilty[1].version == (before[-1] if before else "0.0.0")
    assert guilty[0].version not in before
    assert len(past.deploys) >= 9
    assert [one.time for one in past.deploys] == sorted(one.time for one in past.deploys)
    assert past.deploys[-1].version == "1.0.0"
    assert past.start < past.deploys[0].time < past.deploys[-1].time < END


def test_one_version_is_live_at_each_instant(past: History) -> None:
    """`shop_build_info` has exactly one series at any time, and changes at the deploys."""
    live = {
        one["version"]: ~np.isnan(row)
        for one, row in zip(past.series, past.values, strict=True)
        if one["__name__"] == "shop_build_info"
    }
    assert (sum(mask.astype(int) for mask in live.values()) == 1).all()
    assert live["1.0.0"][-1]
    for deploy in past.deploys:
        at = int(np.searchsorted(past.times_ms, deploy.time.timestamp() * 1000))
        assert live[deploy.version][at]


def test_labels_survive_a_file(past: History, tmp_path: Path) -> None:
    """What is written as JSON is read back with instants as UTC datetimes."""
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(past.labels()))
    found = load_labels(path)

    assert found["seed"] == past.seed
    assert [(i["id"], i["start"], i["end"]) for i in found["incidents"]] == [
        (i.id, i.start, i.end) for i in past.incidents
    ]
    assert found["end"] == END
    assert found["deploys"][-1]["time"] == past.deploys[-1].time
    assert {i["id"] for i in found["incidents"] if not i["should_page"]} == {"slow-drip", "harmless-blip"}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": "another/1"}'])
def test_a_labels_file_that_is_not_one_says_what_to_do(text: str | None, tmp_path: Path) -> None:
    """Missing, cut off or foreign: the file is named and the way to get a new one."""
    path = tmp_path / "labels.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigInvalid, match=r"labels.json(.|\n)*labkit up"):
        load_labels(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(5, 80), st.integers(1, 5)), elements=st.integers(0, 400)),
    st.sampled_from(SCENARIOS),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 1.0),
)
def test_no_step_has_more_bad_requests_than_requests(
    requests: np.ndarray, scenario: counts.Scenario, seed: int, part: float
) -> None:
    """An allocation spends its budget exactly and stays within the requests that there are."""
    rng = np.random.default_rng(seed)
    elapsed_s = 60.0 * np.arange(len(requests))
    budget = int(part * scenario.ratio * 0.02 * requests.sum())
    try:
        bad, spell = counts.allocate(rng, scenario, requests, elapsed_s, budget)
    except ValueError as error:
        assert scenario.id in str(error)  # noqa: PT017  (either outcome is allowed, a third is not)
        return

    assert (bad >= 0).all()
    assert (bad <= requests).all()
    assert bad.sum() == spell.bad == budget
    assert bad[spell.last + 1 :].sum() == 0
    assert spell.total == requests[: spell.last + 1].sum()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 500)),
    st.floats(0, 0.999),
)
def test_evenly_spread_counts_stay_beside_what_is_expected(expected: np.ndarray, offset: float) -> None:
    """The running sum of whole numbers is never a whole one away from the running sum of what was expected."""
    spread = counts.evenly(expected, offset)

    assert (spread >= 0).all()
    assert (np.abs(np.cumsum(spread) - np.cumsum(expected)) < 1 + 1e-6).all()


def test_rates_too_small_for_an_incident_are_named() -> None:
    """The message says which incident, what it needs and what there is."""
    few = defaultdict(lambda: 1e-5, {("GET", "/products"): 10.0})
    with pytest.raises(ValueError, match="must spoil"):
        build_history(seed=1, end=END, rates={endpoint: few[endpoint] for endpoint in LIVE_RATES_PER_S})


def test_other_rates_are_met_too() -> None:
    """The past arrives at whatever rates the lab is driven with."""
    past = build_history(seed=2, end=END, rates={one: 2 * rate for one, rate in LIVE_RATES_PER_S.items()})

    assert past.request_counts()["total"].iloc[-5:].sum() == pytest.approx(2 * REQUESTS_PER_S * 300, abs=6)


def test_an_end_without_a_time_zone_is_refused() -> None:
    """A guess would move thirty days by hours."""
    with pytest.raises(ValueError, match="no time zone"):
        build_history(seed=1, end=datetime(2026, 3, 1))  # noqa: DTZ001


def test_an_end_in_another_zone_is_the_same_instant() -> None:
    """Only the instant matters."""
    zone = datetime.fromisoformat("2026-03-04T13:17:23+02:00")

    assert build_history(seed=1, end=zone, days=1).end == END == zone.astimezone(UTC)


@pytest.mark.parametrize("days", [0, 36, -1])
def test_a_length_that_prometheus_would_not_keep_is_refused(days: int) -> None:
    """One day at least, and some days under the retention."""
    with pytest.raises(ValueError, match="1 to 35"):
        build_history(seed=1, end=END, days=days)


def test_a_short_past_keeps_the_incidents_that_fit() -> None:
    """Ten days hold two of them; three hold none, and are quiet from their first hour."""
    assert len(build_history(seed=7, end=END, days=10).incidents) == 2
    quiet = build_history(seed=7, end=END, days=3)
    assert quiet.incidents == ()
    assert _worst_burn(*(quiet.request_counts()[one] for one in ("good", "total")), hours=1) < 0.5
