"""`slo`: validate specifications, write rules, report, explain, back-test alert policies, decide on releases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli._slo_data import (
    Place,
    chosen,
    instant,
    past_from_file,
    past_of_place,
    past_of_seed,
    policies_of,
    seconds,
    specification,
)
from labkit.cli._slo_validate import checked_file, show_checked
from labkit.cli._words import in_words
from labkit.errors import ConfigInvalid, InvalidValue, LabkitError, UnknownName

if TYPE_CHECKING:
    from labkit.slo.model import Policy
    from labkit.slo.release import ReleasePolicy

__all__ = ["COMMANDS", "EXIT_STOP", "EXIT_UNKNOWN", "register"]

EXIT_STOP, EXIT_UNKNOWN = 1, 2

Spec = Annotated[
    Path | None, typer.Argument(help="Specification: our own form, OpenSLO or Sloth; the shop's own if not given.")
]
Names = Annotated[list[str] | None, typer.Option("--slo", help="Only this objective; repeatable.")]
Prometheus = Annotated[
    str | None, typer.Option(help="Address such as http://127.0.0.1:9090; the lab that runs if not given.")
]
RunDir = Annotated[Path | None, typer.Option(help="Folder of the lab (default: LABKIT_RUN_DIR).")]
At = Annotated[str | None, typer.Option(help="Instant with its zone, as in 2026-03-01T12:00:00Z; now if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to *app*."""
    group = typer.Typer(no_args_is_help=True, help="Objectives: check, alert on, report, explain, rehearse, decide.")
    for command in COMMANDS:
        group.command()(command)
    app.add_typer(group, name="slo")


def validate(
    specs: Annotated[list[Path] | None, typer.Argument(help="Specifications; the shop's own if none.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Also ask a running Prometheus whether every indicator counts something.")
    ] = False,
    history: Annotated[Path | None, typer.Option(help="History of objectives that must agree.")] = None,
    prometheus: Prometheus = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
) -> None:
    """
    Check specifications: every mistake with its line and column, and what is doubtful.

    `labkit slo validate`

    `labkit slo validate mine.yaml --live --prometheus http://127.0.0.1:9090`

    Exit codes: 0 right, 1 a mistake, 2 no such file or wrong usage, 3 no lab to ask.
    """
    from labkit.lab_slo import shop_specification  # noqa: PLC0415

    place = Place.of(prometheus, run_dir) if live else None
    found = [checked_file(path, place, history) for path in specs or [shop_specification()]]
    valid = not any(one["problems"] for one in found)
    if as_json:
        typer.echo(json.dumps({"valid": valid, "files": found}, indent=1, ensure_ascii=False))
    else:
        for one in found:
            show_checked(one)
    raise typer.Exit(0 if valid else EXIT_STOP)


