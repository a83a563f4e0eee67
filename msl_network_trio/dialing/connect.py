"""From settings to an open connection: dial, TLS, and the handshake with the Manager.

Runs in the Trio thread.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

from msl_network_trio.dialing.connect_timer import ConnectTimer
from msl_network_trio.dialing.dialers import DIALERS
from msl_network_trio.dialing.handshake import HandshakeProtocol, shake_hands
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.exceptions import ConnectTimeout
from msl_network_trio.transport.base import Stream


@attrs.frozen
class DialedConnection:
    """A connection whose handshake is complete."""

    transport: Stream

    seconds: float
    """The duration in seconds, without the time in which a person was asked."""

    early: list[Any]
    """The events received after the end of the handshake."""


@trio.lowlevel.enable_ki_protection
async def dial(settings: Settings, credentials: Credentials, protocol: HandshakeProtocol) -> DialedConnection:
    """Open a stream to the Manager and do the handshake.

    Raises:
        ConnectTimeout: Not complete within the time limit.
        ConnectError: No connection, or not to a Manager.
        CertificateError: The Manager's certificate is not trusted.
        AuthenticationError: The Manager rejected us, or a credential is missing.
    """
    timer = ConnectTimer(settings.timeout)
    stream: Stream | None = None
    try:
        with timer.scope:
            stream = await _open_stream(settings, credentials, timer)
            timer.phase = protocol.awaits
            early = await shake_hands(stream, protocol, credentials, timer)
            return DialedConnection(stream, timer.seconds, early)
    except BaseException:
        if stream is not None:
            stream.close()
        raise
    if stream is not None:
        stream.close()
    raise ConnectTimeout(
        timer.error_text(
            settings.host,
            settings.port,
            settings.timeout,
            has_stream=stream is not None,
            disable_tls=settings.disable_tls,
        )
    )


async def _open_stream(settings: Settings, credentials: Credentials, timer: ConnectTimer) -> Stream:
    if callable(settings.transport):
        return await settings.transport()

    async def ask(certificate: Certificate) -> bool:
        with timer.paused():
            return await credentials.trust(certificate)

    return await DIALERS[settings.transport].open(settings, ask, timer)
