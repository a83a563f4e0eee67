"""Lines between two connections, as they are, until one of the two ends."""

from __future__ import annotations

from enum import IntEnum
from functools import partial

import attrs
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.gateway.handshake_proxy import HandshakeProxy
from msl_network_trio.protocol.manager.pending_check import Throttled
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.websocket import WebSocketStream

_GOODBYE = 2.0
"""How many seconds the end that is left has to read what it is told last, and to say goodbye."""


class _Code(IntEnum):
    """With which codes the WebSocket is closed (RFC 6455, 7.4.1)."""

    GOING_AWAY = 1001
    INTERNAL_ERROR = 1011


@attrs.frozen
class End:
    """How a relay has ended."""

    of_manager: bool
    """Whether it was the Manager's end that did."""

    reason: str
    """Why."""

    is_lost: bool = False
    """Whether it was not closed in order."""


async def relay(
    websocket: WebSocketStream,
    upstream: Stream,
    stalled_after: float,
    handshake: HandshakeProxy | None = None,
) -> End:
    """Pass everything on, both ways, until one end is closed; then close the other one.

    Nothing is read of one end while the other one does not take what was read before.

    Args:
        websocket: The peer.
        upstream: The connection to its Manager.
        stalled_after: After how many seconds in which it takes nothing an end is given up: a Manager of
            msl-network has all clients of a Service wait for the one that does not read.
        handshake: What is known of the peer until it has been let in; None: all that it says passes as it is.

    Returns:
        How it has ended.
    """
    ends: list[End] = []
    up, down = _Way(websocket, upstream), _Way(upstream, websocket)

    async def pump(way: _Way, *, of_manager: bool) -> None:
        ends.append(await _pump(way, stalled_after, handshake, of_manager=of_manager))
        nursery.cancel_scope.cancel()

    async def pump_up() -> None:
        try:
            await pump(up, of_manager=False)
        except Throttled as throttled:
            assert handshake is not None
            websocket.send_nowait(handshake.throttled_reply(throttled))
            ends.append(End(True, str(throttled)))  # to the peer it is as if the Manager had said so
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump_up)
            await pump(down, of_manager=True)
        end = ends[0]
        with trio.move_on_after(_GOODBYE):
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
        # Behind a goodbye it knows that not all was said.
        websocket.end(cut_off=down.is_inside_a_line and not websocket.has_sent_close)
        upstream.end(cut_off=up.is_inside_a_line)
    return end


@attrs.define
class _Way:
    """One of the two ways on which lines are passed on."""

    source: Stream
    target: Stream
    is_inside_a_line: bool = False
    """Whether the target has been sent a part of a line, or may have been."""


async def _pump(
    way: _Way, stalled_after: float, handshake: HandshakeProxy | None, *, of_manager: bool
) -> End:
    """Pass on what comes from one end, until one of the two has ended."""
    names = {True: "the Manager", False: "the peer"}
    try:
        while data := await way.source.receive():
            way.is_inside_a_line = True
            try:
                if handshake is None:
                    reason = await _send(way.target, data, stalled_after)
                elif of_manager:
                    handshake.receive_from_manager(data)
                    reason = await _send(way.target, data, stalled_after)
                else:
                    reason = await handshake.forward_to_manager(
                        data, partial(_send, way.target, stalled_after=stalled_after)
                    )
                if handshake is not None and handshake.is_finished:
                    handshake = None
                    way.source.limit_buffer(None)
            except ConnectionLost as error:
                reason = f"lost: {error}"
            if reason:
                return End(not of_manager, f"the connection to {names[not of_manager]} was {reason}", True)
            way.is_inside_a_line = not data.endswith(b"\n")
    except ConnectionLost as error:
        return End(of_manager, f"the connection to {names[of_manager]} was lost: {error}", True)
    where = " in the middle of a line" if way.is_inside_a_line else ""
    text = f" ({way.source.close_reason})" if way.source.close_reason else ""
    return End(of_manager, f"{names[of_manager]} closed the connection{where}{text}", way.is_inside_a_line)


async def _send(target: Stream, data: bytes, stalled_after: float) -> str:
    """Send all of it, and return why that is given up, if it is.

    Raises:
        ConnectionLost: The target is gone.
    """
    rest = memoryview(data)
    while rest := rest[target.send_nowait(rest) :]:
        with trio.move_on_after(stalled_after) as scope:
            await target.wait_send()
        if scope.cancelled_caught:
            return f"given up, since it has read nothing for {stalled_after:g} seconds"
    return ""


async def _until_end(transport: Stream) -> None:
    try:
        while await transport.receive():
            pass
    except ConnectionLost:
        pass  # which is an end as well
