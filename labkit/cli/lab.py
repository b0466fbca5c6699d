"""`up`, `down`, `status`, `doctor`, `logs`, `open`, `reset`, `jupyter`: the lab from the command line."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from labkit.errors import NotRunning
from labkit.settings import SETTINGS, Settings, files_root, load_settings
from labkit.stack.doctor import examine
from labkit.stack.progress import printer
from labkit.stack.runtime import ComponentStatus
from labkit.stack.runtimes import runtime_of

__all__ = ["register"]

# Components with pages of their own, as infra/jupyter lists them.
_PAGES = ("prometheus", "alertmanager")

RunDir = Annotated[
    Path | None, typer.Option(help="Folder of the lab (default: LABKIT_RUN_DIR or the user's state folder).")
]
Offset = Annotated[
    int | None, typer.Option(help="Added to every port; a second lab needs another run directory and offset.")
]
Profile = Annotated[str | None, typer.Option(help="Which components run.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the thirty days of history.")]
On = Annotated[
    str | None,
    typer.Option(
        "--on", help="Where: local, kind (a cluster in Docker), or the name of a kubectl context.", metavar="PLACE"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str, typer.Argument(help="A name from `labkit status`.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to *app*."""
    for command in (up, down, status, doctor, logs, open_ui, reset, jupyter, image):
        app.command(name="open" if command is open_ui else None)(command)


def up(
    on: On = None,
    profile: Profile = None,
    seed: Seed = None,
    run_dir: RunDir = None,
    port_offset: Offset = None,
    ttl: Annotated[
        str | None, typer.Option(help="Stop by itself after this long without use, as in 30m or 4h.")
    ] = None,
    yes_this_cluster: Annotated[
        bool, typer.Option("--yes-this-cluster", help="Use the cluster of the context without being asked.")
    ] = False,
) -> None:
    """
    Start the lab, or say that it is up already.

    With `--on kind` on a cluster that labkit makes in Docker, with `--on CONTEXT` on one that is there, in a namespace
    of its own.  It stays up until `labkit down`, or until nobody used it for its time to live.
    """
    from labkit.lab import up as start  # noqa: PLC0415  (`labkit --help` must not wait for the clients)

    if ttl is not None:
        os.environ["LABKIT_TTL_S"] = ttl
    if yes_this_cluster:
        # Wherever the name of the context comes from: option, environment or file.
        os.environ["LABKIT_TRUST_CONTEXT"] = load_settings({"lab": on}).lab
    start(on, profile=profile, seed=seed, run_dir=run_dir, port_offset=port_offset, owner=None)


def down(run_dir: RunDir = None) -> None:
    """
    Stop the lab.

    Data and logs of a lab of processes stay; the next `labkit up` continues from them.  Of a lab on a cluster nothing
    stays there: its namespace goes, and the kind cluster with the last lab on it.
    """
    stopped = runtime_of(_settings(run_dir)).down(progress=printer())
    if not stopped:
        typer.echo(" ✓ no lab is up")


