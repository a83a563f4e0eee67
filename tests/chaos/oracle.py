"""Oracle of a chaos run: what may have happened to each request and each notification.

It collects what clients saw, what Services have executed and what the network has changed, and tells at the
end what contradicts the guarantees. Pure; its methods may be called from any thread.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

Outcome = Literal[
    "open", "ok", "remote error", "unread line", "not run", "may have run", "given up", "refused"
]
"""State of a request. ``given up``: the caller was cancelled. ``refused``: ManagerError of `link` and others."""


@attrs.define
class Ledger:
    """What the network has changed that TCP does not change: lines that were duplicated, dropped or invalid."""

    duplicated: Counter[int] = attrs.field(factory=Counter)
    """Tokens of requests that were duplicated, with their numbers of further copies."""

    dropped: set[int] = attrs.field(factory=set)
    """Tokens of requests and replies that were dropped."""

    numbers: set[tuple[str, int, int]] = attrs.field(factory=set)
    """Notifications that were dropped or duplicated: Service, start, number."""

    noise: int = 0
    """Number of invalid lines and bytes."""


@attrs.define
class Request:
    """A request of the load."""

    token: int
    service: str
    attribute: str
    is_idempotent: bool
    must_answer: bool = False
    """Whether the request is to be answered whatever happens: idempotent, and with a long timeout."""

    outcome: Outcome = "open"


@attrs.define
class StreamRecord:
    """What one stream or handler has received of one Service.

    Args:
        oracle: The oracle.
        client: The client, for messages.
        service: The Service.
    """

    oracle: Oracle
    client: str
    service: str
    start: int | None = None
    number: int = 0
    gaps: int = 0
    received: int = 0

    def notification(self, start: int, number: int, *, has_gap: bool) -> None:
        """Check a notification against the one before it.

        Args:
            start: The start of the Service that emitted it.
            number: Its number since that start.
            has_gap: Whether a Gap is marked between the one before and this one.
        """
        self.received += 1
        self.gaps += has_gap
        oracle = self.oracle
        if self.start is not None and not has_gap:
            if start != self.start:
                oracle.wrong(f"{self.client}: {self.service} has restarted, and no gap is marked")
            elif number > self.number + 1:
                missing = {(self.service, start, each) for each in range(self.number + 1, number)}
                lost = missing - oracle.ledger.numbers
                if lost:
                    first, last = self.number, number
                    oracle.wrong(
                        f"{self.client}: {len(lost)} notifications of {self.service}.{start} are missing "
                        f"between {first} and {last}, and no gap is marked"
                    )
                else:
                    oracle.counts["notifications dropped by the network"] += len(missing)
        if self.start == start and number <= self.number:
            if (self.service, start, number) in oracle.ledger.numbers:
                oracle.counts["notifications duplicated by the network"] += 1
                return
            oracle.wrong(f"{self.client}: {self.service}.{start} {number} came after {self.number}")
        self.start, self.number = start, number


@attrs.define
class Oracle:
    """The oracle of one world.

    Attributes:
        ledger: What the network has changed; the proxy writes it.
        counts: Figures for the report.
        faults: Contradictions that were found so far.
    """

    ledger: Ledger = attrs.field(factory=Ledger)
    counts: Counter[str] = attrs.field(factory=Counter)
    faults: list[str] = attrs.field(factory=list)
    requests: dict[int, Request] = attrs.field(factory=dict)
    streams: list[StreamRecord] = attrs.field(factory=list)
    _tokens: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    # ---- clients ----

    def made(self, service: str, attribute: str, *, is_idempotent: bool = False) -> Request:
        """Record a new request and return it; its ``token`` is to be sent with it."""
        request = Request(next(self._tokens), service, attribute, is_idempotent)
        self.requests[request.token] = request
        return request

    def ok(self, request: Request, result: Any) -> None:
        """Record the result of a request."""
        self._settle(request, "ok")
        if result != [f"t{request.token}#", request.service]:
            self.wrong(f"request {request.token} to {request.service} got the result {result!r}")

    def remote_error(self, request: Request, text: str) -> None:
        """Record an error that the Service has raised for a request."""
        self._settle(request, "remote error")
        if f"t{request.token}#" not in text or request.attribute != "fail":
            if self.ledger.noise and f"t{request.token}#" not in text and "#" not in text:
                request.outcome = "unread line"  # the Manager could not read a line, and cannot say which one
            else:
                self.wrong(f"request {request.token} ({request.attribute}) got the error {text[-300:]!r}")

    def unanswered(self, request: Request, *, may_have_run: bool) -> None:
        """Record that a request failed without an answer."""
        self._settle(request, "may have run" if may_have_run else "not run")

    def given_up(self, request: Request) -> None:
        """Record that the caller was cancelled."""
        self._settle(request, "given up")

    def _settle(self, request: Request, outcome: Outcome) -> None:
        if request.outcome != "open":
            self.wrong(f"request {request.token} was {request.outcome}, and then {outcome}")
        request.outcome = outcome

    def stream(self, client: str, service: str) -> StreamRecord:
        """Return the record of a new stream or handler."""
        record = StreamRecord(self, client, service)
        self.streams.append(record)
        return record

    def wrong(self, text: str) -> None:
        """Record a contradiction."""
        with self._lock:
            self.faults.append(text)

    # ---- verdict ----

    def judge(self, executed: Mapping[int, int]) -> list[str]:
        """Return all contradictions, at the end, when nothing is executed any more.

        Args:
            executed: How often each token was executed.
        """
        for request in self.requests.values():
            self._judge(request, executed.get(request.token, 0))
        for token in executed.keys() - self.requests.keys():
            self.wrong(f"request {token} was executed and never made")
        return self.faults

    def _judge(self, request: Request, times: int) -> None:
        self.counts["requests"] += 1
        self.counts[f"requests: {request.outcome}"] += 1
        copies = self.ledger.duplicated[request.token]
        said = f"request {request.token} ({request.service}.{request.attribute})"
        if request.outcome == "open":
            self.wrong(f"{said} has no outcome")
        if request.outcome in ("may have run", "given up") and times:
            self.counts[f"requests: {request.outcome}, and executed"] += 1
        if request.must_answer and request.outcome not in ("ok", "given up"):
            self.wrong(f"{said} is idempotent and was not answered: {request.outcome}")
        if request.is_idempotent:
            self.counts["idempotent requests repeated"] += times > 1 + copies
        elif times > 1 + copies:
            self.wrong(f"{said} was executed {times} times")
        if request.outcome in ("ok", "remote error") and not times:
            self.wrong(f"{said} was answered, and not executed")
        if request.outcome == "not run" and times:
            if request.token in self.ledger.dropped:
                # A refusal has no uid: that of a later request was taken for the dropped reply.
                self.counts["requests: not run, but executed, and the network dropped the reply"] += 1
            else:
                self.wrong(f"{said} was executed, and its error has may_have_run=False")

    def report(self) -> Iterable[tuple[str, int]]:
        """Return the figures, sorted."""
        counts = self.counts.copy()
        counts["notifications"] = sum(record.received for record in self.streams)
        counts["gaps"] = sum(record.gaps for record in self.streams)
        return sorted(counts.items())
