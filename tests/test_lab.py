"""The whole lab, live: what runs, what it costs, what it remembers, and that it can always be put right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

import labkit
from labkit._http import get_json, request
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid, NotRunning
from labkit.lab import Lab, connect, stop_owned_by
from labkit.shop.history import build_history
from labkit.shop.rates import LIVE_RATES_PER_S
from labkit.stack.progress import silent
from labkit.stack.state import State, lab_processes
from tests.conftest import free_offset

pytestmark = pytest.mark.live

REQUESTS = 'http_requests_total{job="shop",service="gateway"}'


def state_of(lab: Lab) -> State:
    """What the run directory says."""
    state = State.load(lab.run_dir)
    assert state is not None
    return state


def test_everything_of_the_profile_is_ready(lab: Lab) -> None:
    """Every component of `core` runs, with its replicas, and none is missing."""
    status = lab.status()

    assert sorted(status.index) == sorted(
        ["alertmanager", "blackbox-exporter", "cart", "catalog-1", "catalog-2", "exporter", "gateway", "guard", "load",
         "mariadb", "node-exporter", "orders", "payments-1", "payments-2", "prometheus", "redis", "toxiproxy",
         "webhook", "shipper", "store", "worker"]
    )  # fmt: skip
    assert status.ready.all(), status


def test_nothing_listens_beyond_loopback(lab: Lab) -> None:
    """Every listening socket of every process of the lab is bound to 127.0.0.1, and every one is in the plan."""
    addresses = {
        connection.laddr
        for process in lab_processes(state_of(lab).lab_id)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    planned = {port for roles in state_of(lab).ports.values() for port in roles.values()}
    planned |= set(state_of(lab).link_ports.values())

    assert {address.ip for address in addresses} == {"127.0.0.1"}
    assert {address.port for address in addresses} == planned


def test_the_lab_needs_less_than_one_and_a_half_gigabytes(lab: Lab) -> None:
    """Resident memory of all processes together, in MB."""
    total_mb = sum(process.memory_info().rss for process in lab_processes(state_of(lab).lab_id)) / 1e6

    assert total_mb < 1500


def test_prometheus_scrapes_every_target(lab: Lab) -> None:
    """Each replica of the shop and each exporter is a target that is up."""
    up = lab.prometheus.targets()

    assert len(up) == 13
    assert set(up["health"]) == {"up"}
    assert lab.prometheus.value("count(up == 1)") == 13


def test_the_probe_from_outside_succeeds(lab: Lab) -> None:
    """The blackbox exporter fetches the shop's products as a user would."""
    assert lab.prometheus.value('probe_success{job="probe"}') == 1


def test_live_customers_ask_at_the_nominal_rate(lab: Lab) -> None:
    """Over half a minute the gateway answers the nominal requests per second within 5 %, without an error."""
    ask = lab.prometheus
    wait_until(
        lambda: ask.value('sum(count_over_time(up{job="shop",instance="gateway"}[2m])) or vector(0)'),
        "40 s of scrapes",
        timeout_s=60,
        every_s=1,
        ready=lambda scrapes: scrapes >= 9,
    )

    rate = ask.value(f'sum(rate({REQUESTS[:-1]},instance!="seeded"}}[30s]))')

    assert rate == pytest.approx(sum(LIVE_RATES_PER_S.values()), rel=0.05)


@pytest.mark.late
def test_the_seam_between_past_and_present_does_not_show(lab: Lab) -> None:
    """
    The 5-minute rate stays within 5 % of the live rate while its window moves over the first scrape.

    Asked about the first 80 s: what other tests broke after that is no seam, and what they break in it weighs little.
    """
    ask = lab.prometheus
    first = ask.value(f'min(min_over_time(timestamp({REQUESTS[:-1]},instance!="seeded"}})[1h:5s]))')
    wait_until(
        lambda: time.time() - first, "80 s since the first scrape", timeout_s=90, every_s=1, ready=lambda s: s > 80
    )
    start = datetime.fromtimestamp(first, UTC)

    rates = ask.query_range(f"sum(rate({REQUESTS}[5m]))", start, start + timedelta(seconds=80), step_s=5)

    nominal = sum(LIVE_RATES_PER_S.values())
    assert rates.notna().all(axis=None)
    assert abs(rates / nominal - 1).max(axis=None) < 0.05


