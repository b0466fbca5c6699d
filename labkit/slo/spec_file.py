"""What a specification file holds, whatever its format was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import UnknownName
from labkit.slo.model import Policy, Slo

__all__ = ["SpecFile"]


@dataclass(frozen=True, slots=True)
class SpecFile:
    """
    The contents of one specification file.

    slos: objectives in the order of the file.  policies: those that the file adds to the built-in ones, by name.
    release, journeys: the release policy and the composite journeys as the file has them, None and () without.
    losses: what the file says and this library cannot hold, in sentences; only files of other tools lose anything.
    """

    source: str
    slos: tuple[Slo, ...]
    policies: Mapping[str, Policy] = field(default_factory=dict)
    release: Mapping[str, Any] | None = None
    journeys: tuple[Mapping[str, Any], ...] = ()
    losses: tuple[str, ...] = ()

    def slo(self, name: str) -> Slo:
        """
        The objective with this name.

        Raises:
            UnknownName: there is none; the message has the nearest.
        """
        for each in self.slos:
            if each.name == name:
                return each
        raise UnknownName("SLO", name, known=[each.name for each in self.slos], how=f"They are in {self.source}.")
