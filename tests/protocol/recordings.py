"""The recorded conversations of msl-network 1.0.0 clients, and the events that they require.

A recording is a file of JSON lines. The first tells what it is ``about`` and which ``manager`` address the
client used. The others are its steps, in their order:

- ``{"to_manager": LINE}`` and ``{"from_manager": LINE}``: what was sent, without the end of the line. A line
  that has no uid of its own says which request it ``"answers"`` or ``"refuses"``; one that shows that a Service
  has gone says which request it ``"buries"``, which msl-network left open.
- ``{"held_back": LINE}``: the request is made here, but must not be written before its ``to_manager``.
- ``{"end": true}``: the end of the connection, which may be what ``"answers"`` a request.
- ``{"request_when_closed": SERVICE}``: one more request, after the end.
- ``{"raises": TEXT}``: the error that the Python API of msl-network raised because of the step before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "data" / "recordings"
MANAGER = "Manager"
DISCONNECT = "__disconnect__"
ANSWERED_WITH_UID = {"identity", "link", "unlink", "acquire_lock", "release_lock"}


@dataclass(frozen=True)
class Step:
    """One step of a recording."""

    kind: str
    line: str = ""
    answers: str = ""
    refuses: str = ""
    buries: str = ""
    raises: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the line."""
        return json.loads(self.line)


@dataclass(frozen=True)
class Recording:
    """One conversation of one client."""

    name: str
    about: str
    manager: str
    steps: tuple[Step, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the client; a made-up one if it was rejected before."""
        results = [step.fields.get("result") for step in self.steps if step.kind == "to_manager"]
        return next((r for r in results if isinstance(r, dict)), {"type": "client", "name": "C"})

    @property
    def conversation(self) -> tuple[Step, ...]:
        """The steps before the end."""
        return self.steps[: self.steps.index(self.end)]

    @property
    def end(self) -> Step:
        """The end of the connection."""
        return next(step for step in self.steps if step.kind == "end")

    def groups(self, *, joined: bool) -> list[list[Step]]:
        """The steps before the end, one by one, or those of one kind that follow each other together."""
        if not joined:
            return [[step] for step in self.conversation]
        return [list(steps) for _, steps in groupby(self.conversation, key=lambda step: step.kind)]


@dataclass
class Seen:
    """The visible results of a client in a group of steps."""

    written: list[str] = field(default_factory=list)
    events: list[tuple[str, ...]] = field(default_factory=list)
    in_flight: int = 0


def load() -> list[Recording]:
    """Read all recordings."""
    return [_recording(path) for path in sorted(FOLDER.glob("*.jsonl"))]


def _recording(path: Path) -> Recording:
    head, *entries = map(json.loads, path.read_text("utf-8").removesuffix("\n").split("\n"))
    steps: list[Step] = []
    for entry in entries:
        if "raises" in entry:
            steps[-1] = replace(steps[-1], raises=entry["raises"])
        else:
            kind = next(iter(entry))
            line = "" if kind == "end" else entry.pop(kind)
            entry.pop(kind, None)
            steps.append(Step(kind, line, **entry))
    return Recording(path.stem, head["about"], head["manager"], tuple(steps))


def canonical(value: Any) -> str:
    """A text that is equal for equal JSON values only: 1 is not 1.0, and NaN is NaN."""
    return json.dumps(value, sort_keys=True)


def is_admin(request: dict[str, Any]) -> bool:
    """Whether only an administrator may make the request."""
    return request["service"] == MANAGER and request["attribute"] not in ANSWERED_WITH_UID


def is_goodbye(line: dict[str, Any]) -> bool:
    """Whether the line ends the connection."""
    return line.get("attribute") == DISCONNECT


class Expected:
    """The results that a recording requires.

    Args:
        recording: The recording.
        joined: Whether lines of one direction that follow each other are joined.

    Attributes:
        seen: What must be seen, one for every group of steps.
        unanswered: The uids of the requests that were written and never answered.
        rejection: Why the Manager let nobody in; empty if it did.
    """

    def __init__(self, recording: Recording, *, joined: bool) -> None:
        self.recording = recording
        self.rejection = ""
        self._open: dict[str, dict[str, Any]] = {}
        self._manager_name = ""
        self._our_name = "Client"
        self.seen = [self._seen(steps) for steps in recording.groups(joined=joined)]
        self.unanswered = list(self._open)

    def _seen(self, steps: Iterable[Step]) -> Seen:
        seen = Seen()
        for step in steps:
            if step.kind == "to_manager":
                seen.written.append(self._written(step.fields))
            elif step.kind == "from_manager":
                seen.events += self._events(step)
        seen.in_flight = len(self._open)
        return seen

    def _written(self, line: dict[str, Any]) -> str:
        if is_goodbye(line):  # the client of msl-network gives its own idea of its address
            return canonical(line | {"service": self._our_name, "uid": "fresh"})
        if "attribute" in line:
            self._open[line["uid"]] = line
        return canonical(line)

    def _events(self, step: Step) -> list[tuple[str, ...]]:
        line = step.fields
        uid = line["uid"] or step.answers or step.refuses
        if uid == "notification":
            args, kwargs = line["result"]
            return [("notification", line["service"], canonical(args), canonical(kwargs))]
        if uid:
            self._our_name = line["requester"] if line["requester"] != self._manager_name else self._our_name
            answered = ("settled", uid, *self._outcome(self._open.pop(uid), step))
            return [answered, *self._buried(step.buries)] if step.buries else [answered]
        self._manager_name = line["requester"]
        if line["error"]:
            self.rejection = step.raises
            return []
        if line["attribute"] == "identity":
            return [("connected", line["requester"])]
        (about,) = line["args"]
        manager_password = line["attribute"] == "password" and about == self._manager_name
        return [("question", line["attribute"], about, str(manager_password))]

    def _buried(self, uid: str) -> list[tuple[str, ...]]:
        request = self._open.pop(uid)
        service, attribute = request["service"], request["attribute"]
        text = f"The {service!r} Service has gone from {self._manager_name}; {service}.{attribute} may have been executed"
        return [("settled", uid, "ServiceLost", text, service, attribute, "True")]

    def _outcome(self, request: dict[str, Any], step: Step) -> tuple[str, ...]:
        line = step.fields
        if step.refuses:
            what = f"{request['service']}.{request['attribute']}"
            text = f"The {request['service']!r} Service is not connected to {self._manager_name}; {what} was refused"
            return ("ServiceLost", text, request["service"], request["attribute"], "False")
        if not line["error"]:
            return ("result", canonical(line["result"]))
        error_class = "ManagerError" if request["service"] == MANAGER else "RemoteError"
        message = line["message"]
        type_name = message.partition(":")[0]
        traceback = canonical(line["traceback"])
        return (
            error_class,
            step.raises,
            request["service"],
            request["attribute"],
            type_name,
            message,
            traceback,
        )
