"""`labkit slo …`: what it prints, as text and as JSON, and with which exit code it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labkit.cli import main
from labkit.lab import Lab
from labkit.settings import files_root
from tests.prometheus_process import PrometheusProcess, free_port
from tests.slo.test_report import SCHEMA
from tests.slo.test_source import EVEN

DATA = files_root() / "data"

SPEC = """
slos:
- name: shop
  service: gateway
  target: 99%
  window: 20d
  sli:
    target_type: availability
    bad: sum(increase(http_requests_total{job="shop",service="gateway",status=~"5.."}[$window]))
    total: sum(increase(http_requests_total{job="shop",service="gateway"}[$window]))
- name: strict
  service: gateway
  target: 99.99%
  window: 20d
  sli:
    target_type: availability
    bad: sum(increase(http_requests_total{job="shop",service="gateway",status=~"5.."}[$window]))
    total: sum(increase(http_requests_total{job="shop",service="gateway"}[$window]))
journeys:
- {name: visit, steps: [shop, strict], measured: shop}
release:
  slos: [shop]
  steps:
  - {name: broken, when: {status: violated}, then: deny, because: The promise is broken.}
  - {name: enough, then: allow}
"""


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, decoded."""
        return json.loads(self.out)


Labkit = Callable[..., Said]


@pytest.fixture
def labkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Labkit:
    """The command line in this process: `labkit("slo", "report")`."""

    def run(*argv: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, argv)])
        monkeypatch.setenv("COLUMNS", "140")
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        written = capsys.readouterr()
        return Said(int(ended.value.code or 0), written.out, written.err)

    return run


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A specification with two objectives, a journey and a release policy."""
    path = tmp_path / "slos.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def there(served: PrometheusProcess) -> list[str]:
    """The options for the server with the month, at an instant in it."""
    return ["--prometheus", served.url, "--at", EVEN.isoformat()]


def test_help_has_examples_and_exit_codes(labkit: Labkit) -> None:
    """Every command says in its help how it is called and what its exit codes mean."""
    for command in ("validate", "rules", "report", "explain", "backtest", "gate"):
        said = labkit("slo", command, "--help")

        assert said.code == 0
        assert f"labkit slo {command}" in said.out.replace("Usage: ", "")
        assert "Exit codes: 0" in said.out
        assert "--json" in said.out


def test_the_shops_specification_is_valid(labkit: Labkit) -> None:
    """Without a file the shop's own is checked; nothing is wrong and nothing doubtful with it."""
    said = labkit("slo", "validate", "--json")

    assert said.code == 0
    assert said.json["valid"]
    (found,) = said.json["files"]
    assert found["slos"][0] == "visit-availability"
    assert (found["problems"], found["doubts"]) == ([], [])


