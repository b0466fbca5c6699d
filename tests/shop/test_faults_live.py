"""Faults, weaknesses and dying replicas: each is seen while it lasts and gone after."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pymysql
import pytest
import redis
import requests

from labkit._wait import wait_until
from tests.shop.shop_stack import ShopStack, buy, somebody

pytestmark = pytest.mark.live


def took_s(action: Callable[[], object]) -> float:
    """Seconds that *action* takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


def statuses(shop: ShopStack, count: int, path: str = "/products") -> Counter[int]:
    """Statuses of *count* requests at the gateway, one after the other."""
    return Counter(shop.get("gateway", path).status_code for _ in range(count))


def rows_read(shop: ShopStack) -> int:
    """Rows that MariaDB has read one after the other, since it started."""
    return int(shop.sql("SHOW GLOBAL STATUS LIKE 'Handler_read_rnd_next'")[0]["Value"])


def attempts(shop: ShopStack, target: str = "") -> float:
    """Calls that the gateway made, each attempt counted."""
    return shop.total("gateway", 'http_client_requests_total{outcome="', f'target="{target}')


def test_latency_applies_and_undoes(shop: ShopStack):
    """400 ms more at one endpoint of one replica, nothing elsewhere, nothing after."""
    admin = shop.admin()
    admin.inject("latency", on="catalog-1", ms=400, endpoint="/products")
    assert took_s(lambda: shop.get("catalog-1", "/products")) > 0.4
    assert took_s(lambda: shop.get("catalog-1", "/products/1")) < 0.3
    assert admin.undo("latency") == ["catalog-1"]
    assert took_s(lambda: shop.get("catalog-1", "/products")) < 0.3


def test_errors_apply_and_undo_themselves(shop: ShopStack):
    """A fault with for_s ends by itself, without anyone to undo it."""
    shop.admin().inject("error", on="catalog-1", status=503, for_s=0.6)
    answer = shop.get("catalog-1", "/products")
    assert (answer.status_code, shop.get("catalog-1", "/healthz").status_code) == (503, 200)
    wait_until(lambda: shop.get("catalog-1", "/products").status_code == 200, "healthy by itself", timeout_s=5)
    assert shop.admin().faults("catalog-1") == {"catalog-1": []}


def test_a_hang_holds_everything_but_the_admin_port(shop: ShopStack):
    """A hung replica accepts and never answers, probes included; undone, it answers what it holds."""
    admin = shop.admin()
    admin.inject("hang", on="payments-1")
    with pytest.raises(requests.ReadTimeout):
        shop.get("payments-1", "/healthz", timeout_s=0.5)
    admin.undo("hang")
    assert shop.get("payments-1", "/healthz").status_code == 200


def test_a_crash_is_a_crash_and_a_restart_cures_it(shop: ShopStack):
    """The process is gone with its own exit code; the next one has no fault."""
    shop.admin().inject("crash", on="payments-2")
    assert shop.processes["payments-2"].wait(5) == 70
    shop.start_replica("payments-2")
    shop.wait_ready(["payments-2"])
    assert shop.admin().faults("payments-2") == {"payments-2": []}


def test_cpu_burn_shows_in_the_process_and_ends(shop: ShopStack):
    """The replica burns processor time, which a busy machine grants late, and hardly any after the fault is undone."""

    def used_s() -> float:
        return shop.metrics("catalog-1")["process_cpu_seconds_total"]

    before = used_s()
    shop.admin().inject("cpu", on="catalog-1", share=0.5)
    wait_until(lambda: used_s() > before + 1, "a second of processor time is burnt", timeout_s=30)
    shop.admin().undo("cpu")
    before, start = used_s(), time.monotonic()
    wait_until(lambda: time.monotonic() > start + 1.5, "a second and a half is over", timeout_s=10, every_s=0.02)
    assert used_s() - before < 0.2 * (time.monotonic() - start)


def test_memory_grows_to_its_bound_and_is_given_back(shop: ShopStack):
    """The process holds what was asked for, not more, and returns it."""

    def resident_mb() -> float:
        return shop.metrics("cart")["process_resident_memory_bytes"] / 2**20

    before = resident_mb()
    shop.admin().inject("memory", on="cart", mb=40, mb_per_s=200)
    wait_until(lambda: resident_mb() > before + 37, "grown", timeout_s=10)
    assert resident_mb() < before + 60
    shop.admin().undo("memory")
    wait_until(lambda: resident_mb() < before + 15, "given back", timeout_s=5)


