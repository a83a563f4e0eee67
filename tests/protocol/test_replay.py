"""Replay of recorded conversations: this client writes the same lines and returns the same events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from msl_network_trio import exceptions as exc
from msl_network_trio.protocol.client import ClientProtocol, Event, Request
from msl_network_trio.protocol.messages import Connected, Notification, Question
from tests.protocol.recordings import (
    FOLDER,
    Expected,
    Recording,
    Seen,
    Step,
    canonical,
    is_admin,
    is_goodbye,
    load,
)

RECORDINGS = load()
FEEDS = ("line by line", "byte by byte", "joined")


class Replay:
    """A fresh client that is driven through a recording.

    Args:
        recording: The recording.
        feed: How its lines arrive; if joined, requests that follow each other are also written at once.

    Attributes:
        seen: What was seen of the client, one for every group of steps.
        left_over: What it wrote although the recording has no such line.
        lost: The requests that `ClientProtocol.connection_lost` settled, by their recorded uids.
    """

    def __init__(self, recording: Recording, feed: str) -> None:
        self.recording = recording
        self.protocol = ClientProtocol(recording.identity, recording.manager)
        self.requests: dict[str, Request] = {}
        self.lost: dict[str, Request] = {}
        self._recorded_uids: dict[str, str] = {}
        self._held_back: set[str] = set()
        self._written: list[str] = []
        self._feed = feed
        self.seen = [self._play(steps) for steps in recording.groups(joined=feed == "joined")]
        self.left_over = self._written
        self.open_before_the_end = [uid for uid, request in self.requests.items() if not request.settled]
        self.reason = self.protocol.broken or self.protocol.receive_eof()
        if isinstance(self.reason, exc.ConnectionLost):
            self.lost = {self._recorded_uids[r.uid]: r for r in self.protocol.connection_lost(self.reason)}

    def _play(self, steps: list[Step]) -> Seen:
        seen = Seen()
        if steps[0].kind == "from_manager":
            seen.written = self._take(
                len(self._written)
            )  # lines that were written too early, or without need
            seen.events = [self._described(event) for event in self._receive(steps)]
        else:
            for step in steps:
                self._say(step)
        self._written += self._lines(self.protocol.take())
        if steps[0].kind == "to_manager":
            seen.written = self._take(len(steps))
        ahead = [json.loads(line) for line in self._written]
        seen.in_flight = self.protocol.in_flight - sum("attribute" in line for line in ahead)
        return seen

    def _say(self, step: Step) -> None:
        line = step.fields
        if is_goodbye(line):
            assert self.protocol.say_goodbye()
        elif "attribute" not in line:
            if isinstance(line["result"], str):  # else it is the identity, which is written by itself
                self.protocol.answer(line["result"])
        elif line["uid"] in self._held_back:
            self._held_back.remove(line["uid"])
        else:
            self._request(line)
            if step.kind == "held_back":
                self._held_back.add(line["uid"])

    def _request(self, line: dict[str, Any]) -> None:
        request = self.protocol.make(
            Request, line["service"], line["attribute"], line["args"], line["kwargs"]
        )
        request.admin = is_admin(line)
        self.requests[line["uid"]] = request
        self._recorded_uids[request.uid] = line["uid"]
        self.protocol.request(request)

    def _receive(self, steps: list[Step]) -> list[Event]:
        data = b"".join(self._with_our_uid(step).encode() + b"\r\n" for step in steps)
        size = 1 if self._feed == "byte by byte" else len(data)
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        return [event for chunk in chunks for event in self.protocol.receive(chunk)]

    def _with_our_uid(self, step: Step) -> str:
        uid = step.fields["uid"]
        if uid not in self.requests:
            return step.line
        start, end = step.line.rsplit(canonical(uid), 1)
        return start + canonical(self.requests[uid].uid) + end

    def _take(self, number: int) -> list[str]:
        """The next lines that were written, with the recorded uids.

        There may be more, which the recording has in its next steps: a released request, for example.
        """
        written, self._written = self._written[:number], self._written[number:]
        return written

    def _lines(self, data: bytes) -> list[str]:
        if not data:
            return []
        *lines, rest = data.split(b"\n")
        assert rest == b""
        return [self._with_recorded_uid(json.loads(line)) for line in lines]

    def _with_recorded_uid(self, line: dict[str, Any]) -> str:
        if line["uid"]:
            line["uid"] = self._recorded_uids.get(line["uid"], "fresh")
        return canonical(line)

    def _described(self, event: Event) -> tuple[str, ...]:
        match event:
            case Connected(manager):
                return ("connected", manager)
            case [Notification(service, args, kwargs)]:
                return ("notification", service, canonical(args), canonical(kwargs))
            case Request(settled=False, question=Question() as question) | (Question() as question):
                return ("question", question.kind, question.about, str(question.wants_manager_password))
            case Request(settled=True):
                return ("settled", self._recorded_uids[event.uid], *_outcome(event))
        pytest.fail(f"an event that means nothing: {event}")


def _outcome(request: Request) -> tuple[str, ...]:
    error = request.error
    match error:
        case None:
            return ("result", canonical(request.result))
        case exc.RemoteError():
            about: tuple[str, ...] = (error.type_name, error.message, canonical(error.traceback_lines))
        case exc.ServiceLost():
            about = (str(error.may_have_run),)
        case _:
            return (type(error).__name__, str(error))
    return (type(error).__name__, str(error), error.service, error.attribute, *about)


@pytest.fixture(params=RECORDINGS, ids=lambda recording: recording.name)
def recording(request: pytest.FixtureRequest) -> Recording:
    return request.param


@pytest.fixture(params=FEEDS)
def feed(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def replay(recording: Recording, feed: str) -> Replay:
    return Replay(recording, feed)


@pytest.fixture
def expected(recording: Recording, feed: str) -> Expected:
    return Expected(recording, joined=feed == "joined")


def test_the_client_writes_the_recorded_lines_and_no_others(replay: Replay, expected: Expected) -> None:
    assert [seen.written for seen in replay.seen] == [seen.written for seen in expected.seen]
    assert replay.left_over == []


def test_every_line_means_what_it_meant_to_the_recorded_client(replay: Replay, expected: Expected) -> None:
    """Results, errors with their whole text, questions and notifications, in order, and nothing else."""
    assert [seen.events for seen in replay.seen] == [seen.events for seen in expected.seen]


def test_only_unanswered_requests_are_in_flight(replay: Replay, expected: Expected) -> None:
    assert [seen.in_flight for seen in replay.seen] == [seen.in_flight for seen in expected.seen]
    assert replay.open_before_the_end == expected.unanswered


def test_requests_that_were_never_answered_are_lost_with_the_connection(
    replay: Replay, expected: Expected
) -> None:
    end = replay.recording.end
    assert list(replay.lost) == expected.unanswered
    for uid, request in replay.lost.items():
        assert request.settled
        if uid == end.answers:
            assert (request.result, request.error) == (None, None)
        else:
            assert type(request.error) is exc.ConnectionLost
            assert request.error.may_have_run
            closed = end.raises or f"Manager[{replay.recording.manager}] closed the connection"
            what = f"{request.service}.{request.attribute}"
            assert str(request.error) == f"{closed}; {what} may have been executed"


def test_a_client_that_was_let_in_is_not_broken_and_any_other_knows_why(
    replay: Replay, expected: Expected
) -> None:
    if expected.rejection:
        assert type(replay.protocol.broken) is exc.AuthenticationError
        assert str(replay.protocol.broken) == expected.rejection
    else:
        assert replay.protocol.broken is None
        assert type(replay.reason) is exc.ConnectionLost


def test_nothing_is_left_open(replay: Replay) -> None:
    protocol = replay.protocol
    assert all(request.settled and request.question is None for request in replay.requests.values())
    assert (protocol.in_flight, protocol.outbox.unsent, protocol.outbox.gate) == (0, 0, None)
    assert (bool(protocol.outbox), protocol.take()) == (False, b"")


@pytest.mark.parametrize(
    ("recording", "service", "text"),
    [
        pytest.param(recording, step.line, step.raises, id=recording.name)
        for recording in RECORDINGS
        for step in recording.steps
        if step.kind == "request_when_closed"
    ],
)
def test_a_request_after_the_end_is_refused_with_the_recorded_text(
    recording: Recording, service: str, text: str, feed: str
) -> None:
    protocol = Replay(recording, feed).protocol
    with pytest.raises(exc.ConnectionLost) as caught:
        protocol.check_open(service)
    assert str(caught.value) == text
    assert not caught.value.may_have_run


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_a_recording_is_complete(recording: Recording) -> None:
    """The rest of this module proves nothing about a line that was shortened or has no expectation."""
    for step in recording.conversation:
        assert "...<" not in step.line
        assert isinstance(step.fields, dict)
        if step.kind == "from_manager" and step.fields["error"]:
            assert bool(step.raises) != bool(step.refuses)


def test_there_are_recordings_but_not_too_many() -> None:
    assert len(RECORDINGS) >= 30
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000
