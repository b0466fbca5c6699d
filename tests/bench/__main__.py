"""
Measure what the issues give numbers for: `make bench`, or `python -m tests.bench [NAME…]` for some groups.

Prints a table and writes build/bench.json: a list of `{name, value, unit, rival, rival_value, ratio, goal, met}`.
Ratios are measured in one run, interleaved; absolute times hold for the machine that is named above the table.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from labkit.settings import load_settings
from labkit.stack.acquire import find_program
from tests.bench import dashboard, exporter, lab, on_kind, overhead, series, slo_backtest, slo_report, slo_rules, stores

Row = dict[str, Any]


def program(name: str) -> Path:
    """The path of a component's program; it must be here already."""
    found = find_program(name, load_settings())
    if found is None:
        raise SystemExit(f"{name} is not here: run `make test` first, which fetches it")
    return found


GROUPS: dict[str, Callable[[Path], list[Row]]] = {
    "fresh": lab.fresh_machine,
    "up": lab.start_and_memory,
    "up-jaeger-opensearch": lab.start_with_jaeger_and_opensearch,
    "kind": on_kind.rows,
    "exporter": exporter.rows,
    "stores": stores.rows,
    "overhead": overhead.rows,
    "series": lambda folder: series.rows(program, folder),
    "dashboard": lambda folder: dashboard.rows(program, folder),
    "slo-backtest": lambda folder: slo_backtest.rows(program, folder),
    "slo-report": lambda folder: slo_report.rows(program, folder),
    "slo-rules": lambda folder: slo_rules.rows(program, folder),
}


def table(rows: list[Row]) -> str:
    """The rows for people."""
    head = ("what", "value", "beside", "its value", "ratio", "goal", "met")
    cells = [head]
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        value, rival_value = (
            f"{row[k]:.4g} {row['unit']}" if row[k] is not None else "" for k in ("value", "rival_value")
        )
        ratio = f"{row['ratio']:.3g}" if row["ratio"] is not None else ""
        cells.append((row["name"], value, row["rival"] or "", rival_value, ratio, row["goal"] or "", met))
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def main(chosen: list[str]) -> int:
    """Entry point; the exit code is 1 when a goal was missed."""
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        raise SystemExit(f"no group {', '.join(unknown)}; there are: {', '.join(GROUPS)}")
    rows: list[Row] = []
    for name in chosen or list(GROUPS):
        print(f" • measuring {name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
            rows += GROUPS[name](Path(folder))
    memory_gb = psutil.virtual_memory().total / 1e9
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory_gb:.0f} GB"
    print(f"\n{machine}, Python {platform.python_version()}\n")
    print(table(rows))
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if any(row["met"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
