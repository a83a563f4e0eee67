"""Tests of arbitrary bytes, in arbitrary pieces: other peers are not affected, and no value changes."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.route import LARGE
from tests.protocol.network import Network, encoded, notification, queue_of, read, reply, request

# ---- values ----

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=15
)
white = st.text(" \t\r", max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, in one of the many ways to write it."""
    fields = {
        "service": "Echo",
        "attribute": draw(st.text(min_size=1)),
        "uid": draw(st.text().filter(lambda uid: uid != "notification")),
        "args": draw(values),
        "kwargs": draw(values),
        **draw(
            st.dictionaries(st.sampled_from(["error", "more", "Result", "", "requester\0"]), st.just(False))
        ),
        **draw(st.dictionaries(st.just("requester"), values)),
    }
    fields = dict(draw(st.permutations(list(fields.items()))))
    separators = (draw(white) + "," + draw(white), draw(white) + ":" + draw(white))
    text = json.dumps(fields, ensure_ascii=draw(st.booleans()), separators=separators)
    return draw(white).encode() + text.encode("utf-8", "surrogatepass") + draw(white).encode()


def exactly(lines: list[dict[str, Any]]) -> str:
    """A text that is the same for lines with the same fields only, in any order; NaN is NaN, 1 is not 1.0."""
    return repr([sorted(fields.items()) for fields in lines])


@given(line=requests(), sizes=st.lists(st.integers(0, 40)))
@example(b'{"service":"Echo","attribute":"e","uid":"1","args":["\\ud800",1e999,-0]}', [])
@example(b'{"service":"Echo","attribute":"e","uid":"1","args":[' + b" " * LARGE + b"]}\t", [9])
def test_a_service_receives_the_values_that_were_sent_and_who_sent_them(line, sizes):
    network = Network()
    service, client = network.peer("Echo", "service"), network.peer("Zoë")
    network.send_in_pieces(client, line + b"\n", sizes)
    sent, received = json.loads(line), read(service)
    if received:
        assert exactly(received) == exactly([{**sent, "requester": client.name}])
    else:
        [answer] = read(client)
        assert "surrogates not allowed" in answer["message"]
        assert "requester" in sent  # which had to go, and the text could not be encoded again


@given(
    result=values, uid=st.text().filter(lambda uid: uid != "notification"), sizes=st.lists(st.integers(0, 40))
)
def test_a_client_receives_the_values_that_the_service_sent(result, uid, sizes):
    network = Network()
    service, client = network.peer("Echo", "service"), network.peer("Zoë")
    network.send(client, request("Echo", "e", uid=uid), request("Manager", "link", "Echo"))
    read(client)
    answer, told = reply(read(service)[0], result), notification("Echo", result)
    network.send_in_pieces(service, encoded(answer) + b"\n" + encoded(told) + b"\r\n", sizes)
    assert repr(read(client)) == repr([answer, told])


# ---- bytes ----

NAMES = ["Echo", "Manager", "Good", "Bad", ""]
SERVICE, CLIENT = "Echo[vm:1]", "Good[vm:2]"

texts = st.sampled_from(
    [*NAMES, SERVICE, CLIENT, "Bad[vm:3]", "link", "unlink", "acquire_lock", "identity", "__disconnect__"]
) | st.text(max_size=3)
uids = st.sampled_from(["", "notification", *map(str, range(5))])
odd = st.none() | st.booleans() | st.integers() | st.floats() | st.lists(texts, max_size=2)

fields = st.fixed_dictionaries(
    {},
    optional={
        "service": texts | odd,
        "attribute": texts | odd,
        "uid": uids | odd,
        "args": st.lists(texts, max_size=2) | odd,
        "kwargs": st.just({"shared": True}) | odd,
        "error": st.booleans() | odd,
        "result": odd | texts | st.just([[], {}]),
        "requester": st.sampled_from([SERVICE, CLIENT]) | texts | odd,
    },
)
identities = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES) | odd, "type": st.sampled_from(["client", "service"]) | odd},
    optional={"attributes": st.just({}) | odd, "max_clients": odd},
)
lines = (
    fields.map(encoded)
    | identities.map(lambda identity: encoded({"result": identity}))
    | st.just(b'{"result":"secret"}')
    | st.binary(max_size=30)
)
# With a limit of 300 bytes for a line; without the last byte, for what comes next to be a part of the line.
chunks = (
    st.lists(lines, max_size=4).map(lambda many: b"".join(line + b"\n" for line in many))
    | lines
    | (st.just(b" " * 301))
)


