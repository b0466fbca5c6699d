"""YAML files as typed objects, with every mistake named by line and column."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from labkit.errors import ConfigInvalid, ConfigProblem

__all__ = ["load_model"]

M = TypeVar("M", bound=BaseModel)


def load_model(model: type[M], path: Path) -> M:
    """
    Read the YAML file at *path* as a *model*.

    Raises:
        ConfigInvalid: the file is not YAML or does not fit the model; all mistakes are listed with line,
            column and, for an unknown key, the nearest correct name.
        FileNotFoundError: there is no such file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigInvalid(str(path), problems=[ConfigProblem(line, column, f"not YAML: {error.problem}")]) from error
    try:
        return model.model_validate(data if data is not None else {})
    except ValidationError as error:
        raise ConfigInvalid(str(path), problems=[_problem(detail, node, model) for detail in error.errors()]) from error


def _problem(detail: Any, node: yaml.Node | None, model: type[BaseModel]) -> ConfigProblem:
    where = [part for part in detail["loc"] if isinstance(part, str | int)]
    line, column = _position(node, where, key=detail["type"] == "extra_forbidden")
    name = ".".join(str(part) for part in where) or "the file"
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, where[:-1])
        close = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(sorted(known))}" if known else ""
        return ConfigProblem(line, column, f"`{name}` is not a known key{hint}")
    if detail["type"] == "missing":
        return ConfigProblem(line, column, f"`{name}` is missing")
    return ConfigProblem(line, column, f"`{name}`: {detail['msg']} (got {detail['input']!r})")


def _position(node: yaml.Node | None, where: list[str | int], *, key: bool) -> tuple[int, int]:
    """Line and column, from 1, of the value at *where* (or of its key), or of its nearest parent in the file."""
    mark = node.start_mark if node else None
    for depth, part in enumerate(where):
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            node = pair[1]
            mark = pair[0].start_mark if key and depth == len(where) - 1 else node.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        else:
            break
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _fields_at(model: type[BaseModel], where: list[str | int]) -> list[str]:
    """Names of the fields that a key at *where* could have been, or none when the place is not a model."""
    current: Any = model
    for part in where:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if isinstance(current, type) and issubclass(current, BaseModel) else None
        if field is None:
            return []
        current = _model_in(field.annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    """The first pydantic model in a type such as `list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
