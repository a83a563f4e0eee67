r"""The Manager's side of the protocol, as pure state.

The contract: `ManagerProtocol.connect` a peer, hand over what it sends with `ManagerProtocol.receive`, and
say with `ManagerProtocol.disconnect` that it has gone. After each of these have the peers in
`ManagerProtocol.touched` write what is in `Peer.outgoing`, and close those that are `Peer.closing`. While a
peer has something `ManagerProtocol.undecided`, find it out, tell `ManagerProtocol.decide`, and better receive
nothing of that peer: what it sends is kept until then.

Where msl-network 1.0.0 is silent, this Manager answers:

- Every answer carries the uid of its request, also those to requests that only an administrator may make,
  and to requests whose Service is not there.
- It knows which Service owes an answer to which request. When a Service goes, those who wait are told; a
  reply counts only if it comes from the Service that was asked.
- A line that cannot be understood costs its sender an error answer, and nobody anything else.

Requests and replies pass through as they came: of a request only the end is replaced, to add who made it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.protocol import answers, codec, terminal
from msl_network_trio.protocol.admission import Admission, Authentication
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine, departure, refusal
from msl_network_trio.protocol.registry import Peer, Registry
from msl_network_trio.protocol.verdicts import Undecided

logger = logging.getLogger(__name__)

LARGE = 131_072
"""From how many bytes a line is written in pieces, since to put them together would take longer."""

BUSY = 1_048_576
"""How many bytes may wait to be written to a peer before those that send to it have to wait."""

_CLOSING_BRACE = ord("}")


class ManagerProtocol:
    """One Manager's conversations with all its peers.

    Args:
        name: ``"Manager[HOST:port]"``.
        identity: Gives what the Manager says about itself, without its peers.
        authentication: What peers have to show before they may say who they are; None: nothing.
        record: Keeps for later what happened to a peer when it connected, as `connections_table` has it.
        read_limit: The largest line to accept, in bytes, without its end; None: no limit.
        max_backlog: How many bytes may wait to be written to a peer before it is dropped. A single line may
            be larger.

    Attributes:
        registry: Who is connected.
        touched: Peers to which there is something to write since the list was last emptied.
    """

    def __init__(
        self,
        name: str,
        identity: dict[str, Any],
        *,
        authentication: Authentication | None = None,
        record: Callable[[Peer, str], None] = lambda _peer, _text: None,
        read_limit: int | None = None,
        max_backlog: int,
    ) -> None:
        self.name = name
        self.registry = Registry()
        self.touched: list[Peer] = []
        self._identity = identity
        self._max_backlog = max_backlog
        self._admission = Admission(
            name,
            self.registry,
            authentication or Authentication(),
            read_limit,
            put=self._put,
            refuse=self._refuse,
            handle=self._handle,
            record=record,
        )
        self._answers: dict[str, Callable[[Peer, bytes], Any]] = {
            "identity": lambda _peer, _line: self.identity(),
            "link": self._link,
            "unlink": self._unlink,
            "acquire_lock": self._acquire_lock,
            "release_lock": self._release_lock,
        }

    def identity(self) -> dict[str, Any]:
        """Who the Manager is, and who is connected to it."""
        services = {name: peer.info for name, peer in self.registry.services.items()}
        return {**self._identity, "clients": self.registry.clients(), "services": services}

    # ---- the life of a connection ----

    def connect(self, peer: Peer) -> None:
        """Take up the conversation with a new peer: the Manager speaks first."""
        self._admission.begin(peer)

    def receive(self, peer: Peer, data: bytes) -> None:
        """Take what a peer has sent."""
        while data and not peer.closing:
            end = len(data)
            if peer.waits_for:
                if peer.waiting is not None and peer.waiting.undecided is not None:
                    peer.waiting.data += data
                    return
                # One line at a time, since each may change how long the one behind it may be.
                end = data.find(b"\n") + 1 or end
            self._receive(peer, data[:end])
            data = data[end:]

    def _receive(self, peer: Peer, data: bytes) -> None:
        for line in peer.lines.feed(data):
            if peer.waits_for:
                self._admission.take(peer, line)
            else:
                self._handle(peer, line)
            if peer.closing:
                return
        if peer.lines.overflow is not None:
            limit = peer.lines.limit
            self.reject(peer, ValueError(f"The line is longer than the limit of {limit:,} bytes"))

    def undecided(self, peer: Peer) -> Undecided | None:
        """Return what somebody has to decide before a peer can be served on."""
        return peer.waiting.undecided if peer.waiting is not None else None

    def decide(self, peer: Peer, verdict: Any) -> None:
        """Tell what was decided, and handle what the peer has sent meanwhile.

        Args:
            peer: The peer.
            verdict: What `undecided` says that it is, or an exception, because of which there is none.
        """
        waiting = peer.waiting
        assert waiting is not None
        self._admission.decide(peer, verdict)
        lines, waiting.lines = waiting.lines, []
        data, waiting.data = waiting.data, b""
        for line in lines:
            if peer.closing:
                return
            if peer.waits_for:
                self._admission.take(peer, line)
            else:
                self._handle(peer, line)
        self.receive(peer, data)

    def reject(self, peer: Peer, error: Exception) -> None:
        """Tell a peer why it is not served, and have its connection closed."""
        self._admission.reject(peer, error)

    def disconnect(self, peer: Peer) -> None:
        """Forget a peer, and tell those who wait for an answer of it."""
        self._admission.end(peer)
        self.registry.remove(peer)
        if peer.kind != "service":
            return
        text = departure(peer.service, self.name)
        for client in self.registry.peers.values():
            for uid in list(client.open):
                while _close_request(client, uid, peer):
                    self._put(client, answers.error(text, uid, client.name))

    # ---- lines ----

    def _handle(self, peer: Peer, line: bytes) -> None:
        """Handle a line of a peer that has said who it is."""
        try:
            routed = codec.decode_routed(line)
        except codec.NotALine as error:
            if line.strip():
                self._handle_typed(peer, line, error)
            return
        if routed.result is not NO_RESULT:
            self._reply(peer, routed, line)
            return
        service = self.registry.services.get(routed.service)
        if routed.attribute == DISCONNECT_REQUEST:
            peer.closing = "it said goodbye"
        elif service is not None and routed.attribute and not routed.error:
            self._forward(peer, service, routed, line)
        elif not routed.service or not routed.attribute:
            self._refuse(peer, routed.uid, 'ValueError: A request has a "service" and an "attribute"')
        elif routed.error:
            self._refuse(peer, routed.uid, "ValueError: A request is no error")
        elif routed.service == MANAGER:
            self._answer(peer, routed, line)
        else:
            self._refuse(peer, routed.uid, refusal(routed.service, self.name))

    def _handle_typed(self, peer: Peer, line: bytes, error: codec.NotALine) -> None:
        """Handle a line that is no JSON: perhaps a person has typed it."""
        text = terminal.typed(line) if error.uid is None else None
        request = terminal.request(text) if text else None
        if request is None:
            self._refuse(peer, "" if error.uid is None else error.uid, str(error))
            return
        try:
            line = codec.encode(request)[:-1]
        except (TypeError, ValueError) as reason:
            self._refuse(peer, "", f"{type(reason).__name__}: {reason}")
        else:
            self._handle(peer, line)

    def _forward(self, peer: Peer, service: Peer, routed: RoutedLine, line: bytes) -> None:
        """Pass a request on to its Service."""
        uid = routed.uid
        if uid == NOTIFICATION_UID:
            self._refuse(peer, "", f"ValueError: {NOTIFICATION_UID!r} cannot be the uid of a request")
            return
        if routed.requester is not UNSET:
            try:
                line = _without_requester(line)
            except ValueError as error:
                self._refuse(peer, uid, str(error))
                return
        if uid not in peer.open:
            peer.open[uid] = service
        else:
            _open_again(peer, uid, service)
        if len(line) < LARGE:
            if line[-1] != _CLOSING_BRACE:
                line = line.rstrip()
            self._put(service, line[:-1] + peer.tail)
        else:
            self._put_large(service, memoryview(line)[: line.rindex(b"}")], peer.tail)
        if service.backlog > BUSY:
            peer.busy = service

    def _reply(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Pass a reply on to who made the request, or a notification to all that are linked."""
        if routed.uid == NOTIFICATION_UID:
            if peer.service and routed.service == peer.service:
                for linked in peer.links:
                    self._put_line(linked, line)
            else:
                logger.warning("%s sent a notification in the name of %r, dropped", peer.name, routed.service)
            return
        requester = routed.requester
        client = self.registry.peers.get(requester) if isinstance(requester, str) else None
        if client is not None and _close_request(client, routed.uid, peer):
            self._put_line(client, line)
        else:
            logger.debug("%s sent a reply to %r that nobody waits for, dropped", peer.name, requester)

    # ---- requests to the Manager itself ----

    def _answer(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        answer = self._answers.get(routed.attribute)
        if answer is None:
            self._admission.request(peer, routed, line)
            return
        try:
            result = answer(peer, line)
        except (KeyError, PermissionError, TypeError, ValueError) as error:
            self._refuse(peer, routed.uid, f"{type(error).__name__}: {error}")
        else:
            self._put(peer, answers.result(result, routed.uid, peer.name))

    def _link(self, peer: Peer, line: bytes) -> dict[str, Any]:
        return self.registry.link(peer, _service_argument(line))

    def _unlink(self, peer: Peer, line: bytes) -> bool:
        return self.registry.unlink(peer, _service_argument(line))

    def _acquire_lock(self, peer: Peer, line: bytes) -> list[str]:
        shared = codec.decode_object(line)["kwargs"]["shared"]
        return self.registry.acquire_lock(peer, _service_argument(line), shared=bool(shared))

    def _release_lock(self, peer: Peer, line: bytes) -> list[str]:
        return self.registry.release_lock(peer, _service_argument(line))

    # ---- what goes out ----

    def _refuse(self, peer: Peer, uid: Any, message: str) -> None:
        logger.info("refused a request of %s: %s", peer.name, message)
        self._put(peer, answers.error(message, uid, peer.name))

    def _put_line(self, peer: Peer, line: bytes) -> None:
        """Pass a line on as it came."""
        if len(line) < LARGE:
            self._put(peer, line + b"\n")
        else:
            self._put_large(peer, memoryview(line), b"\n")

    def _put_large(self, peer: Peer, start: memoryview, end: bytes) -> None:
        """`_put` a line in two pieces."""
        self._put(peer, start)
        if not peer.closing:
            peer.outgoing.append(end)
            peer.backlog += len(end)
            peer.large = True

    def _put(self, peer: Peer, data: bytes | memoryview) -> None:
        if peer.backlog > self._max_backlog:
            self._overflow(peer)
        if peer.closing:
            return
        if not peer.outgoing:
            self.touched.append(peer)
        peer.outgoing.append(data)
        peer.backlog += len(data)

    def _overflow(self, peer: Peer) -> None:
        """Drop a peer that does not read, with a word about it."""
        if peer.closing:
            return
        self.touched.append(peer)
        reason = (
            f"BufferError: {peer.backlog:,} bytes wait to be read by {peer.name}, "
            f"more than the {self._max_backlog:,} that this Manager keeps for one peer"
        )
        logger.warning("%s does not read and is dropped: %s", peer.name, reason)
        peer.backlog -= sum(map(len, peer.outgoing))
        peer.outgoing = [answers.error(reason, "", self.name)]
        peer.backlog += len(peer.outgoing[0])
        peer.large = False
        peer.closing = reason


def _service_argument(line: bytes) -> str:
    """The first argument of a request to the Manager, which is the name of a Service."""
    match codec.decode_object(line).get("args"):
        case [str() as name, *_]:
            return name
    raise TypeError("The first argument must be the name of a service")


def _without_requester(line: bytes) -> bytes:
    """Encode a request again without what it says about who made it: that is for the Manager to say."""
    fields = codec.decode_object(line)
    fields.pop("requester", None)
    return codec.encode(fields)[:-1]


def _open_again(client: Peer, uid: Any, service: Peer) -> None:
    """Note one more open request with the same uid: people who type requests give none."""
    owner = client.open[uid]
    if isinstance(owner, list):
        owner.append(service)
    else:
        client.open[uid] = [owner, service]


def _close_request(client: Peer, uid: Any, service: Peer) -> bool:
    """Note that a Service has answered a request; False if it was not asked."""
    owner = client.open.pop(uid, None)
    if owner is service:
        return True
    asked = isinstance(owner, list) and service in owner
    if isinstance(owner, list) and asked:
        owner.remove(service)
    if owner:
        client.open[uid] = owner  # still open: others have yet to answer
    return asked
