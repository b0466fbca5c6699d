"""A whole shop as processes on loopback, for tests: MariaDB, Redis, toxiproxy and eight replicas."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
import requests

from labkit._http import get_json
from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import RequestFailed
from labkit.settings import files_root, load_settings
from labkit.shop.client import ShopAdmin
from labkit.shop.links import apply_links, read_links
from labkit.stack.acquire import Installed, acquire
from labkit.stack.catalogue import load_catalogue

TOKEN = "token-of-the-tests"
PASSWORD = "password-of-the-tests"
REPLICAS = ("catalog-1", "catalog-2", "cart", "orders", "payments-1", "payments-2", "worker", "gateway")
_SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses, below those that the system gives to outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20000, 30000), 10_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports")


def programs() -> dict[str, Installed]:
    """MariaDB, Redis and toxiproxy as the catalogue finds or fetches them."""
    catalogue, settings = load_catalogue(), load_settings()
    return {name: acquire(catalogue[name], settings) for name in ("mariadb", "redis", "toxiproxy")}


class ShopStack:
    """Starts, reaches, breaks and stops the processes of one shop under one folder."""

    def __init__(self, folder: Path, *, otlp_url: str = "") -> None:
        self.folder, self.otlp_url, self._programs = folder, otlp_url, programs()
        names = ["mariadb", "redis", "toxiproxy", *REPLICAS, *(f"{name} admin" for name in REPLICAS)]
        links = read_links()
        found = free_ports(len(names) + len(links))
        self.ports = dict(zip(names, found, strict=False))
        self.links = [
            link.model_copy(update={"listen": port}) for link, port in zip(links, found[len(names) :], strict=True)
        ]
        self.link_ports = {link.name: link.listen for link in self.links}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "token").write_text(TOKEN)
        (folder / "shop_password").write_text(PASSWORD)

    @property
    def toxiproxy(self) -> str:
        """The address of toxiproxy's API."""
        return f"http://127.0.0.1:{self.ports['toxiproxy']}"

    @property
    def upstreams(self) -> dict[str, str]:
        """Name → `host:port` of everything that has a port."""
        return {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}

    def url(self, replica: str) -> str:
        """The traffic address of a replica, not through toxiproxy."""
        return f"http://127.0.0.1:{self.ports[replica]}"

    def admin_url(self, replica: str) -> str:
        """The admin address of a replica."""
        return f"http://127.0.0.1:{self.ports[f'{replica} admin']}"

    def admin(self) -> ShopAdmin:
        """The client that a lab would offer."""
        return ShopAdmin(
            {name: self.admin_url(name) for name in REPLICAS},
            TOKEN,
            redis_url=f"redis://127.0.0.1:{self.ports['redis']}/0",
        )

    def start(self) -> None:
        """Everything, in the order in which it is needed; waits until the gateway is ready."""
        self.start_mariadb()
        self.start_redis()
        self._spawn(
            "toxiproxy",
            ["-host", "127.0.0.1", "-port", self.ports["toxiproxy"]],
            self._programs["toxiproxy"],
        )
        self._wait_for_proxy()
        apply_links(self.toxiproxy, self.upstreams, links=self.links)
        for replica in REPLICAS:
            self.start_replica(replica)
        self.mend()

    def start_mariadb(self) -> None:
        """MariaDB with the schema of the shop; waits until it takes statements."""
        data, program = self.folder / "mariadb", self._programs["mariadb"]
        share = _share(program)
        base = ["--no-defaults", f"--lc-messages-dir={share}", f"--datadir={data}", "--user=root"]
        if not data.is_dir():
            data.mkdir()
            sql = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join((share / n).read_text() for n in _SYSTEM_TABLES)
            argv = [program.path, *program.args, *base, "--bootstrap", "--skip-networking"]
            run(argv, timeout_s=60, input_text=sql, env={**os.environ, **program.env})
            schema = (files_root() / "infra" / "shop" / "schema.sql").read_text()
            schema = schema.replace("@{secret.shop_password}", PASSWORD).replace("@{secret.monitor_password}", "m")
            (self.folder / "init.sql").write_text(schema)
        options = [
            f"--port={self.ports['mariadb']}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/m.sock",
            f"--init-file={self.folder}/init.sql",
            "--innodb-buffer-pool-size=48M",
            "--innodb-flush-log-at-trx-commit=2",
        ]
        self._spawn("mariadb", [*base, *options], program)
        wait_until(
            lambda: self.sql("SELECT COUNT(*) AS n FROM products"),
            "MariaDB takes statements",
            timeout_s=60,
            tolerate=(pymysql.err.Error,),
        )

    def start_redis(self) -> None:
        """Redis without files; the first command of a service waits for it."""
        self._spawn(
            "redis",
            ["--port", self.ports["redis"], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            self._programs["redis"],
        )

    def start_replica(self, replica: str, **extra: str) -> subprocess.Popen[bytes]:
        """One replica, as a lab would configure it."""
        service = replica.rstrip("-12")
        argv = [sys.executable, "-m", "labkit.shop", service]
        return self._popen(replica, argv, self.environment(replica) | extra)

    def environment(self, replica: str) -> dict[str, str]:
        """The variables of a replica, without those of this process that begin with SHOP_."""
        service = replica.rstrip("-12")

        def link(name: str) -> str:
            return f"127.0.0.1:{self.link_ports[name]}"

        variables = {
            "SHOP_PORT": str(self.ports[replica]),
            "SHOP_ADMIN_PORT": str(self.ports[f"{replica} admin"]),
            "SHOP_ADMIN_TOKEN_FILE": f"{self.folder}/token",
            "SHOP_INSTANCE": replica,
            "SHOP_DEPLOY_LOG": f"{self.folder}/deploys.jsonl",
            "SHOP_STATE_FILE": f"{self.folder}/state/{replica}.json",
            "SHOP_OTLP_URL": self.otlp_url,
        }
        if service == "gateway":
            variables["SHOP_CATALOG_URLS"] = f"http://{link('catalog-1')},http://{link('catalog-2')}"
            variables["SHOP_PAYMENTS_URLS"] = f"http://{link('payments-1')},http://{link('payments-2')}"
            variables["SHOP_CART_URL"] = f"http://{link('cart')}"
            variables["SHOP_ORDERS_URL"] = f"http://{link('orders')}"
        if service in {"catalog", "orders", "worker"}:
            variables["SHOP_MARIADB_URL"] = f"mysql://shop@{link('mariadb')}/shop"
            variables["SHOP_MARIADB_PASSWORD_FILE"] = f"{self.folder}/shop_password"
        if service in {"cart", "orders", "worker"}:
            variables["SHOP_REDIS_URL"] = f"redis://{link('redis')}/0"
        return {k: v for k, v in os.environ.items() if not k.startswith("SHOP_")} | variables

    def wait_ready(self, replicas: Sequence[str] = REPLICAS, timeout_s: float = 30) -> None:
        """Until each of *replicas* says that it is ready."""
        for replica in replicas:
            wait_until(
                lambda name=replica: self.get(name, "/readyz").status_code == 200,
                f"{replica} ready",
                timeout_s=timeout_s,
                every_s=0.05,
                tolerate=(requests.RequestException,),
                how=self.said(replica),
            )

    def get(self, replica: str, path: str, **options: Any) -> requests.Response:
        """GET from a replica; no error for any status."""
        return requests.get(self.url(replica) + path, timeout=options.pop("timeout_s", 5), **options)

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        """POST to the gateway; no error for any status."""
        return requests.post(self.url("gateway") + path, json=body, timeout=options.pop("timeout_s", 10), **options)

    def metrics(self, replica: str) -> dict[str, float]:
        """Every sample that a replica exposes, by its text."""
        lines = [line for line in self.get(replica, "/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    def total(self, replica: str, prefix: str, *having: str) -> float:
        """The sum of the samples whose text begins with *prefix* and has all of *having* in it."""
        found = self.metrics(replica).items()
        return sum(v for text, v in found if text.startswith(prefix) and all(part in text for part in having))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process of this stack."""
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kill with signal 9 and wait until the process is gone."""
        self.processes[name].kill()
        self.processes[name].wait(10)

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """Run one statement as the user of the shop."""
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.ports["mariadb"],
            user="shop",
            password=PASSWORD,
            database="shop",
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def log(self, name: str) -> list[str]:
        """All lines that a process wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace").splitlines()

    def said(self, name: str) -> str:
        """The last lines of what a process wrote."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-8:]) if path.is_file() else "(nothing)"

    def mend(self) -> None:
        """Whatever a test broke: stopped and dead processes, links, faults, flags, queues."""
        for name, process in self.processes.items():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            elif name == "mariadb":
                self.start_mariadb()
            elif name == "redis":
                self.start_redis()
            elif name in REPLICAS:
                self.start_replica(name)
        apply_links(self.toxiproxy, self.upstreams, links=self.links)
        self.wait_ready()
        self.admin().reset()
        wait_until(self.all_available, "every replica gets calls", timeout_s=15, every_s=0.05)

    def all_available(self) -> bool:
        """Whether the gateway sends calls to all replicas."""
        found = [v for text, v in self.metrics("gateway").items() if text.startswith("http_client_target_available")]
        return len(found) == 6 and all(value == 1 for value in found)

    def stop(self) -> None:
        """End every process that was started, the youngest first."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def _spawn(self, name: str, arguments: Sequence[object], program: Installed) -> None:
        self._popen(name, [program.path, *program.args, *arguments], {**os.environ, **program.env})

    def _popen(self, name: str, argv: Sequence[object], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log, env=env)
        self.processes[name] = process
        return process

    def _wait_for_proxy(self) -> None:
        probe = f"{self.toxiproxy}/version"
        wait_until(lambda: get_json(probe), "toxiproxy", timeout_s=20, every_s=0.05, tolerate=(RequestFailed,))


def _share(program: Installed) -> Path:
    """The folder of MariaDB's own tables, near its program."""
    for base in program.path.resolve().parents:
        for folder in ("share/mysql", "share/mariadb"):
            if (base / folder / _SYSTEM_TABLES[0]).is_file():
                return base / folder
    raise AssertionError(f"no {_SYSTEM_TABLES[0]} near {program.path}")


def buy(shop: ShopStack, user: str, product: int = 3, **options: Any) -> requests.Response:
    """Fill the cart of *user* and check out."""
    assert shop.post(f"/cart/{user}", {"product": product, "quantity": 2}).status_code == 200
    return shop.post(f"/checkout/{user}", None, **options)


def somebody() -> str:
    """A user that no other test uses."""
    return f"user-{uuid4().hex[:8]}"
