"""A file of rules as expressions over what a server holds, so that nothing hangs on when it evaluates them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import yaml

from labkit.errors import NoData
from labkit.observe.prometheus import Prometheus

_RECORDED = re.compile(r"slo:[\w:]+\{[^{}]*\}")


@dataclass(frozen=True)
class Ruled:
    """The rules of one generator: recorded names with their expressions, and alerts as (severity, expression)."""

    recorded: dict[str, str]
    alerts: list[tuple[str, str]]

    @staticmethod
    def of(text: str) -> Ruled:
        """Read a rule file."""
        found = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
        recorded = {rule["record"]: rule["expr"] for rule in found if "record" in rule}
        return Ruled(recorded, [(rule["labels"]["severity"], rule["expr"]) for rule in found if "alert" in rule])

    def inlined(self, expr: str) -> str:
        """
        *expr* with every recorded series replaced by what it is recorded from.

        So nothing hangs on the order or the instants at which a server evaluates groups of rules.
        """
        while found := _RECORDED.search(expr):
            expr = expr[: found.start()] + f"({self.recorded[found[0].split('{')[0]]})" + expr[found.end() :]
        return expr

    def firing(self, client: Prometheus, severity: str, start: datetime, end: datetime) -> set[datetime]:
        """Every minute at which an alert of this severity has a reason."""
        instants: set[datetime] = set()
        for own, expr in self.alerts:
            if own != severity:
                continue
            try:
                frame = client.query_range(self.inlined(expr), start, end, 60)
            except NoData:
                continue
            instants |= set(frame.index[frame.notna().any(axis=1)])
        return instants
