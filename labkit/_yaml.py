"""
YAML files as typed objects, with every mistake named by line and column.

Values keep what the file says: a number with a point is handed on as `Decimal`, so that 99.9 is 999/1000 for whoever
needs it exactly, and a key that is given twice is a mistake, not a silent choice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, RootModel, ValidationError

from labkit.errors import ConfigInvalid, ConfigProblem, InvalidValue

__all__ = ["Misplaced", "Place", "load_model", "parse_model", "read_text"]

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]
"""Keys and indices from the top of a file to a value."""


_SENTENCES = {
    "missing": "is missing",
    "string_type": "must be text; put it in quotes{got}",
    "bool_type": "must be true or false{got}",
    "bool_parsing": "must be true or false{got}",
    "model_type": "must be keys with values{got}",
    "model_attributes_type": "must be keys with values{got}",
    "dict_type": "must be keys with values{got}",
    "list_type": "must be a list{got}",
    "tuple_type": "must be a list{got}",
    "too_short": "must not be empty",
    "too_long": "must have {max_length} at most, it has {actual_length}",
    "greater_than": "must be above {gt:g}{got}",
}


class Misplaced(ValueError):
    """
    Mistakes that a model found in several of its values: for validators that look at more than one field.

    *problems* are pairs of the place below the model, and what is wrong there.
    """

    def __init__(self, problems: Sequence[tuple[Place, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(message for _, message in problems))


class _Exact(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe values only; numbers with a point as they are written."""


