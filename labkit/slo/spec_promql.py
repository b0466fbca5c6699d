"""
As much PromQL as a specification needs: is it whole, what does it divide, which labels does its result keep.

The grammar is that of Prometheus (https://prometheus.io/docs/prometheus/latest/querying/); names of functions are not
checked, that is the server's business.  `$window` may stand where a duration stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from labkit.errors import point_at
from labkit.slo.model import WINDOW

__all__ = ["EVERY", "UNKNOWN", "Labels", "Node", "NotPromql", "counting", "parse", "walk"]

EVERY: Literal["every"] = "every"
UNKNOWN: Literal["unknown"] = "unknown"
Labels = frozenset[str] | Literal["every", "unknown"]
"""Names of the labels that a result keeps; every one of the series; or not to be told from the text."""

_DURATION = r"\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*"
_TOKEN = re.compile(
    rf"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<number>0x[\da-fA-F]+|{_DURATION}|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|\$window)
      | (?P<word>[a-zA-Z_:][\w:]*)
      | (?P<sign>==|!=|=~|!~|<=|>=|[-+*/%^=<>(){{}}\[\],@:])""",
    re.VERBOSE,
)
_WINDOWED = re.compile(rf"\$window(?:\s*:\s*(?:{_DURATION})?)?")
_STRENGTH = {"or": 1, "and": 2, "unless": 2}
_STRENGTH |= dict.fromkeys(("==", "!=", "<=", ">=", "<", ">"), 3)
_STRENGTH |= {"+": 4, "-": 4, "*": 5, "/": 5, "%": 5, "atan2": 5, "^": 7}
_UNARY = 6
# Parsing and walking recurse; nobody writes so deep.
_DEEPEST = 100
_KEEP_ALL = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_AGGREGATIONS = _KEEP_ALL | {
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "group",
    "stddev",
    "stdvar",
    "quantile",
    "count_values",
}
_SCALARS = frozenset({"scalar", "time", "pi"})
_MAKE_LABELS = frozenset({"label_replace", "label_join", "absent", "absent_over_time", "info"})
_CLOSES = {"(": ")", "{": "}", "[": "]"}


class NotPromql(ValueError):
    """The text is not PromQL; *position* counts characters from 1."""

    def __init__(self, query: str, position: int, why: str) -> None:
        self.query, self.position, self.why = query, position, why
        super().__init__(f"not PromQL at character {position}: {why}\n{point_at(query, position)}")


