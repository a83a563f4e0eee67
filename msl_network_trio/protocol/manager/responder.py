"""Answers of the Manager itself to requests: results and errors."""

from __future__ import annotations

import logging
from typing import Any

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.route import LARGE


class Responder:
    """Queues answers for peers.

    Args:
        event_log: Records the requests that are refused.
    """

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log

    def refuse(self, peer: Peer, uid: Any, message: str, again: float | None = None) -> None:
        """Answer a request with an error; arguments as for `answers.error`."""
        text = "refused a request of %s: %s"
        self._event_log.write(peer, logging.INFO, "refused", text, peer.name, message, error=message)
        peer.route.put(answers.error(message, uid, peer.name, again))

    def answer(self, peer: Peer, uid: Any, result: bytes | memoryview) -> None:
        """Answer a request with a value that is encoded already."""
        start = b'{"error":false,"requester":%b,"result":' % codec.encode_value(peer.name)
        end = b',"uid":%b}\r\n' % codec.encode_value(uid)
        if len(result) < LARGE:
            peer.route.put(b"".join((start, result, end)))
        else:
            peer.route.put(start)
            peer.route.put_large(memoryview(result), end)