def test_a_killed_catalog_makes_few_errors_and_its_return_is_noticed(shop: ShopStack):
    """Kill -9 of one of two replicas: a handful of 200 requests fail at most; restarted, it is used again."""
    shop.kill("catalog-1")
    seen = statuses(shop, 200)
    assert seen[200] >= 195
    assert shop.metrics("gateway")['http_client_target_available{target="catalog-1"}'] == 0
    before = attempts(shop, "catalog-1")
    assert statuses(shop, 20) == {200: 20}
    assert attempts(shop, "catalog-1") == before
    shop.start_replica("catalog-1")
    wait_until(shop.all_available, "catalog-1 gets calls again", timeout_s=10)
    statuses(shop, 4)
    assert attempts(shop, "catalog-1") > before


def test_a_stopped_payments_replica_is_left_out(shop: ShopStack):
    """SIGSTOP: the process accepts and never answers; checkouts take one time-out at most and then avoid it."""
    budget = 'http_client_retry_budget{upstream="payments"}'
    wait_until(lambda: shop.metrics("gateway")[budget] >= 4, "retries may be made", timeout_s=15)
    shop.signal("payments-1", signal.SIGSTOP)
    start = time.monotonic()
    answers = [buy(shop, somebody()) for _ in range(12)]
    assert Counter(answer.status_code for answer in answers)[201] >= 11
    assert time.monotonic() - start < 8
    assert shop.metrics("gateway")['http_client_target_available{target="payments-1"}'] == 0
    shop.signal("payments-1", signal.SIGCONT)
    wait_until(shop.all_available, "payments-1 gets calls again", timeout_s=10)


def test_n_plus_one_multiplies_the_statements(shop: ShopStack):
    """The same page of 20 products takes 1 statement, or 21 with the weakness; the answer is the same."""

    def statements() -> tuple[float, object]:
        before = shop.total("catalog-1", "db_queries_total", "product")
        page = shop.get("catalog-1", "/products").json()
        return shop.total("catalog-1", "db_queries_total", "product") - before, page

    healthy, page = statements()
    shop.admin().set_flag("n_plus_one", True)
    weak, same = statements()
    assert (healthy, weak, page == same) == (1, 21, True)


def test_statistics_by_customer_make_series_for_each(shop: ShopStack):
    """Each customer who asks makes twelve series; with the flag off again they go at the next answer."""

    def series() -> int:
        return sum(name.startswith("shop_customer_request_seconds") for name in shop.metrics("gateway"))

    def shop_around(*names: str) -> int:
        for name in names:
            assert shop.get("gateway", f"/cart/{name}").status_code == 200
        return series()

    assert shop_around("ann") == 0
    shop.admin().set_flag("customer_statistics", True)
    assert shop_around("ann", "ben", "ann") == 24
    shop.admin().restore_flag("customer_statistics")
    assert shop_around("cleo") == 0


def test_the_missing_index_reads_the_whole_table(shop: ShopStack):
    """Without the index each order reads every row; with it only the user's own."""

    def read() -> int:
        before = rows_read(shop)
        assert shop.get("orders", "/orders?user=customer-7").status_code == 200
        return rows_read(shop) - before

    orders = shop.sql("SELECT COUNT(*) AS n FROM orders")[0]["n"]
    healthy = read()
    shop.admin().set_flag("missing_index", True)
    assert read() > orders > 10 * max(healthy, 1)


def test_the_unbounded_queue_grows_past_its_cap(shop: ShopStack):
    """At the cap jobs are shed and counted, orders still succeed; with the weakness the queue takes everything."""
    shop.signal("worker", signal.SIGSTOP)
    with redis.Redis(port=shop.ports["redis"]) as connection:
        connection.lpush("email_queue", *['{"order": 1, "user": "ada", "queued": 1}'] * 501)
    full = shop.admin().queue_lengths()["email_queue"]
    shed = shop.total("orders", "shop_jobs_queued_total", "email_queue", "shed")
    assert buy(shop, somebody()).status_code == 201
    assert shop.admin().queue_lengths()["email_queue"] == full
    assert shop.total("orders", "shop_jobs_queued_total", "email_queue", "shed") == shed + 1
    shop.admin().set_flag("unbounded_queue", True)
    assert buy(shop, somebody()).status_code == 201
    assert shop.admin().queue_lengths()["email_queue"] == full + 1
    shop.admin().purge_queues()