def test_every_mistake_is_listed_with_its_place(labkit: Labkit, tmp_path: Path, spec: Path) -> None:
    """Mistakes in objectives, journeys and the release policy of several files; exit code 1."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SPEC.replace("target: 99%", "target: 100%").replace("then: allow", "then: alow"))
    said = labkit("slo", "validate", spec, wrong)

    assert said.code == 1
    assert f" ✓ {spec}: 2 objectives" in said.out
    assert f" ✗ {wrong}: " in said.out
    assert "line 5, column 11: `slos.0.target`" in said.out
    assert labkit("slo", "validate", wrong, "--json").json["files"][0]["problems"][0]["line"] == 5


def test_journeys_and_policies_name_objectives_that_there_are(labkit: Labkit, spec: Path) -> None:
    """A misspelt step is a mistake, with the nearest right name."""
    spec.write_text(SPEC.replace("steps: [shop, strict]", "steps: [shop, strickt]"))
    said = labkit("slo", "validate", spec)

    assert said.code == 1
    assert "no SLO is called 'strickt'; did you mean `strict`?" in said.out


def test_what_is_doubtful_is_said_and_no_mistake(labkit: Labkit, spec: Path) -> None:
    """An alert that can never fire is a doubt: exit code 0, and the reason with its numbers."""
    spec.write_text(SPEC.replace("target: 99%", "target: 60%"))
    said = labkit("slo", "validate", spec)

    assert said.code == 0
    assert "? shop: page 1h/5m: can never fire" in said.out


def test_a_history_that_says_something_else_is_a_mistake(labkit: Labkit, tmp_path: Path, spec: Path) -> None:
    """The specification and the log of objectives must promise the same."""
    history = tmp_path / "objectives.yaml"
    history.write_text(
        "objectives:\n- slo: shop\n  changes: [{from: 2026-01-01T00:00:00Z, objective: 98%, reason: a guess}]\n"
    )
    said = labkit("slo", "validate", spec, "--history", history)

    assert said.code == 1
    assert "shop: the specification promises 99%, the log of objectives says 98%" in said.out


def test_rules_are_written_and_compared(labkit: Labkit, tmp_path: Path, spec: Path) -> None:
    """To the terminal, into files, as JSON; --check tells whether files are up to date and touches nothing."""
    rules, tests = tmp_path / "rules.yml", tmp_path / "rules.test.yml"
    printed = labkit("slo", "rules", spec)
    written = labkit("slo", "rules", spec, "--out", rules, "--tests", tests)

    assert (printed.code, written.code) == (0, 0)
    assert rules.read_text() == printed.out == labkit("slo", "rules", spec, "--json").json["rules"]
    assert 'rule_files: ["rules.yml"]' in tests.read_text()
    assert labkit("slo", "rules", spec, "--out", rules, "--check").code == 0
    rules.write_text("groups: []\n")
    stale = labkit("slo", "rules", spec, "--out", rules, "--check")
    assert (stale.code, stale.out) == (1, f" ✗ {rules} differs\n")
    assert rules.read_text() == "groups: []\n"
    assert labkit("slo", "rules", spec, "--check").code == 2


@pytest.mark.live
def test_a_report_as_table_json_and_page(labkit: Labkit, spec: Path, there: list[str], tmp_path: Path) -> None:
    """The same verdicts in all three; JSON follows the schema and has the journeys; exit code 0 whatever they are."""
    page = tmp_path / "out" / "slo.html"
    table = labkit("slo", "report", spec, *there, "--html", page)
    found = labkit("slo", "report", spec, *there, "--json")

    assert (table.code, found.code) == (0, 0)
    jsonschema.validate(found.json, SCHEMA)
    assert {one["name"]: one["status"] for one in found.json["slos"]} == {"shop": "healthy", "strict": "violated"}
    assert "strict violated" in " ".join(table.out.split())
    assert "of the budget is spent: the promise of the window is broken." in table.out
    assert found.json["journeys"][0]["name"] == "visit"
    assert '<section id="strict">' in page.read_text()
    assert [one["name"] for one in labkit("slo", "report", spec, *there, "--slo", "shop", "--json").json["slos"]] == [
        "shop"
    ]


def test_what_objectives_share_is_said_once(labkit: Labkit, spec: Path) -> None:
    """A server that does not answer makes all unknown: one line, in the report and in the gate's reason."""
    silent = f"http://127.0.0.1:{free_port()}"
    report, gate = (labkit("slo", command, spec, "--prometheus", silent) for command in ("report", "gate"))

    assert (report.code, report.out.count("connection refused")) == (0, 1)
    assert "shop, strict: POST " in report.out
    assert (gate.code, gate.out.count("connection refused")) == (2, 1)


@pytest.mark.live
def test_the_gate_says_yes_no_and_cannot_tell(labkit: Labkit, spec: Path, there: list[str], tmp_path: Path) -> None:
    """0 when the policy's objectives allow it, 1 when one denies, 2 when nobody answers or nothing is known."""
    allowed = labkit("slo", "gate", spec, *there, "--json")
    everything = tmp_path / "release.yaml"
    everything.write_text("release: {steps: [{when: {status: violated}, then: deny}, {then: allow}]}\n")
    denied = labkit("slo", "gate", spec, *there, "--policy", everything)
    silent = labkit("slo", "gate", spec, "--prometheus", f"http://127.0.0.1:{free_port()}", "--json")
    too_early = labkit("slo", "gate", spec, *there[:2], "--at", "2025-01-01T00:00:00Z")

    assert (allowed.code, allowed.json["allowed"], [one["name"] for one in allowed.json["slos"]]) == (0, True, ["shop"])
    assert denied.code == 1
    assert denied.out.startswith("Release denied (policy release). strict:")
    assert (silent.code, silent.json["outcome"]) == (2, "unknown")
    assert "connection refused" in silent.json["reason"]
    assert too_early.code == 2
    assert too_early.out.startswith("Release unknown, so no (policy release).")


def test_a_gate_that_cannot_ask_is_no_yes(labkit: Labkit, spec: Path, tmp_path: Path) -> None:
    """No lab, no file, a broken policy: exit code 2, an error on stderr, and JSON that says no."""
    no_lab = labkit("slo", "gate", spec, "--json")
    no_file = labkit("slo", "gate", tmp_path / "nowhere.yaml", "--prometheus", "http://127.0.0.1:1")
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    no_policy = labkit("slo", "gate", spec, "--policy", empty, "--prometheus", "http://127.0.0.1:1")

    assert (no_lab.code, no_lab.json["allowed"], no_lab.json["exit_code"]) == (2, False, 2)
    assert "NotRunning" in no_lab.err
    assert no_file.code == no_policy.code == 2
    assert "it has no `release`" in no_policy.err
    assert "cannot be told" in no_policy.err


