"""What exercises need of a lab: `labkit.lab.Lab` offers it, and so does any stand-in of a test."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import pandas as pd

__all__ = ["HistoryLike", "LabLike", "PrometheusLike"]


class PrometheusLike(Protocol):
    """The part of `labkit.observe.prometheus.Prometheus` that checks ask."""

    def value(self, promql: str, /) -> float:
        """The single number that *promql* yields now."""

    def targets(self) -> pd.DataFrame:
        """One row per target."""


class HistoryLike(Protocol):
    """The labels of the seeded past."""

    @property
    def incidents(self) -> pd.DataFrame:
        """One row per incident."""


class LabLike(Protocol):
    """A lab that is up."""

    @property
    def prometheus(self) -> Any:
        """A `PrometheusLike`."""

    @property
    def history(self) -> Any:
        """A `HistoryLike`."""

    def now(self) -> datetime:
        """The present instant of the lab, UTC."""

    def status(self) -> pd.DataFrame:
        """One row per process, by name: `state`, `ready` and more."""
