"""The parts of the shop that need no process: configuration, balancing, flags, faults, metrics, logs."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid, InvalidValue, NotRunning, UnknownName
from labkit.shop.balancer import EJECT_S, Balancer, RetryBudget
from labkit.shop.client import ShopAdmin
from labkit.shop.config import load_config
from labkit.shop.faults import FaultSet
from labkit.shop.flags import FLAGS, FlagSet
from labkit.shop.links import apply_links, read_links
from labkit.shop.logs import JsonFormatter
from labkit.shop.metrics import DURATION_BUCKETS_S, Telemetry
from labkit.shop.rates import JOURNEY, LIVE_RATES_PER_S, OK_STATUS, REQUESTS_PER_S
from labkit.shop.server import Service, run_service
from labkit.shop.state import Replica
from tests.shop.shop_stack import free_ports

GATEWAY = {
    "SHOP_PORT": "8080",
    "SHOP_CATALOG_URLS": "http://a:1, http://b:2/",
    "SHOP_PAYMENTS_URLS": "http://c:3",
    "SHOP_CART_URL": "http://d:4",
    "SHOP_ORDERS_URL": "http://e:5",
}


class Clock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        """The present second."""
        """The present second."""
        return self.now


def balancer(count: int = 2) -> tuple[Balancer, Clock]:
    clock = Clock()
    return Balancer("catalog", [f"http://{n}" for n in range(count)], clock=clock), clock


def picks(balance: Balancer, count: int = 4) -> set[str]:
    return {target.name for target in (balance.pick() for _ in range(count)) if target}


def test_three_failures_in_a_row_eject_a_replica_and_time_brings_it_back():
    """An ejected replica gets no call for EJECT_S seconds; then one failure ejects it again."""
    balance, clock = balancer()
    bad = balance.targets[0]
    for _ in range(3):
        balance.failed(bad)
    assert picks(balance) == {"catalog-2"}
    clock.now += EJECT_S
    assert picks(balance) == {"catalog-1", "catalog-2"}
    balance.failed(bad)
    assert picks(balance) == {"catalog-2"}


def test_failures_with_successes_between_do_not_eject():
    """Only failures in a row count: a replica that fails now and then stays."""
    balance, _ = balancer()
    for _ in range(10):
        balance.failed(balance.targets[0])
        balance.failed(balance.targets[0])
        balance.succeeded(balance.targets[0])
    assert picks(balance) == {"catalog-1", "catalog-2"}


def test_the_last_replicas_are_not_taken_out_on_a_suspicion():
    """When all are ejected they are used all the same; when all say not ready there is nobody."""
    balance, _ = balancer()
    for target in balance.targets * 3:
        balance.failed(target)
    assert picks(balance) == {"catalog-1", "catalog-2"}
    for target in balance.targets:
        balance.probed(target, ready=False)
    assert balance.pick() is None


def test_a_retry_goes_to_another_replica_if_there_is_one():
    """The replica that just failed is avoided; a service with one replica is asked again."""
    two, _ = balancer()
    one, _ = balancer(1)
    assert all(two.pick(avoid=[two.targets[0]]) is two.targets[1] for _ in range(4))
    assert one.pick(avoid=one.targets) is one.targets[0]


def test_a_replica_that_becomes_ready_is_forgiven():
    """Its earlier failures say nothing about the restarted process."""
    balance, _ = balancer()
    bad = balance.targets[0]
    for _ in range(3):
        balance.failed(bad)
    balance.probed(bad, ready=False)
    balance.probed(bad, ready=True)
    assert not balance.ejected(bad)


@given(st.lists(st.booleans(), max_size=400))
@settings(max_examples=50)
def test_retries_never_exceed_the_budget(calls: list[bool]):
    """However calls and failures mix, retries are at most a tenth of the calls and the reserve."""
    budget, made = RetryBudget(share=0.1, reserve=5, clock=Clock()), 0
    for fails in calls:
        budget.earn()
        made += fails and budget.take()
    assert made <= 5 + 0.1 * len(calls) + 1e-9


def test_a_quiet_service_gets_its_retries_back():
    """Half a retry per second comes back without any call, up to the reserve."""
    clock = Clock()
    budget = RetryBudget(reserve=3, clock=clock)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 2
    assert budget.tokens == pytest.approx(1)
    clock.now += 1000
    assert budget.tokens == 3


def test_a_flag_takes_only_values_of_its_type():
    """True is not 1 and 1 is not True; a refused value changes nothing."""
    flags = FlagSet("catalog")
    for name, value in (("n_plus_one", 1), ("page_size", True), ("page_size", 0), ("page_size", "20")):
        with pytest.raises(InvalidValue, match=name):
            flags.set(name, value)
    assert flags.changed() == {}


def test_an_unknown_flag_lists_those_there_are():
    """The error carries the nearest name and all names of this service, not those of others."""
    with pytest.raises(UnknownName) as caught:
        FlagSet("catalog").set("n_plus_on", True)
    assert caught.value.nearest == "n_plus_one"
    assert "missing_index" not in caught.value.known


def test_every_weakness_is_off_by_default():
    """The shop is healthy until somebody decides otherwise, and there are the six of the design."""
    weaknesses = [flag for flag in FLAGS if flag.weakness]
    assert [flag.default for flag in weaknesses] == [False] * 7


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        ("latency", {"ms": -1}),
        ("latency", {"ms": True}),
        ("error", {"status": 200}),
        ("error", {"share": 1.5}),
        ("hang", {"endpoint": ""}),
        ("cpu", {"for_s": 10_000}),
    ],
)
def test_a_fault_refuses_parameters_out_of_bounds(name: str, given_: dict[str, object]):
    """A wrong parameter starts nothing."""
    faults = FaultSet()
    with pytest.raises(InvalidValue):
        faults.apply(name, given_)
    assert faults.describe() == []


def test_unknown_faults_and_parameters_raise():
    """An unknown name is an error with suggestions, never ignored."""
    with pytest.raises(UnknownName, match="did you mean 'latency'"):
        FaultSet().apply("latancy", {})
    with pytest.raises(UnknownName, match="did you mean 'share'"):
        FaultSet().apply("error", {"shere": 0.5})


def test_a_fault_meets_its_endpoint_and_ends_by_itself():
    """An error meets the endpoint it is for, not others and not probes, and is gone after for_s."""

    async def story() -> list[int | None]:
        faults = FaultSet()
        faults.apply("error", {"status": 503, "endpoint": "/products", "for_s": 0.1})
        met = [await faults.meet("/products"), await faults.meet("/prices"), await faults.meet("/healthz", probe=True)]
        await asyncio.sleep(0.15)
        return [*met, await faults.meet("/products")]

    assert asyncio.run(story()) == [503, None, None, None]


def test_a_share_is_a_share():
    """A share of 0.3 meets about three requests in ten."""

    async def story() -> int:
        faults = FaultSet()
        faults.apply("error", {"share": 0.3})
        hits = sum([await faults.meet("/x") is not None for _ in range(4000)])
        faults.undo_all()
        return hits

    assert 1000 < asyncio.run(story()) < 1400


def test_undoing_a_hang_lets_its_requests_go():
    """Requests that were held are served when the fault ends."""

    async def story() -> int | None:
        faults = FaultSet()
        faults.apply("hang", {})
        held = asyncio.create_task(faults.meet("/products"))
        await asyncio.sleep(0.02)
        assert not held.done()
        assert faults.undo("hang")
        return await asyncio.wait_for(held, 1)

    assert asyncio.run(story()) is None


def test_the_version_is_a_label_of_one_series_only():
    """A deploy moves shop_build_info and leaves counters alone, so that rates survive it."""
    telemetry = Telemetry("1.0.0")
    telemetry.request_done("GET", "/products", 200, 0.003)
    telemetry.version = "1.1.0"
    page = telemetry.exposition("")[0].decode()
    assert [line for line in page.splitlines() if "version=" in line] == ['shop_build_info{version="1.1.0"} 1.0']


def test_openmetrics_has_no_created_series():
    """A scraper that asks for OpenMetrics gets it, without one more series per counter."""
    telemetry = Telemetry("1.0.0")
    telemetry.request_done("BREW", "/products", 418, 0.003)
    page, content_type = telemetry.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert b"_created" not in page
    assert b'method="OTHER"' in page


def test_the_buckets_are_those_of_the_history():
    """The bounds are the contract with the seeded past."""
    assert DURATION_BUCKETS_S == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


def test_the_rates_add_up():
    """The rates per endpoint are the journey's shares of the total, and each has its good status."""
    assert sum(LIVE_RATES_PER_S.values()) == pytest.approx(REQUESTS_PER_S)
    assert set(LIVE_RATES_PER_S) == set(JOURNEY) == set(OK_STATUS)
    assert LIVE_RATES_PER_S["POST", "/checkout/{user}"] >= 1