def rules(
    spec: Spec = None,
    names: Names = None,
    out: Annotated[Path | None, typer.Option(help="Write the rules there instead of printing them.")] = None,
    tests: Annotated[Path | None, typer.Option(help="Write unit tests for promtool there too.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if the files differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Generate Prometheus rules, and unit tests for them.

    `labkit slo rules mine.yaml --out rules.yml --tests rules.test.yml`

    `promtool test rules rules.test.yml`

    Exit codes: 0 done, 1 a file differs (with --check), 2 a mistake in the specification or wrong usage.
    """
    from labkit.slo import rule_tests  # noqa: PLC0415
    from labkit.slo import rules as writer  # noqa: PLC0415
    from labkit.stack.download import write_atomically  # noqa: PLC0415

    found = specification(spec)
    slos = chosen(found, names or [])
    if check and out is None and tests is None:
        raise InvalidValue("--check", expected="given together with --out or --tests", got=check)
    text = writer.generate(slos, found.policies)
    tests_text = rule_tests.generate(slos, found.policies, rules_file=out.name if out else "slo.yml")
    files = {path: content for path, content in ((out, text), (tests, tests_text)) if path is not None}
    differing = [path for path, content in files.items() if not path.exists() or path.read_text("utf-8") != content]
    if not check:
        for path, content in files.items():
            write_atomically(path, content)
    if as_json:
        listed = {"slos": [slo.name for slo in slos], "rules": text, "tests": tests_text}
        typer.echo(json.dumps({**listed, "differing": [str(path) for path in differing]}, indent=1, ensure_ascii=False))
    elif check:
        for path in files:
            typer.echo(f" {'✗' if path in differing else '✓'} {path}{' differs' if path in differing else ''}")
    elif out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo("".join(f" ✓ {path}\n" for path in files), nl=False)
    raise typer.Exit(EXIT_STOP if check and differing else 0)


def report(
    spec: Spec = None,
    names: Names = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page that holds everything.")] = None,
    at: At = None,
    prometheus: Prometheus = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
) -> None:
    """
    Say how every objective stands: healthy, at risk, violated or unknown, and why.

    `labkit slo report --html build/slo.html`

    `labkit slo report mine.yaml --prometheus http://127.0.0.1:9090 --json`

    Exit codes: 0 whatever the verdicts (`labkit slo gate` judges), 2 a mistake in the specification, 3 no lab.
    """
    from labkit.cli._slo_tables import show_report  # noqa: PLC0415
    from labkit.slo.journeys import as_journeys, journey_reports  # noqa: PLC0415
    from labkit.slo.report import report as measure  # noqa: PLC0415

    found, place = specification(spec), Place.of(prometheus, run_dir)
    slos = chosen(found, names or [])
    made = measure(slos, place.source, instant(at, place.now()), policies=policies_of(found))
    # A journey needs all of its objectives, so a choice of some leaves journeys out.
    journeys = [] if names else as_journeys(found.journeys, [slo.name for slo in slos])
    kept = journey_reports(journeys, made)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(made.to_html(), encoding="utf-8")
    if as_json:
        whole = {**made.to_dict(), "journeys": [one.to_dict() for one in kept]}
        typer.echo(json.dumps(whole, indent=1, ensure_ascii=False))
        return
    show_report(made)
    for one in kept:
        typer.echo(one.finding)
    if html is not None:
        typer.echo(f" ✓ {html}")


def explain(
    name: Annotated[str, typer.Argument(help="Name of an objective.")],
    spec: Spec = None,
    what: Annotated[
        str, typer.Option("--number", help="achieved, budget (spent), remaining, burn_rate or exhaustion.")
    ] = "remaining",
    window: Annotated[str | None, typer.Option(help="For achieved and burn_rate: a shorter window, as in 1h.")] = None,
    shown: Annotated[
        float | None, typer.Option(help="The value that somebody saw; it is compared with the exact one.")
    ] = None,
    step: Annotated[str, typer.Option(help="Step of the counts from --prometheus; two scrapes at least.")] = "5m",
    at: At = None,
    prometheus: Prometheus = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
) -> None:
    """
    Open a number: its counts, window and formula, and what approximations would make of it.

    `labkit slo explain visit-availability`

    `labkit slo explain visit-availability --number burn_rate --window 1h --shown 0.3`

    Exit codes: 0 explained, 2 no such objective or number, 3 no lab or no data.
    """
    from typing import cast  # noqa: PLC0415

    from labkit.slo.explain import Quantity  # noqa: PLC0415
    from labkit.slo.explain import explain as opened  # noqa: PLC0415
    from labkit.slo.tracking import closing  # noqa: PLC0415

    step_s, window_s = seconds("--step", step), seconds("--window", window) if window else None
    slo, place = specification(spec).slo(name), Place.of(prometheus, run_dir)
    now = instant(at, place.now())
    start, _ = closing(slo.window, now)
    counts = place.counts(slo, step_s, start, now)
    found = opened(
        cast("Quantity", what),
        counts=counts,
        slo=slo,
        at=counts.index[-1].to_pydatetime(),
        window_s=window_s,
        shown=shown,
        late_s=(now - counts.index[-1].to_pydatetime()).total_seconds(),
        closed=place.closed(),
        source=place.source.url,
    )
    typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) if as_json else found.text)


def backtest(
    name: Annotated[str | None, typer.Argument(help="Name of an objective; the first of the file if none.")] = None,
    spec: Spec = None,
    policy: Annotated[list[str] | None, typer.Option(help="Only this alert policy; repeatable; all if none.")] = None,
    objective: Annotated[str | None, typer.Option(help="Another objective than the specification's: 99.9%.")] = None,
    counts: Annotated[
        Path | None, typer.Option(help="CSV of counts: `time`, `total`, and `good` or `failed`; see data/README.md.")
    ] = None,
    incidents: Annotated[Path | None, typer.Option(help="CSV of incidents, with --counts: `start`, `end`.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="With --counts: only the rows of this endpoint.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seeded month of this seed; needs no lab.")] = None,
    days: Annotated[int, typer.Option(min=1, help="How far back, on a server.")] = 30,
    step: Annotated[str, typer.Option(help="Step on a server; two scrapes at least.")] = "1m",
    version: Annotated[
        str, typer.Option("--prometheus-version", help="Whose rules, with --counts or --seed: 2.x and 3.x differ.")
    ] = "3.0.0",
    prometheus: Prometheus = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
) -> None:
    """
    Rehearse alert policies on a past: how often they page, how right, how fast, at what cost.

    `labkit slo backtest --seed 7`

    `labkit slo backtest --counts data/seeded-month.csv --incidents data/seeded-month-incidents.csv`

    `labkit slo backtest visit-availability --policy workbook --json`

    Exit codes: 0 done, 2 a mistake in a file or wrong usage, 3 no lab or no data.
    """
    from labkit.cli._slo_tables import backtest_dict, show_backtests  # noqa: PLC0415
    from labkit.slo.backtest import backtest as rehearse  # noqa: PLC0415
    from labkit.slo.objective import format_percentage, parse_objective  # noqa: PLC0415

    found = specification(spec)
    slo = found.slo(name) if name else found.slos[0]
    if counts is not None and seed is not None:
        raise InvalidValue("--counts and --seed", expected="one of the two", got=(str(counts), seed))
    if counts is None and (incidents is not None or endpoint is not None):
        raise InvalidValue("--incidents and --endpoint", expected="given together with --counts", got=None)
    if counts is not None:
        past = past_from_file(counts, incidents, endpoint, slo.objective, version)
    elif seed is not None:
        past = past_of_seed(seed, slo, version)
    else:
        past = past_of_place(Place.of(prometheus, run_dir), slo, seconds("--step", step), days)
    promised = parse_objective(objective) if objective else past.objective
    tests = [
        rehearse(past.counts, promised, one, period_s=past.period_s, closed=past.closed, incidents=past.incidents)
        for one in _wanted(policies_of(found), policy or [])
    ]
    if as_json:
        rows = [backtest_dict(test) for test in tests]
        head = {"past": past.title, "objective": float(promised), "period_s": past.period_s, "closed": past.closed}
        typer.echo(json.dumps({**head, "policies": rows}, indent=1, ensure_ascii=False))
        return
    first, last = past.counts.index[0], past.counts.index[-1]
    span = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    show_backtests(tests, f"{past.title}, {format_percentage(promised)}, {span}")


def gate(
    spec: Spec = None,
    policy: Annotated[
        Path | None, typer.Option(help="File with a `release` policy; that of the specification, or ours, if none.")
    ] = None,
    change: Annotated[
        str, typer.Option(help="Kind of the change, such as security: steps that exempt it let it pass.")
    ] = "",
    approved_by: Annotated[str, typer.Option(help="Who approved; turns `approval` into a yes, nothing else.")] = "",
    at: At = None,
    prometheus: Prometheus = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
) -> None:
    """
    Say whether a release may go ahead, for a pipeline.

    `labkit slo gate && ./deploy.sh`

    `labkit slo gate --policy release.yaml --change security --json`

    Exit codes: 0 yes, 1 no (or not without an approval), 2 it cannot be told: unknown is not a yes.
    """
    try:
        decision = _decision(spec, policy, change, approved_by, at, Place.of(prometheus, run_dir))
    except (LabkitError, FileNotFoundError) as error:
        if as_json:
            typer.echo(json.dumps(_undecided(error), indent=1, ensure_ascii=False))
        sys.stderr.write(f"{in_words(error)}\nNo release: whether it may go ahead cannot be told.\n")
        raise typer.Exit(EXIT_UNKNOWN) from error
    typer.echo(json.dumps(decision.to_dict(), indent=1, ensure_ascii=False) if as_json else decision.text)
    raise typer.Exit(decision.exit_code)


def _decision(
    spec: Path | None, policy: Path | None, change: str, approved_by: str, at: str | None, place: Place
) -> Any:
    from labkit.slo.release import DEFAULT, as_policy, decide, require_known  # noqa: PLC0415
    from labkit.slo.report import report as measure  # noqa: PLC0415

    found = specification(spec)
    rule = DEFAULT if found.release is None else as_policy(found.release)
    if policy is not None:
        rule = _release(policy)
    require_known(rule, [slo.name for slo in found.slos])
    slos = chosen(found, rule.slos)
    when = instant(at, place.now())
    made = measure(slos, place.source, when, policies=policies_of(found), windows_s=rule.windows_s)
    return decide(rule, made, change=change, approved_by=approved_by)


def _release(path: Path) -> ReleasePolicy:
    from labkit.slo.release import load_policy  # noqa: PLC0415

    found = load_policy(path)
    if found is None:
        raise ConfigInvalid(str(path), problems=["it has no `release`"], how="See docs/slo-report.md for its form.")
    return found


def _undecided(error: Exception) -> dict[str, Any]:
    return {"allowed": False, "outcome": "unknown", "exit_code": EXIT_UNKNOWN, "reason": in_words(error), "slos": []}


def _wanted(known: dict[str, Policy], names: list[str]) -> list[Policy]:
    for name in names:
        if name not in known:
            raise UnknownName("alert policy", name, known=list(known))
    return [known[name] for name in names or known]


COMMANDS = (validate, rules, report, explain, backtest, gate)
