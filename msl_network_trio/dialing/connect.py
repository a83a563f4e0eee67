"""From settings to an open connection: dial, TLS, and the handshake with the Manager.

Runs in the Trio thread.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs
import trio

from msl_network_trio.dialing.connect_timer import ADMITTED, ConnectTimer
from msl_network_trio.dialing.dialers import DIALERS
from msl_network_trio.dialing.handshake import (
    HandshakeProtocol,
    PingProtocol,
    confirm_admission,
    shake_hands,
)
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.exceptions import ConnectTimeout
from msl_network_trio.transport.base import Stream

P = TypeVar("P", bound=HandshakeProtocol)


@attrs.frozen
class DialedConnection(Generic[P]):
    """A connection whose handshake is complete."""

    transport: Stream

    seconds: float
    """The duration in seconds, without the time in which a person was asked."""

    early: list[Any]
    """The events received after the end of the handshake."""

    protocol: P
    """The protocol."""


@trio.lowlevel.enable_ki_protection
async def dial(
    settings: Settings,
    credentials: Credentials,
    protocol: P,
    *,
    confirm: PingProtocol | None = None,
) -> DialedConnection[P]:
    """Open a stream to the Manager and do the handshake.

    Args:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.
        protocol: A new protocol.
        confirm: The protocol again, to wait for the answer to a request as well; see `confirm_admission`.

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
            if confirm is not None:
                timer.phase = ADMITTED
                early += await confirm_admission(stream, confirm)
            return DialedConnection(stream, timer.seconds, early, protocol)
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
