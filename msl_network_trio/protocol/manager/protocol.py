r"""The Manager's side of the protocol, as pure state.

The contract: `ManagerProtocol.connect` a peer, hand over what it sends with `ManagerProtocol.receive`, and
say with `ManagerProtocol.disconnect` that it has gone. After each of these have the peers in
`ManagerProtocol.touched` write what is in `Peer.outgoing`, and close those that are `Peer.closing`. While a
peer has something `ManagerProtocol.pending_check`, perform it, pass the result to `ManagerProtocol.resolve`,
and receive nothing of that peer: what it sends is kept until then.

Here is what happens to a connection. Who is let in says `admission`, what becomes of the lines of those who
are `routing`, and what waits to be written to them is in `delivery`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from msl_network_trio.constants import MANAGER, NOTIFICATION_UID
from msl_network_trio.limits.login_throttle import LoginThrottle
from msl_network_trio.limits.quota import Quota
from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager.admission import FULL_AGAIN, Admission, Authentication
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.notification_rate import NotificationRate
from msl_network_trio.protocol.manager.open_requests import OpenRequests
from msl_network_trio.protocol.manager.own_requests import OwnRequests
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import BacklogLimit, PeerQueue
from msl_network_trio.protocol.manager.pending_check import PendingCheck
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.registry import Registry
from msl_network_trio.protocol.manager.responder import Responder
from msl_network_trio.protocol.manager.route import NO_ROUTE
from msl_network_trio.protocol.manager.routing import Router

MAX_LINES = 256
"""Maximum number of lines of one peer to handle before other peers have their turn."""

_RESTARTED_AGAIN = 1.0
"""Seconds after which a Service may try again when the Manager ends, which may be a restart."""

_READY, _CLOSING = Phase.READY, Phase.CLOSING

_UNFINISHED = 1_073_741_824
"""How many bytes there may be of lines that are not complete, of all peers together."""


class ManagerProtocol:
    """One Manager's conversations with all its peers.

    Args:
        name: ``"Manager[HOST:port]"``.
        identity: What the Manager says about itself, without its peers.
        authentication: What peers have to show before they may say who they are; None: nothing.
        record: Keeps for later what happened to a peer when it connected, as `connections_table` has it.
        read_limit: The largest line to accept, in bytes, without its end; None: no limit.
        max_backlog: How many bytes may wait to be written to a peer before it is dropped. A single line may
            be larger.
        max_connections: How many peers may be connected; None: any number.
        max_links: With how many Services a peer may be linked; None: any number.
        max_requests: How many requests of a peer may wait for their answers; None: any number.
        notification_rate: How many notifications per second a Service may emit; None: any number.
        login_attempts: How many logins of one user of a host may fail, see `LoginThrottle`; None: any number.
        login_memory: After how many seconds a failed login is forgotten.
        login_delay: For how many seconds a login waits for each one that has failed.
        replaces: Whether a peer that is gone may be replaced by one of the same name, see `ReplaceCheck`.
        clock: Gives the time in seconds, of which only differences count.

    Attributes:
        registry: Who is connected.
        event_log: The log.
        logins: The attempts to log in that have failed.
        touched: Peers to which there is something to write since the list was last emptied; it is always the
            same list.
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
        replaces: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.event_log = EventLog(clock)
        self.registry = Registry(self.event_log, max_links, max_connections)
        self.logins = LoginThrottle(login_attempts, login_memory, login_delay, clock)
        self.hits: Counter[str] = Counter()
        self._on_quiet: Callable[[], object] | None = None
        self._clock = clock
        self.backlog = BacklogLimit(name, max_backlog, self.event_log, self.hits)
        self.touched = self.backlog.touched
        self._responder = Responder(self.event_log)
        self._requests = OpenRequests(self.registry.peers, max_requests, clock)
        self._notification_rate = NotificationRate(notification_rate, self._responder, self.hits, clock)
        self._unfinished: Quota[Peer] = Quota(_UNFINISHED, lambda peer: peer.host.address, self._drop_line)
        self._admission = Admission(
            name,
            self.registry,
            authentication or Authentication(),
            read_limit,
            responder=self._responder,
            admitted=self._admitted,
            record=record,
            event_log=self.event_log,
            logins=self.logins,
            replaces=replaces,
        )
        self._own_requests = OwnRequests(identity, self.registry, self._responder, self._admission)
        self._router = Router(
            name,
            self.registry,
            self._responder,
            requests=self._requests,
            notification_rate=self._notification_rate,
            own_requests=self._own_requests,
            event_log=self.event_log,
            hits=self.hits,
        )

    def identity(self) -> dict[str, Any]:
        """Who the Manager is, and who is connected to it."""
        return self._own_requests.identity()

    # ---- the life of a connection ----

    def connect(self, peer: Peer) -> None:
        """Take up the conversation with a new peer: the Manager speaks first."""
        peer.connected_at = self._clock()
        if peer.route is NO_ROUTE:
            PeerQueue(peer, self.backlog)
        self._admission.begin(peer)

    def receive(self, peer: Peer, data: bytes, at_most: int = sys.maxsize) -> None:
        """Take what a peer has sent.

        Args:
            peer: The peer.
            data: What it has sent.
            at_most: How many lines to handle. The others are kept in
                `Peer.pending_lines` for `receive_more`.
        """
        peer.received += len(data)
        if not peer.kind:
            data = self._shake_hands(peer, data)
        if peer.phase is _CLOSING:
            return
        lines = peer.lines.feed(data)
        if peer.lines.size != peer.partial_size:
            peer.partial_size = peer.lines.size
            self._unfinished.update(peer, peer.partial_size)
            if peer.phase is _CLOSING:
                return
        count = len(lines)
        peer.lines_received += count
        if peer.pending_lines:
            peer.pending_lines = [*peer.pending_lines, *lines]
            return
        if count > at_most:
            lines, peer.pending_lines = lines[:at_most], lines[at_most:]
        rest = iter(lines)
        if peer.phase is _READY:
            handle = self._router.handle
            for line in rest:
                handle(peer, line)
                if peer.phase is not _READY:
                    break
        if peer.phase is not _READY or peer.pending_lines or peer.lines.overflow is not None:
            self._handle_lines(peer, rest)
        if self._on_quiet is not None:
            self._check_quiet()

    def receive_more(self, peer: Peer, at_most: int = sys.maxsize) -> None:
        """Handle more of `Peer.pending_lines`; arguments as for `receive`."""
        lines, peer.pending_lines = peer.pending_lines[:at_most], peer.pending_lines[at_most:]
        if peer.phase is Phase.YIELDING:
            peer.phase = _READY
        self._handle_lines(peer, iter(lines))
        if self._on_quiet is not None:
            self._check_quiet()

    def _handle_lines(self, peer: Peer, lines: Iterator[bytes]) -> None:
        """Handle lines of a peer in any phase; keep those that have to wait."""
        for line in lines:
            if peer.phase is _CLOSING:
                return
            if peer.phase is Phase.YIELDING or self.pending_check(peer) is not None:
                peer.pending_lines = [line, *lines, *peer.pending_lines]
            elif peer.phase is _READY or not self._admission.take(peer, line):
                self._router.handle(peer, line)
        self._end_turn(peer)

    def _end_turn(self, peer: Peer) -> None:
        if peer.phase is _READY or peer.phase is Phase.YIELDING:
            peer.phase = Phase.YIELDING if peer.pending_lines else _READY
        if peer.phase is not _CLOSING and peer.lines.overflow is not None and not peer.pending_lines:
            self._too_long(peer)

    def _shake_hands(self, peer: Peer, data: bytes) -> bytes:
        """Take what a peer has sent before it was let in, and return what it has sent later."""
        begin, end = 0, len(data)
        while begin < end and not (peer.kind or peer.phase is _CLOSING):
            state = self._admission.state(peer)
            if state is not None and state.check is not None:
                state.held += data[begin:]
                return b""
            # One line at a time, since each may change how long the one behind it may be.
            line_end = data.find(b"\n", begin) + 1 or end
            for line in peer.lines.feed(data[begin:line_end]):
                peer.lines_received += 1
                self._admission.take(peer, line)
            if peer.lines.overflow is not None and peer.phase is not _CLOSING:
                self._too_long(peer)
            begin = line_end
        return data[begin:]

    def _too_long(self, peer: Peer) -> None:
        self.hits["read_limit"] += 1
        self.reject(peer, ValueError(f"The line is longer than the limit of {peer.lines.limit:,} bytes"))

    def _drop_line(self, peer: Peer) -> None:
        """Drop a peer whose line takes too much of what there is for the lines of all."""
        peer.lines.clear()
        peer.partial_size = 0
        text = f"The lines of all peers that are not complete have more than {_UNFINISHED:,} bytes"
        self.reject(peer, ValueError(f"{text}, yours the most"), again=FULL_AGAIN)

    def pending_check(self, peer: Peer) -> PendingCheck | None:
        """Return what somebody has to decide before a peer can be served on."""
        state = self._admission.state(peer)
        return state.check if state is not None else None

    def resolve(self, peer: Peer, verdict: Any, at_most: int = sys.maxsize) -> None:
        """Tell what was decided, and handle what the peer has sent meanwhile.

        Args:
            peer: The peer.
            verdict: What `pending_check` says that it is, or an exception, because of which there is none.
            at_most: See `receive`.
        """
        state = self._admission.state(peer)
        assert state is not None
        self._admission.resolve(peer, verdict)
        data, state.held = state.held, b""
        peer.received -= len(data)  # which has been counted
        if data:
            self.receive(peer, data, at_most)
        elif peer.kind:
            self.receive_more(peer, at_most)

    def reject(self, peer: Peer, error: Exception, again: float | None = None) -> None:
        """Tell a peer why it is not served, and have its connection closed.

        Args:
            peer: The peer.
            error: Why.
            again: Seconds after which it may try again; None: that would change nothing.
        """
        self._admission.reject(peer, error, again=again)

    def ask_for_identity(self, service: Peer) -> None:
        """Make a request to a Service that every Service answers, also those of msl-network 1.0.0.

        That it answers is all that matters; nobody waits for what.
        """
        fields = {
            "args": [],
            "attribute": "identity",
            "error": False,
            "kwargs": {},
            "requester": self.name,
            "service": service.service,
            "uid": "",
        }
        service.route.put(answers.line(fields))

    def disconnect(self, peer: Peer) -> None:
        """Forget a peer, and tell those who wait for an answer of it."""
        self._admission.end(peer)
        self.registry.remove(peer)
        self._unfinished.release(peer)
        peer.lines.clear()
        if isinstance(peer.route, PeerQueue):
            self.backlog.forget(peer.route)
        self._router.forget(peer)
        if self._on_quiet is not None:
            self._check_quiet()

    def _admitted(self, peer: Peer) -> None:
        self._requests.admit(peer)
        self._notification_rate.admit(peer)

    # ---- the end ----

    def refuse_requests(self, on_quiet: Callable[[], object]) -> None:
        """Forward no more requests to Services, since the Manager is about to end.

        Args:
            on_quiet: Called as soon as no request is open any more; perhaps several times.
        """
        self._requests.stop()
        self._on_quiet = on_quiet
        self._check_quiet()

    def _check_quiet(self) -> None:
        assert self._on_quiet is not None
        if self.is_quiet:
            self._on_quiet()

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
        to_service = answers.error(f"ConnectionAbortedError: {text}", "", self.name, again=_RESTARTED_AGAIN)
        for peer in self.registry.peers.values():
            self._router.give_up(peer)
            peer.route.put(to_client if peer.kind == "client" else to_service)
            peer.close("the Manager is shutting down")
