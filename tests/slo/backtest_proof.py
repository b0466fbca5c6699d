"""
A back-test as something that Prometheus can refute: rules, counters and what must fire, as files for promtool.

Every instant is proved: within each firing interval the number of samples of ALERTS equals the number of evaluations,
and over the whole time there are no more than those.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from labkit._time import utc_now
from labkit.observe.prometheus import Prometheus
from labkit.observe.quality import firing
from labkit.shop import _remote_write as remote
from labkit.shop.history import History
from labkit.slo.backtest import BackTest
from labkit.slo.backtest_ratio import Divided, Range, error_ratio
from labkit.slo.model import BurnAlert, Policy
from labkit.slo.policies import alert_names, threshold

OBJECTIVE = Fraction(999, 1000)
PERIOD_S = 30 * 86_400


def from_epoch(counts: pd.DataFrame) -> pd.DataFrame:
    """The same counts, the first step beginning at 1970-01-01, where promtool's clock begins."""
    step_s = counts.attrs["step_s"]
    moved = counts.reset_index(drop=True)
    moved.index = pd.DatetimeIndex(
        pd.to_datetime(np.arange(1, len(counts) + 1) * step_s, unit="s", utc=True), name="time"
    ).as_unit("ns")
    moved.attrs["step_s"] = step_s
    return moved


def counters(counts: pd.DataFrame, *, base: float = 0) -> dict[str, list[float | None]]:
    """The samples of three counters, from the one before the first step (at *base*) on; None where there is none."""
    seen = counts["total"].notna()
    parts = {
        "bad_total": counts["total"] - counts["good"],
        "good_total": counts["good"],
        "events_total": counts["total"],
    }
    return {
        name: [
            base,
            *(base + v if there else None for v, there in zip(part.fillna(0).cumsum().tolist(), seen, strict=True)),
        ]
        for name, part in parts.items()
    }


def ratio(window_s: int, divided: Divided = "bad") -> str:
    """PromQL of the share of bad events."""
    part, total = (f"sum(increase({name}_total[{window_s}s]))" for name in (divided, "events"))
    return f"{part} / {total}" if divided == "bad" else f"1 - {part} / {total}"


def condition(alert: BurnAlert, ratios: Callable[[int], str], objective: Fraction = OBJECTIVE) -> str:
    """PromQL of an alert over the expressions that *ratios* gives for its windows."""
    limit = threshold(alert, objective, PERIOD_S)
    return " and ".join(f"{ratios(w)} > {limit!r}" for w in (alert.long_s, alert.short_s) if w is not None)


def rules(policy: Policy, *, interval_s: int = 60, divided: Divided = "bad") -> dict[str, Any]:
    """A rule file: a recording rule for each window, then the alerts, in one group."""
    windows = sorted({w for alert in policy.alerts for w in (alert.long_s, alert.short_s) if w is not None})
    recorded = [{"record": f"ratio:{w}s", "expr": ratio(w, divided)} for w in windows]
    alerts = [
        {
            "alert": name,
            "expr": condition(alert, lambda window_s: f"ratio:{window_s}s"),
            **({"for": f"{alert.for_s}s"} if alert.for_s else {}),
        }
        for name, alert in zip(_identifiers(policy), policy.alerts, strict=True)
    ]
    return {"groups": [{"name": "slo", "interval": f"{interval_s}s", "rules": [*recorded, *alerts]}]}


def _identifiers(policy: Policy) -> list[str]:
    return [f"alert{index}" for index in range(len(policy.alerts))]


