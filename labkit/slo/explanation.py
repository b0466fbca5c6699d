"""An explanation as a thing: for a terminal, for a notebook, as JSON.  It is made by `explain`."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

__all__ = ["Approximation", "Explanation", "number"]


@dataclass(frozen=True, slots=True)
class Approximation:
    """
    What another way of computing makes of the same counts.

    Attributes:
        name: which way.
        why: where its error comes from.
        value: what it gives; None where it gives nothing.
        exact: what the counts give; None without events.
    """

    name: str
    why: str
    value: float | None
    exact: Fraction | None

    @property
    def error(self) -> float | None:
        """Value minus exact, in the unit of both; None when either is unknown."""
        return None if self.value is None or self.exact is None else float(Fraction(repr(self.value)) - self.exact)

    @property
    def relative_error(self) -> float | None:
        """The error as a fraction of the exact value; None when either is unknown or the exact value is 0."""
        return None if self.error is None or not self.exact else self.error / float(abs(self.exact))


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    A number, opened.

    Attributes:
        title: which number of what.
        value: exact; None when it is unknown or there is no such number ("never").
        meaning: the value in a sentence.
        formula: how it is computed, in words.
        worked: the formula with this case's numbers.
        counts: exact numbers of `good`, `bad` and `total` units.
        unit: what is counted: "events" or "slices of 60 s".
        start, end: the window, UTC.
        coverage: the fraction of the window that was counted.
        source: where the counts come from.
        reference: where the formula comes from.
        approximations: what else it could have read.
        notes: what a reader should know besides.
    """

    title: str
    value: Fraction | None
    meaning: str
    formula: str
    worked: str
    counts: Mapping[str, Fraction]
    unit: str
    start: datetime
    end: datetime
    coverage: Fraction
    source: str
    reference: str
    approximations: tuple[Approximation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole explanation for a terminal."""
        width = max(len(name) for name, _ in self._lines())
        lines = [self.title, f"  {self.meaning}", ""]
        lines += [f"  {name:<{width}}  {text}" for name, text in self._lines()]
        if self.approximations:
            lines += ["", "  The same counts, computed in other ways:"]
            names = max(len(one.name) for one in self.approximations)
            values = max(len(_shown(one.value)) for one in self.approximations)
            for one in self.approximations:
                lines += [f"    {one.name:<{names}}  {_shown(one.value):>{values}}  {_off(one)}", f"      {one.why}"]
        return "\n".join([*lines, *(f"  Note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: floats, ISO 8601 times; None for what is unknown."""
        return {
            "title": self.title,
            "value": None if self.value is None else float(self.value),
            "meaning": self.meaning,
            "formula": self.formula,
            "worked": self.worked,
            "counts": {name: float(count) for name, count in self.counts.items()},
            "unit": self.unit,
            "window": {"start": self.start.isoformat(), "end": self.end.isoformat(), "coverage": float(self.coverage)},
            "source": self.source,
            "reference": self.reference,
            "approximations": [
                {
                    "name": one.name,
                    "why": one.why,
                    "value": one.value,
                    "error": one.error,
                    "relative_error": one.relative_error,
                }
                for one in self.approximations
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return self.text

    def _lines(self) -> list[tuple[str, str]]:
        counted = ", ".join(f"{number(count)} {name}" for name, count in self.counts.items())
        return [
            ("formula", self.formula),
            ("numbers", self.worked),
            ("counts", f"{counted} ({self.unit})"),
            ("window", f"{self.start:%Y-%m-%d %H:%M:%S} to {self.end:%Y-%m-%d %H:%M:%S} UTC, {_part(self.coverage)}"),
            ("source", self.source),
            ("see", self.reference),
        ]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._lines()
        )
        parts = [f"<b>{html.escape(self.title)}</b><br>{html.escape(self.meaning)}<table>{rows}</table>"]
        if self.approximations:
            others = "".join(
                f"<tr><td style='text-align:left'>{html.escape(one.name)}</td>{_cell(_shown(one.value))}"
                f"{_cell(html.escape(_off(one)))}<td style='text-align:left'>{html.escape(one.why)}</td></tr>"
                for one in self.approximations
            )
            head = "<tr><th>computed as</th><th>gives</th><th>error</th><th>because</th></tr>"
            parts.append(f"<table>{head}{others}</table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "".join(parts)


def number(value: Fraction) -> str:
    """
    A count for people: whole as it is, otherwise with three decimals.

    >>> number(Fraction(28_230)), number(Fraction(1, 3))
    ('28,230', '0.333')
    """
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.3f}"


def _cell(text: str) -> str:
    return f"<td style='text-align:right; white-space:nowrap; padding:0 .6em'>{text}</td>"


def _part(coverage: Fraction) -> str:
    return "all of it counted" if coverage == 1 else f"{float(100 * coverage):.4g} % of it counted"


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.2f}"


def _off(one: Approximation) -> str:
    if one.error is None:
        return "unknown"
    if one.relative_error is None:
        return f"off by {one.error:.3g}"
    return "exact" if one.error == 0 else f"off by {100 * one.relative_error:+.3g} %"
