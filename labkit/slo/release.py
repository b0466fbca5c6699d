"""
May we deploy now?  A release policy as data, and its decision on a report.

    decision = decide(DEFAULT, report)
    decision.allowed, decision.reason, decision.exit_code

A policy is a list of steps; of each objective the first step that applies counts, and of all objectives the gravest
answer.  Unknown is not a yes: what cannot be told ends as "unknown", whatever the step below would allow.
The form of the file: docs/slo-report.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from labkit._time import format_duration
from labkit._yaml import parse_model, read_text
from labkit.errors import ConfigInvalid, InvalidValue, UnknownName
from labkit.slo.model import Severity
from labkit.slo.release_form import ReleaseFile, ReleaseForm
from labkit.slo.report import Report
from labkit.slo.verdict import SloReport, Status, percent

__all__ = [
    "DEFAULT",
    "EXIT_CODES",
    "Condition",
    "Decision",
    "Outcome",
    "ReleasePolicy",
    "SloDecision",
    "Step",
    "as_policy",
    "decide",
    "load_policy",
    "parse_policy",
    "require_known",
]

Outcome = Literal["allow", "approval", "unknown", "deny"]

EXIT_CODES: Mapping[Outcome, int] = {"allow": 0, "approval": 1, "deny": 1, "unknown": 2}
"""For a pipeline: 0 go, 1 stop (an approval is a stop until somebody gives it), 2 it cannot be told."""

_GRAVITY: tuple[Outcome, ...] = ("allow", "approval", "unknown", "deny")


@dataclass(frozen=True, slots=True)
class Condition:
    """
    What must all be true of an objective for a step to apply; without any part it always applies.

    Attributes:
        status: one of these verdicts.
        remaining_below: less than this share of the budget is left.
        burn_window_s, burn_above: the burn rate over the window is above the bound.
        alert: the condition of an alert with this severity holds.
        exhausted_within_s: the budget is used up within so many seconds, or is already.
    """

    status: tuple[Status, ...] = ()
    remaining_below: Fraction | None = None
    burn_window_s: int | None = None
    burn_above: Fraction | None = None
    alert: Severity | None = None
    exhausted_within_s: int | None = None

    def holds(self, row: SloReport) -> bool | None:
        """Whether it is true of *row*; None when a part cannot be told and no other part is false."""
        answers = list(self._answers(row))
        if False in answers:
            return False
        return None if None in answers else True

    def __str__(self) -> str:
        parts = [f"status is {' or '.join(self.status)}"] if self.status else []
        if self.remaining_below is not None:
            parts.append(f"less than {percent(self.remaining_below)} of the budget is left")
        if self.burn_window_s is not None and self.burn_above is not None:
            parts.append(f"burn over {format_duration(self.burn_window_s)} is above {float(self.burn_above):g}")
        if self.alert is not None:
            parts.append(f"the condition of a {self.alert} alert holds")
        if self.exhausted_within_s is not None:
            parts.append(f"the budget ends within {format_duration(self.exhausted_within_s)}")
        return " and ".join(parts) or "always"

    def _answers(self, row: SloReport) -> list[bool | None]:
        found: list[bool | None] = [row.status in self.status] if self.status else []
        if self.remaining_below is not None:
            found.append(None if row.remaining is None else row.remaining < self.remaining_below)
        if self.burn_window_s is not None and self.burn_above is not None:
            if self.burn_window_s not in row.burns:
                raise InvalidValue(
                    "burn_window_s",
                    expected=f"a window of the report ({', '.join(map(str, row.burns))} s; make it with "
                    f"`report(..., windows_s=policy.windows_s)`)",
                    got=self.burn_window_s,
                )
            burn = row.burns[self.burn_window_s]
            found.append(None if burn is None else burn > self.burn_above)
        if self.alert is not None:
            found.append(_any([alert.holds for alert in row.alerts if alert.severity == self.alert]))
        if self.exhausted_within_s is not None:
            known = row.exhaustion.answer != "unknown"
            in_s = row.exhaustion.in_s
            found.append((in_s is not None and in_s <= self.exhausted_within_s) if known else None)
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """
    One line of a release policy.

    Attributes:
        name: in a word.
        when: the condition.
        then: "allow", "approval" (a person decides) or "deny".
        because: told to whoever asked.
        exempt: kinds of change that this step does not stop, such as "security".
    """

    name: str
    when: Condition
    then: Literal["allow", "approval", "deny"]
    because: str = ""
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """
    Steps in their order; the last one always applies, so that there is an answer.

    Attributes:
        name: of the policy.
        steps: at least one.
        slos: names of the objectives that count; () for all of the report.
    """

    name: str
    steps: tuple[Step, ...]
    slos: tuple[str, ...] = ()

    @property
    def windows_s(self) -> tuple[int, ...]:
        """Windows whose burn rates the steps look at, in seconds: the report must have them."""
        return tuple(sorted({step.when.burn_window_s for step in self.steps if step.when.burn_window_s is not None}))


DEFAULT = ReleasePolicy(
    "default",
    (
        Step("broken-promise", Condition(status=("violated",)), "deny", "The error budget is spent."),
        Step("burning", Condition(alert="page"), "deny", "An incident is spending the budget now."),
        Step("little-left", Condition(remaining_below=Fraction(1, 10)), "approval", "Little budget is left."),
        Step("ends-soon", Condition(exhausted_within_s=86_400), "approval", "The budget ends within a day."),
        Step("enough", Condition(), "allow", "There is budget for the risk of a release."),
    ),
)
"""Stop when the promise is broken or an alert pages, ask when the budget is low, go otherwise."""


@dataclass(frozen=True, slots=True)
class SloDecision:
    """What one objective says about the release: the outcome, the step that decided, and why."""

    slo: str
    outcome: Outcome
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The answer.

    Attributes:
        outcome: the gravest of all objectives.
        policy: name of the policy.
        rows: one per objective, the gravest first.
        approved_by: who approved, "" for nobody.
    """

    outcome: Outcome
    policy: str
    rows: tuple[SloDecision, ...]
    approved_by: str = ""

    @property
    def allowed(self) -> bool:
        """Whether to go ahead."""
        return self.outcome == "allow" or (self.outcome == "approval" and bool(self.approved_by))

    @property
    def exit_code(self) -> int:
        """0 go, 1 stop, 2 it cannot be told."""
        return 0 if self.allowed else EXIT_CODES[self.outcome]

    @property
    def reason(self) -> str:
        """A sentence for each objective that decided; what several share is said once."""
        if not self.rows:
            return "No objective was measured, so nothing is known."
        said: dict[str, list[str]] = {}
        for row in self.rows:
            if row.outcome == self.outcome:
                said.setdefault(row.reason, []).append(row.slo)
        texts = [f"{', '.join(names)}: {reason}" for reason, names in said.items()]
        shown = texts if self.outcome != "allow" else [f"All {len(self.rows)} objectives allow it."]
        if self.outcome == "approval":
            shown.append(f"Approved by {self.approved_by}." if self.approved_by else "Somebody has to approve.")
        return " ".join(shown)

    @property
    def text(self) -> str:
        """The answer for a terminal."""
        words = {"allow": "allowed", "approval": "approval needed", "unknown": "unknown, so no", "deny": "denied"}
        word = "allowed, with an approval" if self.allowed and self.outcome == "approval" else words[self.outcome]
        lines = [f"Release {word} (policy {self.policy}). {self.reason}"]
        lines += [f"  {row.slo}: {row.outcome}, step {row.step}" for row in self.rows]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As `labkit slo gate --json` prints it."""
        return {
            "allowed": self.allowed,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "policy": self.policy,
            "reason": self.reason,
            "approved_by": self.approved_by or None,
            "slos": [
                {"name": row.slo, "outcome": row.outcome, "step": row.step, "reason": row.reason} for row in self.rows
            ],
        }

    def __str__(self) -> str:
        return self.text


def decide(
    policy: ReleasePolicy | Mapping[str, Any], report: Report, *, change: str = "", approved_by: str = ""
) -> Decision:
    """
    Whether *policy* lets a release go ahead, given *report*.

    Args:
        policy: a `ReleasePolicy`, or the mapping that a specification file has under `release`.
        report: of the same instant; it must hold the objectives that the policy names.
        change: kind of the change, such as "security"; steps that exempt it do not stop it.
        approved_by: who approved; turns "approval" into a yes, and nothing else.

    Returns:
        A `Decision`.  Without any objective it is unknown.

    Raises:
        UnknownName: the policy names an objective that the report lacks.
        InvalidValue: a step looks at a burn window that the report lacks.
        ConfigInvalid: the mapping is no policy.
    """
    rules = policy if isinstance(policy, ReleasePolicy) else as_policy(policy)
    rows = [report[name] for name in rules.slos] if rules.slos else list(report)
    found = [_decide_one(rules, row, change) for row in rows]
    found.sort(key=lambda one: -_GRAVITY.index(one.outcome))
    return Decision(found[0].outcome if found else "unknown", rules.name, tuple(found), approved_by)


def _decide_one(policy: ReleasePolicy, row: SloReport, change: str) -> SloDecision:
    for step in policy.steps:
        if change and change in step.exempt:
            continue
        holds = step.when.holds(row)
        if holds is None:
            why = "; ".join(problem.text.split("\n")[0] for problem in row.problems) or "there were no events"
            reason = f"It cannot be told whether {step.when}: {why}".rstrip(".") + "."
            return SloDecision(row.slo.name, "unknown", step.name, reason)
        if holds and step.then == "allow" and row.status == "unknown":
            return SloDecision(row.slo.name, "unknown", step.name, f"Its state is unknown. {' '.join(row.reasons)}")
        if holds:
            return SloDecision(row.slo.name, step.then, step.name, f"{step.because} {' '.join(row.reasons)}".strip())
    return SloDecision(row.slo.name, "unknown", "", "No step of the policy applies to this change.")


def load_policy(path: Path) -> ReleasePolicy | None:
    """
    The release policy of a specification file, or of a file that has only `release`; None if it has none.

    Raises:
        ConfigInvalid: every mistake below `release`, with line and column.
        FileNotFoundError: there is no such file.
    """
    return parse_policy(read_text(path), str(path))


def parse_policy(text: str, source: str = "the release policy") -> ReleasePolicy | None:
    '''
    As `load_policy`, from text.

    >>> policy = parse_policy("""
    ... release:
    ...   steps:
    ...   - {name: low, when: {remaining_below: 20%}, then: approval}
    ...   - {name: enough, then: allow}
    ... """)
    >>> [f"{step.then} when {step.when}" for step in policy.steps]
    ['approval when less than 20 % of the budget is left', 'allow when always']
    '''
    form = parse_model(ReleaseFile, text, source).release
    return None if form is None else _policy(form)


def as_policy(raw: Mapping[str, Any]) -> ReleasePolicy:
    """
    A policy from the mapping that a specification file has under `release`.

    Raises:
        ConfigInvalid: it is no policy; every mistake with its place.
    """
    try:
        return _policy(ReleaseForm.model_validate(dict(raw)))
    except ValidationError as error:
        problems = [f"`{'.'.join(str(part) for part in one['loc'])}`: {one['msg']}" for one in error.errors()]
        raise ConfigInvalid("release", problems=problems) from error


def _policy(form: ReleaseForm) -> ReleasePolicy:
    steps = []
    for number, step in enumerate(form.steps, start=1):
        when = step.when
        condition = Condition(
            status=when.status,
            remaining_below=when.remaining_below,
            burn_window_s=when.burn_above.window if when.burn_above else None,
            burn_above=when.burn_above.rate if when.burn_above else None,
            alert=when.alert,
            exhausted_within_s=when.exhausted_within,
        )
        steps.append(Step(step.name or f"step {number}", condition, step.then, step.because, tuple(step.exempt)))
    return ReleasePolicy(form.name, tuple(steps), tuple(form.slos))


def require_known(policy: ReleasePolicy, names: Sequence[str]) -> None:
    """
    Refuse a policy that names objectives that there are not.

    Raises:
        UnknownName: with the nearest name that there is.
    """
    for name in policy.slos:
        if name not in names:
            raise UnknownName("objective", name, known=names, how=f"Release policy {policy.name} names it.")


def _any(answers: Sequence[bool | None]) -> bool | None:
    if True in answers:
        return True
    return None if None in answers else False
