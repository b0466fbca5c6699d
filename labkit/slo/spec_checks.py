"""
What is wrong with the queries of an indicator, as far as their text shows.

Whether series exist, and whether the numbers make sense, only a Prometheus can say; this says what can never work, such
as a numerator that keeps labels which its denominator has lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit._yaml import Place
from labkit.slo.model import WINDOW
from labkit.slo.spec_promql import EVERY, Labels, Node, NotPromql, counting, parse, walk

__all__ = [
    "Division",
    "count_problems",
    "divided",
    "histogram_in",
    "level_problems",
    "mappings_in",
    "names_in",
    "repeated",
    "unmatched",
    "with_placeholder",
]

_FOREIGN = re.compile(r"\{\{\s*\.window\s*\}\}|\$__\w+|\$\{\w+\}|\$interval\b|\$range\b")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


@dataclass(frozen=True, slots=True)
class Division:
    """A ratio taken apart; *percent* is whether it was multiplied by 100, exactly one of *good* and *bad* is there."""

    total: str
    good: str | None
    bad: str | None
    percent: bool


def with_placeholder(query: str) -> str:
    """
    The query with our placeholder for the one that Sloth uses.

    >>> with_placeholder("sum(rate(hits_total[{{.window}}]))")
    'sum(rate(hits_total[$window]))'
    """
    return re.sub(r"\{\{\s*\.window\s*\}\}", lambda _: WINDOW, query)


def count_problems(query: str) -> list[str]:
    """
    Why *query* cannot count events in any window, in sentences; empty when nothing is seen.

    >>> count_problems("sum(increase(hits_total[5m]))")
    ['the length of time is fixed; write [$window] in place of [5m]']
    >>> count_problems("sum(increase(hits_total[$window]))")
    []
    """
    tree, problems = _parsed(query)
    if tree is None:
        return problems
    fixed = sorted({node.window for node in _ranges(tree, nested=False) if WINDOW not in node.window})
    if not any(WINDOW in node.window for node in walk(tree)):
        if fixed:
            return [f"the length of time is fixed; write [{WINDOW}] in place of [{fixed[0]}]"]
        return [f"counts nothing over time; write sum(increase(…[{WINDOW}])) with the name of a counter"]
    if fixed:
        problems.append(f"counts over two lengths of time; write [{WINDOW}] in place of [{fixed[0]}]")
    rates = {node.name for node in walk(parse(counting(query))) if node.kind == "call" and _over_window(node)}
    if wrong := sorted(rates & {"rate", "irate", "deriv"}):
        problems.append(f"`{wrong[0]}` gives events per second; write increase(…[{WINDOW}]), which counts them")
    return problems + _many_values(tree.labels)


def level_problems(query: str) -> list[str]:
    """
    Why *query* cannot be the level that slices of time are judged by; empty when nothing is seen.

    >>> level_problems("sum(rate(orders_total[$window]))")[0]
    'has the placeholder $window, but a level is measured in each slice by itself; write a length of time such as [2m]'
    """
    tree, problems = _parsed(query)
    if tree is None:
        return problems
    if WINDOW in query:
        own = "but a level is measured in each slice by itself; write a length of time such as [2m]"
        problems.append(f"has the placeholder {WINDOW}, {own}")
    if tree.bare.kind in {"range", "string"}:
        problems.append("is not a number at an instant")
    return problems + _many_values(tree.labels)


def unmatched(part: str, total: str) -> str | None:
    """
    Why the values of *part* and *total* can never meet in a division; None when they can, or when it is not to be told.

    >>> unmatched("sum by (job) (increase(a[$window]))", "sum(increase(a[$window]))")
    'keeps the label job and `total` keeps none: no value of one matches a value of the other, the ratio has no value'
    """
    try:
        ours, theirs = parse(part).labels, parse(total).labels
    except NotPromql:
        return None
    if ours == theirs or "unknown" in {ours, theirs}:
        return None
    silent = "no value of one matches a value of the other, the ratio has no value"
    return f"keeps {_listed(ours)} and `total` keeps {_listed(theirs, short=True)}: {silent}"


def divided(query: str) -> Division | str:
    """
    The parts of `good / total` or `1 - bad / total`, with or without `* 100`; or why there are none.

    >>> divided("sum(increase(ok[$window])) / sum(increase(all[$window])) * 100").total
    'sum(increase(all[$window]))'
    """
    tree, problems = _parsed(query)
    if tree is None:
        return problems[0]
    tree, percent = _without_percent(tree.bare)
    one, rest = "1", tree
    if tree.name == "-" and tree.kind == "binary":
        rest, inner_percent = _without_percent(tree.parts[1].bare)
        one, percent = ("100", True) if inner_percent else (one, percent)
    if rest.name == "/" and rest.kind == "binary":
        # `100 * good / total` is `(100 * good) / total` to Prometheus.
        part, inside = _without_percent(rest.parts[0].bare)
        below = rest.parts[1].bare
        texts = query[below.start : below.end], query[part.start : part.end]
        if rest is tree and not (inside and percent):
            return Division(texts[0], texts[1], None, percent or inside)
        if rest is not tree and not inside and tree.parts[0].bare.name == one:
            return Division(texts[0], None, texts[1], percent)
    if any(node.name == "histogram_quantile" for node in walk(tree)):
        return "a quantile is no share of events; for a latency write `target_type: latency`"
    return "must be one division of counts, good / total or 1 - bad / total; or give `good` (or `bad`) and `total`"


def histogram_in(query: str) -> tuple[str, str] | str:
    """
    Base name and matchers of a histogram that is given as `name{matchers}`; or why it is none.

    >>> histogram_in('wait_seconds{job="shop"}')
    ('wait_seconds', 'job="shop"')
    """
    tree, problems = _parsed(query)
    if tree is None:
        return problems[0]
    node = tree.bare
    if node.kind == "selector" and node.name and query.strip() == query[node.start : node.end]:
        if suffix := _SUFFIX.search(node.name):
            return f"must be the histogram's base name; write {_SUFFIX.sub('', node.name)} without {suffix[0]}"
        if re.search(r"\ble\s*(=|!)", _STRING.sub("", node.matchers)):
            return "must not choose buckets by `le`; `bound` does"
        return node.name, node.matchers.rstrip(",").rstrip()
    return _instead(query, tree)


def _instead(query: str, tree: Node) -> str:
    """What to write for a query about a histogram that is more than its name and matchers."""
    inside = next((each for each in walk(tree) if each.kind == "selector" and each.name), None)
    if inside is None:
        return "must be the name of a histogram, such as http_request_duration_seconds"
    matchers = re.sub(r',?\s*\ble\s*(=~|!~|!=|=)\s*("[^"]*"|\'[^\']*\')', "", inside.matchers).strip(", ")
    name = _SUFFIX.sub("", inside.name) + (f"{{{matchers}}}" if matchers else "")
    if quantile := next((each for each in walk(tree) if each.name == "histogram_quantile"), None):
        share = query[quantile.parts[0].start : quantile.parts[0].end] if quantile.parts else "0.95"
        how = f"write `target: {_percent(share)}`, `query: {name}` and as `bound` the latency that so many must keep"
        return f"a quantile cannot be counted, so it has no budget; {how}"
    return f"must be a histogram's name and matchers; write {name}"


def repeated(data: Any, key: str) -> Iterator[tuple[Place, str]]:
    """Names that the list *key* of a file's plain data has more than once."""
    first: dict[str, int] = {}
    for index, name in names_in(data, key):
        if name in first:
            yield (key, index, "name"), f"{name!r} is the name of `{key}.{first[name]}` already"
        first.setdefault(name, index)