def expectations(found: BackTest, *, shift_steps: int = 0) -> list[dict[str, Any]]:
    """
    One expression per firing interval and one per alert for the whole time, with the counts that must come out.

    *shift_steps* moves the intervals, to prove that promtool notices.
    """
    step_s = found.step_s
    whole_s = round((found.end - found.start).total_seconds())
    tests = []
    names = dict(zip(alert_names(found.policy), _identifiers(found.policy), strict=True))
    for name, identifier in names.items():
        mine = found.pages[found.pages["alert"] == name]
        starts = [round((start - found.start).total_seconds()) for start in mine["start"]]
        counts = [round((row.end - row.start).total_seconds()) // step_s for row in mine.itertuples()]
        for start_s, number in zip(starts, counts, strict=True):
            last_s = start_s + (number - 1 + shift_steps) * step_s
            tests.append(_count(identifier, number, window_s=number * step_s - step_s // 2, at_s=last_s))
        tests.append(_count(identifier, sum(counts), window_s=whole_s + step_s, at_s=whole_s))
    return tests


def _count(identifier: str, number: int, *, window_s: int, at_s: int) -> dict[str, Any]:
    # Half a step longer than the span of its samples: open or closed, a window holds the same ones.
    expr = f'sum(count_over_time(ALERTS{{alertname="{identifier}", alertstate="firing"}}[{window_s}s]))'
    expected = [{"labels": "{}", "value": number}] if number else []
    return {"expr": expr, "eval_time": f"{at_s}s", "exp_samples": expected}


def random_counts(rng: np.random.Generator, rows: int = 40) -> pd.DataFrame:
    """Few events, many gaps, counters near zero: whatever `increase` does specially, it does here."""
    total = rng.integers(0, 12, rows).astype(float)
    bad = np.minimum(total, rng.integers(0, 9, rows) * (rng.random(rows) < rng.uniform(0.1, 0.9)))
    holes = rng.random(rows) < rng.uniform(0, 0.5)
    holes[(start := rng.integers(0, rows)) : start + rng.integers(0, 8)] = True
    counts = pd.DataFrame({"good": total - bad, "total": total})
    counts[holes] = np.nan
    counts.attrs["step_s"] = 60
    return from_epoch(counts)


def write_ratios(folder: Path, frames: Sequence[pd.DataFrame], window_s: int, closed: Range, divided: Divided) -> Path:
    """A unit-test file in which every ratio at every instant is what `error_ratio` says, to the last bit."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for counts in frames:
        # Comparing drops NaN, which promtool would not find equal to itself; it keeps every number.
        query = {"expr": f"({ratio(window_s, divided)}) >= -1"}
        ours = error_ratio(counts, window_s, closed=closed, divided=divided)
        tests = [
            {**query, "eval_time": f"{row * 60}s", "exp_samples": [] if np.isnan(v) else [{"labels": "{}", "value": v}]}
            for row, v in enumerate(ours.tolist(), start=1)
        ]
        cases.append({"interval": "60s", "input_series": _input(counts, divided), "promql_expr_test": tests})
    unit = folder / "unit.yml"
    unit.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "60s", "tests": cases}))
    return unit


def _input(counts: pd.DataFrame, divided: Divided, base: float = 0) -> list[dict[str, str]]:
    return [
        {"series": name, "values": " ".join("_" if v is None else f"{v:.0f}" for v in values)}
        for name, values in counters(counts, base=base).items()
        if name in {f"{divided}_total", "events_total"}
    ]


def write(
    folder: Path,
    counts: pd.DataFrame,
    policy: Policy,
    tests: Sequence[dict[str, Any]],
    *,
    divided: Divided = "bad",
    base: float = 0,
) -> Path:
    """The rule file and the unit-test file; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    step_s = counts.attrs["step_s"]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules(policy, interval_s=step_s, divided=divided)))
    case = {"interval": f"{step_s}s", "input_series": _input(counts, divided, base), "promql_expr_test": list(tests)}
    unit = folder / "unit.yml"
    unit.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": f"{step_s}s", "tests": [case]}))
    return unit


def promtool(program: Path, unit: Path) -> tuple[bool, str]:
    """Whether `promtool test rules` found everything as expected, and what it wrote."""
    done = subprocess.run(
        [program, "test", "rules", unit.name], cwd=unit.parent, capture_output=True, text=True, timeout=850, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


def write_counters(url: str, counts: pd.DataFrame) -> None:
    """The counters of *counts* into an empty server, by remote write."""
    at_ms = counts.index.as_unit("ms").asi8  # type: ignore[attr-defined]
    at_ms = np.concatenate([[at_ms[0] - 1000 * counts.attrs["step_s"]], at_ms])
    made = counters(counts)
    headers = [remote.label_bytes({"__name__": name}) for name in made]
    values = np.array([[np.nan if v is None else v for v in row] for row in made.values()])
    for first in range(0, len(at_ms), 5000):
        part = slice(first, first + 5000)
        remote.push(url, remote.compress(remote.encode(headers, at_ms[part], values[:, part])), how="")


def live_pages(url: str, counts: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """`start, end, alert` as a server finds them: its answer at every instant, then `for` as the kernel holds it."""
    client, step_s = Prometheus(url), counts.attrs["step_s"]
    start, end = counts.index[0].to_pydatetime(), counts.index[-1].to_pydatetime()
    found = [
        firing(client, condition(alert, ratio), start, end, step_s=step_s, for_s=alert.for_s).assign(alert=name)
        for name, alert in zip(alert_names(policy), policy.alerts, strict=True)
    ]
    client.close()
    pages = pd.concat(found).sort_values("start", kind="stable", ignore_index=True)
    return pages[["start", "end", "alert"]]


def at_now(counts: pd.DataFrame) -> pd.DataFrame:
    """The same counts, ending some minutes ago on a whole second: a server drops what is older than its retention."""
    end = (utc_now() - timedelta(minutes=5)).replace(microsecond=0)
    moved = counts.set_axis(counts.index + (end - counts.index[-1]))
    moved.attrs["step_s"] = counts.attrs["step_s"]
    return moved


def some_days(past: History, first_day: float = 0, days: float = 7) -> pd.DataFrame:
    """Some days of a history, by default the first seven: with seed 7 an outage, a flapping replica and a slow burn."""
    counts = past.request_counts()
    part = counts.iloc[round(first_day * 1440) : round((first_day + days) * 1440)].copy()
    part.attrs["step_s"] = 60
    return part


def with_gaps(counts: pd.DataFrame) -> pd.DataFrame:
    """Every ninth sample missing by chance, two hours before the incident and ten minutes right after its start."""
    rng = np.random.default_rng(7)
    holes = rng.random(len(counts)) < 1 / 9
    worst = int((counts["total"] - counts["good"]).argmax())
    holes[worst - 200 : worst - 80] = holes[worst + 3 : worst + 13] = True
    gone = counts.astype(float)
    gone[holes] = np.nan
    gone.attrs["step_s"] = 60
    return gone
