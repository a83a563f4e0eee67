"""Type checks and conversion of arguments of the public API.

NumPy scalars count as numbers, since settings often come out of tables. They are converted to Python numbers:
NumPy would keep calculating in their precision, which is too low for times. Texts and booleans are not
numbers.

Each function takes the name of the argument, for the error message, and its value. The functions have no
state and may be called from any thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from decimal import Decimal
from numbers import Integral, Real
from typing import Any


def number(name: str, value: Any, what: str = "a number") -> float:
    """Return a number as a float, or as an int if it is one.

    Args:
        name: Name of the argument.
        value: Its value.
        what: Description of the expected value, for the error message.

    Raises:
        TypeError: The value is not a number.
    """
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    scalar, numpy_kind = _scalar(value)
    # NumPy's time differences count as integers, but have units of their own.
    if isinstance(scalar, bool) or not isinstance(scalar, Real | Decimal) or numpy_kind == "m":
        raise TypeError(f"{name} must be {what}, not {value!r} ({kind.__name__})")
    is_whole = isinstance(scalar, Integral)
    converted: Any = scalar
    return int(converted) if is_whole else float(converted)


def _scalar(value: Any) -> tuple[object, str]:
    """Return the scalar in an array without dimensions and its NumPy kind; else the value and ""."""
    if getattr(value, "ndim", None) != 0 or hasattr(value, "mask") or isinstance(value, str | bytes):
        return value, ""
    scalar = value[()]
    return scalar, scalar.dtype.kind


def seconds(name: str, value: Any) -> float:
    """Return a number of seconds, at least 0; infinity is allowed.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is negative or NaN.
    """
    result = number(name, value, "a number of seconds")
    if not result >= 0:
        raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    return result


def interval(name: str, value: Any) -> float:
    """Return a number of seconds, greater than 0; infinity is allowed.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not greater than 0.
    """
    result = number(name, value, "a number of seconds")
    if not result > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    return result


def whole(name: str, value: Any, least: float, most: int | None = None, what: str = "a whole number") -> int:
    """Return a whole number; floats without a fraction are accepted.

    Args:
        name: Name of the argument.
        value: Its value.
        least: Minimum; ``-math.inf``: no minimum.
        most: Maximum; None: no maximum.
        what: Description of the expected value, for the error message.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not whole, or out of range.
    """
    result = number(name, value, what)
    is_whole = math.isfinite(result) and result == int(result)
    if not is_whole or result < least or (most is not None and result > most):
        limits = "" if least == -math.inf else f" from {least}"
        limits += "" if most is None else f" to {most}"
        raise ValueError(f"{name} must be {what}{limits}, not {value!r}")
    return int(result)


def port(name: str, value: Any, least: int = 1) -> int:
    """Return a port number; text is accepted, as msl-network 1.0.0 does.

    Args:
        name: Name of the argument.
        value: Its value.
        least: Minimum; 0 stands for any free port.

    Raises:
        TypeError: The value is neither a number nor text.
        ValueError: The value is not a valid port number.
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
    """Return a number of bytes, at least 1; infinity is allowed and means no limit.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not whole, or less than 1.
    """
    result = number(name, value, "a number of bytes")
    if result == math.inf:
        return result  # type: ignore[return-value]
    return whole(name, value, 1, what="a number of bytes")


def flag(name: str, value: Any) -> bool:
    """Return a boolean; None is False, and numbers have the truth value that Python gives them.

    Raises:
        TypeError: The value is of another type. Text is refused, since ``"False"`` would count as True.
    """
    scalar, numpy_kind = _scalar(value)
    if scalar is None or isinstance(scalar, Real) or numpy_kind == "b":
        return bool(scalar)
    raise TypeError(f"{name} must be True or False, not {value!r} ({type(value).__name__})")


def file(name: str, value: Any) -> str | os.PathLike[str] | None:
    """Return the path of a file, or None.

    Raises:
        TypeError: The value is neither text nor a path nor None.
    """
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a file, not {value!r} ({type(value).__name__})")
    return value


def names(name: str, value: Any) -> frozenset[str]:
    """Return a collection of names as a set.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        TypeError: The value is no collection of texts. A single text would count as its letters.
    """
    if (
        isinstance(value, str)
        or not isinstance(value, Collection)
        or not all(isinstance(x, str) for x in value)
    ):
        raise TypeError(f"{name} must be a set or list of names, not {value!r}")
    return frozenset(value)
