"""
Feature flags: the switchable weaknesses of each service and a few harmless knobs.

Every weakness is off by default, which is the healthy shop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.errors import InvalidValue, UnknownName

__all__ = ["FLAGS", "Flag", "FlagSet", "Value"]

Value = bool | int


@dataclass(frozen=True, slots=True)
class Flag:
    """One switch: which service reads it (empty: all), its default, and which values it takes."""

    name: str
    default: Value
    doc: str
    service: str = ""
    allowed: tuple[Value, ...] = (False, True)
    weakness: bool = False

    @property
    def type(self) -> str:
        """`bool` or `int`."""
        return type(self.default).__name__

    def describe(self) -> dict[str, Any]:
        """Everything about the flag but its value, as JSON."""
        shown = list(self.allowed) if len(self.allowed) <= 10 else f"{self.allowed[0]} to {self.allowed[-1]}"
        return {
            "name": self.name,
            "type": self.type,
            "default": self.default,
            "allowed": shown,
            "weakness": self.weakness,
            "doc": self.doc,
        }


FLAGS: tuple[Flag, ...] = (
    Flag("n_plus_one", False, "the list of products asks the database once per product", "catalog", weakness=True),
    Flag(
        "missing_index",
        False,
        "the look at a user's earlier orders, part of every order, reads the whole table",
        "orders",
        weakness=True,
    ),
    Flag("unbounded_queue", False, "jobs are queued without a cap on their number", "orders", weakness=True),
    Flag(
        "payments_without_timeout",
        False,
        "a call to payments waits for its answer for ever",
        "gateway",
        weakness=True,
    ),
    Flag(
        "retries_without_budget",
        False,
        "a failed call is repeated up to 3 times, whatever share of calls fails",
        "gateway",
        weakness=True,
    ),
    Flag("shallow_readiness", False, "/readyz says ready without asking what the service needs", weakness=True),
    Flag(
        "customer_statistics",
        False,
        "response times are counted for each customer too: series without end",
        "gateway",
        weakness=True,
    ),
    Flag("access_log", False, "one log line for every request instead of a sample"),
    Flag("tracing", True, "spans and exemplars are made, where SHOP_OTLP_URL says where spans go"),
    Flag("page_size", 20, "products on one page of the list", "catalog", allowed=tuple(range(1, 101))),
)


class FlagSet:
    """
    The flags of one service and their values.

    >>> flags = FlagSet("catalog")
    >>> flags.on("n_plus_one")
    False
    >>> flags.set("n_plus_one", True)
    >>> flags.changed()
    {'n_plus_one': True}
    """

    def __init__(self, service: str) -> None:
        self._flags = {flag.name: flag for flag in FLAGS if flag.service in {"", service}}
        self._values: dict[str, Value] = {}

    def on(self, name: str) -> bool:
        """Whether the flag is set to something true."""
        return bool(self.get(name))

    def get(self, name: str) -> Value:
        """The value in force; raises UnknownName."""
        return self._values.get(name, self._flag(name).default)

    def set(self, name: str, value: object) -> None:
        """Change a value; raises UnknownName or InvalidValue, and then changes nothing."""
        flag = self._flag(name)
        # True equals 1 in Python; a flag of one type does not take the other.
        if type(value) is not type(flag.default) or value not in flag.allowed:
            allowed = flag.describe()["allowed"]
            raise InvalidValue(name, expected=f"of type {flag.type} and among {allowed}", got=value)
        self._values[name] = value

    def restore(self, name: str) -> None:
        """Back to the default; raises UnknownName."""
        self._values.pop(self._flag(name).name, None)

    def restore_all(self) -> None:
        """Every flag back to its default."""
        self._values.clear()

    def changed(self) -> dict[str, Value]:
        """The flags that are not at their default."""
        return {name: value for name, value in self._values.items() if value != self._flags[name].default}

    def describe(self) -> list[dict[str, Any]]:
        """All flags with their values, as JSON."""
        return [{**flag.describe(), "value": self.get(name)} for name, flag in self._flags.items()]

    def _flag(self, name: str) -> Flag:
        if name not in self._flags:
            raise UnknownName("flag of this service", name, known=list(self._flags))
        return self._flags[name]
