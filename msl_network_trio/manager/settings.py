"""What a Manager can be told."""

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
    """What a Manager puts up with, as keyword arguments of `open_manager` and `run_forever`.

    Those that can be None have no limit then. The defaults, in brackets, are far from what the peers of a
    laboratory need, and near enough to protect the computer. Whoever exceeds one is told so, with its name.
    """

    read_limit: int | None
    """The largest line to accept, in bytes (256 MiB). A peer that sends a longer one is dropped."""

    max_backlog: int
    """How many bytes may wait for a peer that does not read before it is dropped (256 MiB). For all together
    four times as much may; then that one is dropped for whom most does."""

    stalled_after: float
    """For how many seconds a peer may take nothing of what waits for it before it is dropped (60)."""

    max_connections: int | None
    """How many clients and Services may be connected (5,000). More are rejected."""

    max_unauthenticated: int | None
    """How many connections may owe an answer before they have said who they are (200). If there is one more,
    the one that has owed it for longest has to go, of the host that has the most of them."""

    handshake_timeout: float
    """How many seconds a peer may take to say who it is; a person may have to type a password (300)."""

    tls_timeout: float
    """How many seconds a TLS handshake may take, in which no person is asked anything (10)."""

    max_links: int | None
    """With how many Services a client may be linked (1,000). More links are refused."""

    max_requests: int | None
    """How many requests of a client may wait for their answers (100,000). More are refused."""

    notification_rate: int | None
    """How many notifications per second a Service may emit (100,000). More are dropped."""

    replace_after: float | None
    """For how many seconds after a probe nothing may be heard of a Service, not even by TCP, before one of
    the same name, host and user takes its place (5); at least 30 where TCP does not tell. None: for ever."""

    login_attempts: int | None
    """How many logins of one user from one host may fail within `login_memory` (10). Then more are refused.
    After ten times as many of one host those are whose users have not logged in from there before."""

    login_memory: float
    """After how many seconds a failed login is forgotten (60)."""

    login_delay: float
    """For how many seconds a login has to wait for each one of its user and host that has failed (0.5); 5 at
    most. Nobody else waits."""

    max_records: int | None
    """How many rows the database keeps of who has connected (1,000,000). Then the oldest are removed."""


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
    """The arguments of `open_manager`, checked; see there for what they mean."""

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
        _ = self.authentication  # which checks that it is one
        if self.in_memory and self.websocket_port is not None:
            raise ValueError("A Manager in memory has no websocket_port")
        if isinstance(self.websocket_origins, str):
            raise TypeError("websocket_origins must be a list of origins, not text")
        if isinstance(self.trusted_gateways, str):
            raise TypeError("trusted_gateways must be a list of hosts, not text")

    @property
    def authentication(self) -> Authentication:
        """What peers have to show.

        Raises:
            ValueError: It is more than one thing.
        """
        return Authentication(self.auth_password, self.auth_hostname, self.auth_login)
