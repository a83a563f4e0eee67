"""The Manager's protocol: handles the bytes that its peers send. Pure state, used in the Trio thread.

The contract: `ManagerProtocol.connect` a peer, pass what it sends to `ManagerProtocol.receive`, and call
`ManagerProtocol.disconnect` when its connection has ended. After each of these, flush the routes in
`ManagerProtocol.touched`, and close the connections of peers in `Phase.CLOSING`.

While a peer is in `Phase.CHECK`, make its `ManagerProtocol.pending_check`, pass the result to
`ManagerProtocol.resolve`, and preferably receive nothing of it: its lines are kept until then. In
`Phase.YIELDING` serve other peers, then call `ManagerProtocol.receive_more`.

`admission` admits peers, `routing` forwards their lines, and `peer_queue` limits what is queued for them.
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
from msl_network_trio.protocol.manager.admission import FULL_RETRY_AFTER, Admission
from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.followers import Followers
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

_RESTART_RETRY_AFTER = 1.0
"""Seconds after which a Service may try again when the Manager ends, which may be a restart."""

_READY, _CLOSING = Phase.READY, Phase.CLOSING

_MAX_INCOMPLETE = 1_073_741_824
"""Maximum bytes of incomplete lines, of all peers together."""


class ManagerProtocol:
    """The protocol of one Manager.

    Args:
        name: ``"Manager[HOST:port]"``.
        identity: The Manager's identity without its peers.
        authentication: The authentication method; None: there is none.
        record: Adds a row about a peer to the table of connections.
        read_limit: Maximum bytes of a line, without its end; None: no limit.
        max_backlog: Maximum bytes queued for a peer, which is dropped beyond it. A single line may be larger.
        max_connections: Maximum number of admitted peers; None: no limit.
        max_links: Maximum number of links of a peer; None: no limit.
        max_requests: Maximum number of open requests of a peer; None: no limit.
        notification_rate: Maximum number of notifications of a Service per second; None: no limit.
        login_attempts: Maximum number of failed logins, see `LoginThrottle`; None: no limit.
        login_memory: Seconds after which a failed login is forgotten.
        login_delay: Seconds by which each failed login delays the next one.
        replaces: Whether a dead peer may be replaced by one of the same name, see `ReplaceCheck`.
        clock: Returns the time in seconds, of which only differences count.

    Attributes:
        name: See above.
        registry: The admitted peers.
        event_log: The log.
        logins: The login throttle.
        backlog: The limit of what is queued.
        touched: The routes with something to flush since the list was last emptied; always the same list.
        hits: Number of times that each limit was met, by its name.
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
        self._incomplete: Quota[Peer] = Quota(
            _MAX_INCOMPLETE, lambda peer: peer.host.address, self._drop_line
        )
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
        self._followers = Followers()
        self._own_requests = OwnRequests(
            identity, self.registry, self._responder, self._admission, self._followers
        )
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
        """Return the identity of the Manager with its clients and Services."""
        return self._own_requests.identity()

    # ---- the life of a connection ----

    def connect(self, peer: Peer) -> None:
        """Begin the handshake with a new peer."""
        peer.connected_at = self._clock()
        if peer.route is NO_ROUTE:
            PeerQueue(peer, self.backlog)
        self._admission.begin(peer)

    def receive(self, peer: Peer, data: bytes, at_most: int = sys.maxsize) -> None:
        """Handle bytes that a peer has sent.

        Args:
            peer: The peer.
            data: The bytes.
            at_most: Maximum number of lines to handle. The others are kept in
                `Peer.pending_lines` for `receive_more`.
        """
        peer.received += len(data)
        if not peer.kind:
            data = self._shake_hands(peer, data)
        if peer.phase is _CLOSING:
            return
        buffer, end = peer.lines, len(data) - 1
        is_one_line = not buffer.size and end >= 0 and data.find(b"\n") == end
        is_valid = buffer.overflow is None and (buffer.limit is None or end <= buffer.limit)
        # A single line is what feed() returns in most cases; this saves the call.
        lines = [data[:end]] if is_one_line and is_valid else buffer.feed(data)
        if peer.lines.size != peer.partial_size:
            peer.partial_size = peer.lines.size
            self._incomplete.update(peer, peer.partial_size)
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
        """Handle bytes of a peer until it is admitted, and return the others."""
        begin, end = 0, len(data)
        while begin < end and not (peer.kind or peer.phase is _CLOSING):
            state = self._admission.state(peer)
            if state is not None and state.check is not None:
                state.held += data[begin:]
                return b""
            # One line at a time, since each may change the limit of the next one.
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
        """Drop the peer that exceeds the quota for incomplete lines."""
        peer.lines.clear()
        peer.partial_size = 0
        text = f"The lines of all peers that are not complete have more than {_MAX_INCOMPLETE:,} bytes"
        self.reject(peer, ValueError(f"{text}, yours the most"), again=FULL_RETRY_AFTER)

    def pending_check(self, peer: Peer) -> PendingCheck | None:
        """Return the check to make for a peer; None: there is none."""
        state = self._admission.state(peer)
        return state.check if state is not None else None

    def resolve(self, peer: Peer, result: Any, at_most: int = sys.maxsize) -> None:
        """Continue with a peer after its check, and handle the bytes received meanwhile.

        Args:
            peer: The peer.
            result: The result of `pending_check`, or the exception because of which there is none.
            at_most: See `receive`.
        """
        state = self._admission.state(peer)
        assert state is not None
        self._admission.resolve(peer, result)
        data, state.held = state.held, b""
        peer.received -= len(data)  # it was counted before
        if data:
            self.receive(peer, data, at_most)
        elif peer.kind:
            self.receive_more(peer, at_most)

    def reject(self, peer: Peer, error: Exception, again: float | None = None) -> None:
        """Close the connection of a peer with an error as its last line.

        Args:
            peer: The peer.
            error: The reason.
            again: Seconds after which the peer may try again; None: that would change nothing.
        """
        self._admission.reject(peer, error, again=again)

    def ask_for_identity(self, service: Peer) -> None:
        """Send a request that every Service answers, also one of msl-network 1.0.0; the reply is dropped."""
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
        """Remove a peer, and answer the requests that it has not answered with an error."""
        self._admission.end(peer)
        # Before the router answers the open requests of the Service: a client knows the reason of the errors.
        self._followers.lose(peer)
        self._followers.forget(peer)
        self.registry.remove(peer)
        self._incomplete.release(peer)
        peer.lines.clear()
        self.backlog.forget(peer.route)
        self._router.forget(peer)
        if self._on_quiet is not None:
            self._check_quiet()

    def _admitted(self, peer: Peer) -> None:
        self._followers.admit(peer)
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
        """Whether no request is open."""
        return not any(peer.open for peer in self.registry.peers.values())

    def say_goodbye(self) -> None:
        """Close the connections of all peers, with the end of the Manager as the last line.

        This is a notification for clients, since those of msl-network drop one of a Service with which they
        are not linked, and an error for Services, since those of msl-network log it. Neither would accept the
        other.
        """
        text = f"{self.name} is shutting down"
        to_client = answers.line(
            {"error": False, "result": [[text], {}], "service": MANAGER, "uid": NOTIFICATION_UID}
        )
        to_service = answers.error(
            f"ConnectionAbortedError: {text}", "", self.name, again=_RESTART_RETRY_AFTER
        )
        for peer in self.registry.peers.values():
            self._router.give_up(peer)
            peer.route.put(to_client if peer.kind == "client" else to_service)
            peer.close("the Manager is shutting down")
