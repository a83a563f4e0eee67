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
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.protocol import answers, codec, open_requests, terminal
from msl_network_trio.protocol.admission import Admission, Authentication
from msl_network_trio.protocol.logins import Logins
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine, departure, refusal
from msl_network_trio.protocol.open_requests import OpenRequests
from msl_network_trio.protocol.peer import Peer
from msl_network_trio.protocol.records import Records
from msl_network_trio.protocol.registry import Registry
from msl_network_trio.protocol.unfinished import UnfinishedLines
from msl_network_trio.protocol.verdicts import Undecided

logger = logging.getLogger(__name__)

LARGE = 131_072
"""From how many bytes a line is written in pieces, since to put them together would take longer."""

BUSY = 1_048_576
"""How many bytes may wait to be written to a peer before those that send to it have to wait."""

TURN = 256
"""How many lines of a peer are handled before others have their turn, if there are so many at once."""

_TURN_ENDS = "the next turn"
"""What `Peer.waits_for` is when others shall have their turn before the next line."""

_TELL_EVERY = 10.0
"""How many seconds there are at least between two words to a Service that its notifications are dropped."""

_HEAVY = 65_536
"""From how many bytes on what waits for a peer counts among what waits for all of them together."""

_FOR_ALL = 4
"""How many times as much may wait for all peers together as for one."""

_LONGEST_UID = 255
"""How many characters the uid of a request may have, which is kept until the answer comes."""

