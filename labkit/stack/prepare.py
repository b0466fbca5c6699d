"""What a component needs once, before its first start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from labkit._proc import run
from labkit.stack.plan import Instance, Layout

__all__ = ["prepare"]

_BOOTSTRAP_TIMEOUT_S = 120
_SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")


def prepare(layout: Layout, instance: Instance) -> None:
    """Run the preparation that the catalogue names for *instance*; does nothing when it was done before."""
    if instance.component.prepare:
        _PREPARATIONS[instance.component.prepare](layout, instance)


def _mariadb(layout: Layout, instance: Instance) -> None:
    """An empty data directory with MariaDB's own tables, as mariadb-install-db makes it."""
    data = layout.data(instance.name)
    if (data / "mysql").is_dir():
        return
    share = Path(next(arg.partition("=")[2] for arg in instance.argv if arg.startswith("--lc-messages-dir=")))
    stage = data.with_name(f"{data.name}.new")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    sql = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join(
        (share / name).read_text(encoding="utf-8") for name in _SYSTEM_TABLES
    )
    argv = [arg for arg in instance.argv if not arg.startswith(("--datadir=", "--init-file=", "--port=", "--socket="))]
    program = layout.programs["mariadb"]
    run(
        [*argv, f"--datadir={stage}", "--bootstrap", "--skip-networking"],
        timeout_s=_BOOTSTRAP_TIMEOUT_S,
        env={**os.environ, **program.env},
        input_text=sql,
        how="Delete the run directory and try again.",
    )
    shutil.rmtree(data, ignore_errors=True)
    stage.rename(data)


_PREPARATIONS: dict[str, Callable[[Layout, Instance], None]] = {"mariadb": _mariadb}
