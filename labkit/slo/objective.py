"""Objectives and shares as people write them, read as exact fractions: 99.9, "99.9%" and 0.999 are 999/1000."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from labkit.errors import InvalidValue

__all__ = ["format_decimal", "format_percentage", "parse_objective", "parse_share"]

_WANTED = "a fraction strictly between 0 and 1, such as 0.999, or a percentage, such as 99.9%"
_PERCENTAGE = re.compile(r"(.+?)\s*(%|percent)")
# A number from here up to 100 is a percentage: nobody promises that half of all requests fail.
_LOWEST_PERCENTAGE = 50


def parse_objective(value: object) -> Fraction:
    """
    An objective as an exact fraction, strictly between 0 and 1.

    A number below 1 is a fraction, one from 50 up to below 100 a percentage; with a percent sign everything is what
    it says.  What could mean two things, or leaves no budget, is refused with the fix.  Floats are read as they are
    written: 99.9 is 999/1000 to the last digit.

    Args:
        value: int, float, Decimal, Fraction or text.

    Raises:
        InvalidValue: 0, 1, 100, numbers between 1 and 50 or above 100, nan, and what is no number.

    >>> [parse_objective(value) for value in (99.9, "99.9%", 0.999)]
    [Fraction(999, 1000), Fraction(999, 1000), Fraction(999, 1000)]
    """
    number, percent = _number(value, "objective", _WANTED)
    if percent:
        if 0 < number < 100:
            return number / 100
        raise _refused(value, "100% leaves no budget, 0% promises nothing" if number in {0, 100} else "")
    if 0 < number < 1:
        return number
    if _LOWEST_PERCENTAGE <= number < 100:
        return number / 100
    raise _refused(value, _doubt(number))


def parse_share(value: object) -> Fraction:
    """
    A share of a budget as an exact fraction, above 0 and at most 1: `2%` and 0.02 are 1/50.

    Numbers above 1 need the percent sign: 2 would be a percentage for one reader and twice the budget for another.

    Raises:
        InvalidValue: not a number, or not in that range.

    >>> parse_share("2%"), parse_share(0.1), parse_share("100%")
    (Fraction(1, 50), Fraction(1, 10), Fraction(1, 1))
    """
    wanted = "above 0 and at most 100%, such as 2% or 0.02"
    number, percent = _number(value, "share", wanted)
    share = number / 100 if percent else number
    if 0 < share < 1 or (share == 1 and percent):
        return share
    fix = f": write {format_percentage(number / 100)} if that is meant" if 1 <= share <= 100 and not percent else ""
    raise InvalidValue("share", expected=wanted + fix, got=_shown(value))


def format_percentage(share: Fraction) -> str:
    """
    A fraction as a percentage with every digit it has.

    Raises:
        InvalidValue: it has no end as a decimal number, such as 1/3.

    >>> format_percentage(Fraction(99_995, 100_000))
    '99.995%'
    """
    return f"{format_decimal(share * 100)}%"


def format_decimal(number: Fraction) -> str:
    """
    A fraction as a decimal number with every digit it has.

    Raises:
        InvalidValue: it has no end as a decimal number, such as 1/3.

    >>> format_decimal(Fraction(999, 1000)), format_decimal(Fraction(100))
    ('0.999', '100')
    """
    twos, rest = _without(number.denominator, 2)
    fives, rest = _without(rest, 5)
    if rest != 1:
        raise InvalidValue("fraction", expected="one that ends as a decimal number", got=str(number))
    places = max(twos, fives)
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if number < 0 else text


def _without(number: int, factor: int) -> tuple[int, int]:
    times = 0
    while number % factor == 0:
        number, times = number // factor, times + 1
    return times, number


def _number(value: object, name: str, wanted: str) -> tuple[Fraction, bool]:
    """The number in *value*, and whether it says that it is a percentage."""
    if isinstance(value, Fraction | int) and not isinstance(value, bool):
        return Fraction(value), False
    if isinstance(value, float | Decimal | str):
        text = str(value).strip()
        percentage = _PERCENTAGE.fullmatch(text)
        try:
            number = Decimal(percentage[1] if percentage else text)
        except InvalidOperation:
            number = Decimal("NaN")
        # The exponent is bounded because 1e-999999999 as a fraction would fill the memory.
        if number.is_finite() and abs(number.adjusted()) < 30:
            return Fraction(number), percentage is not None
        if isinstance(value, str) and re.fullmatch(r"\d+,\d+\s*%?", text):
            wanted += f"; write {text.replace(',', '.')} with a point"
    raise InvalidValue(name, expected=wanted, got=_shown(value))


def _doubt(number: Fraction) -> str:
    if number in {1, 100}:
        nothing = "100 % leaves no budget, nothing may ever fail"
        return f"{nothing}; if 1 % is meant, write 1%" if number == 1 else nothing
    if number == 0:
        return "0 promises nothing"
    if 1 < number < _LOWEST_PERCENTAGE:
        return f"write {format_decimal(number)}% if that is meant"
    digits = format_decimal(number)
    if number > 100 and re.fullmatch(r"99\d+", digits):
        return f"did you mean {digits[:2]}.{digits[2:]}%?"
    if number > 100:
        return "a bound such as 500 ms is no objective: say which share of requests must keep it, and the bound apart"
    return ""


def _refused(value: object, doubt: str) -> InvalidValue:
    return InvalidValue("objective", expected=_WANTED + (f" ({doubt})" if doubt else ""), got=_shown(value))


def _shown(value: object) -> object:
    """As it was written: `Decimal('1')` is not what the file says."""
    return float(value) if isinstance(value, Decimal) and Decimal(repr(float(value))) == value else value