_LARGEST_QUESTION = 65_536
"""The largest request to the Manager itself, in bytes: it is decoded as a whole."""

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
        max_connections: How many peers may be connected; None: any number.
        max_links: With how many Services a peer may be linked; None: any number.
        max_requests: How many requests of a peer may wait for their answers; None: any number.
        notification_rate: How many notifications per second a Service may emit; None: any number.
        login_attempts: How many logins from one host may fail at once; None: any number.
        login_memory: After how many seconds a failed login is forgotten.
        login_delay: For how many seconds a login waits for each one that has failed.
        clock: Gives the time in seconds, of which only differences count.

    Attributes:
        registry: Who is connected.
        records: The log.
        logins: The attempts to log in that have failed.
        touched: Peers to which there is something to write since the list was last emptied.
        hits: How often something was refused or dropped since it exceeded a limit, by the limit's name.
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
        max_connections: int | None = None,
        max_links: int | None = None,
        max_requests: int | None = None,
        notification_rate: int | None = None,
        login_attempts: int | None = None,
        login_memory: float = 60.0,
        login_delay: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.records = Records(clock)
        self.registry = Registry(self.records, max_links, max_connections)
        self.logins = Logins(login_attempts, login_memory, login_delay, clock)
        self.touched: list[Peer] = []
        self.hits: Counter[str] = Counter()
        self._clock = clock
        self._requests = OpenRequests(self.registry.peers, max_requests, clock)
        self._unfinished = UnfinishedLines(self.registry.peers, self.reject)
        self._notification_rate = sys.maxsize if notification_rate is None else notification_rate
        self._told = (-1, b"")
        self._is_ending = False
        self._identity = identity
        self._max_backlog = max_backlog
        self._max_backlogs = _FOR_ALL * max_backlog
        self._heavy_from = min(_HEAVY, max_backlog)
        self._heavy: set[Peer] = set()
        self._unweighed = 0
        self._admission = Admission(
            name,
            self.registry,
            authentication or Authentication(),
            read_limit,
            put=self._put,
            refuse=self._refuse,
            handle=self._handle,
            admitted=self._admitted,
            record=record,
            records=self.records,
            logins=self.logins,
        )
        self._answers: dict[str, Callable[[Peer, bytes], bytes]] = {
            "identity": self._tell,
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
        peer.since = self._clock()
        self._admission.begin(peer)

    def receive(self, peer: Peer, data: bytes, at_most: int = sys.maxsize) -> None:
        """Take what a peer has sent.

        Args:
            peer: The peer.
            data: What it has sent.
            at_most: How many lines to handle. If there are more, they are in `Peer.unread`, and it is for
                `receive_more` to go on with them before more is received.
        """
        peer.received += len(data)
        if not peer.kind:
            data = self._shake_hands(peer, data)
        if peer.closing:
            return
        lines = peer.lines.feed(data)
        if peer.lines.size != peer.unfinished:
            self._unfinished.note(peer)
            if peer.closing:
                return
        count = len(lines)
        peer.lines_received += count
        if peer.unread:
            peer.unread = [*peer.unread, *lines]  # what came before is handled before
            return
        if count > at_most:
            lines, peer.unread = lines[:at_most], lines[at_most:]
        rest = iter(lines)
        if not peer.waits_for:  # what follows is _handle_all() for most lines, without what they do not need
            handle = self._handle
            for line in rest:
                handle(peer, line)
                if peer.closing:
                    return
                if peer.waits_for:
                    break
        if peer.waits_for or peer.lines.overflow is not None:
            self._handle_all(peer, rest)

    def receive_more(self, peer: Peer, at_most: int = sys.maxsize) -> None:
        """Go on with `Peer.unread`; see `receive`."""
        lines, peer.unread = peer.unread[:at_most], peer.unread[at_most:]
        if not peer.closing:
            self._handle_all(peer, lines)

    def _handle_all(self, peer: Peer, lines: Iterable[bytes]) -> None:
        lines = iter(lines)
        handle = self._handle
        for line in lines:
            if not peer.waits_for:
                handle(peer, line)
            elif peer.waits_for == _TURN_ENDS:
                peer.waits_for = ""
                peer.unread = [line, *lines, *peer.unread]
            elif self.undecided(peer) is None:
                self._admission.take(peer, line)
            else:
                peer.unread = [line, *lines, *peer.unread]
            if peer.closing:
                return
        if peer.waits_for == _TURN_ENDS:
            peer.waits_for = ""
        if peer.lines.overflow is not None and not peer.unread:
            self._too_long(peer)

    def _shake_hands(self, peer: Peer, data: bytes) -> bytes:
        """Take what a peer has sent before it was let in, and return what it has sent later."""
        begin, end = 0, len(data)
        while begin < end and not (peer.kind or peer.closing):
            if self.undecided(peer) is not None:
                assert peer.waiting is not None
                peer.waiting.data += data[begin:]
                return b""
            # One line at a time, since each may change how long the one behind it may be.
            line_end = data.find(b"\n", begin) + 1 or end
            for line in peer.lines.feed(data[begin:line_end]):
                peer.lines_received += 1
                self._admission.take(peer, line)
            if peer.lines.overflow is not None and not peer.closing:
                self._too_long(peer)
            begin = line_end
        return data[begin:]

    def _too_long(self, peer: Peer) -> None:
        self.hits["read_limit"] += 1
        self.reject(peer, ValueError(f"The line is longer than the limit of {peer.lines.limit:,} bytes"))

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
        data, waiting.data = waiting.data, b""
        peer.received -= len(data)  # which has been counted
        if peer.kind:
            self.receive_more(peer)
        elif data:
            self.receive(peer, data)

    def reject(self, peer: Peer, error: Exception) -> None:
        """Tell a peer why it is not served, and have its connection closed."""
        self._admission.reject(peer, error)

    def disconnect(self, peer: Peer) -> None:
        """Forget a peer, and tell those who wait for an answer of it."""
        self._admission.end(peer)
        self.registry.remove(peer)
        self._unfinished.forget(peer)
        self._heavy.discard(peer)
        self._requests.forget(peer)
        if peer.kind != "service":
            return
        text = departure(peer.service, self.name)
        peer.askers.pop(peer, None)  # itself need not be told
        for client in peer.askers:
            if client.asked is peer:
                client.asked = None
            for uid in open_requests.close_all(client, peer):
                self._put(client, answers.error(text, uid, client.name))
        peer.askers.clear()
        peer.open.clear()

    def _admitted(self, peer: Peer) -> None:
        self._requests.admit(peer)
        peer.notifications_left = self._notification_rate
        peer.notifications_when = self._clock()

    # ---- the end ----

    def refuse_requests(self) -> None:
        """Pass no more requests on to Services, since the Manager is about to end."""
        self._is_ending = True
        self._requests.stop()

    @property
    def is_quiet(self) -> bool:
        """Whether no request waits for its answer."""
        return not any(peer.open for peer in self.registry.peers.values())

    def say_goodbye(self) -> None:
        """Tell all peers that the Manager ends, and have their connections closed.

        A client of msl-network drops a notification of a Service with which it is not linked, and a Service
        of msl-network logs what is an error; neither would put up with what the other does.
        """
        text = f"{self.name} is shutting down"
        to_client = answers.line(
            {"error": False, "result": [[text], {}], "service": MANAGER, "uid": NOTIFICATION_UID}
        )
        to_service = answers.error(f"ConnectionAbortedError: {text}", "", self.name)
        for peer in self.registry.peers.values():
            self._put(peer, to_client if peer.kind == "client" else to_service)
            peer.closing = peer.closing or "the Manager is shutting down"

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
        if not peer.waits_for:
            peer.waits_for = _TURN_ENDS  # since that has taken a thousand times as long as most lines do

    def _forward(self, peer: Peer, service: Peer, routed: RoutedLine, line: bytes) -> None:
        """Pass a request on to its Service."""
        uid = routed.uid
        if uid == NOTIFICATION_UID:
            self._refuse(peer, "", f"ValueError: {NOTIFICATION_UID!r} cannot be the uid of a request")
            return
        if routed.requester is not UNSET:
            if len(line) >= LARGE:  # to encode it again would hold everybody up
                self._refuse(peer, uid, "ValueError: A request of this length has no requester")
                return
            try:
                line = _without_requester(line)
            except ValueError as error:
                self._refuse(peer, uid, str(error))
                return
        size = len(line)
        if size > _LONGEST_UID and len(str(uid)) > _LONGEST_UID:  # peers send numbers, too
            self._refuse(peer, "", f"ValueError: The uid has more than {_LONGEST_UID} characters")
            return
        asked = peer.open
        if uid not in asked and (len(asked) < peer.may_ask or self._requests.allow_more(peer)):
            asked[uid] = service
        elif uid not in asked or not self._requests.open_again(peer, uid, service):
            self._too_many_requests(peer, uid)
            return
        if peer.asked is not service:
            peer.asked = service
            service.askers[peer] = None
        if size < LARGE:
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
            if not peer.service or routed.service != peer.service:
                name = routed.service
                text = "%s sent a notification in the name of %r, dropped"
                self.records.write(peer, logging.WARNING, "forged", text, peer.name, name, service=name)
            elif routed.error:
                # The client of msl-network takes it for the answer to a request of somebody.
                text = "%s sent a notification that is an error, dropped"
                self.records.write(peer, logging.WARNING, "forged", text, peer.name, service=peer.service)
            elif peer.notifications_left > 0 or self._renew_notifications(peer):
                peer.notifications_left -= 1
                for linked in peer.links:
                    self._put_line(linked, line)
            return
        requester = routed.requester
        client = self.registry.peers.get(requester) if isinstance(requester, str) else None
        owner = client.open.pop(routed.uid, None) if client is not None else None
        if client is not None and (owner is peer or open_requests.close_one(client, routed.uid, owner, peer)):
            self._put_line(client, line)
            if routed.error:
                text = "a request of %s to %r has failed"
                name = peer.service
                self.records.write(client, logging.INFO, "failed", text, client.name, name, service=name)
        else:
            logger.debug("%s sent a reply to %.100r that nobody waits for, dropped", peer.name, requester)

    def _too_many_requests(self, peer: Peer, uid: Any) -> None:
        if self._is_ending:
            text = f"ConnectionAbortedError: {self.name} is shutting down, the request was not executed"
            self._refuse(peer, uid, text)
            return
        self.hits["max_requests"] += 1
        most = self._requests.most
        if len(peer.open) >= most or uid in peer.open:
            who, option = f"{most:,} requests of {peer.name}", " (max_requests)"
        else:
            who, option = "Very many requests of all clients", ""
        text = f"{who} wait for their answers, as many as this Manager allows{option}"
        self._refuse(peer, uid, f"RuntimeError: {text}")

    def _renew_notifications(self, peer: Peer) -> bool:
        """Allow more notifications of a Service if there is time for more; False if not."""
        now = self._clock()
        rate = self._notification_rate
        allowed = min(rate, int((now - peer.notifications_when) * rate))
        if allowed:
            peer.notifications_left = allowed
            peer.notifications_when = now
            return True
        self.hits["notification_rate"] += 1
        peer.notifications_dropped += 1
        if now - peer.notifications_told >= _TELL_EVERY:
            text = (
                f"RuntimeError: {peer.notifications_dropped:,} of your notifications have been dropped: "
                f"this Manager passes on {rate:,} per second (notification_rate)"
            )
            peer.notifications_told = now
            peer.notifications_dropped = 0
            self._refuse(peer, "", text)
        return False

    # ---- requests to the Manager itself ----

    def _answer(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        answer = self._answers.get(routed.attribute)
        if len(line) > _LARGEST_QUESTION:
            text = f"ValueError: A request to the Manager has no more than {_LARGEST_QUESTION:,} bytes"
            self._refuse(peer, routed.uid, text)
            return
        if answer is None:
            self._admission.request(peer, routed, line)
            return
        try:
            result = answer(peer, line)
        except (KeyError, PermissionError, TypeError, ValueError) as error:
            self._refuse(peer, routed.uid, f"{type(error).__name__}: {error}")
        else:
            self._put_result(peer, routed.uid, result)

    def _put_result(self, peer: Peer, uid: Any, result: bytes) -> None:
        """Answer a request to the Manager with a value that is encoded."""
        start = b'{"error":false,"requester":%b,"result":' % codec.encode_value(peer.name)
        end = b',"uid":%b}\r\n' % codec.encode_value(uid)
        if len(result) < LARGE:
            self._put(peer, b"".join((start, result, end)))
        else:
            self._put(peer, start)
            self._put_large(peer, memoryview(result), end)

    def _tell(self, peer: Peer, line: bytes) -> bytes:
        # Encoded once for all who ask before somebody comes or goes: in a large network it takes long.
        changes, told = self._told
        if changes != self.registry.changes:
            told = codec.encode_value(self.identity())
            self._told = (self.registry.changes, told)
        return told

    def _link(self, peer: Peer, line: bytes) -> bytes:
        name = _service_argument(line)
        info = self.registry.link(peer, name)
        service = self.registry.services[name]
        if not service.told:
            service.told = codec.encode_value(info)
        return service.told

    def _unlink(self, peer: Peer, line: bytes) -> bytes:
        return codec.encode_value(self.registry.unlink(peer, _service_argument(line)))

    def _acquire_lock(self, peer: Peer, line: bytes) -> bytes:
        shared = codec.decode_object(line)["kwargs"]["shared"]
        links = self.registry.acquire_lock(peer, _service_argument(line), shared=bool(shared))
        return codec.encode_value(links)

    def _release_lock(self, peer: Peer, line: bytes) -> bytes:
        return codec.encode_value(self.registry.release_lock(peer, _service_argument(line)))

    # ---- what goes out ----

    def _refuse(self, peer: Peer, uid: Any, message: str) -> None:
        text = "refused a request of %s: %s"
        self.records.write(peer, logging.INFO, "refused", text, peer.name, message, error=message)
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
        if peer.backlog > self._heavy_from:
            self._weigh(peer, len(data))
        if peer.closing:
            return
        if not peer.outgoing:
            self.touched.append(peer)
        peer.outgoing.append(data)
        peer.backlog += len(data)

    def _weigh(self, peer: Peer, size: int) -> None:
        """Look whether too much waits for a peer, or for all together.

        Args:
            peer: The peer.
            size: How many bytes are about to be added.
        """
        if peer.backlog > self._max_backlog:
            self._overflow(peer, f"more than the {self._max_backlog:,} that this Manager keeps for one peer")
            return
        self._heavy.add(peer)
        self._unweighed += size
        if self._unweighed * 16 > self._max_backlogs:  # not each time, since there may be many of them
            self._unweighed = 0
            self._heavy = {each for each in self._heavy if each.backlog > self._heavy_from}
            while self._heavy and _kept(self._heavy) > self._max_backlogs:
                largest = max(self._heavy, key=lambda each: each.backlog)
                self._heavy.discard(largest)
                text = (
                    f"and by all peers together more than the {self._max_backlogs:,} that this Manager keeps"
                )
                self._overflow(largest, text)

    def _overflow(self, peer: Peer, excess: str) -> None:
        """Drop a peer that does not read, with a word about it."""
        if peer.closing:
            return
        self.touched.append(peer)
        self.hits["max_backlog"] += 1
        reason = f"BufferError: {peer.backlog:,} bytes wait to be read by {peer.name}, {excess}"
        text = "%s does not read and is dropped: %s"
        self.records.write(peer, logging.WARNING, "dropped", text, peer.name, reason, reason=reason)
        peer.backlog -= sum(map(len, peer.outgoing))
        peer.outgoing = [answers.error(reason, "", self.name)]
        peer.backlog += len(peer.outgoing[0])
        peer.large = False
        peer.closing = reason


def _kept(peers: Iterable[Peer]) -> int:
    """Return how many bytes are kept for peers: a large line that waits for several of them is kept once."""
    size = 0
    seen = set()
    for peer in peers:
        size += peer.backlog
        for piece in (*peer.writing, *peer.outgoing):
            if isinstance(piece, memoryview):
                if id(piece.obj) in seen:
                    size -= len(piece)
                seen.add(id(piece.obj))
    return size


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
