"""The table of transports that a client or Service can connect by, and how each opens its stream.

Runs in the Trio thread. To add a transport, write its `~msl_network_trio.transport.base.Stream` and add a
line to `DIALERS`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs

from msl_network_trio.dialing import address
from msl_network_trio.dialing.connect_timer import CERTIFICATE_SHOWN, SECURED, WEBSOCKET_OPEN, ConnectTimer
from msl_network_trio.dialing.trust import Certificate, fetch_certificate, open_trusted
from msl_network_trio.exceptions import ConnectError
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp_connect import open_tcp


@attrs.frozen(kw_only=True)
class Target:
    """The arguments of `connect` that dialers read."""

    host: str
    port: int
    disable_tls: bool
    cert_file: str | os.PathLike[str] | None
    assert_hostname: bool
    auto_save: bool
    path: str | None
    headers: Mapping[str, str] | None
    read_limit: int | None
    ping_interval: float | None


AskTrust = Callable[[Certificate], Awaitable[bool]]
"""Asks a person whether to trust a certificate."""


async def _open_tcp(target: Target, ask: AskTrust, timer: ConnectTimer) -> Stream:
    return await _open_tcp_or_tls(target, ask, timer)


async def _open_websocket(target: Target, ask: AskTrust, timer: ConnectTimer) -> Stream:
    carrier = await _open_tcp_or_tls(target, ask, timer, as_browsers=True)
    timer.phase = WEBSOCKET_OPEN
    try:
        # Imported when used: clients that connect by TCP start faster without trio-websocket.
        from msl_network_trio.transport.websocket_handshake import open_websocket

        return await open_websocket(
            carrier,
            address.host_header(target.host, target.port, has_tls=not target.disable_tls),
            path=target.path or address.DEFAULT_PATH,
            headers=target.headers,
            read_limit=target.read_limit,
            ping_interval=target.ping_interval,
        )
    except BaseException as error:
        carrier.close()
        if isinstance(error, ConnectError):
            raise ConnectError(
                f"{error}\nCannot connect to {target.host}:{target.port} by WebSocket"
            ) from error
        raise


async def _open_tcp_or_tls(
    target: Target, ask: AskTrust, timer: ConnectTimer, *, as_browsers: bool = False
) -> Stream:
    if target.disable_tls:
        return await open_tcp(target.host, target.port)

    async def fetch(host: str, port: int) -> Certificate:
        timer.phase = CERTIFICATE_SHOWN
        certificate = await fetch_certificate(host, port)
        timer.phase = SECURED
        return certificate

    timer.phase = SECURED
    return await open_trusted(
        target.host,
        target.port,
        cert_file=target.cert_file,
        assert_hostname=target.assert_hostname,
        auto_save=target.auto_save,
        ask=ask,
        fetch=fetch,
        as_browsers=as_browsers,
    )


@attrs.frozen
class Dialer:
    """Opens the streams of one transport."""

    open: Callable[[Target, AskTrust, ConnectTimer], Awaitable[Stream]]
    """Opens the stream."""

    schemes: Mapping[str, address.Scheme] = attrs.field(factory=dict)
    """The schemes of URLs that select the transport."""

    uses_http: bool = False
    """Whether connections begin with an HTTP request, which has `Target.path` and `Target.headers`."""


DIALERS: Final[Mapping[str, Dialer]] = {
    "tcp": Dialer(_open_tcp),
    "websocket": Dialer(
        _open_websocket,
        schemes={
            "ws": address.Scheme(80, has_tls=False, path=address.DEFAULT_PATH),
            "wss": address.Scheme(443, has_tls=True, path=address.DEFAULT_PATH),
        },
        uses_http=True,
    ),
}
"""The dialers by the values of the argument ``transport`` of `connect`."""