class HostileNetwork(RuleBasedStateMachine):
    """One client and one Service that behave, among peers that send anything and read when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.hostile: list[Peer] = []
        self.numbers = count()
        self.asked: dict[str, dict[str, Any]] = {}
        """What the Service was asked by the client and has not answered yet, by uid."""

    @initialize(password=st.sampled_from([None, "secret"]))
    def begin(self, password: str | None) -> None:
        self.network = Network(password=password, max_backlog=2000, read_limit=300)
        self.service, self.client = self.network.peer("Echo", "service"), self.network.peer("Good")
        assert (self.service.name, self.client.name) == (SERVICE, CLIENT)
        self.network.send(self.client, request("Manager", "link", "Echo"))
        read(self.client)

    def serve(self) -> None:
        """The Service reads: from others it may get what it has to get, in their own names."""
        names = {peer.name for peer in self.hostile}
        for line in read(self.service):
            if "attribute" not in line:
                continue  # an answer to what others said in its name is no request
            assert line["service"] == "Echo"
            if line["requester"] == CLIENT:
                assert line["uid"] not in self.asked
                self.asked[line["uid"]] = line
            else:
                assert line["requester"] in names
                self.network.send(self.service, reply(line, "others"))

    @rule()
    def connect(self) -> None:
        self.hostile.append(self.network.connect())

    @precondition(lambda self: self.hostile)
    @rule(data=st.data(), identity=identities)
    def say_hello(self, data: st.DataObject, identity: dict[str, Any]) -> None:
        peer = data.draw(st.sampled_from(self.hostile))
        if peer.phase is Phase.PASSWORD:
            self.network.send(peer, {"result": "secret"})
        self.network.send(peer, {"result": identity})

    @precondition(lambda self: self.hostile)
    @rule(data=st.data(), chunk=chunks)
    def send(self, data: st.DataObject, chunk: bytes) -> None:
        peer = data.draw(st.sampled_from(self.hostile))
        self.network.protocol.receive(peer, chunk)
        self.serve()
        assert read(self.client) == []

    @precondition(lambda self: self.hostile)
    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        read(data.draw(st.sampled_from(self.hostile)))

    @precondition(lambda self: self.hostile)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.hostile))
        self.hostile.remove(peer)
        self.network.protocol.disconnect(peer)
        assert read(self.client) == []

    @rule()
    def ask(self) -> None:
        uid = str(next(self.numbers))
        self.network.send(self.client, request("Echo", "e", uid, uid=uid))
        self.serve()
        assert self.asked[uid]["args"] == [uid]
        assert read(self.client) == []

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(list(self.asked)))
        answer = reply(self.asked.pop(uid), [uid])
        self.network.send(self.service, answer)
        assert read(self.client) == [answer]

    @rule()
    def emit(self) -> None:
        line = notification("Echo", next(self.numbers))
        self.network.send(self.service, line)
        assert read(self.client) == [line]

    @rule(name=st.sampled_from(["Nope", "Manager"]))
    def ask_the_manager(self, name: str) -> None:
        self.network.send(
            self.client, request("Manager", "unlink", name, uid="m"), request("Gone", "e", uid="n")
        )
        assert [(line["uid"], line["result"]) for line in read(self.client)] == [("m", True), ("n", None)]

    @invariant()
    def what_is_known_is_right(self) -> None:
        if not hasattr(self, "network"):
            return
        protocol = self.network.protocol
        peers = [self.service, self.client, *self.hostile]
        assert not self.service.close_reason
        assert not self.client.close_reason
        assert set(self.client.open) == set(self.asked)
        assert self.client in self.service.links
        known = [peer for peer in peers if peer.kind]
        assert protocol.registry.peers == {peer.name: peer for peer in known}
        for peer in peers:
            assert peer.route.backlog == sum(map(len, queue_of(peer).pieces)) <= 3000
            assert not queue_of(peer).pieces or peer.route in protocol.touched
            assert b"".join(queue_of(peer).pieces).count(b"\n") == len(queue_of(peer).pieces)
            assert set(peer.links) <= set(known)
            assert set(peer.locks) <= set(peer.links)


TestHostileNetwork = HostileNetwork.TestCase
TestHostileNetwork.settings = settings(max_examples=50, stateful_step_count=30)
