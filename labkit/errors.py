"""
The one tree of errors.

Split by what the caller does next; each class also is the builtin it resembles, so
`except TimeoutError` catches a `NotReady`.  Every message says what was attempted, what
was expected, what was seen and what to do; every error carries its data as attributes.

    LabkitError
     ├─ SetupError                the machine lacks something; the learner can fix it
     │   ├─ ToolMissing           (also FileNotFoundError)
     │   ├─ PortInUse             (also OSError)
     │   ├─ NoSpace               (also OSError)
     │   ├─ DownloadFailed        (also OSError)
     │   ├─ ChecksumMismatch      (also ValueError)
     │   ├─ ConfigInvalid         (also ValueError)
     │   ├─ NotConfirmed          (also PermissionError)
     │   └─ RightsMissing         (also PermissionError)
     ├─ NotReady                  (also TimeoutError)
     │   └─ NamespaceStuck        (also TimeoutError)
     ├─ NotRunning                (also LookupError)
     ├─ ComponentDied             (also RuntimeError)
     ├─ WillNotStart              (also RuntimeError)
     ├─ CommandFailed             (also RuntimeError)
     ├─ RequestFailed             (also ConnectionError)
     ├─ ClusterGone               (also ConnectionError)
     ├─ ClusterRefused            (also RuntimeError)
     │   └─ FieldConflict         (also RuntimeError)
     ├─ NotOurs                   (also PermissionError)
     ├─ UnknownName               (also LookupError)
     ├─ InvalidValue              (also ValueError)
     ├─ QueryError
     │   ├─ QueryRejected         (also ValueError)
     │   └─ NoData                (also LookupError)
     └─ ExerciseFailed            (also AssertionError), in strict mode only
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = [
    "ChecksumMismatch",
    "ClusterGone",
    "ClusterRefused",
    "CommandFailed",
    "ComponentDied",
    "ConfigInvalid",
    "ConfigProblem",
    "DownloadFailed",
    "ExerciseFailed",
    "FieldConflict",
    "InvalidValue",
    "LabkitError",
    "NamespaceStuck",
    "NoData",
    "NoSpace",
    "NotConfirmed",
    "NotOurs",
    "NotReady",
    "NotRunning",
    "PortInUse",
    "QueryError",
    "QueryRejected",
    "RequestFailed",
    "RightsMissing",
    "SetupError",
    "ToolMissing",
    "UnknownName",
    "WillNotStart",
]


def _restore(cls: type[LabkitError], args: tuple[Any, ...], data: dict[str, Any]) -> LabkitError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(data)
    return error


class LabkitError(Exception):
    """Base of every error that labkit raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors take keywords only, which the default pickling cannot replay; errors cross
        # process borders (kernels, worker pools), so they are restored from message and data.
        return _restore, (type(self), self.args, dict(self.__dict__))


class SetupError(LabkitError):
    """The machine lacks something that the learner can provide; the message says how."""


class ToolMissing(SetupError, FileNotFoundError):
    """A program is needed and none of its sources could bring it."""

    def __init__(self, tool: str, *, wanted_version: str, tried: Sequence[str], how: str) -> None:
        self.tool, self.wanted_version, self.tried, self.how = tool, wanted_version, list(tried), how
        attempts = "".join(f"\n  - {line}" for line in tried)
        super().__init__(f"`{tool}` {wanted_version} is needed and could not be had:{attempts}\n{how}")

    def __str__(self) -> str:
        return str(self.args[0])


class PortInUse(SetupError, OSError):
    """A component's port already has a listener."""

    def __init__(self, component: str, *, port: int, pid: int | None, process: str | None, how: str) -> None:
        self.component, self.port, self.pid, self.process, self.how = component, port, pid, process, how
        owner = f"process {pid} (`{process}`)" if pid else "another process"
        super().__init__(f"{component} wants 127.0.0.1:{port}, but {owner} is listening there. {how}")


class NoSpace(SetupError, OSError):
    """The disk cannot hold what is about to be written."""

    def __init__(self, what: str, *, path: Path, need_mb: float, free_mb: float) -> None:
        self.what, self.path, self.need_mb, self.free_mb = what, path, need_mb, free_mb
        super().__init__(
            f"{what} needs {need_mb:.0f} MB under {path}, where {free_mb:.0f} MB are free. "
            f"Free some space or choose another disk: LABKIT_CACHE_DIR for components, LABKIT_RUN_DIR for the lab."
        )


class DownloadFailed(SetupError, OSError):
    """A file could not be fetched whole; nothing partial was kept."""

    def __init__(self, url: str, *, reason: str, how: str) -> None:
        self.url, self.reason, self.how = url, reason, how
        super().__init__(f"Downloading {url} failed: {reason}. {how}")


