"""The command line: `labkit --help` lists the commands, `labkit COMMAND --help` explains one."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import typer

from labkit.cli import lab, notebooks, slo
from labkit.cli._words import in_words
from labkit.errors import ConfigInvalid, InvalidValue, LabkitError, ToolMissing, UnknownName

__all__ = ["app", "main"]

# Stable: `docs/batch.md` documents them.
EXIT_USAGE, EXIT_SETUP, EXIT_INTERRUPTED = 2, 3, 130

app = typer.Typer(
    name="labkit",
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
        sys.stderr.write("\nInterrupted; what was started has been stopped.\n")
        sys.exit(EXIT_INTERRUPTED)


def _as_interrupt(_signum: int, _frame: FrameType | None) -> Any:
    """A polite kill ends a start as Ctrl-C does: by stopping what was started."""
    raise KeyboardInterrupt


def _fail(error: Exception, code: int) -> None:
    sys.stderr.write(f"{in_words(error)}\n")
    sys.exit(code)
