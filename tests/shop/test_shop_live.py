"""The shop at work: the whole flow, its metrics, its admin port, its probes, its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import redis
import requests

from labkit._wait import wait_until
from labkit.errors import InvalidValue, NotRunning, UnknownName
from labkit.settings import files_root
from labkit.shop.links import apply_links, remove_toxics
from labkit.shop.rates import LIVE_RATES_PER_S, OK_STATUS, REQUESTS_PER_S
from tests.shop.shop_stack import REPLICAS, TOKEN, ShopStack, buy, somebody

pytestmark = pytest.mark.live


def test_a_purchase_goes_all_the_way(shop: ShopStack):
    """Browse, cart, check out: the order is in MariaDB at the catalog's price, worked off, the cart is empty."""
    user = somebody()
    product = shop.get("gateway", "/products/7").json()
    answer = buy(shop, user, 7)
    order = answer.json()
    assert (answer.status_code, order["amount_cents"]) == (201, 2 * product["price_cents"])
    assert shop.get("gateway", f"/cart/{user}").json()["items"] == []
    rows = wait_until(
        lambda: shop.sql(f"SELECT * FROM orders WHERE id = {order['order']} AND status = 'completed'"),  # noqa: S608
        "the worker completed the order",
        timeout_s=10,
    )
    items = shop.sql(f"SELECT product_id, quantity FROM order_items WHERE order_id = {order['order']}")  # noqa: S608
    assert (rows[0]["user_id"], items) == (user, [{"product_id": 7, "quantity": 2}])
    assert shop.get("gateway", f"/orders/{user}").json()["count"] == 1


def test_the_same_key_never_buys_twice(shop: ShopStack):
    """A checkout repeated with its Idempotency-Key, even at the same time, gives the same order and charge."""
    user, key = somebody(), uuid4().hex
    assert shop.post(f"/cart/{user}", {"product": 3, "quantity": 1}).status_code == 200

    def check_out(_: int) -> requests.Response:
        return shop.post(f"/checkout/{user}", None, headers={"Idempotency-Key": key})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(check_out, range(4)))
    again = check_out(0)
    orders = {answer.json()["order"] for answer in [*answers, again] if answer.status_code < 400}
    assert (len(orders), again.status_code) == (1, 200)
    assert shop.sql(f"SELECT COUNT(*) AS n FROM orders WHERE user_id = '{user}'") == [{"n": 1}]  # noqa: S608


@pytest.mark.parametrize(
    ("path", "body", "status", "part"),
    [
        ("/cart/bad", {"product": "3", "quantity": 1}, 400, "product must be a whole number"),
        ("/cart/bad", {"product": 3, "quantity": 1000}, 400, "from 1 to 99"),
        ("/cart/bad", [], 400, "JSON object"),
        ("/checkout/nobody-at-all", None, 409, "empty"),
        ("/nothing-here", {}, 404, "Not Found"),
    ],
)
def test_a_bad_request_is_the_clients_error_and_says_why(
    shop: ShopStack, path: str, body: object, status: int, part: str
):
    """Mistakes of a client are answered with 4xx and a reason; they burn nobody's error budget."""
    answer = shop.post(path, body)
    assert (answer.status_code, part in answer.json()["error"]) == (status, True)


def test_a_product_that_does_not_exist_cannot_be_bought(shop: ShopStack):
    """The cart takes the number, the checkout refuses it before any money moves."""
    before = shop.total("payments-1", "shop_charges_total") + shop.total("payments-2", "shop_charges_total")
    answer = buy(shop, somebody(), 99_999)
    after = shop.total("payments-1", "shop_charges_total") + shop.total("payments-2", "shop_charges_total")
    assert (answer.status_code, before == after) == (409, True)
    assert "99999" in answer.json()["error"]


def test_sessions_and_active_users_are_kept_current(shop: ShopStack):
    """Who touched a cart is an active user in MariaDB a few seconds later, by the query of the exporter."""
    user = somebody()
    shop.post(f"/cart/{user}", {"product": 3, "quantity": 1})
    query = "SELECT DISTINCT user_id FROM user_sessions WHERE last_activity > NOW() - INTERVAL 15 MINUTE"
    wait_until(lambda: {"user_id": user} in shop.sql(query), "the user is active", timeout_s=10)
    assert shop.metrics("worker")["shop_active_users"] >= 1


PROMISED = {
    "gateway": (
        "http_requests_total http_request_duration_seconds_bucket http_requests_in_flight shop_checkouts_total"
        " http_client_requests_total http_client_request_duration_seconds_bucket http_client_target_available"
        " http_client_requests_in_flight http_client_retry_budget http_client_pool_connections"
    ),
    "catalog-1": "db_queries_total db_query_duration_seconds_bucket db_pool_connections db_pool_waiting",
    "cart": "redis_commands_total redis_pool_connections",
    "orders": "shop_orders_total shop_revenue_euros_total shop_jobs_queued_total db_pool_connections",
    "payments-1": "http_requests_in_flight",
    "worker": (
        "shop_jobs_total shop_queue_length shop_queue_wait_seconds shop_job_duration_seconds_bucket"
        " shop_active_users db_pool_connections"
    ),
}


