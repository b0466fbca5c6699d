"""Typed parameters of a notebook: read from its `parameters` cell, checked before anything starts."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import ConfigInvalid
from labkit.settings import SETTINGS

__all__ = ["Parameter", "declared", "parse_assignments", "resolve"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name of a `parameters` cell with the type of its default and the comment beside it."""

    name: str
    kind: type
    default: Any
    help: str


def declared(path: Path) -> list[Parameter]:
    """
    The parameters that the notebook at *path* declares; empty when it has no `parameters` cell.

    Raises:
        ConfigInvalid: the file is not a notebook, or a default is not a plain value.
        FileNotFoundError: there is no such file.
    """
    from papermill import inspect_notebook  # noqa: PLC0415  (half a second of imports)

    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}; `labkit notebooks list` names those of the course")
    try:
        # papermill formats paths as templates; doubled braces mean themselves.
        found = inspect_notebook(str(path).replace("{", "{{").replace("}", "}}"))
    except (ValueError, AttributeError) as error:
        raise ConfigInvalid(str(path), problems=[f"cannot be read as a notebook: {error}"]) from error
    return [_parameter(path, info) for info in found.values()]


def _parameter(path: Path, info: Mapping[str, Any]) -> Parameter:
    try:
        default = ast.literal_eval(info["default"])
    except (ValueError, SyntaxError) as error:
        problem = (
            f"parameter {info['name']!r} has the default {info['default']}; write a number, a text, True, False or None"
        )
        raise ConfigInvalid(str(path), problems=[problem]) from error
    return Parameter(info["name"], str if default is None else type(default), default, info["help"])


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """
    `name=value` arguments as a mapping of texts.

    Raises:
        ConfigInvalid: one has no `=` or no name, or a name comes twice.

    >>> parse_assignments(["seed=3", "lab=local"])
    {'seed': '3', 'lab': 'local'}
    """
    values: dict[str, str] = {}
    problems = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(f"{text!r} is not of the form name=value")
        elif name.strip() in values:
            problems.append(f"{name.strip()!r} is given twice")
        values[name.strip()] = value
    if problems:
        raise ConfigInvalid("The parameters", problems=problems, how="Write -p name=value, for example -p pace=quick.")
    return values


def resolve(parameters: Iterable[Parameter], given: Mapping[str, Any], *, notebook: str) -> dict[str, Any]:
    """
    The values that a run uses: every declared parameter, given or by default, each of its type.

    Args:
        parameters: what the notebook declares.
        given: values by name; texts are read as the declared type.
        notebook: its name, for the message.

    Raises:
        ConfigInvalid: unknown names and values that do not fit; all of them, each with the nearest right one.

    >>> resolve([Parameter("seed", int, 7, "")], {"seed": "3"}, notebook="00")
    {'seed': 3}
    """
    known = {parameter.name: parameter for parameter in parameters}
    problems = [_unknown(name, list(known)) for name in given if name not in known]
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        try:
            value = _read(parameter, given[name]) if name in given else parameter.default
            values[name] = _allowed(name, value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigInvalid(f"The parameters for {notebook}", problems=problems, how="Nothing was started.")
    return values


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"{name!r} is not a parameter of it; {hint}"


_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def _bool(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"expected true or false, got {text!r}")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"expected a whole number, got {text!r}") from error


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"expected a number, got {text!r}") from error


_READERS: dict[type, Callable[[str], Any]] = {bool: _bool, int: _int, float: _float, str: str}


def _read(parameter: Parameter, value: Any) -> Any:
    kind = parameter.kind
    if isinstance(value, str):
        if kind not in _READERS:
            raise ValueError(f"a {kind.__name__} cannot be given on the command line")
        return _READERS[kind](value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {value!r}")
    return value


def _allowed(name: str, value: Any) -> Any:
    """*value*, once the setting of the same name (lab, profile, pace, seed) accepts it too; an empty one leaves it."""
    setting = next((row for row in SETTINGS if row.name == name), None)
    if setting is not None and value != "":
        setting.parse(str(value))
    return value