def names_in(data: Any, key: str) -> Iterator[tuple[int, str]]:
    """Index and name of what the list *key* holds, where there is a name."""
    for index, each in mappings_in(data, key):
        if isinstance(name := each.get("name"), str):
            yield index, name


def mappings_in(data: Any, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Index and contents of what the list *key* holds; the data may have any shape."""
    listed = data.get(key) if isinstance(data, dict) else None
    for index, each in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(each, dict):
            yield index, each


def _parsed(query: str) -> tuple[Node | None, list[str]]:
    if foreign := _FOREIGN.search(_STRING.sub("", query)):
        return None, [f"has the placeholder {foreign[0]}; the one for the length of time is {WINDOW}"]
    try:
        return parse(query), []
    except NotPromql as error:
        return None, [str(error)]


def _ranges(node: Node, *, nested: bool) -> Iterator[Node]:
    """Ranges that are not inside another range over the window: a level in a subquery has a length of its own."""
    if node.kind == "range" and not nested:
        yield node
    for part in node.parts:
        yield from _ranges(part, nested=nested or (node.kind == "range" and WINDOW in node.window))


def _over_window(node: Node) -> bool:
    return any(part.kind == "range" and WINDOW in part.window for part in node.parts)


def _many_values(labels: Labels) -> list[str]:
    if labels == EVERY:
        return ["gives one value for each series, and an objective has one; add them up with sum(…)"]
    if isinstance(labels, frozenset) and labels:
        names = ", ".join(sorted(labels))
        return [f"gives one value for each {names}, and an objective has one; write sum(…), or an SLO for each {names}"]
    return []


def _listed(labels: Labels, *, short: bool = False) -> str:
    if isinstance(labels, frozenset):
        names = ", ".join(sorted(labels))
        kept = f"the label{'s' if len(labels) > 1 else ''} {names}"
        return (kept if not short else names) if labels else ("none" if short else "no label")
    return "every label" if labels == EVERY else "some labels"


def _without_percent(node: Node) -> tuple[Node, bool]:
    if node.kind == "binary" and node.name == "*":
        for number, other in (node.parts, node.parts[::-1]):
            if number.bare.kind == "number" and number.bare.name == "100":
                return other.bare, True
    return node, False


def _percent(share: str) -> str:
    try:
        return f"{float(share) * 100:g}%"
    except ValueError:
        return "95%"
