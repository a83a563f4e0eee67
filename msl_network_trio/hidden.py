"""Keeps secrets out of what shows values: `repr`, `vars`, crash reports, variable viewers, pickles."""

from __future__ import annotations

from typing import Any, Final, NoReturn

_SECRETS: Final = ("password", "password_manager", "auth_password", "key_file_password", "headers", "path")
"""The keyword arguments that are secrets, or may have one in them."""


class Hidden:
    """A value that is not shown.

    Args:
        value: The value.
    """

    __slots__ = ("__value",)

    def __init__(self, value: Any) -> None:
        self.__value = value

    def reveal(self) -> Any:
        """Return the value."""
        return self.__value

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash(Hidden)

    def __repr__(self) -> str:
        return "<hidden>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret, such as a password, is not pickled")

    def __copy__(self) -> Hidden:
        return self

    def __deepcopy__(self, _: object) -> Hidden:
        return self


def hide(value: Any) -> Any:
    """Return a value hidden; None, and what is hidden, as it is."""
    return value if value is None or isinstance(value, Hidden) else Hidden(value)


def reveal(value: Any) -> Any:
    """Return the value that is hidden; any other one as it is."""
    return value.reveal() if isinstance(value, Hidden) else value


def hide_secrets(arguments: dict[str, Any]) -> None:
    """Hide the values of keyword arguments that are secrets, or may have one in them."""
    for name in _SECRETS:
        if arguments.get(name) is not None:
            arguments[name] = hide(arguments[name])
    # The URL of a WebSocket, which may have a token in its query.
    host = arguments.get("host")
    if isinstance(host, str) and "://" in host:
        arguments["host"] = hide(host)