@pytest.mark.parametrize("replica", PROMISED)
def test_every_promised_metric_is_there_and_well_formed(shop: ShopStack, program: object, replica: str):
    """The names of docs/shop.md are exposed, and promtool has nothing to say about them."""
    buy(shop, somebody())
    wait_until(lambda: shop.total("worker", "shop_jobs_total") > 0, "a job is done", timeout_s=5)
    page = shop.get(replica, "/metrics").text
    names = {line.partition("{")[0].partition(" ")[0] for line in page.splitlines()}
    common = {"event_loop_lag_seconds", "shop_build_info", "process_resident_memory_bytes", "process_cpu_seconds_total"}
    assert {*PROMISED[replica].split(), *common} - names == set()
    checked = subprocess.run(
        [str(program("promtool")), "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_paths_never_become_labels(shop: ShopStack):
    """A thousand products are one endpoint, and paths that do not exist are one more."""
    for number in range(5):
        shop.get("gateway", f"/products/{number + 1}")
        shop.get("gateway", f"/{uuid4()}")
    endpoints = {text.split('endpoint="')[1].split('"')[0] for text in shop.metrics("gateway") if "endpoint=" in text}
    assert endpoints <= {"unmatched", "/orders/{user}", *(endpoint for _, endpoint in LIVE_RATES_PER_S)}


def test_the_request_id_is_the_same_in_every_service(shop: ShopStack):
    """What the client sends (or the gateway makes) comes back and is in the logs of whoever was asked."""
    answer = shop.get("gateway", "/products", headers={"X-Request-ID": "id-of-the-test"})
    assert answer.headers["X-Request-ID"] == "id-of-the-test"
    shop.admin().set_flag("access_log", True, on="catalog")
    shop.get("gateway", "/products", headers={"X-Request-ID": "id-in-the-log"})
    lines = [json.loads(line) for name in ("catalog-1", "catalog-2") for line in shop.log(name)]
    assert [line["status"] for line in lines if line.get("request_id") == "id-in-the-log"] == [200]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN + "x"}])
def test_the_admin_port_needs_the_token(shop: ShopStack, headers: dict[str, str]):
    """Without the token every path, known or not, is refused in JSON."""
    for path in ("/admin/state", "/admin/faults/crash", "/nothing"):
        answer = requests.get(shop.admin_url("catalog-1") + path, headers=headers, timeout=5)
        assert (answer.status_code, "Bearer" in answer.json()["error"]) == (401, True)