def test_without_a_timeout_a_hang_spreads(shop: ShopStack):
    """While payments hang, a checkout fails within about two seconds; without the time-out it hangs as well."""
    admin = shop.admin()
    user = somebody()
    shop.post(f"/cart/{user}", {"product": 3, "quantity": 1})
    admin.inject("hang", on="payments", endpoint="/charges")
    start = time.monotonic()
    answer = shop.post(f"/checkout/{user}", None)
    assert (answer.status_code, time.monotonic() - start < 4) == (504, True)
    admin.set_flag("payments_without_timeout", True)
    with pytest.raises(requests.ReadTimeout):
        shop.post(f"/checkout/{user}", None, timeout_s=4)
    assert shop.total("gateway", "http_client_requests_in_flight", "payments") >= 1


def test_calls_that_hang_take_the_connections_of_everyone(shop: ShopStack):
    """Without the time-out, a hundred checkouts that hang in payments leave no connection to show a product with."""
    admin = shop.admin()
    users = [somebody() for _ in range(110)]
    for user in users:
        shop.post(f"/cart/{user}", {"product": 3, "quantity": 1})
    admin.inject("hang", on="payments", endpoint="/charges")
    admin.set_flag("payments_without_timeout", True)

    def check_out(user: str) -> None:
        with suppress(requests.RequestException):
            shop.post(f"/checkout/{user}", None, timeout_s=4)

    with ThreadPoolExecutor(len(users)) as pool:
        for user in users:
            pool.submit(check_out, user)
        wait_until(
            lambda: shop.total("gateway", "http_client_requests_in_flight", "payments") >= 100, "full", timeout_s=10
        )
        assert statuses(shop, 2) == {504: 2}
        assert shop.metrics("gateway")['http_client_pool_connections{state="used"}'] == 100
    admin.undo("hang")
    wait_until(lambda: statuses(shop, 3) == {200: 3}, "products are shown again", timeout_s=15)


def test_retries_without_a_budget_multiply_the_load(shop: ShopStack):
    """While catalog fails, the budget keeps attempts near the requests; without it there are four for each."""

    def attempts_per_request() -> float:
        before = attempts(shop, "catalog")
        assert statuses(shop, 40) == {502: 40}
        return (attempts(shop, "catalog") - before) / 40

    shop.admin().inject("error", on="catalog")
    healthy = attempts_per_request()
    shop.admin().set_flag("retries_without_budget", True)
    assert healthy < 1.3
    assert attempts_per_request() == 4


def test_shallow_readiness_hides_a_dead_database(shop: ShopStack):
    """With the link to MariaDB shut, a deep probe says not ready; a shallow one says ready and requests fail."""
    requests.post(f"{shop.toxiproxy}/proxies/mariadb", json={"enabled": False}, timeout=5)
    assert shop.get("catalog-1", "/readyz").status_code == 503
    shop.admin().set_flag("shallow_readiness", True, on="catalog")
    assert shop.get("catalog-1", "/readyz").status_code == 200
    assert shop.get("catalog-1", "/products").status_code == 503


def test_slow_mariadb_is_an_answer_not_a_pile(shop: ShopStack):
    """When statements hang, requests end in time with 503 and say which statement; nothing waits for ever."""
    toxic = {"name": "hang", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}
    requests.post(f"{shop.toxiproxy}/proxies/mariadb/toxics", json=toxic, timeout=5)
    start = time.monotonic()
    answer = shop.get("orders", "/orders?user=ada", timeout_s=8)
    assert (answer.status_code, "MariaDB" in answer.json()["error"]) == (503, True)
    assert time.monotonic() - start < 5


def test_the_monitor_user_reads_and_cannot_write(shop: ShopStack):
    """Exporters see tables and processes; they change nothing."""
    connection = pymysql.connect(
        host="127.0.0.1", port=shop.ports["mariadb"], user="monitor", password="m", database="shop"
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM products")
        assert cursor.fetchone() == (100,)
        cursor.execute("SHOW PROCESSLIST")
        assert len(cursor.fetchall()) > 1
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute("DELETE FROM orders")