@pytest.mark.live
def test_a_number_is_explained(labkit: Labkit, spec: Path, there: list[str]) -> None:
    """Its counts, formula and approximations, as text and JSON; wrong names are refused with the nearest right one."""
    text = labkit("slo", "explain", "shop", spec, *there, "--shown", "0.5")
    found = labkit("slo", "explain", "shop", spec, *there, "--number", "burn_rate", "--window", "1h", "--json")

    assert text.code == 0
    assert "remaining = 1 - bad / ((1 - objective) * total)" in text.out
    assert "the value that was shown" in text.out
    assert found.json["formula"] == "burn = (bad / total) / (1 - objective)"
    assert labkit("slo", "explain", "shpo", spec, *there).code == 2
    assert "did you mean 'burn_rate'" in labkit("slo", "explain", "shop", spec, *there, "--number", "burn").err


@pytest.mark.live
def test_a_live_check_finds_a_silent_killer(labkit: Labkit, spec: Path, there: list[str]) -> None:
    """Labels that do not match are no mistake of form, and one on the server: exit code 1 with --live."""
    url = there[:2]
    good = SPEC.replace('status=~"5.."', 'statuss!~"2.."')
    spec.write_text(good)
    said = labkit("slo", "validate", spec, "--live", *url)

    assert labkit("slo", "validate", spec).code == 0
    assert said.code == 1
    assert "lets everything pass, without a word. Did you mean `status`?" in said.out


def test_policies_are_rehearsed_on_a_file(labkit: Labkit) -> None:
    """The month of data/: every policy a row; hours are too long for short windows, which is said."""
    files = ["--counts", DATA / "seeded-month.csv", "--incidents", DATA / "seeded-month-incidents.csv"]
    table = labkit("slo", "backtest", *files)
    found = labkit("slo", "backtest", *files, "--policy", "long-window", "--objective", "99.9%", "--json")

    assert (table.code, found.code) == (0, 0)
    assert "threshold: page 10m cannot fire, because steps of 1 h are too long for its windows." in table.out
    (row,) = found.json["policies"]
    assert (row["policy"], row["pages"], row["precision"]) == ("long-window", 6, 1.0)
    assert len(row["page_list"]) == 6
    assert row["page_list"][0]["start"].endswith("+00:00")
    assert found.json["objective"] == 0.999


def test_policies_are_rehearsed_on_a_seed(labkit: Labkit) -> None:
    """The seeded month needs no lab, and the policy of the workbook notices every incident that deserves it."""
    said = labkit("slo", "backtest", "--seed", "7", "--policy", "workbook", "--json")

    assert said.code == 0
    (row,) = said.json["policies"]
    assert (row["recall"], row["precision"], row["blind"]) == (1.0, 1.0, [])


def test_wrong_files_and_options_are_refused(labkit: Labkit, tmp_path: Path) -> None:
    """Missing columns, no numbers, two sources, unknown policies and instants: exit code 2 and what to do."""
    table = tmp_path / "counts.csv"
    table.write_text("when,total\n2026-01-01T00:00:00Z,1\n")
    assert "no column `time`" in labkit("slo", "backtest", "--counts", table).err
    table.write_text("time,total,good\n2026-01-01T00:00:00Z,many,1\n2026-01-01T01:00:00Z,1,1\n")
    assert "not a table of times and counts" in labkit("slo", "backtest", "--counts", table).err
    table.write_text("time,total\n2026-01-01T00:00:00Z,1\n")
    assert "neither a column `good` nor a column `failed`" in labkit("slo", "backtest", "--counts", table).err
    both = labkit("slo", "backtest", "--counts", table, "--seed", "7")
    assert (both.code, "one of the two" in both.err) == (2, True)
    assert "did you mean 'workbook'" in labkit("slo", "backtest", "--seed", "7", "--policy", "workbok").err
    assert labkit("slo", "backtest", "--step", "5x", "--prometheus", "http://127.0.0.1:1").code == 2
    assert "There is no file nowhere.yaml" in labkit("slo", "report", "nowhere.yaml").err
    assert "one such as http://127.0.0.1:9090, got 'here'" in labkit("slo", "report", "--prometheus", "here").err
    wrong = labkit("slo", "report", "--prometheus", "http://127.0.0.1:1", "--at", "yesterday")
    assert (wrong.code, "2026-03-01T12:00:00Z" in wrong.err) == (2, True)


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    """The installed command ends with the code that a pipeline sees, and a message without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", "from labkit.cli import main; main()", "slo", "gate", tmp_path / "nowhere.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "No release: whether it may go ahead cannot be told." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.live
def test_the_lab_that_runs_is_asked(labkit: Labkit, lab: Lab) -> None:
    """Without an address the commands find the lab, and report on the shop's own objectives."""
    found = labkit("slo", "report", "--run-dir", lab.run_dir, "--json")
    past = labkit("slo", "backtest", "orders-placed", "--run-dir", lab.run_dir, "--policy", "workbook", "--json")

    assert {one["status"] for one in found.json["slos"]} <= {"healthy", "at_risk", "violated"}
    assert all(one["total"] > 100_000 and one["requests"] <= 4 for one in found.json["slos"])
    assert past.json["past"] == "orders-placed"
    assert past.json["policies"][0]["incidents"]