def test_a_thirty_day_query_takes_less_than_a_second(lab: Lab) -> None:
    """The median of three ratio queries over the whole month."""
    query = f'sum(increase({REQUESTS[:-1]},status=~"5.."}}[30d])) / sum(increase({REQUESTS}[30d]))'
    took = []
    for _ in range(3):
        start = time.monotonic()
        share = lab.prometheus.value(query)
        took.append(time.monotonic() - start)

    assert 0 < share < 0.05
    assert sorted(took)[1] < 1


def test_the_past_is_labelled(lab: Lab) -> None:
    """Incidents and deploys are frames with UTC times within the thirty days before the start."""
    incidents, deploys = lab.history.incidents, lab.history.deploys

    assert len(incidents) >= 6
    assert str(incidents["start"].dt.tz) == "UTC"
    assert (incidents["end"] > incidents["start"]).all()
    assert (lab.now() - incidents["start"]).max() < timedelta(days=31)
    assert len(deploys) > 0


def test_the_seeded_past_is_what_the_seed_says(lab: Lab) -> None:
    """What Prometheus counts over a past week is what the generator made for that week."""
    labels = json.loads((lab.run_dir / "data" / f"seed-{lab.seed}" / "history.json").read_text())
    from datetime import datetime

    end = datetime.fromisoformat(labels["end"])
    counts = build_history(seed=lab.seed, end=end).request_counts()
    week = counts[end - timedelta(days=12) : end - timedelta(days=5)]

    at = (week.index[-1]).to_pydatetime()
    measured = lab.prometheus.value(f"sum(increase({REQUESTS}[7d]))", at=at)

    assert measured == pytest.approx(week["total"].sum(), rel=0.001)


def test_reset_puts_everything_right_in_half_a_minute(lab: Lab) -> None:
    """Flags, faults, toxics, a hung replica, a killed one, a stopped one and full queues: all healthy afterwards."""
    status = lab.status()
    flag = next(iter(next(iter(lab.shop.flags("catalog").values()))))
    default = lab.shop.flags("catalog")["catalog-1"][flag]
    lab.shop.set_flag(flag, not default if isinstance(default, bool) else default, on="catalog")
    lab.shop.inject("error", on="orders", share=1.0)
    lab.shop.inject("hang", on="cart", share=1.0)
    toxic = {"type": "latency", "attributes": {"latency": 1500}}
    request("POST", f"{lab.url('toxiproxy')}/proxies/cart/toxics", json=toxic)
    os.kill(int(status.pid["payments-1"]), signal.SIGSTOP)
    os.kill(int(status.pid["catalog-2"]), signal.SIGKILL)
    lab._runtime.supervisor.stop_process("worker")

    start = time.monotonic()
    lab.reset(progress=silent)
    took_s = time.monotonic() - start

    assert took_s < 30
    assert lab.status().ready.all()
    assert lab.shop.flags("catalog")["catalog-1"][flag] == default
    assert not any(lab.shop.faults().values())
    proxies = get_json(f"{lab.url('toxiproxy')}/proxies")
    assert [proxy["toxics"] for proxy in proxies.values()] == [[]] * len(proxies)
    assert request("GET", f"{lab.url('gateway')}/products").status_code == 200
    assert sum(lab.shop.queue_lengths().values()) < 20


def test_one_replica_can_be_restarted_as_a_pod_is(lab: Lab) -> None:
    """Another process id, ready again, and only that one."""
    before = lab.status().pid

    lab.restart("catalog-1")

    after = lab.status()
    assert after.pid["catalog-1"] != before["catalog-1"]
    assert after.ready["catalog-1"]
    assert after.pid["gateway"] == before["gateway"]
    lab.reset(progress=silent)


def test_connect_joins_without_owning(lab: Lab) -> None:
    """A second holder sees the same lab; leaving its block does not stop it."""
    with connect(run_dir=lab.run_dir) as second:
        assert second.url("prometheus") == lab.url("prometheus")
        assert not second.owned

    assert lab.alive()


def test_up_with_a_lab_gives_it_back(lab: Lab) -> None:
    """A set-up cell may run twice: what was the name of a place is a lab by then."""
    assert labkit.up(lab) is lab


def test_another_seed_in_the_same_place_is_refused(lab: Lab) -> None:
    """Joining a lab with another past would answer with wrong numbers."""
    with pytest.raises(ConfigInvalid, match=f"it has seed {lab.seed}, you asked for 99"):
        labkit.up(run_dir=lab.run_dir, seed=99, port_offset=lab.settings.port_offset, progress=silent)


def test_an_unknown_component_is_refused_with_those_there_are(lab: Lab) -> None:
    """`url` lists the names."""
    with pytest.raises(LookupError, match=r"no component 'grafana' .* prometheus"):
        lab.url("grafana")


