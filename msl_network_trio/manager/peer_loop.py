"""Peer loops: the tasks that serve the connections of a Manager, each from its handshake to its end.

Runs in the Trio thread. A peer has a task until it is admitted, while the Manager makes a check for it, while
other peers do not read what it sends, and at its end. In between the `IdlePoller` serves it, if it can.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.connection import PeerConnection, flush_all
from msl_network_trio.manager.idle_poller import IdlePoller
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.unauthenticated import PoolEntry, UnauthenticatedPool
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.pending_check import PendingCheck, ReplaceCheck
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import MAX_LINES, ManagerProtocol
from msl_network_trio.protocol.manager.route import CONGESTED
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.liveness import STALL_CHECK_INTERVAL

logger = get_logger(__name__)

_MAX_LINGERING: Final = 200
"""Closing connections that are kept until their peers have read the last lines. Others close at once."""

RECONNECT_AFTER: Final = 1.0
"""Seconds after which an evicted peer may try again."""

_PEERS_PER_TURN: Final = 100
"""Peers per turn of the event loop in `PeerLoops._extend_send_timeouts`."""

_LINGER_AT_END: Final = 0.1
"""Seconds to wait for a peer to close its end when the Manager ends."""


class PeerLoops:
    """The connections of one Manager.

    Args:
        settings: The settings of the Manager.
        protocol: The Manager's protocol.
        unauthenticated: The connections of peers that are not admitted yet.
        status: Counts the peers that have disconnected.
        run_check: Makes a check of the protocol and returns its result, or the exception of it.

    Attributes:
        is_ending: Whether the Manager is about to end.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        protocol: ManagerProtocol,
        unauthenticated: UnauthenticatedPool,
        status: Status,
        run_check: Callable[[Peer, PendingCheck], Awaitable[Any]],
    ) -> None:
        self.is_ending = False
        self._settings = settings
        self._protocol = protocol
        self._unauthenticated = unauthenticated
        self._status = status
        self._run_check = run_check
        may_block = self.is_quiescent if settings.alone else None
        self._poller = IdlePoller(protocol, self._resume, may_block)
        self._start_soon: Callable[..., None]
        self._connections = 0
        self._tasks = 0
        """Number of tasks that serve peers or send to them."""
        self._lingering = 0
        self._none_left = trio.Event()
        self._disconnected: dict[Peer, trio.Event] = {}
        """Set when a peer that `reset` or `dismiss` drops is disconnected."""

    def open(self, nursery: trio.Nursery) -> None:
        """Start the tasks that serve all peers.

        Args:
            nursery: Runs these and those of single peers.
        """
        self._start_soon = nursery.start_soon
        nursery.start_soon(self._poller.run)
        if not self._settings.in_memory:
            nursery.start_soon(self._extend_send_timeouts)

    def is_quiescent(self) -> bool:
        """Return True if there is nothing to wait for but the next line of a peer, or one more connection."""
        return not (self._tasks or len(self._unauthenticated) or self.is_ending)

    def flush(self) -> None:
        """Send what the protocol has queued."""
        flush_all(self._protocol.touched)

    async def wait_none_left(self, seconds: float) -> None:
        """Wait until no peer is connected.

        Args:
            seconds: The timeout.
        """
        with trio.move_on_after(seconds):
            while self._connections:
                self._none_left = trio.Event()
                await self._none_left.wait()

    async def reset(self, peer: Peer, reason: str) -> None:
        """Reset the connection of a peer, and wait until the peer is disconnected."""
        if self._protocol.registry.peers.get(peer.name) is peer:
            disconnected = self._disconnected.setdefault(peer, trio.Event())
            connection = peer.route
            assert isinstance(connection, PeerConnection)
            connection.reset(reason)
            await disconnected.wait()

    async def dismiss(self, peer: Peer, reason: str) -> None:
        """Close the connection of a peer with an error as its last line; wait until it is disconnected."""
        if self._protocol.registry.peers.get(peer.name) is peer:
            disconnected = self._disconnected.setdefault(peer, trio.Event())
            self._protocol.reject(peer, ConnectionAbortedError(reason))
            self.flush()
            await disconnected.wait()

    async def _extend_send_timeouts(self) -> None:
        """Call `Stream.extend_send_timeout` of all peers regularly."""
        while True:
            await trio.sleep(STALL_CHECK_INTERVAL)
            for number, peer in enumerate([*self._protocol.registry.peers.values()], 1):
                if isinstance(peer.route, PeerConnection):
                    peer.route.stream.extend_send_timeout()
                if number % _PEERS_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()

    # ---- the tasks ----

    @trio.lowlevel.enable_ki_protection
    async def serve(self, stream: Stream, host: Host, port: int, entry: PoolEntry | None = None) -> None:
        """Serve one connection until it ends, or until its peer is idle.

        Args:
            stream: The connection.
            host: The host at the other end.
            port: The number of its port.
            entry: The entry among the unauthenticated connections; None: it has none yet.
        """
        if entry is not None and entry not in self._unauthenticated:
            stream.close()  # it was evicted just before this task could begin
            return
        peer = Peer(host, port)
        connection = PeerConnection(
            peer, stream, self._protocol.backlog, self._start_sender, self._settings.stalled_after
        )
        connection.scope = trio.CancelScope()
        logger.debug("new connection from %s", peer.address)
        self._connections += 1

        def evict(reason: str) -> None:
            self._protocol.reject(peer, ConnectionAbortedError(reason), again=RECONNECT_AFTER)
            self.flush()

        if entry is None:
            entry = self._unauthenticated.add(host.address, evict)
        else:
            entry.evict = evict
        self._tasks += 1
        await self._run(connection, entry)

    def _resume(self, connection: PeerConnection) -> None:
        """Start a task for a peer that was idle."""
        self._tasks += 1
        self._start_soon(self._run, connection)

    def _start_sender(self, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task that sends to a peer what it does not accept at once."""
        self._tasks += 1
        self._start_soon(self._run_sender, send)

    @trio.lowlevel.enable_ki_protection
    async def _run_sender(self, send: Callable[[], Awaitable[None]]) -> None:
        try:
            await send()
        finally:
            self._tasks -= 1

    @trio.lowlevel.enable_ki_protection
    async def _run(self, connection: PeerConnection, entry: PoolEntry | None = None) -> None:
        """Serve a peer until it is disconnected or idle.

        Args:
            connection: The connection.
            entry: The entry among the unauthenticated connections; None: the peer is admitted.
        """
        assert connection.scope is not None
        peer = connection.peer
        is_idle = False
        try:
            with connection.scope:
                if entry is None or await self._admit(connection, entry):
                    is_idle = await self._serve_admitted(connection)
        except ConnectionLost as error:
            peer.close(str(error))
        except Exception as error:
            # An error of this program. It must not cost other peers their connections.
            logger.exception("%s failed", peer)
            peer.close(repr(error))
        finally:
            try:
                if not is_idle:
                    if entry is not None:
                        self._unauthenticated.remove(entry)
                    await self._disconnect(connection)
            finally:
                self._tasks -= 1

    async def _admit(self, connection: PeerConnection, entry: PoolEntry) -> bool:
        """Make the handshake with a peer; return False if it has closed its end."""
        peer, protocol, unauthenticated = connection.peer, self._protocol, self._unauthenticated
        await unauthenticated.acquire_slot(entry)
        if entry in unauthenticated:
            protocol.connect(peer)
            self.flush()
        with trio.move_on_after(self._settings.handshake_timeout) as handshake:
            while not (peer.kind or peer.phase is Phase.CLOSING):
                if peer.phase is Phase.CHECK:
                    unauthenticated.release_slot(entry)
                    left = handshake.deadline - trio.current_time()
                    handshake.deadline = math.inf  # the time that the Manager takes does not count
                    await self._make_checks(connection)
                    handshake.deadline = trio.current_time() + left
                if peer.kind:
                    break  # its answers were received before the check was made
                await unauthenticated.acquire_slot(entry)
                data = await connection.stream.receive()
                if not data:
                    return False
                await self._delay_password(peer)
                unauthenticated.count_received(entry, len(data))
                protocol.receive(peer, data, MAX_LINES)
                self.flush()
        connection.stream.limit_buffer(None)
        unauthenticated.remove(entry)
        if handshake.cancelled_caught:
            seconds = self._settings.handshake_timeout
            protocol.hits["handshake_timeout"] += 1
            text = f"{peer.phase.value!r} was not answered within {seconds:g} seconds (handshake_timeout)"
            protocol.reject(peer, TimeoutError(text), again=RECONNECT_AFTER)
            self.flush()
        return True

    async def _delay_password(self, peer: Peer) -> None:
        """Delay the check of the Manager's password for a host that has failed before."""
        if peer.phase is Phase.PASSWORD and (delay := self._protocol.logins.delay(peer.host.address)):
            await trio.sleep(delay)

    async def _serve_admitted(self, connection: PeerConnection) -> bool:
        """Serve a peer until it is disconnected (False) or idle (True)."""
        peer, protocol = connection.peer, self._protocol
        while peer.phase is not Phase.CLOSING:
            if not await self._catch_up(connection):
                break
            if self._poller.take(connection):
                return True
            data = await connection.stream.receive()
            if not data:
                return False
            protocol.receive(peer, data, MAX_LINES)
            self.flush()
        return False

    async def _catch_up(self, connection: PeerConnection) -> bool:
        """Make checks, handle pending lines and wait for room, until the next line may be received.

        Returns:
            Whether it may; if not, the peer is closing.
        """
        peer = connection.peer
        await self._make_checks(connection)
        while peer.phase is Phase.YIELDING:
            await self._wait_for_room(connection)
            await trio.lowlevel.checkpoint()
            self._protocol.receive_more(peer, MAX_LINES)
            self.flush()
            await self._make_checks(connection)
        await self._wait_for_room(connection)
        return peer.phase is not Phase.CLOSING

    async def _make_checks(self, connection: PeerConnection) -> None:
        """Make the pending checks of a peer. Nothing is received meanwhile, so that nothing piles up."""
        peer = connection.peer
        while peer.phase is Phase.CHECK:
            check = self._protocol.pending_check(peer)
            assert check is not None
            if isinstance(check, ReplaceCheck):
                await self._replace(connection, check)
            else:
                self._protocol.resolve(peer, await self._run_check(peer, check), MAX_LINES)
            self.flush()

    async def _replace(self, connection: PeerConnection, check: ReplaceCheck) -> None:
        """Check whether the holder of a name is dead, and admit the new peer if it still waits then.

        The check may take longer than the new peer waits. It is made to its end, so that the name is free for
        its next connection; but a Service that has left must not be announced to clients.
        """
        peer, has_left = connection.peer, False

        @trio.lowlevel.enable_ki_protection
        async def watch() -> None:
            nonlocal has_left
            try:
                data = await connection.stream.receive()
            except ConnectionLost:
                data = b""
            has_left = not data
            self._protocol.receive(peer, data)  # kept until the check is made

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            result = await self._run_check(peer, check)
            nursery.cancel_scope.cancel()
        if has_left:
            peer.close("it closed the connection while its name was taken")
        else:
            self._protocol.resolve(peer, result, MAX_LINES)

    async def _wait_for_room(self, connection: PeerConnection) -> None:
        """Wait until the Service reads what this peer has sent, and a client what is queued for itself.

        A Service need not read before it sends: perhaps its answers are what makes room.
        """
        peer = connection.peer
        if peer.congested_service is not None:
            service, peer.congested_service = peer.congested_service, None
            if isinstance(service.route, PeerConnection):
                await service.route.wait_drained()
        if connection.backlog > CONGESTED and not peer.service:
            await connection.wait_drained()

    # ---- the end ----

    async def _disconnect(self, connection: PeerConnection) -> None:
        """Remove a peer, and close its connection once it has read the last lines."""
        peer = connection.peer
        if peer.lines:
            peer.close("it closed the connection in the middle of a line")
        self._protocol.disconnect(peer)
        self.flush()
        self._record_end(connection)
        if (disconnected := self._disconnected.pop(peer, None)) is not None:
            disconnected.set()
        self._lingering += 1
        try:
            if self.is_ending:
                await connection.finish(_LINGER_AT_END)
            elif self._lingering <= _MAX_LINGERING:
                await connection.finish()
        finally:
            self._lingering -= 1
            connection.close()
            self._connections -= 1
            if not self._connections:
                self._none_left.set()

    def _record_end(self, connection: PeerConnection) -> None:
        """Count and log the end of a connection."""
        peer, protocol = connection.peer, self._protocol
        if connection.has_stalled:
            protocol.hits["stalled_after"] += 1
        self._status.end(peer)
        seconds = trio.current_time() - peer.connected_at
        reason = peer.close_reason or "it closed the connection"
        protocol.event_log.write(
            peer,
            logging.INFO,
            "disconnected",
            # msl-network logs these words, too, and programs look for them.
            "%s connection closed, has been removed from the registry after %.1f s: %s",
            peer.name,
            seconds,
            reason,
            kind=peer.kind or "unknown",
            seconds=round(seconds, 3),
            reason=reason,
            lines=peer.lines_received,
            received=peer.received,
            sent=connection.sent,
        )
