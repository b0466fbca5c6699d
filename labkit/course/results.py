"""What a run leaves for programs: outcomes, exit codes, `result.json` by a published schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from labkit.errors import ConfigInvalid, LabkitError

__all__ = [
    "EXIT_CODES",
    "SCHEMA_VERSION",
    "CellError",
    "CheckResult",
    "FigureNote",
    "NotebookResult",
    "RunOutcome",
    "RunResult",
    "exit_code_of",
    "load_schema",
    "write_json",
]

SCHEMA_VERSION = 1


class RunOutcome(Enum):
    """How a notebook, or a run of several, ended."""

    PASSED = "passed"
    FAILED = "failed"
    SETUP_FAILED = "setup_failed"
    DEADLINE = "deadline"
    KERNEL_DIED = "kernel_died"
    INTERRUPTED = "interrupted"
    NOT_RUN = "not_run"


# Stable; docs/batch.md is the contract.  2 belongs to wrong usage, which raises before there is an outcome.
EXIT_CODES: Mapping[RunOutcome, int] = {
    RunOutcome.PASSED: 0,
    RunOutcome.FAILED: 1,
    RunOutcome.SETUP_FAILED: 3,
    RunOutcome.DEADLINE: 4,
    RunOutcome.KERNEL_DIED: 5,
    RunOutcome.INTERRUPTED: 130,
}
_GRAVEST_FIRST = (
    RunOutcome.INTERRUPTED,
    RunOutcome.SETUP_FAILED,
    RunOutcome.KERNEL_DIED,
    RunOutcome.DEADLINE,
    RunOutcome.FAILED,
    RunOutcome.PASSED,
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One verdict of an exercise; `outcome` is not_attempted, not_yet, correct or not_reached."""

    exercise: str
    title: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class CellError:
    """The error that ended a notebook; `cell` counts code cells from 1, 0 when none was running."""

    name: str
    message: str
    cell: int
    section: str


@dataclass(frozen=True, slots=True)
class FigureNote:
    """What a figure says about itself; `missing` lists labels that it lacks."""

    cell: int
    title: str
    alt: str
    missing: list[str]


@dataclass(slots=True)
class NotebookResult:
    """One notebook of a run; paths are relative to the folder of the run."""

    name: str
    outcome: RunOutcome
    executed: str
    parameters: dict[str, Any]
    started: str = ""
    duration_s: float = 0.0
    cells_total: int = 0
    cells_executed: int = 0
    checks: list[CheckResult] = field(default_factory=list)
    figures: list[FigureNote] = field(default_factory=list)
    error: CellError | None = None
    stopped: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RunResult:
    """A whole run."""

    out_dir: Path
    started: str
    machine: dict[str, Any]
    versions: dict[str, str]
    strict: bool
    waited_s: float = 0.0
    notebooks: list[NotebookResult] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def outcome(self) -> RunOutcome:
        """The gravest outcome among the notebooks."""
        seen = {notebook.outcome for notebook in self.notebooks}
        return next((outcome for outcome in _GRAVEST_FIRST if outcome in seen), RunOutcome.PASSED)

    @property
    def exit_code(self) -> int:
        """The number that the process ends with; see `EXIT_CODES`."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """The content of result.json, in plain types."""
        notebooks = [asdict(notebook) | {"outcome": notebook.outcome.value} for notebook in self.notebooks]
        return {
            "schema_version": SCHEMA_VERSION,
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "started": self.started,
            "duration_s": self.duration_s,
            "waited_s": self.waited_s,
            "strict": self.strict,
            "machine": self.machine,
            "versions": self.versions,
            "notebooks": notebooks,
        }


def exit_code_of(error: LabkitError | FileNotFoundError) -> int:
    """
    The exit code for an error that ended a run before its first notebook: 2 for wrong usage, 3 otherwise.

    >>> exit_code_of(ConfigInvalid("The parameters", problems=["x"]))
    2
    """
    return 2 if isinstance(error, ConfigInvalid | FileNotFoundError) else 3


def load_schema() -> dict[str, Any]:
    """The JSON Schema of result.json."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("result.schema.json").read_text(encoding="utf-8"))
    return schema


def write_json(result: RunResult) -> Path:
    """
    Write result.json whole or not at all, after checking it against the schema.

    Raises:
        jsonschema.ValidationError: the result does not fit the published schema; a defect of labkit.
    """
    import jsonschema  # noqa: PLC0415  (a third of a second of imports)

    data = result.as_dict()
    jsonschema.validate(data, load_schema())
    path = result.out_dir / "result.json"
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
