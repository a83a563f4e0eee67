"""Lines with which peers answer the questions of a Manager. Pure functions."""

from __future__ import annotations

from typing import Final

import attrs

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager import typed_lines
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.messages import NO_RESULT, UNSET
from msl_network_trio.protocol.routed_lines import decode_routed

FORWARDED: Final = "forwarded"
"""The field of the first line of a peer in which a gateway states the IP address of the peer."""

_FORWARDED_KEY: Final = b'"forwarded"'


def take_forwarded(peer: Peer, line: bytes) -> None:
    """Set the host of a peer by its first line, if a gateway has added the address to it."""
    if _FORWARDED_KEY not in line:
        return
    try:
        address = codec.decode_object(line).get(FORWARDED)
    except codec.UndecodableLine:
        return  # a gateway can add it to JSON objects only
    behind = peer.host.behind(address)
    # Of a host that is not trusted, it only counts that there is a gateway in between.
    peer.host = behind if peer.host.is_gateway else attrs.evolve(peer.host, gateway=behind.gateway)


def is_answer(peer: Peer, line: bytes, manager: str) -> bool:
    """Return whether a line of an admitted peer may be the answer to a question of the login.

    Clients of msl-network answer with the fields of the question and a result. Replies of a Service, which
    logs in like other peers, have the name of a client as their requester.

    Args:
        peer: The peer.
        line: The line.
        manager: The name of the Manager.
    """
    try:
        routed = decode_routed(line)
    except codec.UndecodableLine:
        return typed_lines.typed(line) is not None
    if routed.attribute or routed.result is NO_RESULT:
        return False
    return peer.kind != "service" or routed.requester in {UNSET, None, manager}
