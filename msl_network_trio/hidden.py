"""Wrapper that keeps secrets out of `repr`, `vars`, crash reports, variable viewers and pickles.

The functions have no state and may be called from any thread.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

_SECRETS: Final = ("password", "password_manager", "auth_password", "key_file_password", "headers", "path")
"""Names of keyword arguments that are or may contain secrets."""


class Hidden:
    """A secret value, which `repr` shows as ``<hidden>``.

    Args:
        value: The secret.
    """

    __slots__ = ("__value",)

    def __init__(self, value: Any) -> None:
        self.__value = value

    def reveal(self) -> Any:
        """Return the secret."""
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
    """Wrap a value in `Hidden`; None and hidden values are returned unchanged."""
    return value if value is None or isinstance(value, Hidden) else Hidden(value)


def reveal(value: Any) -> Any:
    """Return the secret in a `Hidden`; other values are returned unchanged."""
    return value.reveal() if isinstance(value, Hidden) else value


def hide_secrets(arguments: dict[str, Any]) -> None:
    """Hide, in place, the values of keyword arguments that are or may contain secrets."""
    for name in _SECRETS:
        if arguments.get(name) is not None:
            arguments[name] = hide(arguments[name])
    # The query of a WebSocket URL may contain a token.
    host = arguments.get("host")
    if isinstance(host, str) and "://" in host:
        arguments["host"] = hide(host)
