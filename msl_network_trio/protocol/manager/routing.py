"""Where the lines of peers that are let in go: requests, replies and notifications, from one to the other.

They pass through as they came: of a request only the end is replaced, to add who made it. Every request is
answered, also if its Service is not there, or goes; a reply counts only if it comes from the Service that was
asked; a line that cannot be understood costs its sender an error, and nobody anything else.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager import answers, open_requests
from msl_network_trio.protocol.manager import typed_lines as terminal
from msl_network_trio.protocol.manager.delivery import BUSY, LARGE, Delivery
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.notification_rate import NotificationRate
from msl_network_trio.protocol.manager.open_requests import OpenRequests
from msl_network_trio.protocol.manager.own_requests import OwnRequests
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.registry import Registry
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine, departure, ending, refusal
from msl_network_trio.protocol.routed_lines import decode_routed, search
from msl_network_trio.visible import visible

logger = get_logger(__name__)

TURN_ENDS = "the next turn"
"""What `Peer.waits_for` is when others shall have their turn before the next line."""

_LONGEST_UID = 255
"""How many characters the uid of a request may have, which is kept until the answer comes."""

_CLOSING_BRACE = ord("}")


class Router:
    """Passes on what peers send.

    Args:
        name: ``"Manager[HOST:port]"``.
        registry: Who is connected.
        delivery: Writes to peers.
        requests: How many requests may be open.
        notification_rate: How many notifications a Service may emit.
        own_requests: Answers the requests to the Manager itself.
        event_log: The log.
        hits: Counts the requests that were too many, as ``max_requests``.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        delivery: Delivery,
        *,
        requests: OpenRequests,
        notification_rate: NotificationRate,
        own_requests: OwnRequests,
        event_log: EventLog,
        hits: Counter[str],
    ) -> None:
        self._name = name
        self._registry = registry
        self._delivery = delivery
        self._requests = requests
        self._notification_rate = notification_rate
        self._own_requests = own_requests
        self._event_log = event_log
        self._hits = hits

    def handle(self, peer: Peer, line: bytes) -> None:
        """Handle a line of a peer that has said who it is."""
        try:
            routed = decode_routed(line)
        except codec.UndecodableLine as error:
            if line.strip():
                self._handle_typed(peer, line, error)
            return
        if routed.result is not NO_RESULT:
            self._reply(peer, routed, line)
            return
        service = self._registry.services.get(routed.service)
        if routed.attribute == DISCONNECT_REQUEST:
            peer.closing = "it said goodbye"
        elif service is not None and routed.attribute and not routed.error:
            self._forward(peer, service, routed, line)
        elif not routed.service or not routed.attribute:
            self._delivery.refuse(
                peer, routed.uid, 'ValueError: A request has a "service" and an "attribute"'
            )
        elif routed.error:
            self._delivery.refuse(peer, routed.uid, "ValueError: A request is no error")
        elif routed.service == MANAGER:
            self._own_requests.answer(peer, routed, line)
        else:
            self._delivery.refuse(peer, routed.uid, refusal(routed.service, self._name))

    def _handle_typed(self, peer: Peer, line: bytes, error: codec.UndecodableLine) -> None:
        """Handle a line that is no JSON: perhaps a person has typed it."""
        text = terminal.typed(line) if error.uid is None else None
        request = terminal.request(text) if text else None
        if request is None:
            if peer.service:
                self._refuse_reply(peer, line, error)
            self._delivery.refuse(peer, "" if error.uid is None else error.uid, str(error))
            return
        try:
            line = codec.encode(request)[:-1]
        except (TypeError, ValueError) as reason:
            self._delivery.refuse(peer, "", f"{type(reason).__name__}: {reason}")
        else:
            self.handle(peer, line)
        if not peer.waits_for:
            peer.waits_for = TURN_ENDS  # since that has taken a thousand times as long as most lines do

    def _forward(self, peer: Peer, service: Peer, routed: RoutedLine, line: bytes) -> None:
        """Pass a request on to its Service."""
        uid = routed.uid
        if uid == NOTIFICATION_UID:
            self._delivery.refuse(
                peer, "", f"ValueError: {NOTIFICATION_UID!r} cannot be the uid of a request"
            )
            return
        if routed.requester is not UNSET:
            if len(line) >= LARGE:  # to encode it again would hold everybody up
                self._delivery.refuse(peer, uid, "ValueError: A request of this length has no requester")
                return
            try:
                line = _without_requester(line)
            except ValueError as error:
                self._delivery.refuse(peer, uid, str(error))
                return
        size = len(line)
        if size > _LONGEST_UID and len(str(uid)) > _LONGEST_UID:  # peers send numbers, too
            self._delivery.refuse(peer, "", f"ValueError: The uid has more than {_LONGEST_UID} characters")
            return
        asked = peer.open
        if uid not in asked and (len(asked) < peer.request_credit or self._requests.allow_more(peer)):
            asked[uid] = service
        elif uid not in asked or not self._requests.open_again(peer, uid, service):
            self._too_many_requests(peer, uid)
            return
        if peer.last_service is not service:
            peer.last_service = service
            service.requesters[peer] = None
        if size < LARGE:
            if line[-1] != _CLOSING_BRACE:
                line = line.rstrip()
            self._delivery.put(service, line[:-1] + peer.request_suffix)
        else:
            self._delivery.put_large(service, memoryview(line)[: line.rindex(b"}")], peer.request_suffix)
        if service.backlog > BUSY:
            peer.congested_service = service

    def _reply(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Pass a reply on to who made the request, or a notification to all that are linked."""
        if routed.uid == NOTIFICATION_UID:
            if not peer.service or routed.service != peer.service:
                name = routed.service
                text = "%s sent a notification in the name of %r, dropped"
                self._event_log.write(peer, logging.WARNING, "forged", text, peer.name, name, service=name)
            elif routed.error:
                # The client of msl-network takes it for the answer to a request of somebody.
                text = "%s sent a notification that is an error, dropped"
                self._event_log.write(peer, logging.WARNING, "forged", text, peer.name, service=peer.service)
            elif peer.notifications_left > 0 or self._notification_rate.renew(peer):
                peer.notifications_left -= 1
                for linked in peer.links:
                    self._delivery.put_line(linked, line)
            return
        requester = routed.requester
        client = self._registry.peers.get(requester) if isinstance(requester, str) else None
        owner = client.open.pop(routed.uid, None) if client is not None else None
        if client is not None and (owner is peer or open_requests.close_one(client, routed.uid, owner, peer)):
            self._delivery.put_line(client, line)
            if routed.error:
                text = "a request of %s to %r has failed"
                name = peer.service
                self._event_log.write(client, logging.INFO, "failed", text, client.name, name, service=name)
        else:
            logger.debug("%r sent a reply to %.100r that nobody waits for, dropped", peer.name, requester)

    def _refuse_reply(self, peer: Peer, line: bytes, error: codec.UndecodableLine) -> None:
        """Answer the client whose reply this is with an error, if it cannot be decoded."""
        fields = error.fields
        if fields is None and error.uid is not None:
            fields = search(line)
        requester = (fields or {}).get("requester")
        client = self._registry.peers.get(requester) if isinstance(requester, str) else None
        if client is None or error.uid not in client.open:
            return
        owner = client.open.pop(error.uid)
        if owner is peer or open_requests.close_one(client, error.uid, owner, peer):
            text = f"ValueError: The reply of the {peer.service!r} Service cannot be decoded: {error}"
            self._delivery.put(client, answers.error(text, error.uid, client.name))

    def _too_many_requests(self, peer: Peer, uid: Any) -> None:
        if self._requests.is_stopped:
            text = f"ConnectionAbortedError: {self._name} is shutting down, the request was not executed"
            self._delivery.refuse(peer, uid, text)
            return
        self._hits["max_requests"] += 1
        most = self._requests.most
        if len(peer.open) >= most or uid in peer.open:
            who, option = f"{most:,} requests of {visible(peer.name)}", " (max_requests)"
        else:
            who, option = "Very many requests of all clients", ""
        text = f"{who} wait for their answers, as many as this Manager allows{option}"
        self._delivery.refuse(peer, uid, f"RuntimeError: {text}")

    def give_up(self, client: Peer) -> None:
        """Tell a client that its open requests will not be answered, since the Manager ends."""
        text = ending(self._name)
        for uid, owner in client.open.items():
            for _ in range(1 if isinstance(owner, Peer) else sum(owner.values())):
                self._delivery.put(client, answers.error(text, uid, client.name))
        client.open.clear()

    def forget(self, peer: Peer) -> None:
        """Forget the requests of a peer that has gone, and tell those who wait for an answer of it."""
        self._requests.forget(peer)
        if peer.kind != "service":
            return
        text = departure(peer.service, self._name)
        peer.requesters.pop(peer, None)  # itself need not be told
        for client in peer.requesters:
            if client.last_service is peer:
                client.last_service = None
            for uid in open_requests.close_all(client, peer):
                self._delivery.put(client, answers.error(text, uid, client.name))
        peer.requesters.clear()
        peer.open.clear()


def _without_requester(line: bytes) -> bytes:
    """Encode a request again without what it says about who made it: that is for the Manager to say."""
    fields = codec.decode_object(line)
    fields.pop("requester", None)
    return codec.encode(fields)[:-1]
