"""Tests of the handshake that passes through a gateway: throttled logins, and the address for the Manager."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.gateway import handshake_proxy
from msl_network_trio.gateway.handshake_proxy import HandshakeProxy, _with_address
from msl_network_trio.limits.login_throttle import LoginThrottle
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.pending_check import Throttled

MANAGER = "Manager[vm:1875]"
ADDRESS = "10.0.0.7"
IDENTITY = {"result": {"type": "client", "name": "C"}}


def asks(attribute, *args):
    return line({"attribute": attribute, "args": args, "error": False, "requester": MANAGER, "uid": ""})


def rejects(message):
    return line({"error": True, "message": message, "requester": MANAGER, "uid": "", "result": None})


def line(fields):
    return json.dumps(fields).encode() + b"\n"


@pytest.fixture
def logins():
    return LoginThrottle(2, 60, 0, lambda: 1000.0)


class Scene:
    """A peer behind the gateway; collects its lines that reach the Manager."""

    def __init__(self, logins, nursery, address=ADDRESS):
        self.handshake = HandshakeProxy(address, logins)
        self.passed: list[bytes] = []
        self.throttled = None
        self._nursery = nursery

    async def _send(self, data):
        self.passed.append(data)
        return ""

    async def _say(self, data):
        try:
            assert await self.handshake.forward_to_manager(data, self._send) == ""
        except Throttled as throttled:
            self.throttled = throttled

    async def say(self, *data):
        """Send lines of the peer, and return the lines that have reached the Manager since."""
        before = len(self.passed)
        self._nursery.start_soon(self._say, b"".join(data))
        await wait_all_tasks_blocked()
        return self.passed[before:]

    async def ask(self, *data):
        """Send lines of the Manager, and return the lines that have reached it since."""
        before = len(self.passed)
        self.handshake.receive_from_manager(b"".join(data))
        await wait_all_tasks_blocked()
        return self.passed[before:]


@pytest.fixture
def scene(logins, nursery):
    return Scene(logins, nursery)


def forwarded(data):
    return json.loads(data)["forwarded"]


async def test_the_first_line_has_the_address_of_the_peer_and_others_are_as_they_were(scene):
    await scene.ask(asks("username", MANAGER))
    [first] = await scene.say(line({"result": "alice", "uid": ""}))
    assert json.loads(first) == {"result": "alice", "uid": "", "forwarded": ADDRESS}
    await scene.ask(asks("password", "alice"))
    assert await scene.say(line({"result": "pw"})) == [line({"result": "pw"})]
    await scene.ask(asks("identity"))
    assert not scene.handshake.is_finished
    assert await scene.say(line(IDENTITY), b"more\n", b"and mo") == [line(IDENTITY), b"more\nand mo"]
    assert scene.handshake.is_finished
    assert await scene.say(b"re\n") == [b"re\n"]


async def test_without_a_login_the_first_line_is_the_identity(scene):
    assert await scene.say(b"\n \r\n", line(IDENTITY), b"x\n") == [b"\n", b" \r\n"]
    passed = await scene.ask(asks("identity"))
    assert json.loads(passed[0]) == {**IDENTITY, "forwarded": ADDRESS}
    assert passed[1] == b"x\n"


async def test_what_comes_at_once_or_in_pieces_is_passed_on_when_it_is_asked_for(scene):
    answers = line({"result": "alice"}) + line({"result": "pw"}) + line(IDENTITY)
    assert await scene.say(answers[:5]) == []
    assert await scene.say(answers[5:], b"later\n") == []
    question = asks("username", MANAGER)
    assert await scene.ask(question[:7]) == []
    assert len(await scene.ask(question[7:])) == 1
    assert await scene.ask(asks("password", "alice")) == [line({"result": "pw"})]
    assert await scene.ask(asks("identity")) == [line(IDENTITY), b"later\n"]


@pytest.mark.parametrize(
    ("text", "comma"),
    [
        (b'{"result": 1}', b","),
        (b"{}", b""),
        (b"{ \t}", b""),
        (b' \t{"a": {"forwarded": 1}} \r\n', b","),
        (b'{"forwarded": "6.6.6.6"}', b","),
        (b'{"forwarded": "6.6.6.6", "forwarded": "6.6.6.7"}', b","),
    ],
)
def test_the_address_is_added_to_every_object(text, comma):
    assert forwarded(_with_address(text, "fd00::7")) == "fd00::7"
    assert codec.decode_object(_with_address(text, ADDRESS))["forwarded"] == ADDRESS
    assert _with_address(text, ADDRESS) == text.strip()[:-1] + comma + b'"forwarded":"10.0.0.7"}'


@pytest.mark.parametrize("text", [b"alice", b"[1]", b'"x"', b"{", b"}", b'{"a": 1', b"\xef\xbb\xbf{}"])
def test_what_is_no_object_is_passed_on_as_it_is(text):
    assert _with_address(text, ADDRESS) == text


PIECES = st.sampled_from(
    ['"', "\\", "{", "}", "[", "]", ":", ",", "1", "forwarded", '"forwarded":"6.6.6.6"', " ", "\u20ac"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_peer_can_say_another_address(middle):
    text = _with_address(("{" + middle + "}").encode(), ADDRESS)
    try:
        fields = codec.decode_object(text)
    except codec.UndecodableLine:
        return
    assert fields["forwarded"] == ADDRESS


# ---- logins ----


async def log_in(scene, user="alice", *, rejected="", manager_password=False):
    """Log in as a peer; return True if all answers have reached the Manager."""
    answers = [({"result": "pw"}, asks("password", MANAGER))]
    if not manager_password:
        answers = [
            ({"result": user}, asks("username", MANAGER)),
            ({"result": "pw"}, asks("password", user)),
        ]
    for answer, question in answers:
        await scene.ask(question)
        await scene.say(line(answer))
        if scene.throttled:
            return False
    await scene.ask(rejects(rejected) if rejected else asks("identity"))
    return True


@pytest.mark.parametrize(
    ("rejected", "manager_password"),
    [
        ("ValueError: Wrong login password", False),
        ("ValueError: Wrong Manager password", True),
    ],
)
async def test_failed_logins_are_counted_by_peer_and_user(logins, nursery, rejected, manager_password):
    for _ in range(2):
        assert await log_in(Scene(logins, nursery), rejected=rejected, manager_password=manager_password)
    scene = Scene(logins, nursery)
    assert not await log_in(scene, manager_password=manager_password)
    refusal = json.loads(scene.handshake.throttled_reply(scene.throttled))
    text = f"Too many logins from {ADDRESS} have failed, the next one may begin in 60 s"
    assert refusal["message"] == f"ValueError: {text}"
    assert (refusal["again"], refusal["requester"], refusal["uid"]) == (60, MANAGER, "")
    assert await log_in(Scene(logins, nursery, "10.0.0.8"), manager_password=manager_password)
    if not manager_password:
        assert await log_in(Scene(logins, nursery), "bob")


async def test_names_that_are_unknown_count_and_other_rejections_do_not(logins, nursery):
    for _ in range(5):
        await log_in(Scene(logins, nursery), rejected="RuntimeError: The Manager cannot check who you are")
        await log_in(Scene(logins, nursery), rejected="ValueError: Too many logins from vm have failed")
        assert await log_in(Scene(logins, nursery))
    for _ in range(2):
        scene = Scene(logins, nursery)
        await scene.ask(asks("username", MANAGER))
        await scene.say(b"alice\n")  # a typed line, without JSON
        await scene.ask(rejects("ValueError: Unregistered user"))
        assert scene.handshake.is_finished
    assert not await log_in(Scene(logins, nursery))


async def test_attempts_at_the_same_time_wait_for_their_turn(logins, nursery):
    scenes = [Scene(logins, nursery) for _ in range(4)]
    for scene in scenes:
        await scene.ask(asks("password", MANAGER))
        await scene.say(line({"result": "pw"}))
    assert [len(scene.passed) for scene in scenes] == [1, 1, 0, 0]
    await scenes[0].ask(asks("identity"))
    assert len(scenes[2].passed) == 1
    for scene in scenes[1:3]:
        await scene.ask(rejects("ValueError: Wrong Manager password"))
    assert scenes[3].passed == []
    assert scenes[3].throttled.again == 60


async def test_who_goes_in_the_middle_is_not_counted_and_holds_nobody_up(logins, nursery):
    for _ in range(5):
        scene = Scene(logins, nursery)
        await scene.ask(asks("password", MANAGER))
        await scene.say(line({"result": "pw"}))
        scene.handshake.finish()
        scene.handshake.finish()
    assert logins._hosts == {}


# ---- what is no handshake ----


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400\r\n", line({"attribute": "nonsense"}), rejects("ValueError: x")]
)
async def test_if_the_manager_says_something_else_lines_pass_as_they_are(scene, said):
    assert await scene.say(b"x\n") == []
    assert await scene.ask(said, b"anything\n") == [b"x\n"]
    assert scene.handshake.is_finished
    assert await scene.say(b"y") == [b"y"]


async def test_lines_that_are_too_long_are_not_kept(scene, monkeypatch):
    monkeypatch.setattr(handshake_proxy, "_LINE_LIMIT", 100)
    assert await scene.say(b"x" * 100) == []
    assert await scene.say(b"x") == [b"x" * 101]
    assert scene.handshake.is_finished
    other = Scene(LoginThrottle(2, 60, 0, trio.current_time), scene._nursery)
    await other.ask(b"x" * 101)
    assert other.handshake.is_finished
    assert other.handshake._from_manager == b""


async def test_why_it_is_given_up_is_passed_on(logins):
    handshake = HandshakeProxy(ADDRESS, logins)
    handshake.receive_from_manager(asks("identity"))

    async def send(data):
        return "given up"

    assert await handshake.forward_to_manager(line(IDENTITY), send) == "given up"
    assert await handshake.forward_to_manager(b"x", send) == "given up"
