"""
Which series an indicator counts, where that can be told from its text: a sum over one metric.

    selected('sum(increase(jobs_total{job="shop",result!="ok"}[$window]))')     a Selector, or None
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from labkit.slo.model import WINDOW, EventSli, LatencySli, Sli

__all__ = ["Matcher", "Selector", "counted", "selected"]

_FORM = re.compile(
    r"\s*sum\s*\(\s*(?:increase|rate)\s*\(\s*(?P<name>[a-zA-Z_:][\w:]*)\s*"
    r'(?:\{(?P<matchers>(?:[^{}"]|"(?:[^"\\]|\\.)*")*)\})?\s*\[\$window\]\s*\)\s*\)\s*'
)
_MATCHER = re.compile(r'\s*(?P<label>\w+)\s*(?P<how>=~|!~|!=|=)\s*(?P<value>"(?:[^"\\]|\\.)*")\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label: *how* is `=`, `!=`, `=~` or `!~`."""

    label: str
    how: str
    value: str

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """
        Whether *labels* meet it, as Prometheus means it: patterns match whole values, a missing label is "".

        >>> Matcher("status", "!~", "5..").accepts({"status": "200"})
        True
        """
        value = labels.get(self.label, "")
        same = re.fullmatch(self.value, value) is not None if self.how.endswith("~") else value == self.value
        return same == (self.how[0] == "=")


@dataclass(frozen=True, slots=True)
class Selector:
    """The series of one metric that meet all matchers."""

    metric: str
    matchers: tuple[Matcher, ...]

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels (its name as `__name__`) is one of them."""
        return labels.get("__name__") == self.metric and all(matcher.accepts(labels) for matcher in self.matchers)


def selected(query: str) -> Selector | None:
    """
    What `sum(increase(metric{…}[$window]))` counts; None for a query of any other form.

    >>> selected('sum(increase(jobs_total{job="shop"}[$window]))')
    Selector(metric='jobs_total', matchers=(Matcher(label='job', how='=', value='shop'),))
    """
    form = _FORM.fullmatch(query)
    if form is None:
        return None
    text = form["matchers"] or ""
    found = list(_MATCHER.finditer(text))
    if "".join(match[0] for match in found) != text:
        return None
    return Selector(form["name"], tuple(Matcher(m["label"], m["how"], json.loads(m["value"])) for m in found))


def counted(sli: Sli) -> dict[str, Selector] | None:
    """
    What *sli* counts: `total`, and `good` or `bad`; None where its text does not tell, or slices of time are counted.

    >>> sorted(counted(LatencySli("wait_seconds", 0.25)) or {})
    ['good', 'total']
    """
    if isinstance(sli, EventSli):
        queries = {"total": sli.total, "good": sli.good, "bad": sli.bad}
    elif isinstance(sli, LatencySli):
        queries = {"total": sli.total_query("5m").replace("[5m]", f"[{WINDOW}]"),
                   "good": sli.good_query("5m").replace("[5m]", f"[{WINDOW}]")}  # fmt: skip
    else:
        return None
    found = {name: selected(query) for name, query in queries.items() if query is not None}
    whole = {name: selector for name, selector in found.items() if selector is not None}
    return whole if len(whole) == len(found) == 2 else None
