"""Keyword arguments of `connect` among others: programs keep those of all parts in one dictionary.

The functions have no state and may be called from any thread.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from msl_network_trio.dialing.settings import Settings
from msl_network_trio.logger import get_logger

logger = get_logger(__name__)

_MANAGER_ARGUMENTS: Final = frozenset(
    {
        "auth_hostname",
        "auth_login",
        "auth_password",
        "database",
        "key_file",
        "key_file_password",
        "log_file",
        "log_level",
    }
)
"""Arguments of a Manager, which programs that also run one have in the same dictionary."""


def filter_client_connect_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Return those of the keyword arguments that `connect` accepts.

    ``auth_password``, the name that a Manager has for it, is returned as ``password_manager``, unless that is
    given as well.
    """
    accepted = {field.name for field in attrs.fields(Settings)}
    filtered = {name: value for name, value in kwargs.items() if name in accepted}
    if "auth_password" in kwargs:
        filtered.setdefault("password_manager", kwargs["auth_password"])
    return filtered


def warn_of_ignored(what: str, kwargs: Mapping[str, Any]) -> None:
    """Log the keyword arguments that `connect` does not have, as a misspelt one would have no effect.

    Args:
        what: Name of the class that ignores them, for the message.
        kwargs: The keyword arguments.
    """
    accepted = [field.name for field in attrs.fields(Settings)]
    for name in sorted(kwargs.keys() - {*accepted, *_MANAGER_ARGUMENTS}):
        similar = difflib.get_close_matches(name, accepted, 1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        logger.warning("%s ignores the argument %r, which connect() does not have%s", what, name, hint)
