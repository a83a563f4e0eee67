"""What is on its way out: lines, requests, and the order in which they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.protocol.messages import Question

_CHUNK = 262_144
"""How many bytes `Outbox.take` gives out at a time; a longer line comes alone, so that it is not copied."""


class Line:
    """A line on its way out."""

    __slots__ = ("data", "sequence", "uid", "waits")

    def __init__(self, data: bytes, uid: str = "") -> None:
        self.data: bytes | None = data
        """What is to be written; None once it was given out to be written, or was withdrawn."""
        self.sequence = 0
        """The place of the line among all that were given out, from 1; 0: it was not."""
        self.uid = uid
        self.waits = False
        """Whether the line is in an `Outbox`."""


class Request(Line):
    """A request and, once it is `settled`, its outcome.

    Args:
        service: The name of the Service, or ``"Manager"``.
        attribute: What is requested.
        uid: As `ClientProtocol.next_uid` gave it.
        data: As `ClientProtocol.encode` gave it.
        admin: Whether only an administrator may make it.
    """

    __slots__ = ("abandoned", "admin", "attribute", "error", "question", "result", "service", "settled")

    wakes_anywhere: ClassVar[bool] = False
    """Whether `wake` may be called in any thread."""

    is_patient = False
    """Whether nobody waits for the answer at the moment."""

    def __init__(self, service: str, attribute: str, uid: str, data: bytes, *, admin: bool = False) -> None:
        self.data = data  # what Line does, without the call: this is the hot path
        self.sequence = 0
        self.uid = uid
        self.waits = False
        self.service = service
        self.attribute = attribute
        self.admin = admin
        self.settled = False
        self.abandoned = False
        self.result: Any = None
        self.error: NetworkError | None = None
        self.question: Question | None = None
        """What the Manager wants to know before it goes on with this admin request."""

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

    def __repr__(self) -> str:
        state = "settled" if self.settled else "written" if self.sequence else "not written"
        return f"<{type(self).__name__} {self.service}.{self.attribute} {state}>"


class Outbox:
    """Lines that wait to be written, in order. A line can be withdrawn at any time, and is gone at once.

    Attributes:
        unsent: How many bytes wait.
    """

    __slots__ = ("_batch", "_waiting", "unsent")

    def __init__(self) -> None:
        self.unsent = 0
        # A dictionary without values is a set that keeps its order. Lines pass from it into a queue when
        # that is empty, since taking many lines from the front of a dictionary is slow.
        self._waiting: dict[Line, None] = {}
        self._batch: deque[Line] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting or self._batch)

    def __iter__(self) -> Iterator[Line]:
        """The lines that wait, in order."""
        return (line for line in (*self._batch, *self._waiting) if line.data is not None)

    def add(self, line: Line) -> None:
        """Add a line behind all others."""
        assert line.data is not None
        line.waits = True
        self._waiting[line] = None
        self.unsent += len(line.data)

    def add_first(self, line: Line) -> None:
        """Add a line in front of all others."""
        assert line.data is not None
        line.waits = True
        self._batch.appendleft(line)
        self.unsent += len(line.data)

    def withdraw(self, line: Line) -> None:
        """Take a line away again that `waits`."""
        assert line.waits
        assert line.data is not None
        self.unsent -= len(line.data)
        line.data = None
        line.waits = False
        self._waiting.pop(line, None)

    def take(self) -> list[Line]:
        """Give out the next lines to write; none if none wait. Their data is the caller's to take."""
        lines: list[Line] = []
        size = 0
        batch = self._batch
        while not lines and (batch or self._waiting):
            if not batch:
                batch.extend(self._waiting)
                self._waiting.clear()
            while batch:
                data = batch[0].data
                if data is not None:  # else it was withdrawn
                    if lines and size + len(data) > _CHUNK:
                        break
                    batch[0].waits = False
                    lines.append(batch[0])
                    size += len(data)
                batch.popleft()
        self.unsent -= size
        return lines

    def clear(self) -> None:
        """Forget all lines."""
        self._waiting.clear()
        self._batch.clear()
        self.unsent = 0
