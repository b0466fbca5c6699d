"""Single values of a specification file, each with its check and its part of the JSON Schema."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from labkit._time import parse_duration
from labkit._yaml import Misplaced, Place
from labkit.errors import InvalidValue
from labkit.slo.model import Rolling
from labkit.slo.objective import parse_objective, parse_share
from labkit.slo.windows import parse_rolling

__all__ = [
    "Amount",
    "Hold",
    "LabelNames",
    "Length",
    "Name",
    "Objective",
    "RollingWindow",
    "Share",
    "SliceTarget",
    "seconds_in",
]

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"
_OURS = frozenset({"slo", "service", "severity", "alertname"})
_UNITS_S = {
    "milliseconds": Fraction(1, 1000),
    "seconds": Fraction(1),
    "minutes": Fraction(60),
    "hours": Fraction(3600),
}


def seconds_in(value: object, unit: str | None) -> float:
    """
    Seconds in a duration such as `250ms`, or in a number of *unit*s.

    Raises:
        InvalidValue: a number without unit, a duration with a second unit, or not above 0.

    >>> seconds_in("250ms", None), seconds_in(250, "milliseconds")
    (0.25, 0.25)
    """
    wanted = "a length of time with its unit, such as 250ms"
    if isinstance(value, str) and not re.fullmatch(r"[\d.]+", value.strip()):
        try:
            # Rounded, because 1001 * 0.001 is not 1.001 and the bound of a bucket is compared as text.
            return round(parse_duration(value), 9)
        except ValueError as error:
            raise InvalidValue("length", expected=f"{wanted} ({error})", got=value) from error
    try:
        number = Fraction(str(value))
    except ValueError as error:
        raise InvalidValue("length", expected=wanted, got=value) from error
    if unit is None:
        raise InvalidValue("length", expected=f"{wanted}; or say in `unit` what {value} is", got=_shown(value))
    if number <= 0:
        raise InvalidValue("length", expected="above 0", got=_shown(value))
    return float(number * _UNITS_S[unit])


def _whole_s(value: object) -> int:
    wanted = "a length of time in whole seconds with its unit, such as 5m"
    if not isinstance(value, str) or value.isdigit():
        hint = f" (did you mean {value}s or {value}m?)" if isinstance(value, int | str) and str(value).isdigit() else ""
        raise InvalidValue("length", expected=wanted + hint, got=_shown(value))
    seconds = seconds_in(value, None)
    if seconds != int(seconds):
        raise InvalidValue("length", expected=wanted, got=value)
    return int(seconds)


def _for_s(value: object) -> int:
    return 0 if value in ("0s", 0) and value is not False else _whole_s(value)


def _slice_target(value: object) -> Fraction:
    return Fraction(1) if isinstance(value, str) and value.replace(" ", "") == "100%" else parse_objective(value)


def _name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_NAME, value):
        return value
    wanted = "1 to 63 letters, digits, `_`, `-` and `.`, with a letter or a digit at both ends"
    raise InvalidValue("name", expected=wanted, got=value)


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidValue("labels", expected="names with values", got=value)
    problems: list[tuple[Place, str]] = []
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(_LABEL, name) or name.startswith("__"):
            problems.append(((str(name),), "is not the name of a label: letters, digits and `_`, no digit first"))
        elif name in _OURS:
            problems.append(((name,), "is a label that rules or Prometheus set themselves; choose another name"))
        elif not isinstance(text, str):
            problems.append(((name,), f"must be text; put it in quotes (got {_shown(text)!r})"))
    if problems:
        raise Misplaced(problems)
    return dict(value)


def _amount(value: object) -> object:
    if isinstance(value, str) or (not isinstance(value, bool) and str(value).replace(".", "", 1).isdigit()):
        return value
    raise InvalidValue("length", expected="a length of time with its unit, such as 250ms", got=_shown(value))


def _shown(value: object) -> object:
    return value if isinstance(value, str | int | list | dict | None) else float(str(value))


def _number(**limits: float) -> dict[str, Any]:
    return {"type": "number", **limits}


_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdw]))+$"}
_PERCENT = {"type": "string", "pattern": "^[0-9.]+ *(%|percent)?$"}

Length = Annotated[int, PlainValidator(_whole_s), WithJsonSchema(_DURATION)]
Hold = Annotated[int, PlainValidator(_for_s), WithJsonSchema({"anyOf": [_DURATION, {"const": 0}]})]
RollingWindow = Annotated[Rolling, PlainValidator(parse_rolling), WithJsonSchema(_DURATION)]
Amount = Annotated[Any, PlainValidator(_amount), WithJsonSchema({"anyOf": [_DURATION, _number(exclusiveMinimum=0)]})]
Objective = Annotated[
    Fraction,
    PlainValidator(parse_objective),
    WithJsonSchema(
        {
            "anyOf": [
                _number(exclusiveMinimum=0, exclusiveMaximum=1),
                _number(minimum=50, exclusiveMaximum=100),
                _PERCENT,
            ]
        }
    ),
]
SliceTarget = Annotated[
    Fraction,
    PlainValidator(_slice_target),
    WithJsonSchema({"anyOf": [_number(exclusiveMinimum=0, exclusiveMaximum=100), _PERCENT]}),
]
Share = Annotated[
    Fraction,
    PlainValidator(parse_share),
    WithJsonSchema({"anyOf": [_number(exclusiveMinimum=0, exclusiveMaximum=1), _PERCENT]}),
]
Name = Annotated[str, PlainValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"})]
LabelNames = Annotated[
    dict[str, str],
    PlainValidator(_labels),
    WithJsonSchema(
        {"type": "object", "propertyNames": {"pattern": f"^{_LABEL}$"}, "additionalProperties": {"type": "string"}}
    ),
]
