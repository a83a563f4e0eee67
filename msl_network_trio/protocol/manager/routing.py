"""Routing of lines of admitted peers: requests, replies and notifications. Pure state.

A line is forwarded as it is, but for the end of a request, which is replaced to add the requester. Every
request is answered, even if its Service is missing or disconnects. A reply is forwarded only if its sender is
the Service of the request. A line that cannot be decoded costs its sender an error, and other peers nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.codec import DECODING_ERRORS, UndecodableLine
from msl_network_trio.protocol.manager import answers, open_requests, typed_lines
from msl_network_trio.protocol.manager.directory import Directory
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.notification_rate import NotificationRate
from msl_network_trio.protocol.manager.open_requests import OpenRequests
from msl_network_trio.protocol.manager.own_requests import OwnRequests
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.responder import Responder
from msl_network_trio.protocol.manager.route import CONGESTED, LARGE
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine, departure, ending, refusal
from msl_network_trio.protocol.routed_lines import decode_exactly, decode_fast, search
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_MAX_UID = 255
"""Maximum length of the uid of a request in characters; it is kept until the reply."""

_CLOSING_BRACE = ord("}")


class Router:
    """Routes the lines of peers.

    Args:
        name: ``"Manager[HOST:port]"``.
        directory: The peers that can be reached.
        responder: Answers requests.
        requests: The limit of open requests.
        notification_rate: The limit of notifications.
        own_requests: Answers requests to the Manager itself.
        event_log: The log.
        hits: Counts the requests refused by the limit, as ``max_requests``.
    """

    def __init__(
        self,
        name: str,
        directory: Directory,
        responder: Responder,
        *,
        requests: OpenRequests,
        notification_rate: NotificationRate,
        own_requests: OwnRequests,
        event_log: EventLog,
        hits: Counter[str],
    ) -> None:
        self._name = name
        self._directory = directory
        self._responder = responder
        self._requests = requests
        self._notification_rate = notification_rate
        self._own_requests = own_requests
        self._event_log = event_log
        self._hits = hits

    def handle(self, peer: Peer, line: bytes) -> None:
        """Handle a line of an admitted peer."""
        try:
            routed = decode_fast(line)  # this and the next line as in decode_routed()
            if not line.isascii():
                line.decode("utf-8")
        except DECODING_ERRORS:
            try:
                routed = decode_exactly(line)
            except UndecodableLine as error:
                if line.strip():
                    self._handle_typed(peer, line, error)
                return
        if routed.result is not NO_RESULT:
            self._reply(peer, routed, line)
            return
        service = self._directory.services.get(routed.service)
        if routed.attribute == DISCONNECT_REQUEST:
            peer.close("it requested the disconnection")
        elif service is not None and routed.attribute and not routed.error:
            self._forward(peer, service, routed, line)
        elif not routed.service or not routed.attribute:
            self._responder.refuse(
                peer, routed.uid, 'ValueError: A request has a "service" and an "attribute"'
            )
        elif routed.error:
            self._responder.refuse(peer, routed.uid, "ValueError: A request is no error")
        elif routed.service == MANAGER:
            self._own_requests.answer(peer, routed, line)
        else:
            self._responder.refuse(peer, routed.uid, refusal(routed.service, self._name))

    def _handle_typed(self, peer: Peer, line: bytes, error: UndecodableLine) -> None:
        """Handle a line that is no JSON, which a person may have typed."""
        text = typed_lines.typed(line) if error.uid is None else None
        request = typed_lines.request(text) if text else None
        if request is None:
            if peer.service:
                self._refuse_reply(peer, line, error)
            self._responder.refuse(peer, "" if error.uid is None else error.uid, str(error))
            return
        try:
            line = codec.encode(request)[:-1]
        except (TypeError, ValueError) as reason:
            self._responder.refuse(peer, "", f"{type(reason).__name__}: {reason}")
        else:
            self.handle(peer, line)
        if peer.phase is Phase.READY:
            peer.phase = Phase.YIELDING  # it takes a thousand times as long as another line

    def _forward(self, peer: Peer, service: Peer, routed: RoutedLine, line: bytes) -> None:
        """Forward a request to its Service."""
        uid = routed.uid
        if uid == NOTIFICATION_UID:
            self._responder.refuse(
                peer, "", f"ValueError: {NOTIFICATION_UID!r} cannot be the uid of a request"
            )
            return
        if routed.requester is not UNSET:
            if len(line) >= LARGE:  # to encode it again would block the event loop
                self._responder.refuse(peer, uid, "ValueError: A request of this length has no requester")
                return
            try:
                line = _without_requester(line)
            except ValueError as error:
                self._responder.refuse(peer, uid, str(error))
                return
        size = len(line)
        if size > _MAX_UID and len(str(uid)) > _MAX_UID:  # peers send numbers, too
            self._responder.refuse(peer, "", f"ValueError: The uid has more than {_MAX_UID} characters")
            return
        pending = peer.open
        if uid not in pending and (len(pending) < peer.request_credit or self._requests.allow_more(peer)):
            pending[uid] = service
        elif uid not in pending or not self._requests.open_again(peer, uid, service):
            self._too_many_requests(peer, uid)
            return
        if peer.last_service is not service:
            peer.last_service = service
            service.requesters[peer] = None
        if size < LARGE:
            if line[-1] != _CLOSING_BRACE:
                line = line.rstrip()
            service.route.put(line[:-1] + peer.request_suffix)
        else:
            service.route.put_large(memoryview(line)[: line.rindex(b"}")], peer.request_suffix)
        if service.route.backlog > CONGESTED:
            peer.congested_service = service

    def _reply(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Forward a reply to the client of its request, or a notification to all linked clients."""
        if routed.uid == NOTIFICATION_UID:
            if not peer.service or routed.service != peer.service:
                name = routed.service
                text = "%s sent a notification in the name of %r, dropped"
                self._event_log.write(peer, logging.WARNING, "forged", text, peer.name, name, service=name)
            elif routed.error:
                # The client of msl-network takes it for the reply to one of its requests.
                text = "%s sent a notification that is an error, dropped"
                self._event_log.write(peer, logging.WARNING, "forged", text, peer.name, service=peer.service)
            elif peer.notifications_left > 0 or self._notification_rate.renew(peer):
                peer.notifications_left -= 1
                for linked in peer.links:
                    _put_line(linked, line)
            return
        requester = routed.requester
        client = self._directory.peers.get(requester) if isinstance(requester, str) else None
        owner = client.open.pop(routed.uid, None) if client is not None else None
        if client is not None and (owner is peer or open_requests.close_one(client, routed.uid, owner, peer)):
            _put_line(client, line)
            if routed.error:
                text = "a request of %s to %r has failed"
                name = peer.service
                self._event_log.write(client, logging.INFO, "failed", text, client.name, name, service=name)
        else:
            logger.debug(
                "%r sent a reply to %.100r, which has no open request, dropped", peer.name, requester
            )

    def _refuse_reply(self, peer: Peer, line: bytes, error: UndecodableLine) -> None:
        """Answer a request with an error, since its reply cannot be decoded."""
        fields = error.fields
        if fields is None and error.uid is not None:
            fields = search(line)
        requester = (fields or {}).get("requester")
        client = self._directory.peers.get(requester) if isinstance(requester, str) else None
        if client is None or error.uid not in client.open:
            return
        owner = client.open.pop(error.uid)
        if owner is peer or open_requests.close_one(client, error.uid, owner, peer):
            text = f"ValueError: The reply of the {peer.service!r} Service cannot be decoded: {error}"
            client.route.put(answers.error(text, error.uid, client.name))

    def _too_many_requests(self, peer: Peer, uid: Any) -> None:
        if self._requests.is_stopped:
            text = f"ConnectionAbortedError: {self._name} is shutting down, the request was not executed"
            self._responder.refuse(peer, uid, text)
            return
        self._hits["max_requests"] += 1
        most = self._requests.most
        if len(peer.open) >= most or uid in peer.open:
            who, option = f"{most:,} requests of {visible(peer.name)}", " (max_requests)"
        else:
            who, option = "Very many requests of all clients", ""
        text = f"{who} wait for their answers, as many as this Manager allows{option}"
        self._responder.refuse(peer, uid, f"RuntimeError: {text}")

    def give_up(self, client: Peer) -> None:
        """Answer all open requests of a client with an error, since the Manager ends."""
        text = ending(self._name)
        for uid, owner in client.open.items():
            for _ in range(1 if isinstance(owner, Peer) else sum(owner.values())):
                client.route.put(answers.error(text, uid, client.name))
        client.open.clear()

    def forget(self, peer: Peer) -> None:
        """Remove a peer that has disconnected, and answer the requests that it has not answered."""
        self._requests.forget(peer)
        if peer.kind != "service":
            return
        text = departure(peer.service, self._name)
        peer.requesters.pop(peer, None)  # it cannot read the errors
        for client in peer.requesters:
            if client.last_service is peer:
                client.last_service = None
            for uid in open_requests.close_all(client, peer):
                client.route.put(answers.error(text, uid, client.name))
        peer.requesters.clear()
        peer.open.clear()


def _put_line(peer: Peer, line: bytes) -> None:
    """Forward a line to a peer as it is."""
    if len(line) < LARGE:
        peer.route.put(line + b"\n")
    else:
        peer.route.put_large(memoryview(line), b"\n")


def _without_requester(line: bytes) -> bytes:
    """Encode a request again without its requester, which only the Manager may state."""
    fields = codec.decode_object(line)
    fields.pop("requester", None)
    return codec.encode(fields)[:-1]
