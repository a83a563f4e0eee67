"""The handshake with the Manager on an open stream. Runs in the Trio thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msl_network_trio.dialing.connect_timer import ConnectTimer
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.exceptions import ConnectError, ConnectionLost, NetworkError
from msl_network_trio.hidden import hide
from msl_network_trio.protocol.messages import Connected, Question
from msl_network_trio.transport.base import Stream


class HandshakeProtocol(Protocol):
    """The part of a client's or Service's protocol that the handshake needs."""

    manager: str
    broken: NetworkError | None

    @property
    def is_connected(self) -> bool:
        """Whether the handshake is complete."""

    @property
    def awaits(self) -> str:
        """The Manager's next step, as a clause in the past tense."""

    def receive(self, data: bytes) -> Sequence[Any]:
        """Process received data and return the events, which include each `Question` of the Manager."""

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Process the end of the stream and return the error that it means.

        Args:
            close_reason: See `Stream.close_reason`.
        """

    def answer(self, text: str) -> None:
        """Answer a question."""

    def take(self) -> bytes:
        """Return the data to be sent."""


class PingProtocol(HandshakeProtocol, Protocol):
    """The part of a protocol that `confirm_admission` needs."""

    def ping(self) -> None:
        """Queue a request that every Manager answers and that changes nothing."""

    @property
    def has_open_ping(self) -> bool:
        """Whether a ping has no answer yet."""


async def shake_hands(
    stream: Stream, protocol: HandshakeProtocol, credentials: Credentials, timer: ConnectTimer
) -> list[Any]:
    """Answer the Manager's questions until the handshake is complete.

    Returns:
        The events received after its end.

    Raises:
        ConnectError: The connection was lost, or the peer is not a Manager.
        AuthenticationError: The Manager rejected us, or a credential is missing.
    """
    early = []
    try:
        while not protocol.is_connected:
            data = await stream.receive()
            if not data:
                raise protocol.receive_eof(stream.close_reason)
            for event in protocol.receive(data):
                if isinstance(event, Question):
                    with timer.paused():
                        hidden = hide(await credentials.answer(event))
                    protocol.answer(hidden.reveal())
                elif not isinstance(event, Connected):
                    early.append(event)
            if protocol.broken is not None:
                raise protocol.broken
            output = hide(protocol.take())  # may contain a password
            if output:
                timer.phase = protocol.awaits
                await stream.send_all(output.reveal())
    except ConnectionLost as error:
        raise ConnectError(
            f"The connection to Manager[{protocol.manager}] was lost in the handshake: {error}"
        ) from error
    return early


async def confirm_admission(stream: Stream, protocol: PingProtocol) -> list[Any]:
    """Make a request after the handshake, and wait for its answer.

    The protocol of MSL-Network does not acknowledge the identity: a Manager that refuses it, because of its
    maximum of connections or since the name is taken, sends an error later and closes the connection.

    Returns:
        The events received until then.

    Raises:
        ConnectError: The Manager refused the peer, or the connection was lost.
    """
    early: list[Any] = []
    protocol.ping()
    try:
        while True:
            output = protocol.take()
            if output:
                await stream.send_all(output)
            elif not protocol.has_open_ping:
                return early
            else:
                data = await stream.receive()
                if not data:
                    raise protocol.receive_eof(stream.close_reason)
                early += protocol.receive(data)
                if protocol.broken is not None:
                    raise protocol.broken
    except ConnectionLost as error:
        raise ConnectError(f"Manager[{protocol.manager}] did not admit this peer: {error}") from error
