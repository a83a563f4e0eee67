"""Settings of a Manager: the arguments of `open_manager`, checked. Pure data."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, TypedDict

import attrs

from msl_network_trio import arguments
from msl_network_trio.constants import PORT
from msl_network_trio.hidden import Hidden, hide
from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.validators import (
    converted,
    is_file_or_none,
    is_flag,
    is_secret_or_none,
    optional,
)


class Limits(TypedDict, total=False):
    """The limits of a Manager, as keyword arguments of `open_manager` and `run_forever`.

    None means that there is no limit, where that is allowed. The defaults, in brackets, are far above
    the needs of a laboratory, and low enough to protect the computer. A peer that exceeds a limit gets an
    error with the name of the limit.
    """

    read_limit: int | None
    """Maximum bytes of a line (256 MiB). A peer that sends a longer one is dropped."""

    max_backlog: int
    """Maximum bytes queued for a peer, which is dropped beyond that (256 MiB).

    For all peers together the limit is four times as much; beyond that the peer with the largest backlog is
    dropped.
    """

    stalled_after: float
    """Seconds in which a peer accepts nothing of what is queued for it until it is dropped (60)."""

    max_connections: int | None
    """Maximum number of admitted clients and Services (5,000). More are rejected."""

    max_unauthenticated: int | None
    """Maximum number of connections in the handshake from which the Manager waits for an answer (200). Beyond
    that, the oldest one of the host with the most is dropped."""

    handshake_timeout: float
    """Seconds for a peer to make the handshake, in which a person may have to type a password (300)."""

    tls_timeout: float
    """Seconds for a TLS handshake, in which no person is involved (10)."""

    max_links: int | None
    """Maximum number of Services with which a client is linked (1,000). More links are refused."""

    max_requests: int | None
    """Maximum number of open requests of a client (100,000). More are refused."""

    notification_rate: int | None
    """Maximum number of notifications per second of a Service (100,000). More are dropped."""

    replace_after: float | None
    """Seconds of silence after a probe, even of TCP, until a Service may be replaced by one of the same name,
    host and user (5); at least 30 where the system does not report acknowledgements. None: never."""

    login_attempts: int | None
    """Maximum number of failed logins of one user from one host within `login_memory` (10). More logins are
    refused. After ten times as many of one host, so are those of users that have not logged in from it."""

    login_memory: float
    """Seconds after which a failed login is forgotten (60)."""

    login_delay: float
    """Seconds by which each failed login of a user and host delays the next one (0.5); at most 5 in total.
    Other logins are not delayed."""

    max_records: int | None
    """Maximum number of rows in the table of connections (1,000,000). Beyond that the oldest are removed."""


def _port(name: str, value: object) -> int:
    return arguments.port(name, value, 0)


def _positive(name: str, value: object) -> float:
    result = arguments.number(name, value)
    if not result > 0:
        raise ValueError(f"{name} must be more than 0, not {value!r}")
    return result


def _is_password(settings: ManagerSettings, attribute: attrs.Attribute[Any], value: Any) -> None:
    value = hide(value)
    is_secret_or_none(settings, attribute, value)
    if value is not None and not value:
        raise ValueError("auth_password must not be empty; None: no password is needed")


@attrs.frozen(kw_only=True)
class ManagerSettings:
    """The arguments of `open_manager`, checked; see there."""

    host: str | None = None
    port: int = attrs.field(default=PORT, validator=converted(_port))
    websocket_port: int | None = attrs.field(default=None, validator=optional(_port))
    websocket_origins: Collection[str] = ()
    auth_hostname: bool = attrs.field(default=False, validator=is_flag)
    auth_login: bool = attrs.field(default=False, validator=is_flag)
    auth_password: str | Hidden | None = attrs.field(default=None, validator=_is_password, repr=False)
    database: str | os.PathLike[str] | None = attrs.field(default=None, validator=is_file_or_none)
    disable_tls: bool = attrs.field(default=False, validator=is_flag)
    cert_file: str | os.PathLike[str] | None = attrs.field(default=None, validator=is_file_or_none)
    key_file: str | os.PathLike[str] | None = attrs.field(default=None, validator=is_file_or_none)
    key_file_password: str | Hidden | None = attrs.field(
        default=None, validator=is_secret_or_none, repr=False
    )
    in_memory: bool = attrs.field(default=False, validator=is_flag)
    alone: bool = attrs.field(default=False, validator=is_flag)
    trusted_gateways: Collection[str] = ()
    drain: float = attrs.field(default=0.0, validator=converted(arguments.seconds))
    read_limit: int | None = attrs.field(default=256 * 1024 * 1024, validator=optional(_positive))
    max_backlog: int = attrs.field(default=256 * 1024 * 1024, validator=optional(_positive))
    stalled_after: float = attrs.field(default=60.0, validator=optional(_positive))
    max_connections: int | None = attrs.field(default=5_000, validator=optional(_positive))
    max_unauthenticated: int | None = attrs.field(default=200, validator=optional(_positive))
    handshake_timeout: float = attrs.field(default=300.0, validator=optional(_positive))
    tls_timeout: float = attrs.field(default=10.0, validator=optional(_positive))
    max_links: int | None = attrs.field(default=1_000, validator=optional(_positive))
    max_requests: int | None = attrs.field(default=100_000, validator=optional(_positive))
    notification_rate: int | None = attrs.field(default=100_000, validator=optional(_positive))
    replace_after: float | None = attrs.field(default=5.0, validator=optional(_positive))
    login_attempts: int | None = attrs.field(default=10, validator=optional(_positive))
    login_memory: float = attrs.field(default=60.0, validator=optional(_positive))
    login_delay: float = attrs.field(default=0.5, validator=converted(arguments.seconds))
    max_records: int | None = attrs.field(default=1_000_000, validator=optional(_positive))

    def __attrs_post_init__(self) -> None:
        _ = self.authentication  # checks that there is at most one
        if self.in_memory and self.websocket_port is not None:
            raise ValueError("A Manager in memory has no websocket_port")
        if isinstance(self.websocket_origins, str):
            raise TypeError("websocket_origins must be a list of origins, not text")
        if isinstance(self.trusted_gateways, str):
            raise TypeError("trusted_gateways must be a list of hosts, not text")

    @property
    def authentication(self) -> Authentication:
        """The authentication method.

        Raises:
            ValueError: There is more than one.
        """
        return Authentication(self.auth_password, self.auth_hostname, self.auth_login)
