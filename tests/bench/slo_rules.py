"""Bench rows of generated rules: how long they take to make, and what they cost the Prometheus that evaluates them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from labkit import _http
from labkit._time import utc_now
from labkit._wait import wait_until
from labkit.settings import files_root
from labkit.shop.history import build_history, write_history
from labkit.slo import rules
from labkit.slo.model import EventSli, Rolling, Slo
from labkit.slo.spec import load_specs
from tests.prometheus_process import NO_JOBS, PrometheusProcess

Row = dict[str, Any]
_GOAL_S = 2.0
_OBJECTIVES = 1000


def rows(program: Callable[[str], Path], folder: Path, repeats: int = 3) -> list[Row]:
    """Rules for a thousand objectives, and one evaluation of the shop's rules over a seeded month."""
    sli = EventSli(
        'sum(increase(http_requests_total{job="shop"}[$window]))',
        good='sum(increase(http_requests_total{job="shop",status!~"5.."}[$window]))',
    )
    many = [
        Slo(f"objective-{index}", "gateway", Fraction(999, 1000), Rolling(30 * 86_400), sli, policy="four-window")
        for index in range(_OBJECTIVES)
    ]
    # The quickest: other programs of the machine only ever add.
    value = min(_made_s(many) for _ in range(repeats))
    fast, whole = _evaluated_s(program("prometheus"), folder / "slo-rules")
    return [
        _row(f"slo: rules for {_OBJECTIVES:,} objectives", value, goal=f"< {_GOAL_S:g} s", met=value < _GOAL_S),
        _row("slo: one evaluation of the shop's burn-rate groups", fast),
        _row("slo: one evaluation of the shop's groups over the whole window", whole),
    ]


def _row(name: str, value: float, *, goal: str | None = None, met: bool | None = None) -> Row:
    number = {"value": round(value, 4), "unit": "s", "rival": None, "rival_value": None, "ratio": None}
    return {"name": name, **number, "goal": goal, "met": met}


def _made_s(slos: list[Slo]) -> float:
    began = time.perf_counter()
    rules.generate(slos)
    return time.perf_counter() - began


def _evaluated_s(prometheus: Path, folder: Path) -> tuple[float, float]:
    """Seconds of one evaluation of the shop's rules: those of the server's interval, and those of each minute."""
    server = PrometheusProcess(prometheus, folder).start()
    try:
        write_history(server.url, build_history(seed=7, end=utc_now() - timedelta(seconds=10)))
        path = folder / "slo.yml"
        path.write_text(rules.generate(load_specs(files_root() / "infra" / "slo" / "shop.yaml").slos))
        server.reload(f"{NO_JOBS}rule_files: [{path}]\n")

        def groups() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = _http.get_json(f"{server.url}/api/v1/rules")["data"]["groups"]
            return found

        done = wait_until(
            groups, "every group was evaluated", timeout_s=120, every_s=1,
            ready=lambda found: bool(found) and all(group["evaluationTime"] > 0 for group in found),
        )  # fmt: skip
    finally:
        server.end()
    whole = [group["evaluationTime"] for group in done if group["name"].endswith(":period")]
    return sum(group["evaluationTime"] for group in done) - sum(whole), sum(whole)
