"""The settings of a gateway, and the rules that they must keep."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from msl_network_trio import arguments
from msl_network_trio.hidden import Hidden, hide

READ_LIMIT: Final = 256 * 1024 * 1024
"""Default of ``read_limit``, in bytes."""

STALLED_AFTER: Final = 60.0
"""Default of ``stalled_after``, in seconds."""


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Split ``host:port``; either may be missing, and an IPv6 address must be in brackets.

    Raises:
        ValueError: The text is no address.
    """
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address of the form host:port ({error})") from error
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{text!r} is no address of the form host:port")
    return parts.hostname or "", default_port if port is None else port


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The validated arguments of `open_gateway`, which documents them."""

    manager: str
    host: str | None
    port: int
    origins: Collection[str]
    disable_tls: bool
    cert_file: str | os.PathLike[str] | None
    key_file: str | os.PathLike[str] | None
    key_file_password: str | Hidden | None = attrs.field(converter=hide, repr=False)
    manager_disable_tls: bool
    manager_cert_file: str | os.PathLike[str] | None
    manager_assert_hostname: bool
    manager_auto_save: bool
    trusted_proxies: Collection[str]
    read_limit: int | None
    stalled_after: float

    def __attrs_post_init__(self) -> None:
        for name, rule in _RULES.items():
            value = getattr(self, name)
            if value is not None or name != "read_limit":
                object.__setattr__(self, name, rule(name, value))  # the class is frozen


_RULES: Final[dict[str, Callable[[str, Any], Any]]] = {
    "port": partial(arguments.port, least=0),
    "disable_tls": arguments.flag,
    "cert_file": arguments.file,
    "key_file": arguments.file,
    "manager_disable_tls": arguments.flag,
    "manager_cert_file": arguments.file,
    "manager_assert_hostname": arguments.flag,
    "manager_auto_save": arguments.flag,
    "read_limit": arguments.size,
    "stalled_after": arguments.interval,
}
"""The validators of the arguments; they convert numbers of NumPy to those of Python."""
