"""The command line: `labkit --help` lists the commands, `labkit COMMAND --help` explains one."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import typer
import typer.core

from labkit.cli import lab, notebooks, slo
from labkit.cli._words import in_words
from labkit.errors import ConfigInvalid, InvalidValue, LabkitError, ToolMissing, UnknownName

__all__ = ["app", "main"]

# Stable: `docs/batch.md` documents them.
EXIT_USAGE, EXIT_SETUP, EXIT_INTERRUPTED = 2, 3, 130
_INTERRUPTED = "\nInterrupted; what this command had started was stopped and taken down.\n"
_NOT_ALL = "\nInterrupted; what this command had started was stopped, and not all of it is gone: run `labkit down`.\n"


class _Group(typer.core.TyperGroup):
    """The commands; Ctrl-C is told in words, where typer would end without any."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            sys.stderr.write(_NOT_ALL if getattr(error, "__notes__", ()) else _INTERRUPTED)
            raise typer.Exit(EXIT_INTERRUPTED) from error


app = typer.Typer(
    name="labkit",
    cls=_Group,
    help="A laboratory for site reliability engineering: a live, observed shop and executable notebooks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for group in (lab, notebooks, slo):
    group.register(app)


def main() -> None:
    """Run the command line; a labkit error is told in words, without a traceback."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        app()
    except (ConfigInvalid, FileNotFoundError, InvalidValue, UnknownName) as error:
        _fail(error, EXIT_SETUP if isinstance(error, ToolMissing) else EXIT_USAGE)
    except LabkitError as error:
        _fail(error, EXIT_SETUP)
    except KeyboardInterrupt:
        sys.stderr.write(_INTERRUPTED)
        sys.exit(EXIT_INTERRUPTED)


def _as_interrupt(_signum: int, _frame: FrameType | None) -> Any:
    """A polite kill ends a start as Ctrl-C does: by stopping what was started."""
    raise KeyboardInterrupt


def _fail(error: Exception, code: int) -> None:
    sys.stderr.write(f"{in_words(error)}\n")
    sys.exit(code)
