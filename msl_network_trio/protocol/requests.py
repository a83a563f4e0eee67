"""What is on its way out: lines, requests, and the order in which they are written."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.protocol.messages import Question

_CHUNK = 262_144
"""How many bytes `Outbox.take` gives out at a time; a longer line comes alone, so that it is not copied."""


NOBODY: Final = object()
"""The `Request.waiter` of a request whose result is just kept: when it comes, nobody has to be told."""


class Line:
    """A line on its way out."""

    __slots__ = ("admin", "data", "sequence")

    def __init__(self, data: bytes) -> None:
        self.data = data
        """What is to be written; nothing once it was given out to be written, or was withdrawn."""
        self.sequence = -1
        """The place of the line among all that were given out, from 1; 0: it waits; -1: neither."""
        self.admin = False
        """Whether it is a request that only an administrator may make."""

    @property
    def waits(self) -> bool:
        """Whether the line is in an `Outbox`."""
        return self.sequence == 0


class Request(Line):
    """A request and, once it is `settled`, its outcome.

    Args:
        service: The name of the Service, or ``"Manager"``.
        attribute: What is requested.
        uid: What tells its reply from those to others; `ClientProtocol.make` gives it one.
        data: The line.
    """

    __slots__ = (
        "abandoned",
        "attribute",
        "error",
        "question",
        "result",
        "service",
        "settled",
        "uid",
        "waiter",
    )

    wakes_anywhere: ClassVar[bool] = False
    """Whether `wake` may be called in any thread."""

    is_patient = False
    """Whether nobody waits for the answer at the moment."""

    def __init__(self, service: str, attribute: str, uid: str, data: bytes) -> None:
        self.data = data  # what Line does, without the call: this is the hot path
        self.sequence = -1
        self.admin = False
        self.uid = uid
        self.service = service
        self.attribute = attribute
        self.settled = False
        self.abandoned = False
        self.result: Any = None
        self.error: NetworkError | None = None
        self.question: Question | None = None
        """What the Manager wants to know before it goes on with this admin request."""
        self.waiter: Any = None
        """Who waits for the answer, in the form that is needed to `wake` it; or `NOBODY`."""

    @property
    def may_have_run(self) -> bool:
        """Whether the request was given out to be written."""
        return self.sequence > 0

    def outcome(self) -> Any:
        """Return the result of a settled request, or raise its error; once."""
        error = self.error
        if error is None:
            return self.result
        # Else the error would hold the frame that holds the request that holds the error.
        self.error = None
        try:
            raise error
        finally:
            del error

    def wake(self) -> None:
        """Tell whoever waits that the request has been settled or has a question.

        Called by the I/O layer for every event; its subclasses say how.
        """

    def wake_in_thread(self) -> bool:
        """Do what `wake` does, in another thread than that of Trio, and return whether that is possible.

        An exception may interrupt the thread, so this is called again, or `wake` is; that changes nothing.
        """
        return False

    def __repr__(self) -> str:
        state = "settled" if self.settled else "written" if self.may_have_run else "not written"
        return f"<{type(self).__name__} {self.service}.{self.attribute} {state}>"


class Outbox:
    """Lines that wait to be written, in order. A line can be withdrawn at any time, and is gone at once.

    Behind an admin request lines are held back, until the gate that it shuts is opened.

    Attributes:
        open: The requests, by uid, that were given out and are not yet answered, which is for others to find.
        unsent: How many bytes wait, held back or not.
        last_sequence: The `Line.sequence` of the last line that was given out.
        gate: The admin request behind which lines are held back; None: the gate is open.
    """

    __slots__ = ("_batch", "_held", "_waiting", "gate", "last_sequence", "open", "unsent")

    def __init__(self) -> None:
        self.open: dict[str | None, Request] = {}
        self.unsent = 0
        self.last_sequence = 0
        self.gate: Line | None = None
        # A dictionary without values is a set that keeps its order. Lines pass from it into a queue when
        # that is empty, since taking many lines from the front of a dictionary is slow. What most connections
        # never need is made when it is needed: empty, it takes more memory than all the rest.
        self._waiting: dict[Line, None] = {}
        self._batch: deque[Line] | None = None
        self._held: OrderedDict[Line, None] | None = None

    def __bool__(self) -> bool:
        """Whether a line can be given out."""
        return bool(self._waiting or self._batch)

    def __iter__(self) -> Iterator[Line]:
        """The lines that wait, in order."""
        return (line for line in (*(self._batch or ()), *self._waiting, *(self._held or ())) if line.data)

    def add(self, line: Line) -> None:
        """Add a line behind all others."""
        line.sequence = 0
        self.unsent += len(line.data)
        if self.gate is None:
            self._waiting[line] = None
            if line.admin:
                self.gate = line
        else:
            if self._held is None:
                self._held = OrderedDict()
            self._held[line] = None

    def add_first(self, line: Line) -> None:
        """Add a line in front of all others, whether the gate is open or not."""
        line.sequence = 0
        self.unsent += len(line.data)
        if self._batch is None:
            self._batch = deque()
        self._batch.appendleft(line)

    def open_gate(self) -> None:
        """Let go what was held back, up to and including the next admin request."""
        self.gate = None
        while self._held and self.gate is None:
            line, _ = self._held.popitem(last=False)
            self._waiting[line] = None
            if line.admin:
                self.gate = line

    def withdraw(self, line: Line) -> None:
        """Take a line away again that `waits`."""
        assert line.waits
        self.unsent -= len(line.data)
        line.data = b""
        line.sequence = -1
        self._waiting.pop(line, None)
        if self._held:
            self._held.pop(line, None)

    def pass_by(self, request: Request) -> bytes:
        """Give out a request that was not added, when nothing waits and the gate is open."""
        data, request.data = request.data, b""
        self.last_sequence = request.sequence = self.last_sequence + 1
        self.open[request.uid] = request
        return data

    def count_as_given_out(self, requests: Sequence[Request], after: int) -> None:
        """Count requests as given out that were not added; to do so again changes nothing.

        Args:
            requests: The requests, in order.
            after: The `last_sequence` before.
        """
        sequence = after
        for request in requests:
            sequence += 1
            request.sequence = sequence
            self.open[request.uid] = request
        self.last_sequence = sequence

    def take(self) -> bytes:
        """Give out the next lines to write, joined; nothing if none wait."""
        parts: list[bytes] = []
        append, open_requests, sequence = parts.append, self.open, self.last_sequence
        for line in self._next_lines():
            append(line.data)
            line.data = b""
            sequence += 1
            line.sequence = sequence
            if isinstance(line, Request):
                open_requests[line.uid] = line
        self.last_sequence = sequence
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.unsent -= len(data)
        return data

    def _next_lines(self) -> list[Line]:
        """Take the next lines out: as many as make a chunk, or one that is larger."""
        batch = self._batch
        if not batch and self.unsent <= _CHUNK:
            lines = [*self._waiting]
            self._waiting.clear()
            return lines
        if batch is None:
            batch = self._batch = deque()
        lines = []
        size = 0
        while not lines and (batch or self._waiting):
            if not batch:
                batch.extend(self._waiting)
                self._waiting.clear()
            while batch:
                line = batch[0]
                if line.data:  # else it was withdrawn
                    size += len(line.data)
                    if lines and size > _CHUNK:
                        break
                    lines.append(line)
                batch.popleft()
        return lines

    def clear(self) -> None:
        """Forget all lines."""
        self._waiting.clear()
        self._batch = None
        self._held = None
        self.gate = None
        self.unsent = 0
