"""Recorded conversations of msl-network 1.0.0: our Manager says the same to the same client.

What is different on purpose: every answer carries the uid of its request, also one that says that a login has
failed, after which a client that was connected stays so (`STAYS_CONNECTED`); who waits for a Service that dies is told so; the Manager's own errors have no traceback, which would be of
its own code; and `OUR_MESSAGES`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.pending_check import HostCheck, LoginCheck, PendingCheck, UserCheck
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.protocol.messages import departure
from tests.protocol.network import encoded, notification, raw, read, request
from tests.protocol.recordings import MANAGER, Recording, Step, canonical, is_goodbye, load

OUR_MESSAGES = {
    "IndexError: list index out of range": "TypeError: The first argument must be the name of a service"
}

FAILED_LOGINS = {"ValueError: Unregistered user", "ValueError: Wrong login password"}

STAYS_CONNECTED = {
    "admin_request_of_an_unknown_user",
    "admin_request_of_an_unknown_user_and_another_request",
    "admin_request_with_a_wrong_password",
    "admin_request_with_no_users",
}
"""Recordings of clients that msl-network has disconnected since the login of an admin request failed."""

PASSWORD = "se cret"


THE_OTHER_CLIENT = {
    "links_and_locks": ("B", 38768),
    "links_and_locks_of_another_client": ("A", 38764),
    "shutdown_of_a_service": ("A", 34144),
    "login_of_a_user_who_is_no_administrator": ("C", 45316),
}
"""Name and port of a second client, of which the first one hears."""

COMPUTER = {"language": "Python 3.11.7", "os": "Linux 6.18.44- x86_64"}

BEFORE_THE_SERVICES = {"identity_of_the_manager"}
"""The recordings that begin when no Service has joined yet."""

# ---- what others did meanwhile, which the recording of one client does not tell ----

Deed = Callable[["Replay"], None]


def joins(service: str) -> Deed:
    return lambda replay: replay.join(service)


def dies(service: str) -> Deed:
    return lambda replay: replay.die(service)


def emits(service: str, *args: Any) -> Deed:
    return lambda replay: replay.send(replay.services[service], encoded(notification(service, *args)))


def other(attribute: str, service: str, **kwargs: Any) -> Deed:
    return lambda replay: replay.other_client_asks(request(MANAGER, attribute, service, **kwargs))


MEANWHILE: dict[tuple[str, int], list[Deed]] = {
    ("identity_of_the_manager", 4): [joins("Echo")],
    ("links_and_locks", 20): [other("link", "Echo")],
    ("links_and_locks", 24): [other("acquire_lock", "Echo", shared=True)],
    ("links_and_locks", 36): [other("release_lock", "Echo")],
    ("links_and_locks", 38): [dies("Echo")],
    ("links_and_locks_of_another_client", 2): [
        other("link", "One"),
        other("link", "Echo"),
        other("acquire_lock", "Echo", shared=False),
    ],
    ("links_and_locks_of_another_client", 6): [other("release_lock", "Echo")],
    ("links_and_locks_of_another_client", 22): [other("unlink", "Echo")],
    ("notifications", 27): [emits("Echo", 9)],
    ("service_killed_and_restarted", 5): [dies("Echo")],
    ("service_killed_and_restarted", 7): [joins("Echo")],
    ("service_that_has_gone", 4): [dies("Echo")],
    ("shutdown_of_a_service", 6): [dies("SDecho")],
}
"""What happened before a step of a recording, by its name and the number of the step."""

# ---- what a recording tells about its Manager and its Services ----


def from_manager(recording: Recording) -> list[dict[str, Any]]:
    return [step.fields for step in recording.steps if step.kind == "from_manager"]


def errors(recording: Recording) -> set[str]:
    return {line["message"] for line in from_manager(recording) if line.get("error")}


def authentication(recording: Recording) -> Authentication:
    """The authentication that the Manager of a recording requires."""
    first = from_manager(recording)[0]
    return Authentication(
        password=PASSWORD if first.get("attribute") == "password" else None,
        hostname=recording.name.startswith("hostname_"),
        login=first.get("attribute") == "username",
    )


RECORDINGS = {recording.name: recording for recording in load()}


def address(name: str) -> tuple[str, int]:
    """The host and the port in ``"name[host:port]"`` or ``"host:port"``."""
    host, port = name.rpartition("[")[2].removesuffix("]").split(":")
    return host, int(port)


def identity_of_the_manager(recording: Recording) -> dict[str, Any]:
    """The identity of the Manager in the recording; empty: it was not requested."""
    results = [line["result"] for line in from_manager(recording) if "result" in line]
    told = next((result for result in results if isinstance(result, dict) and "clients" in result), {})
    return {key: value for key, value in told.items() if key not in {"clients", "services"}}


def identities_of_services(recording: Recording) -> dict[str, deque[dict[str, Any]]]:
    """The identities of each Service, one for each connection."""
    if recording.name == "links_and_locks_of_another_client":
        recording = RECORDINGS["links_and_locks"]  # where it could be linked with both Services
    asked = {step.fields["uid"]: step.fields for step in recording.steps if step.kind == "to_manager"}
    found: dict[str, deque[dict[str, Any]]] = {}
    for line in from_manager(recording):
        question, result = asked.get(line["uid"], {}), line.get("result")
        told: dict[str, Any] = {}
        if question.get("service") == MANAGER and isinstance(result, dict):
            told = {question["args"][0]: result} if question["attribute"] == "link" else result["services"]
        for name, info in told.items():
            known = found.setdefault(name, deque())
            if not known or known[-1]["address"] != info["address"]:
                known.append(info)
    if recording.name == "lines_split_and_joined":
        found["Echo"] = deque([{"attributes": {}, "address": "vm:1"}])  # it was not linked with it
    return found


# ---- the replay ----


class Replay:
    """A Manager that meets the client of a recording.

    Args:
        recording: The recording.
        split: Whether all lines arrive byte by byte.

    Attributes:
        client: The client of the recording.
        services: The Services that are connected, by name. They say what the recording says that they said.
        differences: What our Manager said, and what msl-network's did, where these differ.
    """

    def __init__(self, recording: Recording, *, split: bool) -> None:
        self.recording = recording
        self._split = split
        lines = from_manager(recording)
        self.protocol = ManagerProtocol(
            lines[0]["requester"],
            identity_of_the_manager(recording),
            authentication=authentication(recording),
            max_backlog=1_000_000,
        )
        self._identities = identities_of_services(recording)
        self._open: dict[str, str] = {}
        self._heard: deque[str] = deque()
        self.services: dict[str, Peer] = {}
        self.differences: list[tuple[str, str]] = []
        if recording.name not in BEFORE_THE_SERVICES:
            for name in self._identities:
                self.join(name)
        if recording.name in THE_OTHER_CLIENT:
            name, port = THE_OTHER_CLIENT[recording.name]
            self._other_client = self._connect({"name": name, "type": "client", **COMPUTER}, port)
        names = [
            line["requester"] for line in lines if not line.get("requester", MANAGER).startswith(MANAGER)
        ]
        host, port = address(names[0] if names else "vm:2")
        self.client = Peer(Host(host, "127.0.0.1", "localhost", "localhost"), port)
        self.protocol.connect(self.client)
        if authentication(recording).hostname:
            self.protocol.resolve(self.client, self._result(HostCheck("vm")))
        for number, step in enumerate(recording.conversation):
            for deed in MEANWHILE.get((recording.name, number), []):
                deed(self)
            self._play(step)
        self._listen()
        self.differences += [(line, "nothing") for line in self._heard]

    def send(self, peer: Peer, line: bytes) -> None:
        """Pass a line of a peer to the Manager."""
        data = line + b"\r\n"
        size = 1 if self._split else len(data)
        for start in range(0, len(data), size):
            self.protocol.receive(peer, data[start : start + size])
            while (question := self.protocol.pending_check(peer)) is not None:
                if getattr(question, "attribute", "") == "shutdown_manager":
                    break  # this is not answered
                self.protocol.resolve(peer, self._result(question))

    def _result(self, check: PendingCheck) -> Any:
        """The answers of the recorded Manager's database."""
        match check:
            case HostCheck():
                return self.recording.name == "hostname_trusted"
            case UserCheck():
                return "ValueError: Unregistered user" not in errors(self.recording)
            case LoginCheck() if "ValueError: Wrong login password" in errors(self.recording):
                return None
            case LoginCheck():
                return check.username == "alice"
        (line,) = (step.fields for step in self.recording.steps if step.answers == check.uid)
        if not line["error"]:
            return line["result"]
        name, text = line["message"].split(": ", 1)
        return type(name, (Exception,), {})(text)

    def _connect(self, identity: dict[str, Any], port: int) -> Peer:
        peer = Peer("vm", port)
        self.protocol.connect(peer)
        if authentication(self.recording).login:
            answers: list[Any] = ["alice", "pw-a", identity]
        else:
            answers = [identity]
        for answer in answers:
            self.send(peer, encoded({"result": answer}))
        assert not peer.close_reason
        raw(peer)
        return peer

    def join(self, name: str) -> None:
        """Connect a Service."""
        info = self._identities[name].popleft()
        self.services[name] = self._connect(
            {"name": name, "type": "service", **info}, address(info["address"])[1]
        )

    def die(self, name: str) -> None:
        """Disconnect a Service; our Manager reports it to clients with open requests."""
        self._listen()
        assert not self._heard
        self.protocol.disconnect(self.services.pop(name))
        waiting = [uid for uid, service in self._open.items() if service == name]
        told = [(line["uid"], line["message"]) for line in read(self.client)]
        assert told == [(uid, departure(name, self.protocol.name)) for uid in waiting]

    def other_client_asks(self, line: dict[str, Any]) -> None:
        """Send a request of the other client to the Manager, which must succeed."""
        self.send(self._other_client, encoded(line))
        assert [answer["error"] for answer in read(self._other_client)] == [False]

    def _play(self, step: Step) -> None:
        if step.kind == "from_manager":
            self._compare(step)
        if step.kind in {"from_manager", "held_back"}:
            return
        assert step.kind == "to_manager"
        self.send(self.client, step.line.encode())
        service, uid = step.fields.get("service"), step.fields["uid"]
        if service in self.services:
            self._open[uid] = service
            assert raw(self.services[service]).decode() == (
                f'{step.line[:-1]},"requester":"{self.client.name}"}}\r\n'
            )

    def _compare(self, step: Step) -> None:
        uid = step.fields["uid"]
        service = step.fields["service"] if uid == "notification" else self._open.pop(uid, "")
        if service:
            self.send(self.services[service], step.line.encode())
        self._listen()
        line = self._heard.popleft() if self._heard else "{}"
        same = (
            line == step.line
            if service
            else meaning(line) == meaning(step.line, step.refuses or step.answers)
        )
        if not same:
            self.differences.append((line, step.line))

    def _listen(self) -> None:
        self._heard += raw(self.client).decode().split("\r\n")[:-1]


