"""
Groups of Prometheus rules as data, and the file that they make.

The file is written by hand and not by a YAML library: expressions stay in blocks that people can read, comments have a
place, and a thousand objectives take tenths of a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Group", "Rule", "comment", "scalar", "text_of"]

# What YAML reads as this very text without quotes: a word with a letter first, no sign that means something to YAML.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.:/%+-]*(?: [A-Za-z0-9_.:/%+-]+)*(?<!:)")
# Words that YAML takes for a truth value, for nothing, or for a number.
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# A block keeps a text as it is, unless it has signs that a file of lines cannot hold, or begins or ends with blanks.
_BLOCK = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
                    r"(?:[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]*\S)?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: *kind* is `record` or `alert`, *name* what is recorded or alerted; `for_s` in seconds."""

    kind: str
    name: str
    expr: str
    labels: Mapping[str, str]
    for_s: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, at one instant; *interval* empty for that of the server."""

    name: str
    rules: tuple[Rule, ...]
    interval: str = ""
    notes: tuple[str, ...] = ()


def text_of(groups: Iterable[Group], header: str) -> str:
    """The whole file: *header* as a comment, then the groups in their order."""
    lines = [comment(header, ""), "groups:"]
    for group in groups:
        lines.extend(_group_lines(group))
    return "\n".join(lines) + "\n" if len(lines) > 2 else f"{lines[0]}\ngroups: []\n"


def comment(text: str, indent: str) -> str:
    """*text* as comment lines; nothing in it can end the comment, and signs that no file of lines has become `?`."""
    lines = (_UNPRINTABLE.sub("?", " ".join(line.split())) for line in text.split("\n"))
    return "\n".join(f"{indent}# {line}".rstrip() for line in lines)


def scalar(text: str, indent: str) -> str:
    r"""
    *text* as a YAML value that every reader takes for the same text.

    Args:
        text: anything.
        indent: of the lines of a block, should one be needed.

    >>> scalar("critical", ""), scalar("5m", ""), scalar("no", "")
    ('critical', '"5m"', '"no"')
    >>> scalar("a > 1\nand\nb > 1", "  ")
    '|-\n  a > 1\n  and\n  b > 1'
    """
    if ("\n" in text or '"' in text) and "\n\n" not in text and _BLOCK.fullmatch(text):
        return "|-\n" + "\n".join(indent + line for line in text.split("\n"))
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT and ": " not in text:
        return text
    # JSON's quoted text is YAML's; outside the plane of 16 bits only where the sign itself stands.
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)


_ESCAPED = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
}  # JSON allows them, YAML does not


def _group_lines(group: Group) -> Iterator[str]:
    for note in group.notes:
        yield comment(note, "  ")
    yield f"  - name: {scalar(group.name, '      ')}"
    if group.interval:
        yield f"    interval: {group.interval}"
    yield "    rules:"
    for rule in group.rules:
        yield f"      - {rule.kind}: {scalar(rule.name, '          ')}"
        yield f"        expr: {scalar(rule.expr, '          ')}"
        if rule.for_s:
            yield f"        for: {rule.for_s}s"
        yield from _mapping("labels", rule.labels)
        yield from _mapping("annotations", rule.annotations)


def _mapping(name: str, values: Mapping[str, str]) -> Iterator[str]:
    if values:
        yield f"        {name}:"
        for key, value in values.items():
            yield f"          {key}: {scalar(value, '            ')}"
