"""Replacement of a dead peer by a new one of the same name, host and user.

Runs in the Trio thread, in the task of the new peer. When the host of a Service loses its network or its
power and the Service starts again, TCP notices the end of the old connection only after two minutes. Only a
peer whose system is silent is replaced: one that is busy, or stopped in a debugger, still acknowledges data.
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
"""Seconds of silence after a request until a peer is dead, where acknowledgements are not known."""

_MIN_INTERVAL: Final = 0.01
"""Seconds until the second check for activity: most peers are alive, and answer at once."""

_MAX_INTERVAL: Final = 0.25
"""Maximum seconds between two checks; the interval doubles."""


class Replacing:
    """Replaces dead peers.

    Args:
        after: Seconds of silence after a probe until a peer is dead; None: no peer is replaced.
        protocol: The Manager's protocol.
        drop: Resets the connection of a peer, for a reason, and waits until it is disconnected.
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

    async def replace(self, new_peer: Peer, holder: Peer) -> bool:
        """Disconnect the holder of a name if it is dead; return whether it is disconnected."""
        connection = holder.route
        if self._after is None or not isinstance(connection, PeerConnection):
            return False
        try:
            silence = await self._silence(connection, self._after)
        finally:
            connection.stream.end_probe()
        if silence is None or holder.phase is Phase.CLOSING:
            return holder.phase is Phase.CLOSING  # it has disconnected meanwhile
        self._protocol.hits["replace_after"] += 1
        self._protocol.event_log.write(
            new_peer,
            logging.WARNING,
            "replaced",
            "%s is replaced by one at %s: nothing was heard of it for %.1f s after a probe",
            holder.name,
            new_peer.address,
            silence,
            service=holder.service,
            replaced=holder.name,
            seconds=round(silence, 3),
        )
        await self._drop(holder, f"it was replaced by one at {new_peer.address}")
        return True

    async def _silence(self, connection: PeerConnection, after: float) -> float | None:
        """Send a probe, and return the seconds of silence after it; None: the peer or its system answers."""
        holder, stream = connection.peer, connection.stream
        if stream.peer_activity() is ALWAYS_ALIVE:
            return None
        if not stream.start_probe():
            after = max(after, SILENCE)
            self._protocol.ask_for_identity(holder)
            connection.flush()
        began, received, pause = trio.current_time(), holder.received, _MIN_INTERVAL
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
            pause = min(2 * pause, _MAX_INTERVAL)
