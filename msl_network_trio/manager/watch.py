"""Waits for what idle peers send, for all of them in one task.

A task costs a few KB while it waits, most of what an idle peer costs in all. So a peer has a task only while
there is something to wait for besides its next line: until it has said who it is, while the Manager looks
something up for it, while others do not take what it sends, and at its end. In between it is here.

Only some systems can wait for a set of sockets as if it were one (Linux, macOS). Elsewhere each peer has its
task all the time, as have those that are not connected by a socket alone, but by WebSocket for example.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Final

import trio

from msl_network_trio.manager.connection import PeerConnection

_LOOKS: Final = 4
"""How often to look for more before other tasks get their turn."""


class SocketWatch:
    """A `connection.Watch` of sockets.

    Args:
        receive: Takes what a peer has sent; returns False if the peer needs a task now. It raises nothing.
        serve: Starts a task that serves a peer.
    """

    def __init__(
        self, receive: Callable[[PeerConnection], bool], serve: Callable[[PeerConnection], None]
    ) -> None:
        self._receive = receive
        self._serve = serve
        self._selector: selectors.BaseSelector | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch, until cancelled; then every peer has a task again."""
        selector = selectors.DefaultSelector()
        fileno = getattr(selector, "fileno", None)
        try:
            if fileno is None:
                return
            self._selector = selector
            descriptor = fileno()
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for _ in range(_LOOKS):
                    ready = selector.select(0)
                    for key, _events in ready:
                        peer: PeerConnection = key.data
                        # It may have left since, because of what another one has sent.
                        if peer.watch is self and not self._receive(peer):
                            self.rouse(peer)
                    if not ready:
                        break
        finally:
            self._selector = None
            for key in [*selector.get_map().values()]:
                self._rouse(selector, key.data)
            selector.close()

    def take(self, peer: PeerConnection) -> bool:
        """Watch a peer from now on, in the place of the task that serves it; False: that is not possible."""
        transport = peer.transport
        descriptor = transport.fileno()
        if self._selector is None or descriptor < 0 or transport.has_received():
            return False
        self._selector.register(descriptor, selectors.EVENT_READ, peer)
        peer.reading = None
        peer.watch = self
        return True

    def rouse(self, peer: PeerConnection) -> None:
        """See `connection.Watch.rouse`. To be called only for a peer that is here."""
        if self._selector is not None and peer.watch is self:
            self._rouse(self._selector, peer)

    def _rouse(self, selector: selectors.BaseSelector, peer: PeerConnection) -> None:
        selector.unregister(peer.transport.fileno())
        peer.watch = None
        peer.reading = trio.CancelScope()
        self._serve(peer)