def test_a_log_line_is_one_json_object_with_the_agreed_keys():
    """Time in UTC with milliseconds, ids that are null until there is a trace, the fields beside the message."""
    record = logging.LogRecord("x", logging.INFO, "f", 1, "two\nlines", None, None)
    record.fields = {"status": 200}
    line = JsonFormatter(load_config("gateway", GATEWAY)).format(record)
    said = json.loads(line)
    assert "\n" not in line
    assert list(said)[:8] == ["time", "level", "service", "instance", "message", "request_id", "trace_id", "span_id"]
    assert said["time"].endswith("+00:00")
    assert len(said["time"]) == 29
    assert (said["trace_id"], said["status"]) == (None, 200)


def payments(folder: Path) -> Replica:
    environ = {
        "SHOP_PORT": str(free_ports(1)[0]),
        "SHOP_STATE_FILE": str(folder / "p.json"),
        "SHOP_DEPLOY_LOG": str(folder / "d.jsonl"),
    }
    return Replica.start(load_config("payments", environ))


def test_flags_and_version_outlive_a_restart_and_reset_forgets_them(tmp_path: Path):
    """A restarted replica is as it was configured at run time; a reset one is as it was started."""
    first = payments(tmp_path)
    first.flags.set("shallow_readiness", True)
    first.deploy("2.0.0", actor="ada", time="2026-03-01T00:00:00.000+00:00")
    second = payments(tmp_path)
    assert (second.telemetry.version, second.flags.changed()) == ("2.0.0", {"shallow_readiness": True})
    second.reset(actor="reset", time="2026-03-01T00:01:00.000+00:00")
    third = payments(tmp_path)
    assert (third.telemetry.version, third.flags.changed()) == ("1.0.0", {})
    log = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(entry["previous"], entry["version"]) for entry in log] == [("1.0.0", "2.0.0"), ("2.0.0", "1.0.0")]