class ChecksumMismatch(SetupError, ValueError):
    """A downloaded file is not the file that its publisher describes; it was deleted."""

    def __init__(self, url: str, *, expected: str, actual: str, source: str) -> None:
        self.url, self.expected, self.actual, self.source = url, expected, actual, source
        super().__init__(
            f"{url} has SHA-256 {actual}, but {source} says {expected}. The file was deleted, nothing was installed. "
            f"Try again; if it happens twice, do not use this mirror."
        )


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a file: where it is (lines and columns count from 1) and what is wrong."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class ConfigInvalid(SetupError, ValueError):
    """A configuration file or value has mistakes; all of them are listed."""

    def __init__(self, source: str, *, problems: Sequence[ConfigProblem | str], how: str = "") -> None:
        self.source, self.problems, self.how = source, list(problems), how
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        listed = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{source}: {count}.{listed}" + (f"\n{how}" if how else ""))


class NotReady(LabkitError, TimeoutError):
    """A condition did not become true within its limit."""

    def __init__(self, what: str, *, waited_s: float, last_seen: object, how: str = "") -> None:
        self.what, self.waited_s, self.last_seen, self.how = what, waited_s, last_seen, how
        super().__init__(
            f"{what}: not true after {waited_s:.3g} s; last seen: {last_seen}." + (f" {how}" if how else "")
        )


class NotRunning(LabkitError, LookupError):
    """There is no lab to talk to where one was expected."""

    def __init__(self, what: str, *, seen: str, how: str) -> None:
        self.what, self.seen, self.how = what, seen, how
        super().__init__(f"{what}: {seen}. {how}")

    def __str__(self) -> str:
        return str(self.args[0])


class ComponentDied(LabkitError, RuntimeError):
    """A component ended while it was expected to run."""

    def __init__(self, component: str, *, state: str, log_path: Path, log_tail: str, how: str = "") -> None:
        self.component, self.state, self.log_path, self.log_tail, self.how = component, state, log_path, log_tail, how
        tail = f" Its last lines:\n{log_tail}" if log_tail else " It wrote nothing to its log."
        advice = how or f"Full log: `labkit logs {component}`."
        super().__init__(f"{component} was started and did not stay up ({state}).{tail}\n{advice}")


class CommandFailed(LabkitError, RuntimeError):
    """A program that labkit ran ended with an error or took too long."""

    def __init__(
        self, argv: Sequence[str], *, returncode: int | None, took_s: float, stderr_tail: str, how: str = ""
    ) -> None:
        self.argv, self.returncode, self.took_s = list(argv), returncode, took_s
        self.stderr_tail, self.how = stderr_tail, how
        shown = " ".join(argv) if len(" ".join(argv)) <= 200 else " ".join(argv)[:200] + "…"
        ended = f"exited with {returncode}" if returncode is not None else "was stopped at its limit"
        tail = f" Last lines:\n{stderr_tail}" if stderr_tail else ""
        super().__init__(f"`{shown}` {ended} after {took_s:.1f} s.{tail}" + (f"\n{how}" if how else ""))


class RequestFailed(LabkitError, ConnectionError):
    """An HTTP call to a component got no answer or a refusal."""

    def __init__(self, method: str, url: str, *, status: int | None, reason: str, how: str = "") -> None:
        self.method, self.url, self.status, self.reason, self.how = method, url, status, reason, how
        got = f"HTTP {status}: {reason}" if status is not None else reason
        super().__init__(f"{method} {url} failed: {got}." + (f" {how}" if how else ""))


class UnknownName(LabkitError, LookupError):
    """There is no thing of this kind with this name; `nearest` is the closest known name, or None."""

    def __init__(self, kind: str, name: str, *, known: Sequence[str], how: str = "") -> None:
        close = difflib.get_close_matches(name, known, n=1)
        self.kind, self.name, self.known, self.how = kind, name, sorted(known), how
        self.nearest = close[0] if close else None
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else "."
        listed = ", ".join(self.known) or "none"
        super().__init__(f"{name!r} is not a {kind}{hint} Known: {listed}." + (f" {how}" if how else ""))

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidValue(LabkitError, ValueError):
    """A named value is not one of those allowed."""

    def __init__(self, name: str, *, expected: str, got: object) -> None:
        self.name, self.expected, self.got = name, expected, got
        super().__init__(f"{name} must be {expected}, got {got!r}.")


class QueryError(LabkitError):
    """A query has no answer that could be used."""


class QueryRejected(QueryError, ValueError):
    """The backend refused the query; `position` counts characters from 1, or is None when unknown."""

    def __init__(self, query: str, *, position: int | None, server_message: str) -> None:
        self.query, self.position, self.server_message = query, position, server_message
        at = f" at character {position}" if position is not None else ""
        super().__init__(f"Prometheus could not evaluate the query{at}: {server_message}.\n{point_at(query, position)}")


class NoData(QueryError, LookupError):
    """The query is fine and nothing matches it.  No data is not zero."""

    def __init__(self, query: str, *, start: datetime, end: datetime, nearest: str = "", what: str = "series") -> None:
        self.query, self.start, self.end, self.nearest = query, start, end, nearest
        span = (
            f"at {start:%Y-%m-%d %H:%M:%S}"
            if start == end
            else f"between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}"
        )
        super().__init__(
            f"`{query}` returned no {what} {span} UTC."
            + (f"\n{nearest}" if nearest else "")
            + "\nNo data is not zero: decide which you mean before dividing by it."
        )

    def __str__(self) -> str:
        return str(self.args[0])