def status(run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Show what is running: state, address, memory.  The exit code is 0 if everything is ready, 1 if not."""
    settings = _settings(run_dir)
    rows = runtime_of(settings).status()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
    elif rows:
        _show_status(rows, settings)
    else:
        typer.echo(f"No lab is up in {settings.run_dir}. Start one with `labkit up`.")
    raise typer.Exit(0 if rows and all(row.ready for row in rows if row.state != "MISSING") else 1)


def doctor(
    on: On = None,
    profile: Profile = None,
    as_json: AsJson = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print the table of settings and their origins.")
    ] = False,
) -> None:
    """Say what is here, what is missing and how to get it.  Exit code 1 if the lab cannot run here."""
    in_force = load_settings({"lab": on, "profile": profile})
    if settings:
        _show_settings(in_force)
        return
    report = examine(in_force)
    typer.echo(json.dumps(report.to_dict(), indent=1, default=str) if as_json else report.text())
    raise typer.Exit(0 if report.fit else 1)


def logs(
    name: Name,
    run_dir: RunDir = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is added, until Ctrl-C.")] = False,
) -> None:
    """Show the last lines that a component wrote."""
    runtime = runtime_of(_settings(run_dir))
    try:
        typer.echo("\n".join(runtime.log_lines(name, lines)))
    except LookupError as error:
        what, how = f"`{name}` has no log in {runtime.run_dir}", "Run `labkit status` for the names."
        raise NotRunning(what, seen=str(error), how=how) from error
    if follow:
        for text in runtime.follow_log(name):
            typer.echo(text, nl=False)


def open_ui(
    name: Annotated[str, typer.Argument(help="prometheus, alertmanager, gateway …")] = "prometheus",
    run_dir: RunDir = None,
    show: Annotated[bool, typer.Option("--print", help="Print the address instead of opening a browser.")] = False,
) -> None:
    """Open a component's page in the browser."""
    from labkit.lab import connect  # noqa: PLC0415

    url = connect(run_dir=run_dir).url(name)
    typer.echo(url)
    if not show and not webbrowser.open(url):
        typer.echo("No browser could be started here: open the address yourself.")


def reset(run_dir: RunDir = None) -> None:
    """Return to the healthy baseline: no faults, flags at their defaults, queues empty, everything running."""
    from labkit.lab import connect  # noqa: PLC0415

    connect(run_dir=run_dir).reset()


def jupyter(
    on: On = None,
    port: Annotated[int, typer.Option(help="Port of JupyterLab, on this machine only.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Start the lab and JupyterLab; the pages of Prometheus and Alertmanager are in its launcher."""
    from labkit.lab import up as start  # noqa: PLC0415

    lab = start(on, owner=os.getpid())
    pages = {f"LABKIT_UI_{name.upper()}": lab.url(name) for name in _PAGES if lab.has(name)}
    root = files_root()
    argv = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--ServerApp.ip=127.0.0.1"]
    argv += [
        f"--notebook-dir={root / 'notebooks'}",
        f"--config={root / 'infra' / 'jupyter' / 'jupyter_server_config.py'}",
    ]
    argv += [] if browser else ["--no-browser"]
    # It listens on loopback and asks for a token, also when root runs it, as in a container.
    argv += ["--allow-root"] if os.geteuid() == 0 else []
    environment = {**os.environ, **pages}
    os.execve(sys.executable, argv, environment)  # noqa: S606  (JupyterLab takes this process over, and with it the lab)


def image(
    push: Annotated[
        str | None, typer.Option(help="Also push it under this name, as in registry.example.com/team/labkit-shop.")
    ] = None,
) -> None:
    """
    Build the image of the shop and print its name.

    `labkit up --on kind` does this by itself; a cluster elsewhere has to pull it: push it, and name it in
    LABKIT_SHOP_IMAGE.
    """
    from labkit.stack.shop_image import build_shop_image, push_image  # noqa: PLC0415

    settings = load_settings()
    built = build_shop_image(progress=printer(sys.stderr), cache=settings.cache_dir, base=settings.base_image)
    typer.echo(push_image(built, push) if push else built)


def _settings(run_dir: Path | None) -> Settings:
    return load_settings({"run_dir": run_dir})


def _show_status(rows: list[ComponentStatus], settings: Settings) -> None:
    table = Table(title=f"Lab in {settings.run_dir}", title_justify="left", box=None)
    for column, justify in (("component", "left"), ("state", "left"), ("ready", "left"), ("address", "left"),
                            ("memory MB", "right"), ("version", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        memory = f"{row.memory_mb:.0f}" if row.memory_mb is not None else ""
        address = f"127.0.0.1:{row.port}" if row.port else ""
        table.add_row(row.name, row.state, "✓" if row.ready else "✗", address, memory, row.version)
    total = sum(row.memory_mb or 0 for row in rows)
    table.add_row("total", "", "", "", f"{total:.0f}", "")
    Console().print(table)


def _show_settings(settings: Settings) -> None:
    table = Table(box=None)
    for column in ("name", "value", "from", "environment", "meaning"):
        table.add_column(column)
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        table.add_row(setting.name, str(value), settings.origins[setting.name], setting.env, setting.doc)
    Console().print(table)
