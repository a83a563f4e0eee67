"""The interface through which routing sends lines to a peer.

Routing knows no sockets: a `Route` may lead to a connection of this Manager (`peer_queue.PeerQueue`), or to
another Manager that the peer is connected to.
"""

from __future__ import annotations

from typing import Final, Protocol

LARGE: Final = 131_072
"""Bytes from which on a line is queued in two pieces, since to join them would take longer."""

CONGESTED: Final = 1_048_576
"""Bytes queued for a peer above which the peers that send to it have to wait."""


class Route(Protocol):
    """The way to one peer; pure state, used in the Trio thread."""

    __slots__ = ()

    backlog: int
    """Bytes queued and not sent yet. Above `CONGESTED` senders have to wait."""

    sent: int
    """Bytes sent so far."""

    def put(self, data: bytes | memoryview) -> None:
        """Queue a line, or a piece of one; dropped if the peer is closing."""

    def put_large(self, start: memoryview, end: bytes) -> None:
        """Queue a line of at least `LARGE` bytes in two pieces, with nothing between them."""

    def on_close(self) -> None:
        """Note that the peer is closing, so that nothing more is received from it."""


class NoRoute:
    """The route of a peer that is not connected yet, or not any more: drops everything."""

    __slots__ = ()

    backlog = 0
    sent = 0

    def put(self, data: bytes | memoryview) -> None:
        """See `Route.put`."""

    def put_large(self, start: memoryview, end: bytes) -> None:
        """See `Route.put_large`."""

    def on_close(self) -> None:
        """See `Route.on_close`."""


NO_ROUTE: Final = NoRoute()