@dataclass(frozen=True, slots=True)
class Node:
    """
    A part of a query: its text is `query[start:end]`.

    *name* is the operator, the function, the aggregation or the metric, *matchers* the text inside a selector's braces,
    *window* what stands in the brackets of a range.  *height* counts the levels down to the deepest part, *is_scalar*
    tells one number without labels from a vector.
    """

    kind: Literal["number", "string", "selector", "range", "call", "aggregation", "binary", "unary", "parens"]
    start: int
    end: int
    labels: Labels
    name: str = ""
    parts: tuple[Node, ...] = ()
    matchers: str = ""
    window: str = ""
    height: int = field(init=False)
    is_scalar: bool = field(init=False)

    @property
    def bare(self) -> Node:
        """The same without parentheses around it."""
        return self.parts[0].bare if self.kind == "parens" else self

    def __post_init__(self) -> None:
        object.__setattr__(self, "height", 1 + max((part.height for part in self.parts), default=0))
        scalars = self.kind in {"binary", "unary", "parens"} and all(part.is_scalar for part in self.parts)
        single = self.kind == "number" or (self.kind == "call" and self.name in _SCALARS)
        object.__setattr__(self, "is_scalar", scalars or single)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def parse(query: str) -> Node:
    """
    The whole query as a tree.

    Raises:
        NotPromql: it is not PromQL; the message points at the character.

    >>> parse("sum by (job) (rate(up[$window])) / 2").labels
    frozenset({'job'})
    """
    parser = _Parser(query)
    tree = parser.expression(0)
    if parser.at.kind != "end":
        raise parser.wrong(f"`{parser.at.text}` is not expected here")
    return tree


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, outer first."""
    yield node
    for part in node.parts:
        yield from walk(part)


def counting(query: str) -> str:
    """
    The same query with `increase` for `rate` over `$window`: events instead of events per second.

    In Prometheus an increase is the rate times the window, so a sum of rates becomes the sum of events exactly.  Rates
    that are not merely summed up, below `clamp_max` for example, stay as they are.

    Raises:
        NotPromql: *query* is not PromQL.

    >>> counting('sum(rate(hits_total{code!="rate("}[$window]))')
    'sum(increase(hits_total{code!="rate("}[$window]))'
    """
    for start in sorted(_summed_rates(parse(query)), reverse=True):
        query = f"{query[:start]}increase{query[start + len('rate') :]}"
    return query


def _summed_rates(node: Node) -> Iterator[int]:
    """Where the rates over `$window` begin of which the whole is a sum."""
    if node.kind == "call" and node.name == "rate" and node.parts and node.parts[0].window == WINDOW:
        yield node.start
    adds = node.kind == "binary" and node.name in {"+", "-", "or"}
    scales = node.kind == "binary" and node.name == "*" and any(part.is_scalar for part in node.parts)
    if adds or scales or node.kind in {"parens", "unary"} or (node.kind == "aggregation" and node.name == "sum"):
        for part in node.parts:
            yield from _summed_rates(part)


class _Parser:
    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = list(self._tokens())
        self.index = 0
        self.depth = 0

    def _tokens(self) -> Iterator[_Token]:
        place = 0
        opened: list[_Token] = []
        while place < len(self.query):
            found = _TOKEN.match(self.query, place)
            if found is None:
                quote = self.query[place] in "\"'`"
                what = "the string has no end" if quote else f"`{self.query[place]}` has no place in PromQL"
                raise NotPromql(self.query, place + 1, what)
            if (kind := str(found.lastgroup)) != "space":
                token = _Token(kind, found[0], place)
                self._match(token, opened)
                yield token
            place = found.end()
        if opened:
            raise NotPromql(self.query, opened[-1].start + 1, f"`{opened[-1].text}` is never closed")
        yield _Token("end", "", len(self.query))

    def _match(self, token: _Token, opened: list[_Token]) -> None:
        if token.kind != "sign":
            return
        if token.text in _CLOSES:
            opened.append(token)
        elif token.text in _CLOSES.values() and (not opened or _CLOSES[opened.pop().text] != token.text):
            raise NotPromql(self.query, token.start + 1, f"`{token.text}` closes nothing")

    @property
    def at(self) -> _Token:
        return self.tokens[self.index]

    @property
    def seen(self) -> str:
        return "the end" if self.at.kind == "end" else f"`{self.at.text}`"

    @property
    def ended(self) -> int:
        """Where the token before this one ended."""
        before = self.tokens[self.index - 1]
        return before.start + len(before.text)

    def wrong(self, why: str) -> NotPromql:
        return NotPromql(self.query, self.at.start + 1, why)

    def take(self, *texts: str) -> bool:
        if self.at.kind in {"sign", "word"} and self.at.text.lower() in texts:
            self.index += 1
            return True
        return False

    def need(self, text: str) -> None:
        if not self.take(text):
            raise self.wrong(f"`{text}` is expected, not {self.seen}")

    def expression(self, strength: int) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.wrong("nested too deeply")
        left = self.binary(strength)
        self.depth -= 1
        return left

    def binary(self, strength: int) -> Node:
        left = self.unary()
        while (own := _STRENGTH.get(self.at.text.lower(), 0) if self.at.kind != "string" else 0) > strength:
            name = self.at.text.lower()
            self.index += 1
            self.take("bool")
            matching = self.matching()
            right = self.expression(own - 1 if name == "^" else own)
            labels = _matched(left, right, matching, sets=own <= 2)
            left = Node("binary", left.start, right.end, labels, name, (left, right))
            if left.height > 2 * _DEEPEST:
                raise self.wrong("nested too deeply")
        return left

    def matching(self) -> tuple[str, frozenset[str], bool]:
        """`on` or `ignoring` or nothing, its labels, and whether one side has many for each of the other."""
        how = self.at.text.lower() if self.at.kind == "word" else ""
        if how not in {"on", "ignoring"}:
            return "", frozenset(), False
        self.index += 1
        names = self.names()
        grouped = self.take("group_left", "group_right")
        if grouped and self.at.text == "(":
            self.names()
        return how, names, grouped

    def names(self) -> frozenset[str]:
        self.need("(")
        found = set()
        while not self.take(")"):
            if self.at.kind not in {"word", "string"}:
                raise self.wrong(f"the name of a label is expected, not {self.seen}")
            found.add(self.at.text.strip("\"'`"))
            self.index += 1
            if not self.take(",") and self.at.text != ")":
                raise self.wrong(f"`,` or `)` is expected, not {self.seen}")
        return frozenset(found)

    def unary(self) -> Node:
        start = self.at.start
        if self.take("+", "-"):
            inner = self.expression(_UNARY)
            return Node("unary", start, inner.end, inner.labels, parts=(inner,))
        return self.suffixes(self.primary())

    def primary(self) -> Node:
        token = self.at
        if self.take("("):
            inner = self.expression(0)
            self.need(")")
            return Node("parens", token.start, self.ended, inner.labels, parts=(inner,))
        if token.kind in {"number", "string"}:
            self.index += 1
            kind: Literal["number", "string"] = "number" if token.kind == "number" else "string"
            return Node(kind, token.start, self.ended, frozenset(), token.text)
        if token.kind == "word" and token.text.lower() in {"inf", "nan"}:
            self.index += 1
            return Node("number", token.start, self.ended, frozenset(), token.text)
        if token.kind == "word" and token.text.lower() not in _STRENGTH:
            self.index += 1
            return self.named(token)
        if token.text == "{":
            return self.selector(token)
        raise self.wrong(f"a metric, a function or a number is expected, not {self.seen}")

    def named(self, token: _Token) -> Node:
        after = self.at.text.lower()
        if token.text.lower() in _AGGREGATIONS and (after in {"by", "without"} or after == "("):
            return self.aggregation(token)
        if self.at.text == "(":
            parts = self.arguments()
            return Node("call", token.start, self.ended, _called(token.text, parts), token.text, parts)
        return self.selector(token)

    def aggregation(self, token: _Token) -> Node:
        how, names = self.grouping()
        parts = self.arguments()
        if not how:
            how, names = self.grouping()
        name = token.text.lower()
        labels: Labels = names if how != "without" else EVERY
        if name in _KEEP_ALL:
            labels = parts[-1].labels if parts else EVERY
        if name == "count_values":
            labels = UNKNOWN
        return Node("aggregation", token.start, self.ended, labels, name, parts)

    def grouping(self) -> tuple[str, frozenset[str]]:
        how = self.at.text.lower()
        return (how, self.names()) if self.take("by", "without") else ("", frozenset())

    def arguments(self) -> tuple[Node, ...]:
        self.need("(")
        found: list[Node] = []
        while not self.take(")"):
            found.append(self.expression(0))
            if not self.take(",") and self.at.text != ")":
                raise self.wrong(f"`,` or `)` is expected, not {self.seen}")
        return tuple(found)

    def selector(self, token: _Token) -> Node:
        name = token.text if token.kind == "word" else ""
        matchers = self.inside("{") if self.at.text == "{" else ""
        return Node("selector", token.start, self.ended, EVERY, name, matchers=matchers)

    def inside(self, opening: str) -> str:
        """The text between this bracket and its partner; what it says is the server's business."""
        first = self.at.start + 1
        while self.at.text != _CLOSES[opening] or self.at.kind != "sign":
            self.index += 1
        last = self.at.start
        self.index += 1
        return self.query[first:last].strip()

    def suffixes(self, node: Node) -> Node:
        while True:
            if self.at.kind == "sign" and self.at.text == "[":
                if self.tokens[self.index + 1].text == "]":
                    raise self.wrong("a length of time is expected in the brackets")
                opened = self.index
                window = self.inside("[")
                if WINDOW in window and not _WINDOWED.fullmatch(window):
                    self.index = opened
                    raise self.wrong(f"`[{window}]` is no length of time; write [{WINDOW}]")
                node = Node("range", node.start, self.ended, node.labels, parts=(node,), window=window)
            elif self.take("offset"):
                self.take("-")
                self.length("offset")
            elif self.take("@"):
                if self.take("start", "end"):
                    self.names()
                else:
                    self.length("@")
            else:
                return node

    def length(self, after: str) -> None:
        if self.at.kind != "number":
            raise self.wrong(f"a number or a length of time is expected after `{after}`, not {self.seen}")
        self.index += 1


def _called(name: str, parts: tuple[Node, ...]) -> Labels:
    if name in _MAKE_LABELS:
        return UNKNOWN
    if name in _SCALARS or name == "vector":
        return frozenset()
    vector = next((part for part in parts if not part.is_scalar and part.kind != "string"), None)
    if vector is None:
        return frozenset()
    if name == "histogram_quantile" and isinstance(vector.labels, frozenset):
        return vector.labels - {"le"}
    return vector.labels


def _matched(left: Node, right: Node, matching: tuple[str, frozenset[str], bool], *, sets: bool) -> Labels:
    how, names, grouped = matching
    if left.is_scalar or right.is_scalar:
        return right.labels if left.is_scalar else left.labels
    if sets or grouped:
        return left.labels if left.labels == right.labels else UNKNOWN
    if how == "on":
        return names
    if how == "ignoring" and isinstance(left.labels, frozenset):
        return left.labels - names
    return left.labels if left.labels == right.labels else UNKNOWN
