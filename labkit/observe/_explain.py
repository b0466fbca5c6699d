"""Turn what Prometheus says about a query into what a learner can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence

from labkit.errors import QueryRejected

__all__ = ["Selector", "nearest_advice", "rejected", "selectors"]

_PREFIX = re.compile(r'^invalid parameter ["\'`]?\w+["\'`]?:\s*')
_POSITION = re.compile(r"^(\d+):(\d+): (?:parse error: )?")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{((?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|[^}\"'`])*)\}")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset(
    {
        "and",
        "or",
        "unless",
        "bool",
        "offset",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "inf",
        "nan",
    }
)

Selector = tuple[str, tuple[tuple[str, str], ...]]


def rejected(query: str, server_message: str) -> QueryRejected:
    """
    The error for a refused query; the position counts characters of the whole text from 1.

    >>> print(rejected("rate(up[5m]", '1:12: parse error: unclosed left parenthesis'))
    Prometheus could not evaluate the query at character 12: unclosed left parenthesis.
    rate(up[5m]
               ^
    """
    message = _PREFIX.sub("", server_message)
    found = _POSITION.match(message)
    if not found:
        return QueryRejected(query, position=None, server_message=message)
    reason = message[found.end() :]
    position = _offset(query, int(found[1]), int(found[2]))
    # The lexer of Prometheus stands behind a parenthesis that closes nothing when it complains.
    if reason.startswith("unexpected right parenthesis") and query[position - 2 : position - 1] == ")":
        position -= 1
    return QueryRejected(query, position=position, server_message=reason)


def _offset(query: str, line: int, column: int) -> int:
    # Prometheus counts bytes of the line; carets stand under characters.
    lines = query.split("\n")
    before = sum(len(text) + 1 for text in lines[: line - 1])
    return before + len(lines[line - 1].encode()[: column - 1].decode(errors="ignore")) + 1


def selectors(query: str) -> Iterator[Selector]:
    """
    The metric names of a query, each with its label equalities.

    >>> list(selectors('rate(http_requests_total{job="shop",status=~"5.."}[5m]) / on(job) up'))
    [('http_requests_total', (('job', 'shop'),)), ('up', ())]
    """
    rest = query
    for found in _SELECTOR.finditer(query):
        equal = tuple((m[1], m[3][1:-1]) for m in _MATCHER.finditer(found[2]) if m[2] == "=")
        name = found[1] or dict(equal).get("__name__", "")
        yield name, tuple(pair for pair in equal if pair[0] != "__name__")
        rest = rest.replace(found[0], " ", 1)
    rest = re.sub(r"\[[^\]]*\]|\b\d\w*", " ", _GROUPING.sub(" ", _STRING.sub(" ", rest)))
    for bare in _NAME.finditer(rest):
        if bare[0].lower() not in _WORDS:
            yield bare[0], ()


def nearest_advice(query: str, label_values: Callable[[str, str], Sequence[str]]) -> str:
    """
    One sentence on the part of *query* that has no data, with the nearest that has.

    Args:
        query: parsed by Prometheus without complaint, and answered with nothing.
        label_values: asked with a label name and a selector ("" for all); values in the interval.
    """
    for name, equalities in selectors(query):
        names = label_values("__name__", "")
        if name and name not in names:
            return f"No metric `{name}` has data then. {_nearest('metric name', name, names)}"
        for label, value in equalities:
            values = label_values(label, name or "")
            if not values:
                return f"No series of `{name}` has a label `{label}`."
            if value not in values:
                return _nearest(f"value of `{label}`", value, values)
    return "Each part of it has data then, the combination has none."


def _nearest(what: str, wanted: str, there: Sequence[str]) -> str:
    close = difflib.get_close_matches(wanted, there, n=1, cutoff=0.5)
    if close:
        return f'The nearest {what} with data is "{close[0]}".'
    shown = ", ".join(f'"{one}"' for one in sorted(there)[:8]) + (", …" if len(there) > 8 else "")
    return f"No {what} is near; with data: {shown}." if there else f"There is no {what} with data at all."
