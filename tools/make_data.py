"""
Make the files of data/ from the code: `python tools/make_data.py [FOLDER]`.

They are committed, and a test compares them with what this makes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from labkit.settings import files_root
from labkit.shop.history import build_history
from labkit.shop.rates import LIVE_RATES_PER_S

SEED = 7
END = datetime(2026, 6, 1, tzinfo=UTC)
HOUR_S = 3600
INCIDENT_COLUMNS = ("id", "title", "cause", "kind", "start", "end", "budget_share")


def files() -> dict[str, str]:
    """Contents by file name, the list of checksums included."""
    past = build_history(seed=SEED, end=END)
    requests = []
    for method, endpoint in LIVE_RATES_PER_S:
        counts = past.request_counts(endpoint=(method, endpoint), step_s=HOUR_S)
        requests += [
            (time.isoformat(), method, endpoint, total, total - good)
            for time, good, total in zip(counts.index, counts["good"], counts["total"], strict=True)
        ]
    incidents = [[row[name] for name in INCIDENT_COLUMNS] for row in past.labels()["incidents"]]
    made = {
        "seeded-month.csv": as_csv(("time", "method", "endpoint", "total", "failed"), sorted(requests)),
        "seeded-month-incidents.csv": as_csv(INCIDENT_COLUMNS, incidents),
    }
    sums = [f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(made.items())]
    return {**made, "SHA256SUMS": "".join(sums)}


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as comma-separated text with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def main(folder: Path) -> None:
    """Write the files into *folder*."""
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else files_root() / "data")
