"""From the arguments of `connect` to an open connection."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, Protocol

import attrs
import trio

from msl_network_trio import arguments
from msl_network_trio.constants import MAX_UNHANDLED, PORT
from msl_network_trio.dialing import address
from msl_network_trio.dialing.prompts import Credentials, Prompts, TerminalPrompts
from msl_network_trio.dialing.trust import (
    TO_GET_IT,
    Certificate,
    fetch_certificate,
    open_trusted,
    open_trusted_as_browsers,
)
from msl_network_trio.exceptions import ConnectError, ConnectionLost, ConnectTimeout, NetworkError
from msl_network_trio.hidden import Hidden, hide, reveal
from msl_network_trio.protocol.messages import Connected, Question
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp_connect import cannot_connect, open_tcp
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
    if value not in {"tcp", "websocket"} and not callable(value):
        raise ValueError(
            f"transport must be 'tcp', 'websocket' or an async function that connects, not {value!r}"
        )


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
"""Opens a connection in a way of its own."""


@attrs.frozen(kw_only=True)
class Settings:
    """The arguments of `connect`, checked; see there for what they mean."""

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

    def __attrs_post_init__(self) -> None:
        if address.is_url(self.host):
            said = address.from_url(
                self.host,
                port=self.port,
                transport=self.transport,
                disable_tls=self.disable_tls,
                cert_file=self.cert_file,
                path=self.path,
            )
            for name, value in said.items():
                object.__setattr__(self, name, value)  # which is how a frozen class of attrs is made
        if self.transport != "websocket":
            for name in ("path", "headers"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for transport='websocket'")

    @property
    def manager(self) -> str:
        """The Manager's address, ``host:port``, as the user wrote it."""
        return f"{self.host}:{self.port}"

    def credentials(self) -> Credentials:
        """Who answers the Manager's questions."""
        return Credentials(
            self.username, self.password, self.password_manager, self.prompts or TerminalPrompts()
        )

    def identity(self) -> dict[str, str]:
        """Who we say that we are."""
        return {"type": "client", "name": self.name, "language": language(), "os": operating_system()}


@cache
def language() -> str:
    """The programming language, for identities."""
    return f"Python {platform.python_version()}"


@cache
def operating_system() -> str:
    """The operating system, for identities."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


_FETCHED: Final = "the Manager had shown its certificate"
_SECURE: Final = "the connection was made secure"


class ConnectTimer:
    """The time limit of one `connect`, which stands still while a person is asked."""

    def __init__(self, seconds: float | None) -> None:
        self.scope = trio.CancelScope(deadline=math.inf if seconds is None else trio.current_time() + seconds)
        self.phase = "the connection was made"
        self._began = trio.current_time()
        self._stopped_for = 0.0

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return trio.current_time() - self._began - self._stopped_for

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Stop the timer for the length of a ``with`` block."""
        stopped = trio.current_time()
        left = self.scope.deadline - stopped
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self.scope.deadline = trio.current_time() + left
            self._stopped_for += trio.current_time() - stopped


