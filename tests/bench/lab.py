"""Bench rows of the lab: how long it takes to come up, from nothing and with everything here, and what it holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import labkit
from labkit.settings import files_root, load_settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import load_catalogue
from labkit.stack.progress import silent
from tests.conftest import free_offset

Row = dict[str, Any]
_REPEATS = 3


def row(name: str, value: float, unit: str, limit: float | None = None) -> Row:
    """One line of the table; *limit* is the most that the goal allows."""
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "rival": None,
        "rival_value": None,
        "ratio": None,
        "goal": f"<= {limit:g} {unit}" if limit is not None else None,
        "met": value <= limit if limit is not None else None,
    }


def start_and_memory(folder: Path) -> list[Row]:
    """`up` of the core with everything installed and no data, history included; then the memory of each component."""
    took, rows = [], []
    for turn in range(_REPEATS):
        start = time.monotonic()
        with labkit.up(run_dir=folder / f"run{turn}", port_offset=free_offset(), progress=silent) as lab:
            took.append(time.monotonic() - start)
            status = lab.status()
            start = time.monotonic()
            lab.reset(progress=silent)
            reset_s = time.monotonic() - start
    rows.append(row("labkit up, core, everything installed, history included", median(took), "s", 25))
    rows.append(row("labkit reset", reset_s, "s", 30))
    rows.append(row("memory of the idle lab", float(status.memory_mb.sum()), "MB", 1500))
    rows += [row(f"memory of {name}", float(mb), "MB") for name, mb in status.memory_mb.items()]
    return rows


def start_with_jaeger_and_opensearch(folder: Path) -> list[Row]:
    """`up` of profile jaeger-opensearch with everything built and no data, history included; then its memory."""
    for component in (load_catalogue()[name] for name in ("jaeger", "opensearch")):
        acquire(component, load_settings())
    took, rows = [], []
    for turn in range(_REPEATS):
        given = {"profile": "jaeger-opensearch", "run_dir": folder / f"run{turn}", "port_offset": free_offset()}
        start = time.monotonic()
        with labkit.up(**given, progress=silent) as lab:
            took.append(time.monotonic() - start)
            status = lab.status()
    rows.append(row("labkit up, jaeger-opensearch, everything built, history included", median(took), "s", 45))
    rows.append(row("memory of the idle lab, jaeger-opensearch", float(status.memory_mb.sum()), "MB"))
    rows += [row(f"memory of {name}", float(status.memory_mb[name]), "MB") for name in ("jaeger", "opensearch")]
    return rows


def fresh_machine(folder: Path) -> list[Row]:
    """Set-up and `make run` from a clone in an empty home: packages and components fetched, nothing compiled before."""
    home, clone = folder / "home", folder / "labkit"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(files_root()), str(clone)], check=True, timeout=60)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "GOPROXY", "SSL_"))}
    env = {**kept, "HOME": str(home), "LABKIT_PORT_OFFSET": str(free_offset())}

    def timed(*argv: str) -> float:
        start = time.monotonic()
        subprocess.run(argv, cwd=clone, env=env, check=True, timeout=1200, capture_output=True)
        return time.monotonic() - start

    packages_s = timed("make", "setup")
    components_s = timed(".venv/bin/python", "tools/prefetch.py")
    run_s = timed("make", "run")
    shutil.rmtree(clone)
    return [
        row("fresh machine: Python packages", packages_s, "s"),
        row("fresh machine: set-up of core (packages and components)", packages_s + components_s, "s", 120),
        row("fresh machine: make run with all notebooks", packages_s + components_s + run_s, "s", 300),
    ]