def test_the_admin_port_names_what_it_does_not_know(shop: ShopStack):
    """Unknown flag: 404 with all known and the nearest; wrong value and body: 422; wrong path: 404."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {TOKEN}"
    base = shop.admin_url("catalog-1")
    unknown = session.put(f"{base}/admin/flags/n_plus_on", json={"value": True}, timeout=5)
    assert (unknown.status_code, unknown.json()["nearest"]) == (404, "n_plus_one")
    assert "page_size" in unknown.json()["known"]
    assert session.put(f"{base}/admin/flags/page_size", json={"value": 0}, timeout=5).status_code == 422
    assert session.put(f"{base}/admin/flags/page_size", data="{", timeout=5).status_code == 422
    assert session.put(f"{base}/admin/faults/latency", json={"s": 1}, timeout=5).status_code == 404
    assert session.post(f"{base}/admin/deploy", json={}, timeout=5).status_code == 422
    assert session.get(f"{base}/admin/secrets", timeout=5).json() == {"error": "GET /admin/secrets: Not Found"}


def test_the_admin_client_sees_and_sets_flags(shop: ShopStack):
    """A flag is set on the replicas that have it, and only there."""
    admin = shop.admin()
    assert admin.set_flag("page_size", 5, on="catalog-1") == ["catalog-1"]
    assert admin.flags("catalog") == {
        "catalog-1": admin.flags("catalog-2")["catalog-2"] | {"page_size": 5},
        "catalog-2": admin.flags("catalog-2")["catalog-2"],
    }
    assert len(shop.get("catalog-1", "/products").json()["products"]) == 5
    assert admin.set_flag("shallow_readiness", False) == list(REPLICAS)
    assert admin.restore_flag("page_size") == ["catalog-1", "catalog-2"]
    with pytest.raises(UnknownName, match="page_size"):
        admin.set_flag("pagesize", 3)
    with pytest.raises(InvalidValue, match="n_plus_one"):
        admin.set_flag("n_plus_one", 1)


def test_a_deploy_changes_the_version_and_is_written_down(shop: ShopStack):
    """The new version is a label at once, the log has one line per replica, and reset goes back."""
    admin = shop.admin()
    before = len(admin.deploy_log())
    entries = admin.deploy("1.7.0", on="catalog", actor="ada")
    assert 'shop_build_info{version="1.7.0"}' in shop.metrics("catalog-2")
    assert admin.deploy_log()[before:] == entries
    assert [(e["instance"], e["version"], e["previous"], e["actor"]) for e in entries] == [
        ("catalog-1", "1.7.0", "1.0.0", "ada"),
        ("catalog-2", "1.7.0", "1.0.0", "ada"),
    ]
    admin.reset()
    assert {s["version"] for s in admin.state().values()} == {"1.0.0"}
    assert [e["version"] for e in admin.deploy_log()[before + 2 :]] == ["1.0.0", "1.0.0"]


def test_reset_reaches_the_living_and_names_the_dead(shop: ShopStack):
    """One replica that is down does not keep the others from being reset, and is not passed over in silence."""
    admin = shop.admin()
    admin.set_flag("n_plus_one", True)
    shop.kill("catalog-1")
    with pytest.raises(NotRunning, match="catalog-1: connection refused"):
        admin.reset()
    assert admin.flags("catalog-2")["catalog-2"]["n_plus_one"] is False


def test_queues_can_be_purged(shop: ShopStack):
    """Jobs that wait, and one that was taken, are gone after a purge."""
    shop.signal("worker", signal.SIGSTOP)
    buy(shop, somebody())
    admin = shop.admin()
    assert admin.purge_queues() >= 3
    assert set(admin.queue_lengths().values()) == {0}


def test_ready_and_alive_are_different_answers(shop: ShopStack):
    """While MariaDB is down catalog is alive and not ready, says why, and is ready again after; it never restarts."""
    shop.kill("mariadb")
    answer = wait_until(
        lambda: shop.get("catalog-1", "/readyz"), "not ready", timeout_s=10, ready=lambda a: a.status_code == 503
    )
    assert "MariaDB" in answer.json()["why"]["mariadb"]
    assert shop.get("catalog-1", "/healthz").status_code == 200
    assert shop.get("cart", "/readyz").status_code == 200
    shop.start_mariadb()
    shop.wait_ready(["catalog-1", "catalog-2", "orders", "worker"])
    assert shop.processes["catalog-1"].poll() is None


def test_a_service_starts_before_what_it_needs(shop: ShopStack):
    """A replica that comes up while MariaDB is away waits for it, alive and not ready, and then serves."""
    shop.kill("catalog-1")
    shop.kill("mariadb")
    shop.start_replica("catalog-1")
    wait_until(
        lambda: shop.get("catalog-1", "/healthz").status_code == 200,
        "alive",
        timeout_s=10,
        tolerate=(requests.ConnectionError,),
    )
    assert shop.get("catalog-1", "/readyz").status_code == 503
    shop.start_mariadb()
    shop.wait_ready(["catalog-1"])
    assert shop.get("catalog-1", "/products").status_code == 200


def test_sigterm_lets_the_request_in_flight_end(shop: ShopStack):
    """A replica told to stop answers what it has accepted, then exits with 0 within a few seconds."""
    shop.admin().inject("latency", on="catalog-2", ms=800)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(shop.get, "catalog-2", "/products")
        wait_until(
            lambda: shop.metrics("catalog-2")["http_requests_in_flight"] == 1, "in flight", timeout_s=2, every_s=0.02
        )
        started = time.monotonic()
        shop.signal("catalog-2", signal.SIGTERM)
        assert slow.result().status_code == 200
    assert shop.processes["catalog-2"].wait(6) == 0
    assert time.monotonic() - started < 6


def test_a_taken_port_is_said_in_one_line(shop: ShopStack):
    """A second process with the ports of the first exits with 69 and names its address."""
    argv = [sys.executable, "-m", "labkit.shop", "cart"]
    done = subprocess.run(argv, env=shop.environment("cart"), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 69
    assert "cart cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_malformed_job_stops_nobody(shop: ShopStack):
    """A job that cannot be done is dropped and counted, and the next one is done."""
    with redis.Redis(port=shop.ports["redis"]) as connection:
        connection.lpush("email_queue", "{", "[]", "{}")
    wait_until(
        lambda: shop.total("worker", "shop_jobs_total", "email_queue", "malformed") >= 3, "dropped", timeout_s=10
    )
    done = shop.total("worker", "shop_jobs_total", "email_queue", "done")
    buy(shop, somebody())
    wait_until(lambda: shop.total("worker", "shop_jobs_total", "email_queue", "done") > done, "done", timeout_s=10)


def test_a_job_survives_the_death_of_the_worker(shop: ShopStack):
    """Kill -9 in the middle of a job: the restarted worker does it again, so no order stays half done."""
    shop.admin().inject("latency", on="worker", ms=20_000, endpoint="processing_queue")
    order = buy(shop, somebody()).json()["order"]
    wait_until(lambda: shop.admin().queue_lengths()["processing_queue"] == 0, "the job is taken", timeout_s=5)
    shop.kill("worker")
    shop.start_replica("worker")
    query = f"SELECT id FROM orders WHERE id = {order} AND status = 'completed'"  # noqa: S608
    wait_until(lambda: shop.sql(query), "the order is completed after all", timeout_s=15)
    assert shop.total("worker", "shop_jobs_total", "taken_again") >= 1


def test_old_orders_are_removed(shop: ShopStack):
    """The worker keeps the newest orders only, with their items, so that a lab can run for weeks."""
    bounds = shop.sql("SELECT MIN(id) AS oldest, MAX(id) AS newest FROM orders")[0]
    kept = bounds["newest"] - bounds["oldest"] - 50
    shop.kill("worker")
    shop.start_replica("worker", SHOP_ORDERS_KEEP=str(kept))
    oldest = wait_until(
        lambda: shop.sql("SELECT MIN(id) AS oldest FROM orders")[0]["oldest"],
        "old orders are gone",
        timeout_s=15,
        ready=lambda oldest: oldest > bounds["oldest"],
    )
    assert shop.sql("SELECT MIN(order_id) AS oldest FROM order_items")[0]["oldest"] == oldest


def test_links_are_made_once_and_toxics_removed(shop: ShopStack):
    """Applying the links again changes nothing; toxics, shut links and strangers are removed."""
    assert apply_links(shop.toxiproxy, shop.upstreams, links=shop.links) == []
    api = shop.toxiproxy
    requests.post(f"{api}/proxies/redis/toxics", json={"type": "latency", "attributes": {"latency": 900}}, timeout=5)
    requests.post(f"{api}/proxies/mariadb", json={"enabled": False}, timeout=5)
    assert remove_toxics(api) == 1
    proxies = requests.get(f"{api}/proxies", timeout=5).json()
    assert (proxies["redis"]["toxics"], proxies["mariadb"]["enabled"]) == ([], True)
    requests.post(f"{api}/proxies/orders", json={"upstream": "127.0.0.1:1"}, timeout=5)
    assert apply_links(api, shop.upstreams, links=shop.links) == ["orders"]


def test_the_load_keeps_its_rate(shop: ShopStack, tmp_path: Path):
    """The requests seen at the gateway are those of rates.py within 3 %, also after the gateway was away."""

    def seen() -> tuple[float, dict[tuple[str, str], float]]:
        page = shop.metrics("gateway")
        names = {
            step: f'http_requests_total{{endpoint="{step[1]}",method="{step[0]}",status="{OK_STATUS[step]}"}}'
            for step in LIVE_RATES_PER_S
        }
        return time.monotonic(), {step: page.get(name, 0.0) for step, name in names.items()}

    def rate_over(window_s: float) -> tuple[float, dict[tuple[str, str], float]]:
        start, before = seen()
        wait_until(lambda: time.monotonic() >= start + window_s, "the window is over", timeout_s=60, every_s=0.01)
        end, after = seen()
        rates = {step: (after[step] - before[step]) / (end - start) for step in before}
        return sum(rates.values()), rates

    argv = [sys.executable, "-m", "locust", "-f", str(files_root() / "labkit" / "shop" / "traffic.py"), "--headless"]
    argv += ["--only-summary", "--loglevel", "WARNING", "--host", shop.url("gateway")]
    with (tmp_path / "locust.log").open("wb") as log:
        load = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        start = shop.total("gateway", "http_requests_total")
        wait_until(lambda: shop.total("gateway", "http_requests_total") > start, "the load has begun", timeout_s=20)
        first, _ = rate_over(8)
        shop.kill("gateway")
        shop.start_replica("gateway")
        shop.wait_ready(["gateway"])
        wait_until(shop.all_available, "every replica gets calls", timeout_s=10)
        again, rates = rate_over(8)
    finally:
        load.terminate()
        code = load.wait(10)
    assert first == pytest.approx(REQUESTS_PER_S, rel=0.03)
    assert again == pytest.approx(REQUESTS_PER_S, rel=0.03)
    # Two periods of four seconds hold ten requests of each of the eight steps, give or take one.
    assert rates == pytest.approx(LIVE_RATES_PER_S, rel=0.2)
    assert code in {0, -signal.SIGTERM}
    assert (tmp_path / "locust.log").stat().st_size < 10_000
