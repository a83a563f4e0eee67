"""The types of arguments: one place for what counts as a number, and for what is said if it is none.

Numbers of NumPy are numbers: settings often come out of tables. They become numbers of Python here, since
NumPy would go on calculating in their precision, which for times is too little. Texts and booleans are no
numbers.

Each function takes the name of the argument, for the error, and its value.
"""

from __future__ import annotations

import math
import os
from decimal import Decimal
from numbers import Integral, Real
from typing import Any


def number(name: str, value: Any, what: str = "a number") -> float:
    """Return a number as a float, or as an int if it is one.

    Args:
        name: The name of the argument.
        value: Its value.
        what: What it has to be, for the error.

    Raises:
        TypeError: It is no number.
    """
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    scalar, numpy_kind = _scalar(value)
    # NumPy's time differences pass for integers, and have units of their own.
    if isinstance(scalar, bool) or not isinstance(scalar, Real | Decimal) or numpy_kind == "m":
        raise TypeError(f"{name} must be {what}, not {value!r} ({kind.__name__})")
    is_whole = isinstance(scalar, Integral)
    converted: Any = scalar
    return int(converted) if is_whole else float(converted)


def _scalar(value: Any) -> tuple[object, str]:
    """Return a number with NumPy's kind of it; it may be the only one in an array without dimensions."""
    if getattr(value, "ndim", None) != 0 or hasattr(value, "mask") or isinstance(value, str | bytes):
        return value, ""
    scalar = value[()]
    return scalar, scalar.dtype.kind


def seconds(name: str, value: Any) -> float:
    """Return a number of seconds from 0, which may be infinite.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or not a number.
    """
    result = number(name, value, "a number of seconds")
    if not result >= 0:
        raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    return result


def interval(name: str, value: Any) -> float:
    """Return a number of seconds above 0, which may be infinite.

    Raises:
        TypeError: It is no number.
        ValueError: It is not more than 0.
    """
    result = number(name, value, "a number of seconds")
    if not result > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    return result


def whole(name: str, value: Any, least: float, most: int | None = None, what: str = "a whole number") -> int:
    """Return a whole number; a float counts as one if it is whole.

    Args:
        name: The name of the argument.
        value: Its value.
        least: The least possible value; ``-math.inf``: there is none.
        most: The greatest possible value; None: there is none.
        what: What it has to be, for the error.

    Raises:
        TypeError: It is no number.
        ValueError: It is not whole, or out of range.
    """
    result = number(name, value, what)
    is_whole = math.isfinite(result) and result == int(result)
    if not is_whole or result < least or (most is not None and result > most):
        limits = "" if least == -math.inf else f" from {least}"
        limits += "" if most is None else f" to {most}"
        raise ValueError(f"{name} must be {what}{limits}, not {value!r}")
    return int(result)


def port(name: str, value: Any, least: int = 1) -> int:
    """Return the number of a port, which may be text: that is how it is in files, and msl-network takes it.

    Raises:
        TypeError: It is neither a number nor text.
        ValueError: It is no number of a port.
    """
    what = "a number from 1 to 65535" + ("" if least else ", or 0 for any free one")
    try:
        result = int(value) if isinstance(value, str) else whole(name, value, -math.inf)
    except ValueError as error:
        raise ValueError(f"{name} must be {what}, not {value!r} ({error})") from None
    if not least <= result <= 65535:
        raise ValueError(f"{name} must be {what}, not {value!r}")
    return result


def size(name: str, value: Any) -> int:
    """Return a number of bytes from 1; infinity is one that never is reached.

    Raises:
        TypeError: It is no number.
        ValueError: It is not whole, or less than 1.
    """
    result = number(name, value, "a number of bytes")
    if result == math.inf:
        return result  # type: ignore[return-value]
    return whole(name, value, 1, what="a number of bytes")


def flag(name: str, value: Any) -> bool:
    """Return whether an argument is set. None is not, and numbers are as they are to Python.

    Raises:
        TypeError: It is anything else: a text, for example, of which each one would count as True.
    """
    scalar, numpy_kind = _scalar(value)
    if scalar is None or isinstance(scalar, Real) or numpy_kind == "b":
        return bool(scalar)
    raise TypeError(f"{name} must be True or False, not {value!r} ({type(value).__name__})")


def file(name: str, value: Any) -> str | os.PathLike[str] | None:
    """Return the path of a file, or None.

    Raises:
        TypeError: It is neither text nor a path.
    """
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a file, not {value!r} ({type(value).__name__})")
    return value