def test_a_damaged_line_of_the_deploy_log_hides_no_other(tmp_path: Path):
    """A disk that was full may have cut one."""
    first = payments(tmp_path)
    assert first.deploys() == []
    entry = first.deploy("2.0.0", actor="ada", time="2026-03-01T00:00:00.000+00:00")
    with (tmp_path / "d.jsonl").open("a") as file:
        file.write('{"time": "20\n3\n\n')
    assert payments(tmp_path).deploys() == [entry]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "2"}', '{"version": "2", "flags": 3}'])
def test_a_broken_state_file_does_not_stop_a_start(tmp_path: Path, text: str):
    """Crash-only: whatever the last process left behind, the next one starts, at its defaults."""
    (tmp_path / "p.json").write_text(text)
    assert payments(tmp_path).telemetry.version == "1.0.0"


def test_queues_that_are_out_of_reach_are_named() -> None:
    """Redis does not answer: `reset` has tried all the rest and says so; `queue_lengths` too."""
    admin = ShopAdmin({}, "t", redis_url=f"redis://127.0.0.1:{free_ports(1)[0]}/0")

    with pytest.raises(NotRunning, match=r"Not every replica was reset: redis: Error .*refused"):
        admin.reset()
    with pytest.raises(NotRunning, match=r"The queues cannot be reached: Error .*refused"):
        admin.queue_lengths()


def test_the_admin_client_names_what_it_does_not_know():
    """Unknown replicas and faults are errors before any call is made; who does not answer is named."""
    admin = ShopAdmin({"catalog-1": "http://127.0.0.1:1", "gateway": "http://127.0.0.1:1"}, "t")
    with pytest.raises(UnknownName, match="did you mean 'catalog'"):
        admin.instances("catalogue")
    with pytest.raises(UnknownName, match="did you mean 'latency'"):
        admin.inject("latancy", on="catalog")
    with pytest.raises(InvalidValue, match="gateway"):
        admin.inject("latency", on="")
    with pytest.raises(NotRunning, match="deploy log cannot be read: catalog-1: connection refused"):
        admin.deploy_log()
    with pytest.raises(NotRunning, match="catalog-1 does not answer"):
        admin.flags()


def test_links_without_a_port_are_named_before_anything_is_asked():
    """Every upstream that has no port is listed."""
    upstreams = {link.upstream: "127.0.0.1:1" for link in read_links() if link.name not in {"redis", "cart"}}
    with pytest.raises(ConfigInvalid) as caught:
        apply_links("http://127.0.0.1:1", upstreams)
    assert len(caught.value.problems) == 2


def test_the_links_are_the_agreed_ones():
    """Names and ports that callers and callees must agree on."""
    found = {link.name: link.listen for link in read_links()}
    assert found == {
        "catalog-1": 8281,
        "catalog-2": 8282,
        "cart": 8283,
        "orders": 8284,
        "payments-1": 8285,
        "payments-2": 8286,
        "mariadb": 8290,
        "redis": 8291,
    }


class Clumsy(Service):
    """A service with a handler and, if asked, a duty that fail in ways nobody foresaw."""

    broken_duty = False

    def routes(self) -> list[web.RouteDef]:
        """One route, which raises."""
        return [web.get("/clumsy", self._raise)]

    async def start(self) -> None:
        """Begin the duty that fails."""
        if self.broken_duty:
            self.in_background(self._fail())

    async def _fail(self) -> None:
        raise RuntimeError("unforeseen")

    async def _raise(self, _: web.Request) -> web.Response:
        raise ZeroDivisionError


def test_an_unforeseen_error_is_counted_as_500(tmp_path: Path):
    """A defect in a handler is an answer and a count, not a request that nobody sees."""

    async def story() -> tuple[int, bytes]:
        service = Clumsy(payments(tmp_path))
        async with TestClient(TestServer(service.app())) as client:
            answer = await client.get("/clumsy")
        return answer.status, service.telemetry.exposition("")[0]

    status, page = asyncio.run(story())
    assert status == 500
    assert b'http_requests_total{endpoint="/clumsy",method="GET",status="500"} 1.0' in page


def test_a_failed_duty_ends_the_process(tmp_path: Path):
    """A service whose background work has died does not go on half alive; whoever watches restarts it."""

    async def story() -> bool:
        service = Clumsy(payments(tmp_path))
        service.broken_duty = True
        return await asyncio.wait_for(run_service(service), 10)

    assert asyncio.run(story()) is False