def _exact(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Decimal | float:
    try:
        return Decimal(node.value.replace("_", ""))
    except InvalidOperation:  # .nan, .inf, 1:30.5
        return float(loader.construct_yaml_float(node))


_Exact.add_constructor("tag:yaml.org,2002:float", _exact)


def read_text(path: Path) -> str:
    """
    The text of a file in UTF-8.

    Raises:
        ConfigInvalid: it is not UTF-8.
        FileNotFoundError: there is no such file.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigInvalid(str(path), problems=[ConfigProblem(line, 1, "not text in UTF-8")]) from error


def load_model(model: type[M], path: Path) -> M:
    """
    Read the YAML file at *path* as a *model*.

    Raises:
        ConfigInvalid: the file is not YAML or does not fit the model; all mistakes are listed with line,
            column and, for an unknown key, the nearest correct name.
        FileNotFoundError: there is no such file.
    """
    return parse_model(model, read_text(path), str(path))


def parse_model(
    model: type[M], text: str, source: str, *, checks: Callable[[Any], Iterable[tuple[Place, str]]] | None = None
) -> M:
    """
    Read YAML text as a *model*.

    Args:
        model: what the text must fit.
        text: one YAML document.
        source: where it comes from, for messages.
        checks: looks at the plain data for what concerns several parts of the file; yields places and what is wrong
            there.  It sees data that may not fit the model.

    Raises:
        ConfigInvalid: as for `load_model`; mistakes are in the order of the file.
    """
    node, data = _read(text, source)
    found: list[ConfigProblem] = [
        *_twice(node),
        *(_at(node, place, message) for place, message in (checks(data) if checks else ())),
    ]
    try:
        result = model.model_validate(data if data is not None else {})
    except ValidationError as error:
        found += [problem for detail in error.errors() for problem in _problems(detail, node, model)]
    if found:
        found.sort(key=lambda problem: (problem.line, problem.column))
        raise ConfigInvalid(source, problems=found)
    return result


def _read(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    loader = _Exact(text)
    line, column = 1, 1
    try:
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        if mark := error.problem_mark:
            line, column = mark.line + 1, mark.column + 1
        context = f"{error.context}, " if str(error.problem).startswith("but ") else ""
        reason = f"not YAML: {context}{error.problem}"
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        reason = f"not YAML: a character that YAML forbids ({error.reason})"
    except ValueError as error:  # a date such as 2026-13-45
        reason = f"a value that YAML cannot read: {error}"
    except RecursionError:
        reason = "nested too deeply"
    finally:
        loader.dispose()
    raise ConfigInvalid(source, problems=[ConfigProblem(line, column, reason)])


def _twice(node: yaml.Node | None) -> Iterator[ConfigProblem]:
    """Keys that one mapping has more than once."""
    seen: set[int] = set()
    rest = [node] if node is not None else []
    while rest:
        current = rest.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, yaml.SequenceNode):
            rest += current.value
        if isinstance(current, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in current.value:
                rest.append(value)
                line = key.start_mark.line + 1
                if key.value in first:
                    message = f"`{key.value}` is given twice, first in line {first[key.value]}"
                    yield ConfigProblem(line, key.start_mark.column + 1, message)
                if isinstance(key, yaml.ScalarNode):
                    first.setdefault(key.value, line)


def _problems(detail: Any, node: yaml.Node | None, model: type[BaseModel]) -> Iterator[ConfigProblem]:
    # Pydantic puts the tag of a union's member among the keys; the file knows nothing of tags.
    where = tuple(part for part in detail["loc"] if isinstance(part, str | int))
    kind, error = detail["type"], detail.get("ctx", {}).get("error")
    if isinstance(error, Misplaced):
        for place, message in error.problems:
            yield _at(node, (*where, *place), message)
        return
    got = f" (got {_shown(detail['input'])})"
    context = detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            known = _fields_at(model, where[:-1])
            hint = _nearest(str(where[-1]), known) or (f"; known: {', '.join(sorted(known))}" if known else "")
            yield _at(node, where, f"is not a known key{hint}", key=True)
        case "union_tag_not_found":
            yield _at(node, (*where, context["discriminator"].strip("'")), "is missing")
        case "union_tag_invalid":
            place = (*where, context["discriminator"].strip("'"))
            yield _at(node, place, _one_of(context["expected_tags"], context["tag"]))
        case "literal_error":
            yield _at(node, where, _one_of(context["expected"], detail["input"]))
        case "value_error":
            yield _at(node, where, str(error) if isinstance(error, InvalidValue) else f"{error}{got}")
        case _ if kind in _SENTENCES:
            yield _at(node, where, _SENTENCES[kind].format(got=got, **context))
        case _:
            yield _at(node, where, f"{detail['msg']}{got}")


def _at(node: yaml.Node | None, where: Place, message: str, *, key: bool = False) -> ConfigProblem:
    line, column, place = _position(node, where, key=key)
    name = f"`{'.'.join(str(part) for part in place)}`" if place else "the file"
    message = message.replace("\n", "\n    ")
    return ConfigProblem(line, column, f"{name}{' ' if message.startswith(('is ', 'must ')) else ': '}{message}")


def _one_of(listed: str, got: object) -> str:
    known = re.findall(r"'([^']*)'", listed)
    return f"must be one of {', '.join(known)} (got {_shown(got)}){_nearest(str(got), known)}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _position(node: yaml.Node | None, where: Place, *, key: bool) -> tuple[int, int, Place]:
    """Line and column, from 1, of the value at *where* (or of its key), or of its nearest parent; and its place."""
    mark = node.start_mark if node else None
    place: list[str | int] = []
    for depth, part in enumerate(where):
        last = depth == len(where) - 1
        below = _below(node, part)
        if below is not None:
            named, node = below
            mark = named.start_mark if key and last else node.start_mark
        # What is not there is a missing key when it comes last, and else the tag of a union's member, as is what no
        # file would have as a key.
        if below is not None or (last and " " not in str(part)):
            place.append(part)
    return (mark.line + 1, mark.column + 1, tuple(place)) if mark else (1, 1, where)


def _below(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """The key and the value at *part* of a mapping; the item twice for a list."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _fields_at(model: type[BaseModel], where: Place) -> list[str]:
    """Names of the keys that could have stood at *where*, or none when the place is not a model."""
    current = list(_models_in(model))
    for part in where:
        if isinstance(part, int):
            continue
        fields = [field for each in current for name, field in _keys(each) if name == part]
        if fields:
            current = [found for field in fields for found in _models_in(field.annotation)]
        else:  # the tag of a union's member: that member only
            current = [each for each in current if part in _tags(each)]
    return [name for each in current for name, _ in _keys(each)]


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _tags(model: type[BaseModel]) -> Iterator[str]:
    for field in model.model_fields.values():
        if get_origin(field.annotation) is Literal:
            yield from get_args(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models in a type such as `list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _models_in(annotation.model_fields["root"].annotation)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
