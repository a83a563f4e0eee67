"""Cases for other packages for calls between processes, compared with a whole network of this package.

Client, Manager and Service are three processes, with two hops in each direction. The same holds for the
reference and NATS; the other packages have a client and a server.
"""

from __future__ import annotations

from benchmarks.cases import OURS, REFERENCE, Case, Comparison, Contestant
from benchmarks.peers import PEERS

_CALLS = {"one": 1000, "flight": 4000, "floats": 5}
"""Number of calls in a round, by load."""

_LOADS = {
    "one": ("one call at a time", True),
    "flight": ("100 in flight", False),
    "floats": ("100k floats, there and back", False),
}


def _case(load: str, transport: str) -> Case:
    title, pinned = _LOADS[load]
    calls = _CALLS[load]
    peers = [peer for peer in PEERS if transport in peer.transports]
    figure = "median" if load == "one" else "seconds"
    return Case(
        "peers",
        load,
        title,
        transport,
        (
            Contestant(OURS, "benchmarks.clients.ours", "ours-async", transport, load, calls),
            Contestant(REFERENCE, "benchmarks.clients.reference", REFERENCE, transport, load, calls),
            *(Contestant(peer.name, peer.module, peer.name, transport, load, calls) for peer in peers),
        ),
        tuple(
            Comparison(OURS, other, figure=figure) for other in (REFERENCE, *(peer.name for peer in peers))
        ),
        pinned=pinned,
    )


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return [_case(load, transport) for transport in ("tcp", "tls") for load in _LOADS]
