"""What a process of the shop loads, and what it says when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from labkit._http import is_up
from labkit._wait import wait_until
from labkit.errors import NotRunning
from labkit.shop.client import ShopAdmin
from labkit.shop.config import SERVICES
from tests.prometheus_process import free_port


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_only_what_it_needs(service: str):
    """No service loads the heavy packages; the gateway and payments load no driver."""
    code = (
        "import sys, importlib; importlib.import_module('labkit.shop.__main__');"
        f"importlib.import_module('labkit.shop.{service}'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    drivers = {
        "catalog": {"pymysql"},
        "cart": {"redis"},
        "orders": {"pymysql", "redis"},
        "worker": {"pymysql", "redis"},
    }
    assert loaded & {"pandas", "numpy", "pydantic", "requests", "yaml", "locust"} == set()
    assert loaded & {"pymysql", "redis"} == drivers.get(service, set())


def test_the_admin_client_is_light():
    """A notebook that asks for flags does not load a web server or patch the standard library."""
    code = "import sys, labkit.shop.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"aiohttp", "redis", "gevent"} & set(done.stdout.split()) == set()


def test_the_program_without_its_environment_says_what_is_missing():
    """`python -m labkit.shop catalog` exits with 78 and one message; without a service with 64."""
    argv = [sys.executable, "-m", "labkit.shop"]
    done = subprocess.run([*argv, "catalog"], capture_output=True, text=True, check=False, timeout=60, env={})
    usage = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env={})
    assert done.returncode == 78
    assert "SHOP_PORT" in done.stderr
    assert "SHOP_MARIADB_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert (usage.returncode, "gateway, catalog" in usage.stderr) == (64, True)


@contextmanager
def payments(name: str, log: Path, token: Path) -> Iterator[str]:
    """A replica that runs; the address of its admin port."""
    port, admin = free_port(), free_port()
    environ = {
        "SHOP_PORT": str(port),
        "SHOP_ADMIN_PORT": str(admin),
        "SHOP_ADMIN_TOKEN_FILE": str(token),
        "SHOP_INSTANCE": name,
        "SHOP_DEPLOY_LOG": str(log),
    }
    argv = [sys.executable, "-m", "labkit.shop", "payments"]
    process = subprocess.Popen(argv, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_up(f"http://127.0.0.1:{port}/healthz"), f"{name} answers", timeout_s=30)
        yield f"http://127.0.0.1:{admin}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_deploy_log_is_one_whether_replicas_share_a_file_or_not(tmp_path: Path):
    """Each deploy once, in the order of time, also of a replica that shares its file with one that is gone."""
    (token := tmp_path / "token").write_text("t")
    files = {"payments-1": "own", "payments-2": "shared", "payments-3": "shared"}
    with ExitStack() as replicas:
        urls = {}
        for name, file in files.items():
            urls[name] = replicas.enter_context(payments(name, tmp_path / file, token))
        admin = ShopAdmin(urls, "t")
        assert admin.deploy_log() == []
        said = [admin.deploy(version, on=name)[0] for version in ("1.1.0", "1.2.0") for name in reversed(files)]
        assert admin.deploy_log() == said
        assert ShopAdmin({**urls, "payments-2": "http://127.0.0.1:1"}, "t").deploy_log() == said
        alone = ShopAdmin({"payments-1": urls["payments-1"], "payments-2": "http://127.0.0.1:1"}, "t").deploy_log()
        assert alone == [entry for entry in said if entry["instance"] == "payments-1"]
        with pytest.raises(NotRunning, match="payments-1: connection refused"):
            ShopAdmin({"payments-1": "http://127.0.0.1:1"}, "t").deploy_log()