class HandshakeProtocol(Protocol):
    """What is said on a connection, by a client or a Service: what `dial` needs for the handshake."""

    manager: str
    broken: NetworkError | None

    @property
    def is_connected(self) -> bool:
        """Whether the handshake is over."""

    @property
    def awaits(self) -> str:
        """What the Manager has to do next, as a past tense."""

    def receive(self, data: bytes) -> Sequence[Any]:
        """Take what was received and return events, a `Question` among them if the Manager asks one."""

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Take the end of the stream, and what the Manager said of it, and return what it means."""

    def answer(self, text: str) -> None:
        """Answer a question."""

    def take(self) -> bytes:
        """Return what is to be written."""


@attrs.frozen
class DialedConnection:
    """A connection whose handshake is over."""

    transport: Stream
    seconds: float
    """How long it took, not counting the time in which a person was asked."""

    early: list[Any]
    """The events that came with the end of the handshake."""


@trio.lowlevel.enable_ki_protection
async def dial(settings: Settings, credentials: Credentials, protocol: HandshakeProtocol) -> DialedConnection:
    """Dial, make the connection secure, shake hands.

    Raises:
        ConnectTimeout: Not done in time.
        ConnectError: No connection, or not to a Manager.
        CertificateError: The Manager's certificate is not trusted.
        AuthenticationError: The Manager rejected us, or a credential is missing.
    """
    timer = ConnectTimer(settings.timeout)
    transport: Stream | None = None
    try:
        with timer.scope:
            transport = await _open_transport(settings, credentials, timer)
            timer.phase = protocol.awaits
            early = await _handshake(transport, protocol, credentials, timer)
            return DialedConnection(transport, timer.seconds, early)
    except BaseException:
        if transport is not None:
            transport.close()
        raise
    if transport is not None:
        transport.close()
    raise ConnectTimeout(_time_is_over(settings, timer.phase, is_dialled=transport is not None))


def _time_is_over(settings: Settings, phase: str, *, is_dialled: bool) -> str:
    """Return what to say when the time is over; it ends as in msl-network, whose texts users match."""
    if is_dialled:
        end = f"The connection to {settings.manager} was not established after {settings.timeout} second(s)"
        if settings.disable_tls:
            end += "\nYou have TLS disabled. Perhaps the Manager is using TLS for the connection."
    elif phase == _FETCHED:
        end = cannot_connect(settings.host, settings.port, TO_GET_IT)
    else:
        end = f"Cannot connect to {settings.manager} within {settings.timeout} seconds"
        return f"The time was over before {phase}\n{end}"
    limit = f"Cannot connect to {settings.manager} within {settings.timeout} seconds"
    return f"{limit}: the time was over before {phase}\n{end}"


async def _open_transport(settings: Settings, credentials: Credentials, timer: ConnectTimer) -> Stream:
    if callable(settings.transport):
        return await settings.transport()
    if settings.transport == "websocket":
        carrier = await _open_carrier(settings, credentials, timer, open_trusted_as_browsers)
        timer.phase = "the WebSocket was open"
        return await _open_websocket(settings, carrier)
    return await _open_carrier(settings, credentials, timer, open_trusted)


async def _open_websocket(settings: Settings, carrier: Stream) -> Stream:
    try:
        from msl_network_trio.transport.websocket_handshake import open_websocket
    except BaseException:
        carrier.close()
        raise
    try:
        return await open_websocket(
            carrier,
            address.host_header(settings.host, settings.port, has_tls=not settings.disable_tls),
            path=settings.path or address.DEFAULT_PATH,
            headers=settings.headers,
            read_limit=settings.read_limit,
            ping_interval=settings.ping_interval,
        )
    except ConnectError as error:
        raise ConnectError(f"{error}\nCannot connect to {settings.manager} by WebSocket") from error


async def _open_carrier(
    settings: Settings,
    credentials: Credentials,
    timer: ConnectTimer,
    open_secure: Callable[..., Awaitable[Stream]],
) -> Stream:
    if settings.disable_tls:
        return await open_tcp(settings.host, settings.port)

    async def ask(certificate: Certificate) -> bool:
        with timer.paused():
            return await credentials.trust(certificate)

    async def fetch(host: str, port: int) -> Certificate:
        timer.phase = _FETCHED
        certificate = await fetch_certificate(host, port)
        timer.phase = _SECURE
        return certificate

    timer.phase = _SECURE
    return await open_secure(
        settings.host,
        settings.port,
        cert_file=settings.cert_file,
        assert_hostname=settings.assert_hostname,
        auto_save=settings.auto_save,
        ask=ask,
        fetch=fetch,
    )


async def _handshake(
    transport: Stream, protocol: HandshakeProtocol, credentials: Credentials, timer: ConnectTimer
) -> list[Any]:
    """Answer the Manager's questions until the handshake is over.

    Returns:
        The events that came with its end, which belong to what follows.
    """
    early = []
    try:
        while not protocol.is_connected:
            data = await transport.receive()
            if not data:
                raise protocol.receive_eof(transport.close_reason)
            for event in protocol.receive(data):
                if isinstance(event, Question):
                    with timer.paused():
                        hidden = hide(await credentials.answer(event))
                    protocol.answer(hidden.reveal())
                elif not isinstance(event, Connected):
                    early.append(event)
            if protocol.broken is not None:
                raise protocol.broken
            output = hide(protocol.take())  # a password may be in it
            if output:
                timer.phase = protocol.awaits
                await transport.send_all(output.reveal())
    except ConnectionLost as error:
        raise ConnectError(
            f"The connection to Manager[{protocol.manager}] was lost in the handshake: {error}"
        ) from error
    return early


def own_hostname() -> str:
    """The name of this computer."""
    return socket.gethostname()
