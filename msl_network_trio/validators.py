"""Validators for attrs classes of settings; they check an argument and store it converted.

A converter of `arguments` may return another object than it was given, such as a Python number for a NumPy
scalar. The functions have no state and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from msl_network_trio import arguments
from msl_network_trio.hidden import hide

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]
"""Takes the instance, the attribute and its value; raises TypeError or ValueError for invalid values."""


def store(settings: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Set an attribute of an instance of a frozen class."""
    object.__setattr__(settings, attribute.name, value)


def converted(convert: Callable[[str, Any], object]) -> Validator:
    """Return a validator that stores the return value of a function of `arguments`."""

    def validate(settings: object, attribute: attrs.Attribute[Any], value: object) -> None:
        store(settings, attribute, convert(attribute.name, value))

    return validate


def optional(convert: Callable[[str, Any], object]) -> Validator:
    """Return a validator like `converted` that also accepts None."""
    return attrs.validators.optional(converted(convert))


is_flag = converted(arguments.flag)
is_file_or_none = converted(arguments.file)


def is_secret_or_none(settings: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Check a secret text, and store it hidden."""
    value = hide(value)  # rebind: a crash report shows the local variables of this function
    if value is not None and not isinstance(value.reveal(), str):
        raise TypeError(f"{attribute.name} must be text or None, not {type(value.reveal()).__name__}")
    store(settings, attribute, value)
