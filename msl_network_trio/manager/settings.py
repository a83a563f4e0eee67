"""What a Manager can be told."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import attrs

from msl_network_trio.constants import PORT
from msl_network_trio.protocol.admission import Authentication

MAX_BACKLOG = 256 * 1024 * 1024
"""How many bytes may wait for a peer that does not read before it is dropped."""

STALLED_AFTER = 60.0
"""For how many seconds a peer may take nothing of what waits for it."""


def _is_port(settings: ManagerSettings, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 <= value <= 65535:
        raise ValueError(f"port must be a number from 1 to 65535, or 0 for any free one, not {value!r}")


def _is_port_or_none(settings: ManagerSettings, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 <= value <= 65535:
        raise ValueError(
            f"{attribute.name} must be a number from 1 to 65535, 0 for any free one, or None, not {value!r}"
        )


def _is_password(settings: ManagerSettings, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value == "":
        raise ValueError("auth_password must not be empty; None: no password is needed")


def _is_positive(settings: ManagerSettings, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value!r}")


@attrs.frozen(kw_only=True)
class ManagerSettings:
    """The arguments of `open_manager`, checked; see there for what they mean."""

    host: str | None = None
    port: int = attrs.field(default=PORT, converter=int, validator=_is_port)
    websocket_port: int | None = attrs.field(
        default=None, converter=attrs.converters.optional(int), validator=_is_port_or_none
    )
    websocket_origins: Collection[str] = ()
    auth_hostname: bool = False
    auth_login: bool = False
    auth_password: str | None = attrs.field(default=None, validator=_is_password, repr=False)
    database: str | os.PathLike[str] | None = None
    disable_tls: bool = False
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    key_file_password: str | None = attrs.field(default=None, repr=False)
    in_memory: bool = False
    read_limit: int | None = attrs.field(default=None, validator=_is_positive)
    max_backlog: int = attrs.field(default=MAX_BACKLOG, validator=_is_positive)
    stalled_after: float = attrs.field(default=STALLED_AFTER, validator=_is_positive)

    def __attrs_post_init__(self) -> None:
        _ = self.authentication  # which checks that it is one
        if self.in_memory and self.websocket_port is not None:
            raise ValueError("A Manager in memory has no websocket_port")
        if isinstance(self.websocket_origins, str):
            raise TypeError("websocket_origins must be a list of origins, not text")

    @property
    def authentication(self) -> Authentication:
        """What peers have to show.

        Raises:
            ValueError: It is more than one thing.
        """
        return Authentication(self.auth_password, self.auth_hostname, self.auth_login)
