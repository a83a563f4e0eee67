"""Idle poller: receives for all peers that wait for nothing but their next line, in one task.

Runs in the Trio thread. A task costs some KB while it waits, most of the memory of an idle peer, and with a
task for each peer the Manager takes 1.15 times the CPU time for calls one at a time. So a peer has a task of
its own only while it needs one; see `peer_loop`. Sockets are polled together where the system has a set of
sockets with a descriptor of its own (Linux, macOS). Elsewhere, and if a connection is not a single socket
(WebSocket), each peer keeps its task.

In a dedicated event loop, in which nothing but the Manager runs, the poller also blocks for a moment until
the next line: a peer that is answered soon asks again, and a turn of the loop takes as long as a line.
Without it the Manager takes 1.14 to 1.17 times the CPU time.
"""

from __future__ import annotations

import select
import selectors
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, Protocol

import trio

from msl_network_trio.logger import get_logger
from msl_network_trio.manager.connection import PeerConnection, flush_all
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import MAX_LINES, ManagerProtocol
from msl_network_trio.protocol.manager.route import CONGESTED

logger = get_logger(__name__)

_MAX_EVENTS: Final = 256
"""Maximum number of readable sockets per poll."""

_POLLS: Final = 2
"""Maximum number of polls per turn of the event loop that do not block: a reply may already be there.

With one poll, calls of plain methods in one process with Manager, Service and client need 1.05 to 1.1 times
the CPU time.
"""

_BLOCK: Final = 0.001
"""Seconds to block in a dedicated event loop until the next line."""

_MAX_TURN: Final = 0.002
"""Seconds after which the event loop runs in any case."""

_READY: Final = Phase.READY


class _PollSet(Protocol):
    """A set of sockets that has a descriptor of its own."""

    def fileno(self) -> int: ...
    def register(self, fd: int, events: int, /) -> object: ...
    def unregister(self, fd: int, /) -> object: ...
    def poll(self, timeout: float, max_events: int, /) -> Sequence[tuple[int, int]]: ...
    def close(self) -> None: ...


class _SelectorPollSet:
    """A `_PollSet` of a selector, which does a little more than epoll, and on more systems."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.fileno: Callable[[], int] = selector.fileno  # type: ignore[attr-defined]
        self.unregister = selector.unregister
        self.close = selector.close

    def register(self, fd: int, _events: int, /) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def poll(self, timeout: float, _max_events: int, /) -> Sequence[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]


def _make_poll_set() -> _PollSet | None:
    """Return an empty set of sockets; None: this system has none with a descriptor."""
    if sys.platform == "linux":
        return select.epoll()
    if hasattr(selectors.DefaultSelector, "fileno"):
        return _SelectorPollSet(selectors.DefaultSelector())
    return None


_READABLE: Final = getattr(select, "EPOLLIN", 1)


class IdlePoller:
    """Serves idle peers; see the module.

    Args:
        protocol: The Manager's protocol.
        resume: Starts a task for a peer that is not polled any more.
        may_block: Returns True if nothing else in the event loop is about to run; None: it is not a dedicated
            event loop.
    """

    def __init__(
        self,
        protocol: ManagerProtocol,
        resume: Callable[[PeerConnection], None],
        may_block: Callable[[], bool] | None,
    ) -> None:
        self._protocol = protocol
        self._resume = resume
        self._may_block = may_block
        self._poll_set: _PollSet | None = None
        self._connections: dict[int, PeerConnection] = {}

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Poll until cancelled; then every peer has a task again."""
        self._poll_set = poll_set = _make_poll_set()
        if poll_set is None:
            return
        descriptor, poll, connections = poll_set.fileno(), poll_set.poll, self._connections
        receive, may_block = self._receive, self._may_block
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                seconds, polls, until = 0.0, 0, perf_counter() + _MAX_TURN
                while found := poll(seconds, _MAX_EVENTS):
                    for number, _events in found:
                        connection = connections.get(number)
                        # It may have been woken since, because of lines of another peer.
                        if connection is not None and not receive(connection):
                            self.wake(connection)
                    polls += 1
                    if may_block is not None and may_block() and perf_counter() < until:
                        seconds = _BLOCK
                    elif polls < _POLLS:
                        seconds = 0.0
                    else:
                        break
        finally:
            self._poll_set = None
            for connection in [*connections.values()]:
                self._release(connection)
            poll_set.close()

    def _receive(self, connection: PeerConnection) -> bool:
        """Handle the lines that an idle peer has sent; return False if it needs a task now."""
        peer, pollable = connection.peer, connection.pollable
        assert pollable is not None  # else it is not polled
        try:
            with connection.stream.lock:
                data = pollable.receive_nowait()
            if data:
                self._protocol.receive(peer, data, MAX_LINES)
                flush_all(self._protocol.touched)
            # At the end of the stream the task receives once more, and learns whether it is an error.
            return not (
                pollable.has_received()
                or peer.phase is not _READY
                or peer.congested_service is not None
                or (connection.backlog > CONGESTED and not peer.service)
            )
        except Exception as error:
            # An error of this program. It must not cost other peers their connections.
            logger.exception("%s failed", peer)
            peer.close(repr(error))
            return False

    def take(self, connection: PeerConnection) -> bool:
        """Poll for a peer from now on instead of its task; return False if that is not possible."""
        pollable = connection.pollable
        if self._poll_set is None or pollable is None:
            return False
        number = pollable.fileno()
        if number < 0 or pollable.has_received():
            return False
        self._poll_set.register(number, _READABLE)
        self._connections[number] = connection
        connection.scope = None
        connection.poller = self
        return True

    def wake(self, connection: PeerConnection) -> None:
        """See `connection.Poller.wake`; further calls have no effect."""
        if self._poll_set is not None and connection.poller is self:
            self._poll_set.unregister(_descriptor(connection))
            self._release(connection)

    def _release(self, connection: PeerConnection) -> None:
        del self._connections[_descriptor(connection)]
        connection.poller = None
        connection.scope = trio.CancelScope()
        self._resume(connection)


def _descriptor(connection: PeerConnection) -> int:
    assert connection.pollable is not None  # else it is not polled
    return connection.pollable.fileno()
