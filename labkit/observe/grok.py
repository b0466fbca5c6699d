"""Grok patterns as Python expressions: `%{NAME}`, `%{NAME:field}`, `%{NAME:field:int}`; fields may have dots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import ConfigInvalid, ConfigProblem, UnknownName

__all__ = ["Grok", "load_patterns", "prefixed"]

_REFERENCE = re.compile(r"%\{(\w+)(?::([\w.@\[\]-]+))?(?::(int|float))?\}")
_DEEPEST = 20


def load_patterns(folder: Path) -> dict[str, str]:
    """
    Every pattern of the files in *folder*: lines `NAME expression`; `#` starts a line of comment.

    Raises:
        ConfigInvalid: a line has no expression, or a name is there twice.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, expression = line.partition(" ")
            if not expression or name in found:
                why = "is there twice" if name in found else "has no expression"
                raise ConfigInvalid(str(file), problems=[ConfigProblem(number, 1, f"pattern {name} {why}")])
            found[name] = expression
    return found


def prefixed(expression: str, prefix: str) -> str:
    """
    *expression* with *prefix* before the name of each field, for an engine that puts fields beside other things.

    >>> prefixed("%{INT:status:int} %{WORD}", "fields.")
    '%{INT:fields.status:int} %{WORD}'
    """

    def replace(found: re.Match[str]) -> str:
        name, field, kind = found.groups()
        return f"%{{{name}:{prefix}{field}{f':{kind}' if kind else ''}}}" if field else found[0]

    return _REFERENCE.sub(replace, expression)


class Grok:
    r"""
    One pattern, compiled.  A line matches as a whole.

    Args:
        pattern: an expression with references.
        patterns: what may be referred to, by name.

    Raises:
        UnknownName: a reference to a pattern that is not there.

    >>> Grok("%{INT:http.status:int} %{WORD:[a][b]}", {"INT": r"\d+", "WORD": r"\w+"}).match("404 no")
    {'http.status': 404, '[a][b]': 'no'}
    """

    def __init__(self, pattern: str, patterns: Mapping[str, str]) -> None:
        self._patterns = patterns
        # A field may be named twice, as in alternatives; groups of Python may not, so they are numbered.
        self._fields: list[tuple[str, type[Any]]] = []
        self._expression = re.compile(self._expand(pattern, 0))

    def _expand(self, pattern: str, depth: int) -> str:
        if depth > _DEEPEST:
            raise UnknownName("grok pattern that ends", pattern[:80], known=[], how="It refers to itself.")

        def replace(found: re.Match[str]) -> str:
            name, field, kind = found.groups()
            if name not in self._patterns:
                raise UnknownName("grok pattern", name, known=list(self._patterns))
            if not field:
                return f"(?:{self._expand(self._patterns[name], depth + 1)})"
            group = len(self._fields)
            self._fields.append((field, {"int": int, "float": float}.get(kind, str)))
            return f"(?P<f{group}>{self._expand(self._patterns[name], depth + 1)})"

        return _REFERENCE.sub(replace, pattern)

    def match(self, line: str) -> dict[str, Any] | None:
        """The fields of *line*, without those that did not take part; None if it does not match."""
        found = self._expression.fullmatch(line)
        if not found:
            return None
        values = ((name, kind, found[f"f{group}"]) for group, (name, kind) in enumerate(self._fields))
        return {name: kind(value) for name, kind, value in values if value is not None}
