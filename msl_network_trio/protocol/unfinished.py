"""Lines that are not complete, of all peers together.

Many peers that each send a part of one must not take all memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from msl_network_trio.protocol.logins import network_of
from msl_network_trio.protocol.peer import Peer

_MOST = 1_073_741_824
"""How many bytes there may be of lines that are not complete."""


class UnfinishedLines:
    """How much there is of lines that are not complete.

    Args:
        peers: All that have said who they are.
        reject: Tells a peer why it is not served, and has its connection closed.

    Attributes:
        size: How many bytes.
    """

    def __init__(self, peers: Mapping[str, Peer], reject: Callable[[Peer, Exception], None]) -> None:
        self.size = 0
        self._peers = peers
        self._reject = reject

    def note(self, peer: Peer) -> None:
        """Note how much there is of a line of a peer. If it is too much of all of them, one has to go."""
        size = peer.lines.size
        self.size += size - peer.unfinished
        peer.unfinished = size
        if self.size > _MOST:
            self._make_room()

    def forget(self, peer: Peer) -> None:
        """Keep nothing of the line of a peer."""
        peer.lines.clear()
        self.size -= peer.unfinished
        peer.unfinished = 0

    def _make_room(self) -> None:
        """Drop who has the longest line of the host, or IPv6 network, that has the most of them."""
        hosts: Counter[str] = Counter()
        longest: dict[str, Peer] = {}
        for peer in self._peers.values():
            host = network_of(peer.host.address)
            hosts[host] += peer.unfinished
            if host not in longest or peer.unfinished > longest[host].unfinished:
                longest[host] = peer
        ((host, _),) = hosts.most_common(1)
        text = f"The lines of all peers that are not complete have more than {_MOST:,} bytes, yours the most"
        self._reject(longest[host], ValueError(text))
        self.forget(longest[host])