def test_connect_without_a_lab_says_what_to_do(tmp_path: Path) -> None:
    """Not a stack trace of a refused connection."""
    with pytest.raises(NotRunning, match=r"no lab runs there\. Run `labkit up`"):
        connect(run_dir=tmp_path)


def test_a_lab_of_a_living_owner_is_not_stopped_for_another(lab: Lab) -> None:
    """The batch runner stops what its kernel started and nothing else."""
    assert stop_owned_by(os.getpid()) == []
    assert lab.alive()


def test_nothing_is_lost_after_kill_9_of_everything(tmp_path: Path) -> None:
    """A lab killed outright and started again has its whole past, and the gap is filled at the live rate."""
    run_dir, offset = tmp_path / "run", free_offset()
    first = labkit.up(run_dir=run_dir, port_offset=offset, owner=None, progress=silent)
    pid, lab_id = int(first.status().pid["prometheus"]), state_of(first).lab_id
    month = f"sum(increase({REQUESTS}[30d]))"
    before, asked = first.prometheus.value(month), first.now()
    first.shop.set_flag("n_plus_one", True, on="catalog")
    for process in lab_processes(lab_id):
        process.kill()
    wait_until(lambda: not psutil.pid_exists(pid), "Prometheus is gone", timeout_s=10)

    with labkit.up(run_dir=run_dir, port_offset=offset, progress=silent) as again:
        assert again.owned
        assert not any(flags["n_plus_one"] for flags in again.shop.flags("catalog").values())
        assert again.prometheus.value(month, at=asked) == pytest.approx(before, rel=0.001)
        since_s = (again.now() - asked).total_seconds()
        gained = again.prometheus.value(month) - again.prometheus.value(month, at=asked)
        nominal = sum(LIVE_RATES_PER_S.values())
        # The month moves on by `since_s`: what enters is at the live rate, what leaves at that of a month ago.
        assert abs(gained) < 3 * nominal * since_s
        silence = f"max_over_time(min(time() - timestamp({REQUESTS}))[10m:5s])"
        assert again.prometheus.value(silence) < 15
    assert lab_processes(lab_id) == []


CLI = [sys.executable, "-c", "from labkit.cli import main; main()"]


def labkit_command(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [*CLI, *args], capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env}
    )


def test_status_prints_a_table_and_json(lab: Lab) -> None:
    """The exit code is 0 while everything is ready."""
    table = labkit_command("status", "--run-dir", str(lab.run_dir))
    data = json.loads(labkit_command("status", "--json", "--run-dir", str(lab.run_dir)).stdout)

    assert table.returncode == 0, table.stdout
    assert "catalog-2" in table.stdout
    assert {row["name"] for row in data} == set(lab.status().index)


def test_status_without_a_lab_says_so(tmp_path: Path) -> None:
    """Exit code 1 and one line, no traceback."""
    done = labkit_command("status", "--run-dir", str(tmp_path))

    assert done.returncode == 1
    assert "Start one with `labkit up`" in done.stdout
    assert done.stderr == ""


def test_logs_of_an_unknown_name_lists_the_known(lab: Lab) -> None:
    """Exit code 3, an error in words on standard error."""
    done = labkit_command("logs", "gatewya", "--run-dir", str(lab.run_dir))

    assert done.returncode == 3
    assert "there are logs of: alertmanager" in done.stderr
    assert "Traceback" not in done.stderr


def test_logs_shows_the_last_lines(lab: Lab) -> None:
    """What the gateway wrote is JSON, one object per line."""
    done = labkit_command("logs", "gateway", "-n", "3", "--run-dir", str(lab.run_dir))

    lines = done.stdout.splitlines()
    assert 1 <= len(lines) <= 3
    assert all(json.loads(line)["service"] == "gateway" for line in lines)


def test_open_prints_the_address(lab: Lab) -> None:
    """For machines without a browser."""
    done = labkit_command("open", "prometheus", "--print", "--run-dir", str(lab.run_dir))

    assert done.stdout.strip() == lab.url("prometheus")


def test_a_wrong_setting_is_a_usage_error() -> None:
    """Exit code 2, the table of allowed values, no traceback."""
    done = labkit_command("doctor", LABKIT_PACE="quik")

    assert done.returncode == 2
    assert "did you mean 'quick'?" in done.stderr


def test_help_lists_every_command() -> None:
    """`labkit --help` is the map."""
    said = labkit_command("--help").stdout

    for command in ("up", "down", "status", "doctor", "logs", "open", "reset", "run", "notebooks", "jupyter"):
        assert f" {command} " in said
