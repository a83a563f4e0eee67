"""The settings of a connection: the arguments of `connect`, checked. Immutable, so usable in any thread."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import attrs
import trio

from msl_network_trio import arguments
from msl_network_trio.constants import MAX_UNHANDLED, PORT
from msl_network_trio.dialing import address
from msl_network_trio.dialing.dialers import DIALERS, Target
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.dialing.prompts import Credentials, Prompts, TerminalPrompts
from msl_network_trio.dialing.reconnect import Reconnect, as_reconnect
from msl_network_trio.hidden import Hidden, reveal
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.transport.base import Stream
from msl_network_trio.validators import (
    converted,
    is_file_or_none,
    is_flag,
    is_secret_or_none,
    optional,
    store,
)


def _is_text(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{attribute.name} must be text and not empty, not {value!r}")


def _is_host(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    host = reveal(value)
    _is_text(settings, attribute, host)
    store(settings, attribute, host)


def _is_text_or_none(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text or None, not {type(value).__name__}")


def _is_transport(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if not (value in DIALERS if isinstance(value, str) else callable(value)):
        raise ValueError(
            f"transport must be 'tcp', 'websocket' or an async function that connects, not {value!r}"
        )


def _is_function_or_none(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{attribute.name} must be a function or None, not {type(value).__name__}")


def _is_path_or_none(settings: Settings, attribute: attrs.Attribute[Any], value: str | None) -> None:
    path = reveal(value)
    if path is not None:
        address.check_path(path)
    store(settings, attribute, path)


def _are_headers_or_none(
    settings: Settings, attribute: attrs.Attribute[Any], value: Mapping[str, str] | None
) -> None:
    headers = reveal(value)
    if headers is not None:
        address.check_headers(headers)
    store(settings, attribute, headers)


Dial = Callable[[], Awaitable[Stream]]
"""An async function without arguments that opens a stream."""


@attrs.frozen(kw_only=True)
class Settings(Target):
    """The arguments of `connect`, which documents them, checked."""

    name: str = attrs.field(default="Client", validator=_is_text)
    host: str = attrs.field(default="localhost", validator=_is_host)
    port: int = attrs.field(default=PORT, validator=converted(arguments.port))
    timeout: float | None = attrs.field(default=10, validator=optional(arguments.seconds))
    username: str | None = attrs.field(default=None, validator=_is_text_or_none)
    password: str | Hidden | None = attrs.field(default=None, validator=is_secret_or_none, repr=False)
    password_manager: str | Hidden | None = attrs.field(default=None, validator=is_secret_or_none, repr=False)
    read_limit: int | None = attrs.field(default=None, validator=optional(arguments.size))
    disable_tls: bool = attrs.field(default=False, validator=is_flag)
    cert_file: str | os.PathLike[str] | None = attrs.field(default=None, validator=is_file_or_none)
    assert_hostname: bool = attrs.field(default=True, validator=is_flag)
    auto_save: bool = attrs.field(default=False, validator=is_flag)
    transport: Literal["tcp", "websocket"] | Dial = attrs.field(default="tcp", validator=_is_transport)
    path: str | None = attrs.field(default=None, validator=_is_path_or_none, repr=False)
    headers: Mapping[str, str] | None = attrs.field(default=None, validator=_are_headers_or_none, repr=False)
    ping_interval: float | None = attrs.field(default=20, validator=optional(arguments.interval))
    nursery: trio.Nursery | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(trio.Nursery))
    )
    prompts: Prompts | None = None
    request_timeout: float | None = attrs.field(default=None, validator=optional(arguments.seconds))
    probe_after: float | None = attrs.field(default=5, validator=optional(arguments.interval))
    probe_every: float = attrs.field(default=60, validator=converted(arguments.interval))
    unresponsive_after: float | None = attrs.field(default=60, validator=optional(arguments.seconds))
    max_unsent: int = attrs.field(default=64 * 1024 * 1024, validator=converted(arguments.size))
    max_unhandled: int = attrs.field(default=MAX_UNHANDLED, validator=converted(arguments.size))
    on_late_reply: Callable[[LateReply], object] | None = attrs.field(
        default=None, validator=_is_function_or_none
    )
    reconnect: Reconnect | None = attrs.field(default=None, validator=converted(as_reconnect))

    def __attrs_post_init__(self) -> None:
        if address.is_url(self.host):
            schemes = {
                scheme: (name, details)
                for name, dialer in DIALERS.items()
                for scheme, details in dialer.schemes.items()
            }
            from_url = address.from_url(
                self.host,
                schemes,
                port=self.port,
                transport=self.transport,
                disable_tls=self.disable_tls,
                cert_file=self.cert_file,
                path=self.path,
            )
            for name, value in from_url.items():
                object.__setattr__(self, name, value)  # as attrs itself initialises a frozen class
        dialer = DIALERS.get(self.transport) if isinstance(self.transport, str) else None
        if dialer is None or not dialer.uses_http:
            for name in ("path", "headers"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for transport='websocket'")

    @property
    def manager(self) -> str:
        """The Manager's address, ``host:port``, as given by the user."""
        return f"{self.host}:{self.port}"

    def credentials(self) -> Credentials:
        """Return new credentials, which answer the Manager's questions."""
        return Credentials(
            self.username, self.password, self.password_manager, self.prompts or TerminalPrompts()
        )

    def identity(self) -> dict[str, str]:
        """Return the identity of the client, as the Manager lists it."""
        return {"type": "client", "name": self.name, "language": language(), "os": operating_system()}

    def handshake_identity(self) -> dict[str, Any]:
        """Return the identity that is sent to the Manager.

        It asks Managers of this package for a `ManagerNotice` when a Service disconnects or connects; other
        Managers ignore that.
        """
        return {**self.identity(), "follows": ["services"]}
