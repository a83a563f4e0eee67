"""Waits for what idle peers send, for all of them in one task.

A task costs a few KB while it waits, most of what an idle peer costs in all. So a peer has a task only while
there is something to wait for besides its next line: until it has said who it is, while the Manager looks
something up for it, while others do not take what it sends, and at its end. In between it is here.

Only some systems can wait for a set of sockets as if it were one (Linux, macOS). Elsewhere each peer has its
task all the time, as have those that are not connected by a socket alone, but by WebSocket for example.

What is passed on is answered soon, and who is answered soon asks again. To go round by the event loop for
each line takes as long as to handle it; where nothing but the Manager needs the loop, the task therefore
waits for the next line itself, a moment at a time.
"""

from __future__ import annotations

import select
import selectors
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, Protocol

import trio

from msl_network_trio.manager.connection import PeerConnection

_LOOKS: Final = 2
"""How often to look before other tasks get their turn: what was passed on may have been answered already."""

_AT_ONCE: Final = 256
"""How many sockets to be told of by one look."""

_MOMENT: Final = 0.001
"""For how many seconds to wait for the next line before it is the event loop that waits."""

_AT_LENGTH: Final = 0.002
"""After how many seconds the event loop has its turn in any case."""


class _Sockets(Protocol):
    """A set of sockets that can be waited for as if it were one."""

    def fileno(self) -> int: ...
    def register(self, fd: int, events: int, /) -> object: ...
    def unregister(self, fd: int, /) -> object: ...
    def poll(self, timeout: float, at_most: int, /) -> Sequence[tuple[int, int]]: ...
    def close(self) -> None: ...


class _Selected:
    """The same by way of a selector, which does just a little more, and on more systems."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.fileno: Callable[[], int] = selector.fileno  # type: ignore[attr-defined]
        self.unregister = selector.unregister
        self.close = selector.close

    def register(self, fd: int, _events: int, /) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def poll(self, timeout: float, _at_most: int, /) -> Sequence[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]


def _sockets() -> _Sockets | None:
    """Return an empty set of sockets; None: this system has none that could be waited for."""
    if sys.platform == "linux":
        return select.epoll()
    if hasattr(selectors.DefaultSelector, "fileno"):
        return _Selected(selectors.DefaultSelector())
    return None


_READABLE: Final = getattr(select, "EPOLLIN", 1)


class IdlePoller:
    """A `connection.Watch` of sockets.

    Args:
        receive: Takes what a peer has sent; returns False if the peer needs a task now. It raises nothing.
        serve: Starts a task that serves a peer.
        may_wait: Whether nothing else in this event loop has anything to do that cannot wait for a moment.
    """

    def __init__(
        self,
        receive: Callable[[PeerConnection], bool],
        serve: Callable[[PeerConnection], None],
        may_wait: Callable[[], bool],
    ) -> None:
        self._receive = receive
        self._serve = serve
        self._may_wait = may_wait
        self._sockets: _Sockets | None = None
        self._peers: dict[int, PeerConnection] = {}

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch, until cancelled; then every peer has a task again."""
        self._sockets = sockets = _sockets()
        if sockets is None:
            return
        descriptor, poll, peers, receive = sockets.fileno(), sockets.poll, self._peers, self._receive
        may_wait = self._may_wait
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                seconds, looks, until = 0.0, 0, perf_counter() + _AT_LENGTH
                while found := poll(seconds, _AT_ONCE):
                    for number, _events in found:
                        peer = peers.get(number)
                        # It may have left since, because of what another one has sent.
                        if peer is not None and not receive(peer):
                            self.rouse(peer)
                    looks += 1
                    if may_wait() and perf_counter() < until:
                        seconds = _MOMENT
                    elif looks < _LOOKS:
                        seconds = 0.0
                    else:
                        break
        finally:
            self._sockets = None
            for peer in [*peers.values()]:
                self._leave(peer)
            sockets.close()

    def take(self, peer: PeerConnection) -> bool:
        """Watch a peer from now on, in the place of the task that serves it; False: that is not possible."""
        pollable = peer.transport.pollable
        if self._sockets is None or pollable is None:
            return False
        number = pollable.fileno()
        if number < 0 or pollable.has_received():
            return False
        self._sockets.register(number, _READABLE)
        self._peers[number] = peer
        peer.reading = None
        peer.watch = self
        return True

    def rouse(self, peer: PeerConnection) -> None:
        """See `connection.Watch.rouse`; once more does no harm."""
        if self._sockets is not None and peer.watch is self:
            self._sockets.unregister(_descriptor(peer))
            self._leave(peer)

    def _leave(self, peer: PeerConnection) -> None:
        del self._peers[_descriptor(peer)]
        peer.watch = None
        peer.reading = trio.CancelScope()
        self._serve(peer)


def _descriptor(peer: PeerConnection) -> int:
    pollable = peer.transport.pollable
    assert pollable is not None  # else it is not polled
    return pollable.fileno()
