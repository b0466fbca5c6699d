"""`run` and `notebooks`: execute notebooks as a batch, build and check their editions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

Out = Annotated[
    Path, typer.Option(help="Folder for executed notebooks, result.json, junit.xml, journal.jsonl, report.html.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to *app*."""
    app.command()(run)
    group = typer.Typer(no_args_is_help=True, help="The notebooks of the course: list, build and check their editions.")
    group.command("list")(list_notebooks)
    group.command("build")(build)
    group.command("check")(check)
    group.command("copy")(copy)
    app.add_typer(group, name="notebooks")


def run(
    notebooks: Annotated[
        list[str] | None, typer.Argument(help="Files, or names and numbers of the course (00); all if none.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value, for every notebook; repeatable.")
    ] = None,
    out: Out = Path("build"),
    deadline: Annotated[float, typer.Option(help="Limit for each notebook, in seconds.")] = 1800,
    queue: Annotated[float, typer.Option(help="Longest wait for another live run on this machine, in seconds.")] = 3600,
    strict: Annotated[bool, typer.Option(help="A check that is not correct ends its notebook.")] = True,
) -> None:
    """
    Execute notebooks and leave their results in a folder.

    One lab serves them all: the one that is up, or one that is started first and stopped at the end.
    Exit codes: 0 passed, 1 a check or cell failed, 2 wrong usage, 3 the lab could not be had,
    4 deadline passed, 5 a kernel died, 130 interrupted.
    """
    from labkit.course import editions  # noqa: PLC0415  (`labkit --help` must not wait for pandas and papermill)
    from labkit.course.parameters import parse_assignments  # noqa: PLC0415
    from labkit.course.report import write_report  # noqa: PLC0415
    from labkit.course.runner import RunOptions, run_notebooks  # noqa: PLC0415
    from labkit.lab import stop_owned_by, up  # noqa: PLC0415

    given = parse_assignments(parameter or [])
    paths = [editions.find(name) for name in notebooks] if notebooks else editions.solved()
    options = RunOptions(
        deadline_s=deadline,
        queue_s=queue,
        strict=strict,
        surround=lambda: up(given.get("lab"), profile=given.get("profile"), seed=_seed(given), owner=os.getpid()),
        teardown=stop_owned_by,
        progress=lambda event: typer.echo(str(event)),
    )
    result = run_notebooks(paths, given, out_dir=out, options=options)
    report = write_report(result)
    typer.echo(f"\nOpen {report} for the report; executed notebooks, result.json and junit.xml are beside it.")
    raise typer.Exit(result.exit_code)


def list_notebooks() -> None:
    """Name the notebooks of the course."""
    from labkit.course import editions  # noqa: PLC0415

    for source in editions.sources():
        title = next(line for line in source.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
        typer.echo(f"{title.removeprefix('# ')}")


def build() -> None:
    """Generate the learner and solved editions from their sources."""
    from labkit.course import editions  # noqa: PLC0415

    for path in editions.build():
        typer.echo(f" ✓ {path}")


def check() -> None:
    """Say which editions differ from their sources; exit code 1 if any does."""
    from labkit.course import editions  # noqa: PLC0415

    drifts = editions.check()
    for drift in drifts:
        typer.echo(f" ✗ {drift}")
    if not drifts:
        typer.echo(" ✓ every edition is in step with its source")
    raise typer.Exit(1 if drifts else 0)


def copy(folder: Annotated[Path, typer.Argument(help="An empty or new folder.")]) -> None:
    """Copy the learner's pack, without solutions, to a folder of your own."""
    from labkit.course import editions  # noqa: PLC0415

    for path in editions.learner_pack(folder):
        typer.echo(f" ✓ {path}")


def _seed(given: dict[str, str]) -> int | None:
    return int(given["seed"]) if "seed" in given else None
