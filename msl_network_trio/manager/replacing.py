"""Replacement of a dead peer by a newcomer of the same name, host and user.

The computer of a Service has lost its network or its power, and the Service starts again before TCP notices
that, which takes two minutes. Only a peer whose system says nothing at all is replaced: one that is busy, or
stopped in a debugger, still acknowledges what it is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.transport.liveness import ALWAYS_ALIVE

SILENCE: Final = 30.0
"""Seconds of silence after a request before a peer is gone, where TCP does not tell what it acknowledges."""

_FIRST_LOOK: Final = 0.01
"""Seconds until the first look: most peers are there, and answer at once."""

_LAST_LOOK: Final = 0.25
"""Seconds between two looks later on."""


class Replacing:
    """Replaces peers that are gone.

    Args:
        after: Seconds in which nothing was heard of a peer after a probe; None: no peer is replaced.
        protocol: The Manager's conversations.
        drop: Resets the connection of a peer, for a reason, and waits until the peer is forgotten.
    """

    def __init__(
        self,
        after: float | None,
        protocol: ManagerProtocol,
        drop: Callable[[Peer, str], Awaitable[None]],
    ) -> None:
        self._after = after
        self._protocol = protocol
        self._drop = drop

    async def replace(self, newcomer: Peer, holder: Peer) -> bool:
        """Return whether the holder of a name has made room for a newcomer of the same host and user."""
        connection = holder.route
        if self._after is None or not isinstance(connection, PeerConnection):
            return False
        try:
            silence = await self._silence(connection, self._after)
        finally:
            connection.stream.end_probe()
        if silence is None or holder.phase is Phase.CLOSING:
            return holder.phase is Phase.CLOSING  # it has gone by itself meanwhile
        self._protocol.hits["replace_after"] += 1
        self._protocol.event_log.write(
            newcomer,
            logging.WARNING,
            "replaced",
            "%s is replaced by one at %s: nothing was heard of it for %.1f s after a probe",
            holder.name,
            newcomer.address,
            silence,
            service=holder.service,
            replaced=holder.name,
            seconds=round(silence, 3),
        )
        await self._drop(holder, f"it was replaced by one at {newcomer.address}")
        return True

    async def _silence(self, connection: PeerConnection, after: float) -> float | None:
        """Send a probe, and return the seconds of silence after it; None: the peer or its system answered."""
        holder, stream = connection.peer, connection.stream
        if stream.peer_activity() is ALWAYS_ALIVE:
            return None
        if not stream.start_probe():
            after = max(after, SILENCE)
            self._protocol.ask_for_identity(holder)
            connection.flush()
        began, received, pause = trio.current_time(), holder.received, _FIRST_LOOK
        while True:
            elapsed = trio.current_time() - began
            known = stream.peer_activity()
            if (
                holder.phase is Phase.CLOSING
                or holder.received != received
                or (known is not None and known.silence < elapsed)
            ):
                return None
            if elapsed >= after:
                # Without anything to acknowledge, the silence of TCP says nothing.
                return elapsed if known is None or known.is_owed else None
            await trio.sleep(min(pause, after - elapsed))
            pause = min(2 * pause, _LAST_LOOK)
