"""The outgoing half of the client's side of the protocol: requests, until they are written or given up.

`ClientProtocol` adds the incoming half, and describes the contract and the locking of both.
"""

from __future__ import annotations

from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, SHUTDOWN_MANAGER
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.acknowledged import Acknowledged
from msl_network_trio.protocol.handshake import Handshake
from msl_network_trio.protocol.late_replies import LateReplies, RecordingFactory
from msl_network_trio.protocol.outbox import Outbox
from msl_network_trio.protocol.refusals import Refusals
from msl_network_trio.protocol.requests import (
    ABANDONED,
    QUEUED,
    SETTLED,
    Line,
    Request,
    RequestFactory,
    encode_request,
)
from msl_network_trio.protocol.service_addresses import ServiceAddresses
from msl_network_trio.protocol.traffic import Traffic


class ClientOutput:
    """The requests of one client to one Manager.

    Args:
        identity: The identity of the client: ``type``, ``name``, ``language``, ``os``.
        manager: The ``host:port`` that the user gave, for messages.
        traffic: Counts what is sent and received; None: a new one.
        keep_calls: Whether requests keep their arguments, since late replies are wanted.

    Attributes:
        make: Makes a request, see `RequestFactory.make`.
        network_name: The Manager's name for the client, ``"name[HOST:port]"``; empty until it is received.
        lost: The reason for the end of the connection; None: it has not ended.
        is_over: Whether requests are refused, since the connection has ended or the goodbye is queued.
        outbox: The lines to be written; read-only for others.
        open: See `Outbox.open`; read-only for others.
        traffic: Counts what is sent and received.
        late: The abandoned requests whose replies may still arrive; None: late replies are not wanted.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        manager: str,
        *,
        traffic: Traffic | None = None,
        keep_calls: bool = False,
    ) -> None:
        factory = RecordingFactory() if keep_calls else RequestFactory()
        self.make = factory.make
        self.late = LateReplies(manager) if keep_calls else None
        self.traffic = Traffic() if traffic is None else traffic
        self.manager = manager
        self.network_name = ""
        self.lost: ConnectionLost | None = None
        self.is_over = False
        self.outbox = Outbox(self.traffic)
        self.open = self.outbox.open
        self._handshake = Handshake(identity, manager)
        self._acknowledged = Acknowledged(self.open)
        self._refusals = Refusals(self.outbox, self._acknowledged, factory)
        self._services = ServiceAddresses(self.open)
        self._stream_has_ended = False
        self._other_lines = 0
        """Number of lines that are no requests."""

    @property
    def manager_name(self) -> str:
        """The Manager's name for itself, ``"Manager[HOST:port]"``; empty until it is received."""
        return self._handshake.manager_name

    @property
    def is_connected(self) -> bool:
        """Whether the handshake is over."""
        return self._handshake.is_over

    @property
    def awaits(self) -> str:
        """See `Handshake.awaits`."""
        return self._handshake.awaits

    @property
    def in_flight(self) -> int:
        """Number of requests that were written and have no reply."""
        return len(self.open)

    @property
    def requests_written(self) -> int:
        """Number of requests that were written, including those of the client itself; 0 after the end."""
        return 0 if self.lost is not None else max(0, self.outbox.last_sequence - self._other_lines)

    @property
    def _admin(self) -> Request | None:
        """The admin request that shuts the gate; None: the gate is open."""
        gate = self.outbox.gate
        assert gate is None or isinstance(gate, Request)
        return gate

    @property
    def has_login_question(self) -> bool:
        """Whether the Manager waits for the answer to a login question."""
        return self._admin is not None and self._admin.question is not None

    def has_open_between(self, after: int, upto: int) -> bool:
        """Return whether a request is open with a `Line.sequence` above `after` and up to `upto`."""
        return any(after < request.sequence <= upto for request in self.open.values())

    def check_open(self, service: str) -> None:
        """Raise the error of a request to a Service if no requests are accepted.

        Raises:
            ConnectionLost: The connection has ended, or `say_goodbye` was called.
        """
        if self.is_over:
            raise ConnectionLost(
                f"Disconnected from Manager[{self.manager}], cannot send request to {service!r}"
            ) from self.lost

    def request(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ConnectionLost: As in `check_open`.
        """
        if self.is_over:
            self.check_open(request.service)
        self.outbox.add(request)

    def ping(self) -> None:
        """Queue a request that every Manager answers and that changes nothing, unless one is open."""
        self._refusals.ping()

    @property
    def has_open_ping(self) -> bool:
        """Whether a ping has no answer yet."""
        return None in self._refusals.barriers

    def take(self) -> bytes:
        """Remove and return the next lines, see `Outbox.take`."""
        return self.outbox.take()

    def note_link(self, request: Request, service: str) -> None:
        """Note that a request, which is not queued yet, asks the Manager for a link with a Service."""
        self._services.linking[request.uid] = service

    def abandon(self, request: Request) -> None:
        """Give up on a request.

        A queued request is withdrawn. The reply to a written one is dropped when it arrives. A written admin
        request keeps the gate shut until then, and its questions are answered with empty texts.
        """
        if request.phase >= SETTLED:
            return
        self._services.linking.pop(request.uid, None)
        if request.phase is QUEUED:
            self.outbox.withdraw(request)
            if request is self._admin:
                self._open_gate()
            return
        request.phase = ABANDONED
        if request is self._admin:
            if request.question is not None:
                self.answer("")
        elif self.open.pop(request.uid, None) is not None:
            if self.late is not None:
                self.late.remember(request)
            self._acknowledged.abandon(request)
            if self._acknowledged.needs_ping:
                self._refusals.ping()

    def answer(self, text: str) -> None:
        """Queue the answer to the Manager's question; it may be empty after the handshake.

        Raises:
            AuthenticationError: The answer is empty in the handshake; a Manager would not react to it.
            ValueError: The text is not Unicode (a lone surrogate).
        """
        line = Line(self._handshake.answer(text))
        self._other_lines += 1
        if self._admin is not None:
            self._admin.question = None
        self.outbox.add_first(line)

    def say_goodbye(self) -> bool:
        """Queue the line that makes the Manager close the connection; further requests are refused.

        Returns:
            False if that line cannot be written, since the gate is shut or the handshake is not over.
        """
        self.is_over = True
        if self._admin is not None or not self._handshake.is_over:
            return False
        name = self.network_name or "Client"
        self._other_lines += 1
        self.outbox.add(Line(encode_request(name, DISCONNECT_REQUEST, (), None, "goodbye")))
        return True

    def _open_gate(self) -> None:
        """Release the lines behind the admin request that shuts the gate."""
        self._refusals.queue_deferred()
        self.outbox.open_gate()

    def connection_lost(self, reason: ConnectionLost, *, cut_off: bool = False) -> list[Request]:
        """Settle and return all requests that are open or queued, and refuse further ones.

        Args:
            reason: The reason for the end of the connection.
            cut_off: Whether the last line that was taken was written only in part.
        """
        self.traffic.requests += self.requests_written
        self.traffic.latencies.open.clear()
        self.lost = reason
        self.is_over = True
        queued = [line for line in self.outbox if isinstance(line, Request)]
        requests = [*self.open.values(), *queued]
        for request in requests:
            if self._is_answered_by_end(request) and not cut_off:
                request.phase = SETTLED
                continue
            what = f"{request.service}.{request.attribute}"
            fate = "may have been executed" if request.may_have_run else "was not sent"
            request.fail(type(reason)(f"{reason}; {what} {fate}", may_have_run=request.may_have_run))
        for state in (self.outbox, self.open, self._acknowledged, self._refusals, self._services.linking):
            state.clear()
        if self.late is not None:
            self.late.clear()
        return requests

    def _is_answered_by_end(self, request: Request) -> bool:
        """Return whether the end of the stream is the answer to a request: the shutdown of the Manager."""
        return (
            request.attribute == SHUTDOWN_MANAGER
            and request is self._admin
            and request.may_have_run
            and request.question is None
            and self._stream_has_ended
        )
