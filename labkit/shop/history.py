"""
Thirty seeded days of the shop's past, with the truth about what happened in them.

    past = build_history(seed=7, end=utc_now())
    past.request_counts()        good and total requests per minute
    past.labels()                incidents and deploys: what an alert policy is judged against
    ensure_history(url, seed=7)  all that `labkit up` needs: write it, continue it or fill the gap

A fresh lab has no past, so a 30-day objective would mean nothing for 30 days.  This one is written
into the real Prometheus by remote write.  Method and formulae: docs/history.md.
"""

from __future__ import annotations

from labkit.shop.history_build import History, build_history, load_labels
from labkit.shop.history_plan import Deploy, Incident
from labkit.shop.history_write import WriteReport, ensure_history, fill_gap, last_sample_time, write_history

__all__ = [
    "Deploy",
    "History",
    "Incident",
    "WriteReport",
    "build_history",
    "ensure_history",
    "fill_gap",
    "last_sample_time",
    "load_labels",
    "write_history",
]