class ExerciseFailed(LabkitError, AssertionError):
    """An exercise was not solved; raised in strict mode (batch and CI) only."""

    def __init__(self, exercise: str, *, outcome: str, because: str) -> None:
        self.exercise, self.outcome, self.because = exercise, outcome, because
        super().__init__(f"{exercise}: {outcome}. {because}")


class NotConfirmed(SetupError, PermissionError):
    """A cluster may be somebody's real one, and nobody said that it may be used; nothing was done."""

    def __init__(self, context: str, *, reason: str, how: str) -> None:
        self.context, self.reason, self.how = context, reason, how
        super().__init__(f"Context {context!r} was not used, and nothing was made: {reason}. {how}")

    def __str__(self) -> str:
        return str(self.args[0])


class RightsMissing(SetupError, PermissionError):
    """The cluster does not let this user do what a lab needs; all that is missing is listed, nothing was made."""

    def __init__(self, context: str, *, namespace: str, missing: Sequence[str], how: str) -> None:
        self.context, self.namespace, self.missing, self.how = context, namespace, list(missing), how
        count = "1 right is" if len(missing) == 1 else f"{len(missing)} rights are"
        listed = "".join(f"\n  - {line}" for line in missing)
        super().__init__(
            f"A lab in namespace {namespace} needs more than context {context!r} may do; nothing was made, "
            f"{count} missing:{listed}\n{how}"
        )

    def __str__(self) -> str:
        return str(self.args[0])


class ClusterGone(LabkitError, ConnectionError):
    """The API server of a cluster does not answer; `since` is when it last did (UTC), None if it never did."""

    def __init__(self, server: str, *, context: str, reason: str, since: datetime | None, how: str) -> None:
        self.server, self.context, self.reason, self.since, self.how = server, context, reason, since, how
        last = f"last answer at {since:%H:%M:%S} UTC" if since else "it has not answered yet"
        super().__init__(f"The API server {server} of context {context!r} does not answer: {reason} ({last}). {how}")

    def __str__(self) -> str:
        return str(self.args[0])


class ClusterRefused(LabkitError, RuntimeError):
    """The API server refused a call; `answer` is the Status object that it sent, empty if there was none."""

    def __init__(
        self, what: str, *, status: int, said: str, answer: Mapping[str, Any] | None = None, how: str = ""
    ) -> None:
        self.what, self.status, self.said, self.answer, self.how = what, status, said, dict(answer or {}), how
        ended = said if said.endswith((".", "!", "?")) else f"{said}."
        super().__init__(f"The cluster refused {what} (HTTP {status}): {ended}" + (f" {how}" if how else ""))


class FieldConflict(ClusterRefused):
    """Another manager owns fields that are to be applied; `owners` maps each field to its manager."""

    def __init__(self, what: str, *, owners: Mapping[str, str], said: str) -> None:
        self.owners = dict(owners)
        listed = "; ".join(f"{field} belongs to {owner}" for field, owner in owners.items())
        super().__init__(
            what,
            status=409,
            said=listed or said,
            how="It was not changed. Undo what that manager did, or delete the object; then run the command again.",
        )


class NotOurs(LabkitError, PermissionError):
    """A thing on the cluster was not made by this lab, so it is neither changed nor deleted."""

    def __init__(self, what: str, *, seen: str, how: str) -> None:
        self.what, self.seen, self.how = what, seen, how
        super().__init__(f"{what} is left alone: {seen}. {how}")

    def __str__(self) -> str:
        return str(self.args[0])


class NamespaceStuck(NotReady):
    """A namespace was told to go and does not; `blockers` names what holds it."""

    def __init__(self, namespace: str, *, waited_s: float, blockers: Sequence[str], how: str) -> None:
        self.namespace, self.blockers = namespace, list(blockers)
        seen = "".join(f"\n  - {line}" for line in blockers) or "Terminating, and the cluster does not say why"
        super().__init__(f"namespace {namespace} deleted", waited_s=waited_s, last_seen=seen, how=how)


class WillNotStart(LabkitError, RuntimeError):
    """A component on the cluster waits for something that will not come by waiting."""

    def __init__(self, component: str, *, cause: str, log_tail: str = "", how: str = "") -> None:
        self.component, self.cause, self.log_tail, self.how = component, cause, log_tail, how
        tail = f"\nIts last lines:\n{log_tail}" if log_tail else ""
        super().__init__(f"{component} will not start by waiting: {cause}.{tail}" + (f"\n{how}" if how else ""))


def point_at(text: str, position: int | None) -> str:
    """
    The line of *text* that holds character *position* (from 1), with a caret below it.

    Returns the whole text when *position* is None.

    >>> print(point_at("rate(x[5m]", 5))
    rate(x[5m]
        ^
    """
    if position is None:
        return text
    before = text[: position - 1]
    line_start = before.rfind("\n") + 1
    line_end = text.find("\n", line_start)
    line = text[line_start:] if line_end < 0 else text[line_start:line_end]
    return f"{line}\n{' ' * (position - 1 - line_start)}^"
