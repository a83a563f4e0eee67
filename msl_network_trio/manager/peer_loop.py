"""Serving peers, each from when it is connected until it has gone."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.manager.idle_poller import IdlePoller
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.status import Status
from msl_network_trio.manager.unauthenticated import PoolEntry, UnauthenticatedPool
from msl_network_trio.protocol.manager.delivery import BUSY
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.protocol.manager.pending_check import PendingCheck
from msl_network_trio.protocol.manager.protocol import TURN, ManagerProtocol
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.liveness import STALL_CHECK_INTERVAL

logger = get_logger(__name__)

_MOST_PARTING = 200
"""How many connections may be about to end, and kept until their peers have read why. Others end at once."""

EVICTED_AGAIN = 1.0
"""Seconds after which an evicted peer may try again."""

_LOOKS_AT_ONCE = 100
"""Peers per turn of the event loop in `_look_after_peers`."""

_LAST_LINGER = 0.1
"""How many seconds the Manager waits at its end for a peer to close the connection."""


class PeerLoops:
    """The connections of one Manager.

    Args:
        settings: The settings of the Manager.
        protocol: What is said.
        unauthenticated: Where peers are until they are admitted.
        status: Is told who has gone.
        verdict: Finds out what the protocol wants to know about a peer; returns exceptions, too.

    Attributes:
        is_ending: Whether the Manager is about to end.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        protocol: ManagerProtocol,
        unauthenticated: UnauthenticatedPool,
        status: Status,
        verdict: Callable[[PeerConnection, PendingCheck], Awaitable[Any]],
    ) -> None:
        self.is_ending = False
        self._settings = settings
        self._protocol = protocol
        self._unauthenticated = unauthenticated
        self._status = status
        self._verdict = verdict
        self._watch = IdlePoller(self._receive, self._serve_again, self.is_waiting_for_lines)
        self._start_soon: Callable[..., None]
        self._quiet: trio.Event | None = None
        self._connections = 0
        self._tasks = 0
        """How many tasks serve or write to peers."""
        self._parting = 0
        self._all_gone = trio.Event()
        self._dropping: dict[PeerConnection, trio.Event] = {}
        """Set when a peer that `reset` or `dismiss` has dropped is forgotten."""

    def open(self, nursery: trio.Nursery) -> None:
        """Begin, with tasks in a nursery."""
        self._start_soon = nursery.start_soon
        nursery.start_soon(self._watch.run)
        if not self._settings.in_memory:
            nursery.start_soon(self._look_after_peers)

    def is_waiting_for_lines(self) -> bool:
        """Whether there is nothing to wait for but the next line of a peer, or one more connection.

        That is only so in a Manager that was told that it is alone in its event loop.
        """
        return (
            self._settings.alone and not self._tasks and not len(self._unauthenticated) and not self.is_ending
        )

    async def _look_after_peers(self) -> None:
        """Extend the limit of peers with a closed receive window; see `Stream.extend_send_timeout`."""
        while True:
            await trio.sleep(STALL_CHECK_INTERVAL)
            for number, peer in enumerate([*self._protocol.registry.peers.values()], 1):
                assert isinstance(peer, PeerConnection)
                peer.transport.extend_send_timeout()
                if number % _LOOKS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def flush(self) -> None:
        """Write what the protocol wants to be written: once to each peer for all that one peer has sent."""
        touched = self._protocol.touched
        for peer in touched:
            peer.flush()
        touched.clear()

    # ---- the end ----

    async def wait_quiet(self, seconds: float) -> None:
        """Wait until no request waits for its answer, for so many seconds at the most."""
        self._quiet = trio.Event()
        with trio.move_on_after(seconds):
            await self._quiet.wait()

    async def wait_all_gone(self, seconds: float) -> None:
        """Wait until nobody is connected, for so many seconds at the most."""
        with trio.move_on_after(seconds):
            while self._connections:
                self._all_gone = trio.Event()
                await self._all_gone.wait()

    def _look_whether_quiet(self) -> None:
        if self._quiet is not None and self._protocol.is_quiet:
            self._quiet.set()

    # ---- sending peers away ----

    async def reset(self, peer: PeerConnection, reason: str) -> None:
        """Reset the connection of a peer, and wait until the peer is forgotten."""
        if self._protocol.registry.peers.get(peer.name) is peer:
            forgotten = self._dropping.setdefault(peer, trio.Event())
            peer.reset(reason)
            await forgotten.wait()

    async def dismiss(self, peer: PeerConnection, reason: str) -> None:
        """Tell a peer why its connection is closed, and wait until the peer is forgotten."""
        if self._protocol.registry.peers.get(peer.name) is peer:
            forgotten = self._dropping.setdefault(peer, trio.Event())
            self._protocol.reject(peer, ConnectionAbortedError(reason))
            self.flush()
            await forgotten.wait()

    # ---- one peer ----

    @trio.lowlevel.enable_ki_protection
    async def serve(self, transport: Stream, host: Host, port: int, entry: PoolEntry | None = None) -> None:
        """Serve one connection until it ends, or until its peer is idle.

        Args:
            transport: The connection.
            host: The computer at the other end.
            port: The number of its port.
            entry: Who it is in the unauthenticated; None: it has not entered it.
        """
        if entry is not None and entry not in self._unauthenticated:
            transport.close()  # it had to go just before this task could begin
            return
        peer = PeerConnection(transport, host, port, self._start_writer, self._settings.stalled_after)
        peer.reading = trio.CancelScope()
        logger.debug("new connection from %s", peer.address)
        self._connections += 1

        def evict(reason: str) -> None:
            self._protocol.reject(peer, ConnectionAbortedError(reason), again=EVICTED_AGAIN)
            self.flush()

        if entry is None:
            entry = self._unauthenticated.enter(host.address, evict)
        else:
            entry.leave = evict
        self._tasks += 1
        await self._converse(peer, entry)

    def _serve_again(self, peer: PeerConnection) -> None:
        """Serve a peer in a task that has been idle."""
        self._tasks += 1
        self._start_soon(self._converse, peer)

    def _start_writer(self, write: Callable[[], Awaitable[None]]) -> None:
        """Have a task write to a peer that does not take at once what there is for it."""
        self._tasks += 1
        self._start_soon(self._write, write)

    @trio.lowlevel.enable_ki_protection
    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        finally:
            self._tasks -= 1

    @trio.lowlevel.enable_ki_protection
    async def _converse(self, peer: PeerConnection, entry: PoolEntry | None = None) -> None:
        """Serve a peer until it has gone or is idle.

        Args:
            peer: The peer.
            entry: Who it is in the unauthenticated; None: it has left it.
        """
        assert peer.reading is not None
        is_idle = False
        try:
            with peer.reading:
                if entry is None or await self._let_in(peer, entry):
                    is_idle = await self._read(peer)
        except ConnectionLost as error:
            peer.closing = peer.closing or str(error)
        except Exception as error:
            # A mistake of ours. It must not cost other peers their connections.
            logger.exception("%s failed", peer)
            peer.closing = repr(error)
        finally:
            try:
                if not is_idle:
                    if entry is not None:
                        self._unauthenticated.leave(entry)
                    await self._part(peer)
            finally:
                self._tasks -= 1

    async def _part(self, peer: PeerConnection) -> None:
        """Forget a peer, and close its connection in order."""
        if not peer.closing and peer.lines:
            peer.closing = "it closed the connection in the middle of a line"
        self._protocol.disconnect(peer)
        self.flush()
        self._note_end(peer)
        if (dropped := self._dropping.pop(peer, None)) is not None:
            dropped.set()
        self._parting += 1
        try:
            if self.is_ending:
                await peer.finish(_LAST_LINGER)
            elif self._parting <= _MOST_PARTING:
                await peer.finish()
        finally:
            self._parting -= 1
            peer.close()
            self._connections -= 1
            if not self._connections:
                self._all_gone.set()

    def _note_end(self, peer: PeerConnection) -> None:
        """Write into the log that a connection has ended, and look whether the Manager can."""
        protocol = self._protocol
        if peer.has_stalled:
            protocol.hits["stalled_after"] += 1
        self._status.end(peer)
        seconds = trio.current_time() - peer.connected_at
        reason = peer.closing or "it closed the connection"
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
            sent=peer.sent,
        )
        self._look_whether_quiet()

    async def _let_in(self, peer: PeerConnection, entry: PoolEntry) -> bool:
        """Have a peer say who it is; False if it went without."""
        receive, protocol, unauthenticated = peer.transport.receive, self._protocol, self._unauthenticated
        await unauthenticated.acquire_slot(entry)
        if entry in unauthenticated:
            protocol.connect(peer)
            self.flush()
        with trio.move_on_after(self._settings.handshake_timeout) as handshake:
            while not (peer.kind or peer.closing):
                if protocol.pending_check(peer) is not None:
                    unauthenticated.release_slot(entry)
                    left = handshake.deadline - trio.current_time()
                    handshake.deadline = math.inf  # the time of the Manager does not count
                    await self._decide(peer)
                    handshake.deadline = trio.current_time() + left
                if peer.kind:
                    break  # it had said so before it was asked, and need not say anything more
                await unauthenticated.acquire_slot(entry)
                data = await receive()
                if not data:
                    return False
                await self._slow_down(peer)
                self._unauthenticated.receive(entry, len(data))
                protocol.receive(peer, data, TURN)
                self.flush()
        peer.transport.limit_buffer(None)
        self._unauthenticated.leave(entry)
        if handshake.cancelled_caught:
            seconds = self._settings.handshake_timeout
            protocol.hits["handshake_timeout"] += 1
            text = f"{peer.waits_for!r} was not answered within {seconds:g} seconds (handshake_timeout)"
            protocol.reject(peer, TimeoutError(text), again=EVICTED_AGAIN)
            self.flush()
        return True

    # ---- reading ----

    def _receive(self, peer: PeerConnection) -> bool:
        """Take what an idle peer has sent; False if it has something to wait for besides the next line."""
        pollable = peer.transport.pollable
        assert pollable is not None  # else it is not polled
        try:
            with peer.transport.lock:
                data = pollable.receive_nowait()
            if data:
                self._protocol.receive(peer, data, TURN)
                self.flush()
            # If it is the end, the task will receive it once more, and know which.
            return not (pollable.has_received() or self._needs_task(peer))
        except Exception as error:
            # A mistake of ours. It must not cost other peers their connections.
            logger.exception("%s failed", peer)
            peer.closing = repr(error)
            return False

    def _needs_task(self, peer: PeerConnection) -> bool:
        """Whether a peer has something to wait for besides its next line."""
        if self._quiet is not None:
            self._look_whether_quiet()
        return bool(
            peer.waits_for
            or peer.closing
            or peer.pending_lines
            or peer.congested_service is not None
            or (peer.backlog > BUSY and not peer.service)
        )

    async def _read(self, peer: PeerConnection) -> bool:
        """Serve a peer that has said who it is until it goes (False), or until it is idle (True)."""
        receive, protocol = peer.transport.receive, self._protocol
        while not peer.closing:
            if self._needs_task(peer):
                await self._catch_up(peer)
                if not self._needs_task(peer):
                    continue  # and be idle again
            elif self._watch.take(peer):
                return True
            data = await receive()
            if not data:
                return False
            protocol.receive(peer, data, TURN)
            self.flush()
        return False

    async def _catch_up(self, peer: PeerConnection) -> None:
        """Wait for what a peer has to wait for before it is time for its next line."""
        if peer.waits_for:
            await self._decide(peer)
        while peer.pending_lines and not peer.closing:
            # It was too much for one turn, or has come before a verdict.
            await self._make_room(peer)
            await trio.lowlevel.checkpoint()
            self._protocol.receive_more(peer, TURN)
            self.flush()
            await self._decide(peer)
        await self._make_room(peer)

    async def _make_room(self, peer: PeerConnection) -> None:
        """Have a peer wait that sends more than others take, or than it takes itself."""
        if peer.congested_service is not None:
            # Who sends more than its Service takes has to wait. The Service itself never has to: it may
            # be about to send the answers that make room.
            busy, peer.congested_service = peer.congested_service, None
            assert isinstance(busy, PeerConnection)
            await busy.wait_drained()
        if peer.backlog > BUSY and not peer.service:
            await peer.wait_drained()

    async def _slow_down(self, peer: PeerConnection) -> None:
        """Delay the answer of a peer whose host has guessed the Manager's password wrongly before."""
        if peer.waits_for == "password" and (delay := self._protocol.logins.delay(peer.host.address)):
            await trio.sleep(delay)

    async def _decide(self, peer: PeerConnection) -> None:
        """Find out what a peer waits for. Nothing is read of it meanwhile: what it sends does not pile up."""
        while not peer.closing and (question := self._protocol.pending_check(peer)) is not None:
            self._protocol.resolve(peer, await self._verdict(peer, question), TURN)
            self.flush()
