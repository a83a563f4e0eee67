r"""The Manager's side of the protocol, as pure state.

The contract: `ManagerProtocol.connect` a peer, hand over what it sends with `ManagerProtocol.receive`, and
say with `ManagerProtocol.disconnect` that it has gone. After each of these have the peers in
`ManagerProtocol.touched` write what is in `Peer.outgoing`, and close those that are `Peer.closing`.

Where msl-network 1.0.0 is silent, this Manager answers:

- Every answer carries the uid of its request, also those to requests that only an administrator may make,
  and to requests whose Service is not there.
- It knows which Service owes an answer to which request. When a Service goes, those who wait are told; a
  reply counts only if it comes from the Service that was asked.
- A line that cannot be understood costs its sender an error answer, and nobody anything else.

Requests and replies pass through as they came: of a request only the end is replaced, to add who made it.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine, departure, refusal
from msl_network_trio.protocol.registry import Peer, Registry

logger = logging.getLogger(__name__)

LARGE = 131_072
"""From how many bytes a line is written in pieces, since to put them together would take longer."""

BUSY = 1_048_576
"""How many bytes may wait to be written to a peer before those that send to it have to wait."""

_PASSWORD_LIMIT = 65_536
"""The largest line of a peer that has not shown its password yet, in bytes."""

_IDENTITY_LIMIT = 16_777_216
"""The largest line with an identity, in bytes: a Service says there what its attributes are."""

_CLOSING_BRACE = ord("}")


class ManagerProtocol:
    """One Manager's conversations with all its peers.

    Args:
        name: ``"Manager[HOST:port]"``.
        identity: Gives what the Manager says about itself, without its peers.
        password: What peers have to know; None: they need not know anything.
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
        password: str | None = None,
        read_limit: int | None = None,
        max_backlog: int,
    ) -> None:
        self.name = name
        self.registry = Registry()
        self.touched: list[Peer] = []
        self._identity = identity
        self._password = password
        self._read_limit = read_limit
        self._max_backlog = max_backlog
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
        if self._password is None:
            self._ask_identity(peer)
        else:
            peer.waits_for = "password"
            peer.lines.limit = _smaller(self._read_limit, _PASSWORD_LIMIT)
            self._ask(peer, "password", self.name)

    def receive(self, peer: Peer, data: bytes) -> None:
        """Take what a peer has sent."""
        while data and not peer.closing:
            end = len(data)
            if peer.waits_for:
                # One line at a time, since each may change how long the one behind it may be.
                end = data.find(b"\n") + 1 or end
            self._receive(peer, data[:end])
            data = data[end:]

    def _receive(self, peer: Peer, data: bytes) -> None:
        for line in peer.lines.feed(data):
            if peer.waits_for:
                self._handshake(peer, line)
            else:
                self._handle(peer, line)
            if peer.closing:
                return
        if peer.lines.overflow is not None:
            limit = peer.lines.limit
            self.reject(peer, ValueError(f"The line is longer than the limit of {limit:,} bytes"))

    def disconnect(self, peer: Peer) -> None:
        """Forget a peer, and tell those who wait for an answer of it."""
        self.registry.remove(peer)
        if peer.kind != "service":
            return
        text = departure(peer.service, self.name)
        for client in self.registry.peers.values():
            for uid in list(client.open):
                while _close_request(client, uid, peer):
                    self._put(client, _error_line(client, uid, text))

    # ---- the handshake ----

    def _ask(self, peer: Peer, attribute: str, *args: str) -> None:
        question = {
            "args": args,
            "attribute": attribute,
            "error": False,
            "kwargs": {},
            "requester": self.name,
            "uid": "",
        }
        self._put(peer, _line(question))

    def _ask_identity(self, peer: Peer) -> None:
        peer.waits_for = "identity"
        peer.lines.limit = _smaller(self._read_limit, _IDENTITY_LIMIT)
        self._ask(peer, "identity")

    def _handshake(self, peer: Peer, line: bytes) -> None:
        try:
            answer = codec.decode(line).result
        except codec.NotALine as error:
            self.reject(peer, ValueError(f"The answer to {peer.waits_for!r} is not a line of JSON: {error}"))
            return
        if answer is UNSET:
            self.reject(peer, ValueError(f'The answer to {peer.waits_for!r} has no "result"'))
        elif peer.waits_for == "password":
            self._check_password(peer, answer)
        else:
            self._check_identity(peer, answer)

    def _check_password(self, peer: Peer, answer: Any) -> None:
        assert self._password is not None
        given = answer.encode("utf-8", "surrogatepass") if isinstance(answer, str) else b""
        if hmac.compare_digest(given, self._password.encode("utf-8", "surrogatepass")):
            self._ask_identity(peer)
        else:
            self.reject(peer, ValueError("Wrong Manager password"))

    def _check_identity(self, peer: Peer, identity: Any) -> None:
        try:
            self.registry.add(peer, identity)
        except (TypeError, KeyError, NameError, ValueError) as error:
            self.reject(peer, error)
            return
        peer.waits_for = ""
        peer.lines.limit = self._read_limit
        peer.tail = b',"requester":' + codec.encode(peer.name)[:-1] + b"}\r\n"
        logger.info("%s is a new %s", peer.name, peer.kind)

    def reject(self, peer: Peer, error: Exception) -> None:
        """Tell a peer why it is not served, and have its connection closed."""
        reason = f"{type(error).__name__}: {error}"
        logger.warning("%s is rejected: %s", peer.name, reason)
        self._put(peer, _line(_error("", reason, self.name)))
        peer.closing = reason

    # ---- lines ----

    def _handle(self, peer: Peer, line: bytes) -> None:
        """Handle a line of a peer that has said who it is."""
        try:
            routed = codec.decode_routed(line)
        except codec.NotALine as error:
            if line.strip():
                self._refuse(peer, "" if error.uid is None else error.uid, str(error))
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
            text = "You must be an administrator to send this request to the Manager"
            self._refuse(peer, routed.uid, f"ValueError: {text}")
            return
        try:
            result = answer(peer, line)
        except (KeyError, PermissionError, TypeError, ValueError) as error:
            self._refuse(peer, routed.uid, f"{type(error).__name__}: {error}")
        else:
            reply = {"error": False, "requester": peer.name, "result": result, "uid": routed.uid}
            self._put(peer, _line(reply))

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
        self._put(peer, _error_line(peer, uid, message))

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
        peer.outgoing = [_line(_error("", reason, self.name))]
        peer.backlog += len(peer.outgoing[0])
        peer.large = False
        peer.closing = reason


def _smaller(limit: int | None, other: int) -> int:
    return other if limit is None else min(limit, other)


def _line(value: dict[str, Any]) -> bytes:
    r"""Encode a line as msl-network ends it: some clients read up to ``\r\n``."""
    return codec.encode(value)[:-1] + b"\r\n"


def _error(uid: Any, message: str, requester: str) -> dict[str, Any]:
    return {
        "error": True,
        "message": message,
        "requester": requester,
        "result": None,
        "traceback": [],
        "uid": uid,
    }


def _error_line(peer: Peer, uid: Any, message: str) -> bytes:
    return _line(_error(uid, message, peer.name))


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
