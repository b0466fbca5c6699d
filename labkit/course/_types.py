"""What exercises need of a lab: `labkit.lab.Lab` offers it, and so does any stand-in of a test."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import pandas as pd

__all__ = ["HistoryLike", "LabLike", "PrometheusLike"]


class PrometheusLike(Protocol):
    """The part of `labkit.observe.prometheus.Prometheus` that checks ask."""

    def value(self, promql: str, at: datetime | None = None, /) -> float:
        """The single number that *promql* yields at an instant, now if None."""

    def query(self, promql: str, at: datetime | None = None, /) -> pd.DataFrame:
        """One row per series at an instant, now if None."""

    def alerts(self) -> pd.DataFrame:
        """One row per alert that is pending or firing."""

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

    @property
    def logs(self) -> Any:
        """A `labkit.observe.stores.LogStore`."""

    @property
    def traces(self) -> Any:
        """A `labkit.observe.stores.TraceStore`."""

    @property
    def alertmanager(self) -> Any:
        """A `labkit.observe.alertmanager.Alertmanager`."""

    @property
    def shop(self) -> Any:
        """A `labkit.shop.client.ShopAdmin`."""

    @property
    def seed(self) -> int:
        """The seed of the past, and of what is chosen for this learner."""

    def now(self) -> datetime:
        """The present instant of the lab, UTC."""

    def status(self) -> pd.DataFrame:
        """One row per process, by name: `state`, `ready` and more."""
