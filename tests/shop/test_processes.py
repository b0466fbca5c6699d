"""What a process of the shop loads, and what it says when it cannot start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labkit.shop.config import SERVICES


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
