"""Relay of lines between a WebSocket and a Manager, unchanged, until one of the two ends.

Everything here runs in the Trio thread.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial

import attrs
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.gateway.handshake_proxy import HandshakeProxy
from msl_network_trio.protocol.manager.pending_check import Throttled
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import Stalled, wait_send
from msl_network_trio.transport.websocket import WebSocketStream

_CLOSE_TIMEOUT = 2.0
"""Seconds for the remaining end to receive the last data and to close the connection."""


class _Code(IntEnum):
    """Close codes of the WebSocket (RFC 6455, section 7.4.1)."""

    GOING_AWAY = 1001
    INTERNAL_ERROR = 1011


@attrs.frozen
class RelayEnd:
    """The end of a relay."""

    of_manager: bool
    """Whether the connection to the Manager ended first."""

    reason: str
    """The reason."""

    is_lost: bool = False
    """Whether it was not an orderly end."""


async def relay(
    websocket: WebSocketStream,
    upstream: Stream,
    stalled_after: float,
    handshake: HandshakeProxy | None = None,
) -> RelayEnd:
    """Forward all data in both directions until one end is closed, and then close the other one.

    Backpressure: nothing is received from one end while the other one does not accept the last data.

    Args:
        websocket: The connection to the peer.
        upstream: The peer's connection to the Manager.
        stalled_after: Maximum seconds in which an end accepts nothing. In msl-network's Manager, a client
            that does not receive blocks all clients of the same Service.
        handshake: Inspects the data of the handshake until the Manager has admitted the peer; None: all data
            is forwarded unchanged.
    """
    ends: list[RelayEnd] = []
    up, down = _Direction(websocket, upstream), _Direction(upstream, websocket)

    async def pump(direction: _Direction, *, of_manager: bool) -> None:
        ends.append(await _pump(direction, stalled_after, handshake, of_manager=of_manager))
        nursery.cancel_scope.cancel()

    async def pump_up() -> None:
        try:
            await pump(up, of_manager=False)
        except Throttled as throttled:
            assert handshake is not None
            websocket.send_nowait(handshake.throttled_reply(throttled))
            ends.append(RelayEnd(True, str(throttled)))  # the peer sees it as the Manager's answer
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump_up)
            await pump(down, of_manager=True)
        end = ends[0]
        with trio.move_on_after(_CLOSE_TIMEOUT):
            if end.of_manager:
                code = _Code.INTERNAL_ERROR if end.is_lost else _Code.GOING_AWAY
                websocket.send_close(code, end.reason)
                await _until_end(websocket)
            elif not up.is_inside_a_line:
                upstream.send_eof()
                await _until_end(upstream)
    finally:
        if handshake is not None:
            handshake.finish()
        # A close frame has told the peer already that the data is not complete.
        websocket.end(cut_off=down.is_inside_a_line and not websocket.has_sent_close)
        upstream.end(cut_off=up.is_inside_a_line)
    return end


@attrs.define
class _Direction:
    """One of the two directions of a relay."""

    source: Stream
    target: Stream
    is_inside_a_line: bool = False
    """Whether a part of a line may have been sent to the target."""


async def _pump(
    direction: _Direction, stalled_after: float, handshake: HandshakeProxy | None, *, of_manager: bool
) -> RelayEnd:
    """Forward data in one direction until one of the two ends is closed."""
    names = {True: "the Manager", False: "the peer"}
    try:
        while data := await direction.source.receive():
            direction.is_inside_a_line = True
            try:
                if handshake is None:
                    reason = await _send(direction.target, data, stalled_after)
                elif of_manager:
                    handshake.receive_from_manager(data)
                    reason = await _send(direction.target, data, stalled_after)
                else:
                    reason = await handshake.forward_to_manager(
                        data, partial(_send, direction.target, stalled_after=stalled_after)
                    )
                if handshake is not None and handshake.is_finished:
                    handshake = None
                    direction.source.limit_buffer(None)
            except ConnectionLost as error:
                reason = f"lost: {error}"
            if reason:
                return RelayEnd(
                    not of_manager, f"the connection to {names[not of_manager]} was {reason}", True
                )
            direction.is_inside_a_line = not data.endswith(b"\n")
    except ConnectionLost as error:
        return RelayEnd(of_manager, f"the connection to {names[of_manager]} was lost: {error}", True)
    where = " in the middle of a line" if direction.is_inside_a_line else ""
    text = f" ({direction.source.close_reason})" if direction.source.close_reason else ""
    return RelayEnd(
        of_manager, f"{names[of_manager]} closed the connection{where}{text}", direction.is_inside_a_line
    )


async def _send(target: Stream, data: bytes, stalled_after: float) -> str:
    """Send all data.

    Returns:
        The reason why the target is given up; empty if it is not.

    Raises:
        ConnectionLost: The connection is broken or closed.
    """
    rest = memoryview(data)
    try:
        while rest := rest[target.send_nowait(rest) :]:
            await wait_send(target, stalled_after)
    except Stalled:
        return f"given up, since it has read nothing for {stalled_after:g} seconds"
    return ""


async def _until_end(transport: Stream) -> None:
    """Receive and discard data until the end of the stream."""
    try:
        while await transport.receive():
            pass
    except ConnectionLost:
        pass  # an end as well