def meaning(line: str, uid: str = "") -> str:
    """A text that is equal for lines of Managers that say the same, but for what is different on purpose.

    Args:
        line: The line.
        uid: The uid that it should have, if it has none.
    """
    fields = json.loads(line)
    fields["uid"] = fields.get("uid") or uid
    if fields.get("error"):
        fields["traceback"] = []
        fields["message"] = OUR_MESSAGES.get(fields["message"], fields["message"])
        if fields["message"] in FAILED_LOGINS:
            del fields["requester"]
    if isinstance(fields.get("result"), list):
        fields["result"].sort()  # names of clients, which have no order
    return canonical(fields)


@pytest.fixture(params=RECORDINGS.values(), ids=RECORDINGS)
def recording(request: pytest.FixtureRequest) -> Recording:
    return request.param


@pytest.fixture(params=[False, True], ids=["line by line", "byte by byte"])
def replay(request: pytest.FixtureRequest, recording: Recording) -> Replay:
    return Replay(recording, split=request.param)


def test_the_client_hears_what_it_heard_from_msl_network(replay: Replay) -> None:
    if replay.recording.name in STAYS_CONNECTED:
        # What it has requested afterwards is answered.
        assert all(theirs == "nothing" for _, theirs in replay.differences)
        asked = [step.fields for step in replay.recording.steps if step.kind == "to_manager"]
        uids = {line["uid"] for line in asked if line.get("service") == MANAGER} - {""}
        assert {json.loads(ours)["uid"] for ours, _ in replay.differences} <= uids
        return
    assert replay.differences == []


def test_the_manager_closes_the_connection_where_msl_network_did(replay: Replay) -> None:
    last = replay.recording.conversation[-1]
    rejected = any(
        line["error"] and line["requester"] == replay.protocol.name for line in from_manager(replay.recording)
    )
    rejected = rejected and replay.recording.name not in STAYS_CONNECTED
    assert bool(replay.client.close_reason) == (rejected or is_goodbye(last.fields))


def test_of_a_client_that_has_gone_nothing_is_left(replay: Replay) -> None:
    replay.protocol.disconnect(replay.client)
    assert replay.client.name not in replay.protocol.identity()["clients"]
    for service in replay.services.values():
        assert replay.client not in service.links
        assert replay.client not in service.locks


def test_the_recordings_are_there() -> None:
    assert len(RECORDINGS) == 32
    assert {name for name, _ in MEANWHILE} | BEFORE_THE_SERVICES <= set(RECORDINGS)
