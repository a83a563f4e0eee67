"""Validators for attrs classes of settings, which check an argument and store it converted.

What `arguments` returns may be another object than what was passed: a number of Python for one of NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from msl_network_trio import arguments
from msl_network_trio.hidden import hide

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]
"""Takes the instance, the attribute and its value; raises TypeError or ValueError if that is wrong."""


def store(settings: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Set an attribute of a frozen class, as attrs itself does it."""
    object.__setattr__(settings, attribute.name, value)


def converted(convert: Callable[[str, Any], object]) -> Validator:
    """Return a validator that stores what a function of `arguments` returns."""

    def validate(settings: object, attribute: attrs.Attribute[Any], value: object) -> None:
        store(settings, attribute, convert(attribute.name, value))

    return validate


def optional(convert: Callable[[str, Any], object]) -> Validator:
    """Return a validator as `converted` does, which accepts None, too."""
    return attrs.validators.optional(converted(convert))


is_flag = converted(arguments.flag)
is_file_or_none = converted(arguments.file)


def is_secret_or_none(settings: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Check text that must not be shown, and store it hidden."""
    value = hide(value)  # in place: a crash report shows the variables of this function
    if value is not None and not isinstance(value.reveal(), str):
        raise TypeError(f"{attribute.name} must be text or None, not {type(value.reveal()).__name__}")
    store(settings, attribute, value)
