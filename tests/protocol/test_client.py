"""The rules of the client's side of the protocol, one by one, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio import exceptions as exc
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.handshake import HANDSHAKE_LINE_LIMIT
from msl_network_trio.protocol.messages import (
    Connected,
    ManagerNotice,
    Notification,
    NotificationBatch,
    Question,
)
from msl_network_trio.protocol.requests import NO_WAITER, Request
from tests.protocol.lines import MANAGER, ask, line

IDENTITY = {"type": "client", "name": "C", "language": "Python", "os": "Linux"}
US = "C[vm:50123]"


def reply(uid: str, result: object, **more: object) -> bytes:
    return line(error=False, requester=US, result=result, uid=uid, **more)


def error(uid: str, message: str, traceback: object = (), requester: str = US) -> bytes:
    return line(error=True, message=message, requester=requester, result=None, traceback=traceback, uid=uid)


def refusal(service: str) -> bytes:
    return error("", f"KeyError: {KeyError(f'the {service!r} Service is not connected to {MANAGER}')}")


class Peer:
    """A protocol that is connected, and what it wrote."""

    def __init__(self, *, read_limit: int | None = None, connected: bool = True) -> None:
        self.protocol = ClientProtocol(IDENTITY, "localhost:1875", read_limit)
        if connected:
            self.receive(ask("identity"))
            self.written()

    def receive(self, *data: bytes) -> list[object]:
        return list(self.protocol.receive(b"".join(data)))

    def request(
        self, service: str = "Echo", attribute: str = "add", *args: object, admin: bool = False
    ) -> Request:
        request = self.protocol.make(Request, service, attribute, args, None)
        request.admin = admin
        self.protocol.request(request)
        return request

    def admin(self, attribute: str = "port") -> Request:
        return self.request("Manager", attribute, admin=True)

    def sent(self, *args: str, **kwargs: Any) -> Request:
        """Make a request that is written at once, unless the gate is shut."""
        service, attribute, *rest = (*args, *("Echo", "add")[len(args) :])
        admin = kwargs.pop("admin", False)
        request = self.protocol.make(Request, service, attribute, rest, None)
        request.admin = admin
        self.protocol.request(request)
        self.written()
        return request

    def written(self) -> list[dict[str, object]]:
        data = b""
        while more := self.protocol.take():
            data += more
        assert not data or data.endswith(b"}\n")
        return [json.loads(text) for text in data.splitlines()]


# ---- handshake ----


def test_the_identity_is_sent_when_asked_and_that_is_all():
    peer = Peer(connected=False)
    assert peer.written() == []
    assert peer.receive(ask("identity")) == [Connected(MANAGER)]
    assert peer.written() == [{"error": False, "requester": None, "result": IDENTITY, "uid": ""}]
    assert peer.protocol.manager_name == MANAGER


def test_it_is_connected_when_the_handshake_is_over():
    peer = Peer(connected=False)
    assert not peer.protocol.is_connected
    assert peer.protocol.awaits == "the Manager asked for our identity"
    peer.receive(ask("identity"))
    assert peer.protocol.is_connected


@pytest.mark.parametrize(
    ("question", "event"),
    [
        (ask("username", MANAGER), Question("username", MANAGER)),
        (ask("password", MANAGER), Question("password", MANAGER, wants_manager_password=True)),
        (ask("password", "alice"), Question("password", "alice")),
        (ask("password", "Manager"), Question("password", "Manager")),
        (ask("password", "Manager[a b:1]"), Question("password", "Manager[a b:1]")),
        (ask("password"), Question("password", "")),
        (ask("password", 5), Question("password", "")),
    ],
)
def test_a_question_tells_what_is_asked_for_and_for_whom(question, event):
    peer = Peer(connected=False)
    assert peer.receive(question) == [event]
    peer.protocol.answer("secret")
    assert peer.written() == [{"error": False, "requester": MANAGER, "result": "secret", "uid": ""}]
    assert peer.receive(ask("identity")) == [Connected(MANAGER)]


def test_an_empty_answer_is_refused_in_the_handshake():
    peer = Peer(connected=False)
    peer.receive(ask("username", MANAGER))
    with pytest.raises(exc.AuthenticationError, match="empty"):
        peer.protocol.answer("")
    assert peer.written() == []


def test_an_answer_that_is_not_unicode_is_refused():
    peer = Peer(connected=False)
    peer.receive(ask("username", MANAGER))
    with pytest.raises(ValueError, match="surrogates"):
        peer.protocol.answer("\ud800")
    assert peer.written() == []


@pytest.mark.parametrize(
    "message",
    [
        "ValueError: Wrong Manager password",
        "ValueError: 'localhost' is not a trusted hostname",
        "KeyError: 'name'",
    ],
)
def test_a_rejection_is_an_authentication_error(message):
    peer = Peer(connected=False)
    assert peer.receive(error("", message, requester=MANAGER)) == []
    assert isinstance(peer.protocol.broken, exc.AuthenticationError)
    assert str(peer.protocol.broken) == message
    assert peer.receive(ask("identity")) == []


def test_a_rejection_without_a_text_still_says_something():
    peer = Peer(connected=False)
    peer.receive(line(error=True, uid=""))
    assert str(peer.protocol.broken) == "The Manager refused to connect"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"[]\r\n",
        b"\x15\x03\n",
        ask("color"),
        b"{}\n",
    ],
)
def test_what_no_manager_says_first_is_a_handshake_error_that_quotes_it(data):
    peer = Peer(connected=False)
    assert peer.receive(data) == []
    assert isinstance(peer.protocol.broken, exc.HandshakeError)
    assert isinstance(peer.protocol.broken, exc.ConnectError)
    assert repr(data[:5].decode("latin-1"))[1:3] in str(peer.protocol.broken)
    assert "is it a Manager?" in str(peer.protocol.broken)


@pytest.mark.parametrize("limit", [None, HANDSHAKE_LINE_LIMIT * 10, 1000])
def test_a_handshake_line_is_bounded_whatever_the_read_limit(limit):
    peer = Peer(connected=False, read_limit=limit)
    bound = min(limit or HANDSHAKE_LINE_LIMIT, HANDSHAKE_LINE_LIMIT)
    assert peer.receive(b"x" * bound) == []
    assert peer.protocol.broken is None
    peer.receive(b"x")
    assert isinstance(peer.protocol.broken, exc.HandshakeError)


def test_the_end_of_the_stream_in_the_handshake_is_a_connect_error():
    peer = Peer(connected=False)
    peer.receive(b'{"args"')
    reason = peer.protocol.receive_eof()
    assert isinstance(reason, exc.ConnectError)
    assert "in the middle of a line that begins with '{\"args\"'" in str(reason)


def test_no_goodbye_is_written_in_the_handshake():
    peer = Peer(connected=False)
    assert peer.protocol.say_goodbye() is False
    assert peer.written() == []


# ---- requests and replies ----


def test_a_request_is_one_line_and_its_reply_settles_it():
    peer = Peer()
    request = peer.request("Echo", "add", 1, 2)
    assert not request.may_have_run
    [sent] = peer.written()
    assert sent == {
        "args": [1, 2],
        "attribute": "add",
        "error": False,
        "kwargs": {},
        "service": "Echo",
        "uid": request.uid,
    }
    assert request.may_have_run
    assert peer.protocol.in_flight == 1
    assert peer.receive(reply(request.uid, 3)) == [request]
    assert (request.settled, request.result, request.error) == (True, 3, None)
    assert peer.protocol.in_flight == 0


def test_replies_find_their_requests_in_any_order():
    peer = Peer()
    requests = [peer.sent() for _ in range(5)]
    order = [requests[i] for i in (3, 0, 4, 1, 2)]
    assert peer.receive(*(reply(r.uid, r.uid) for r in order)) == order
    assert [r.result for r in requests] == [r.uid for r in requests]


def test_an_error_of_the_service_is_a_remote_error_with_the_text_of_the_reference():
    peer = Peer()
    request = peer.sent("Echo", "fail")
    peer.receive(error(request.uid, "ValueError: bad"))
    failure = request.error
    assert type(failure) is exc.RemoteError
    assert str(failure) == "Manager[localhost:1875] returned the following exception:\n\nValueError: bad"
    assert (failure.type_name, failure.message) == ("ValueError", "ValueError: bad")
    assert (failure.service, failure.attribute, failure.traceback_lines) == ("Echo", "fail", ())


@pytest.mark.parametrize(
    ("message", "traceback", "text"),
    [
        ("E: x", ["Traceback", "E: x"], "\n\nTraceback\nE: x"),
        ("E: x", ["Traceback", "E: other"], "\n\nTraceback\nE: other\nE: x"),
        ("E: x", [], "\n\nE: x"),
        ("E: x", "no list", "\n\nE: x"),
        ("E: x", [1, None], "\n\n1\nNone\nE: x"),
    ],
)
def test_the_message_is_not_repeated_if_the_traceback_ends_with_it(message, traceback, text):
    peer = Peer()
    request = peer.sent()
    peer.receive(error(request.uid, message, traceback))
    assert str(request.error).endswith(f"exception:{text}")


@pytest.mark.parametrize(
    ("answer", "type_name"),
    [
        ("RuntimeError: outer\nsecond line", "RuntimeError"),
        ("my.module.Error: x: y", "my.module.Error"),
        ("StopIteration: ", "StopIteration"),
        ("it did not work", ""),
        ("it did not work: x", ""),
        ("", ""),
    ],
)
def test_a_remote_error_has_the_class_name_of_the_remote_exception(answer, type_name):
    peer = Peer()
    request = peer.sent()
    peer.receive(error(request.uid, answer))
    assert (request.error.type_name, request.error.message) == (type_name, answer)


def test_an_error_of_the_manager_is_a_manager_error():
    peer = Peer()
    request = peer.sent("Manager", "link", "Nope")
    peer.receive(error(request.uid, "KeyError: \"the 'Nope' service does not exist\""))
    assert type(request.error) is exc.ManagerError


def test_the_network_name_is_the_requester_of_an_answer_of_the_manager():
    peer = Peer()
    request = peer.sent("Manager", "identity")
    assert peer.protocol.network_name == ""
    peer.receive(reply(request.uid, {}))
    assert peer.protocol.network_name == US


def test_a_name_that_cannot_be_sent_is_not_taken_over():
    peer = Peer()
    request = peer.sent("Manager", "identity")
    peer.receive(line(error=False, requester="C\ud800", result={}, uid=request.uid))
    assert peer.protocol.network_name == "C?"
    assert peer.protocol.say_goodbye()
    peer = Peer(connected=False)
    peer.receive(line(args=[], attribute="username", error=False, requester="M\udfff", uid=""))
    peer.protocol.answer("alice")
    assert peer.written()[0]["requester"] == "M?"


def test_a_reply_without_a_result_fails_its_request_only():
    peer = Peer()
    request, other = peer.sent(), peer.sent()
    assert peer.receive(line(uid=request.uid, error=False)) == [request]
    assert isinstance(request.error, exc.ProtocolError)
    assert peer.receive(reply(other.uid, 1)) == [other]
    assert peer.protocol.broken is None


def test_a_reply_that_python_cannot_hold_fails_its_request_only():
    peer = Peer()
    request, other = peer.sent(), peer.sent()
    digits = b"1" * 5000
    data = b'{"error":false,"requester":"C","result":' + digits + b',"uid":"' + request.uid.encode() + b'"}\n'
    assert peer.receive(data) == [request]
    assert "digits" in str(request.error)
    assert peer.receive(reply(other.uid, 1)) == [other]
    assert peer.protocol.broken is None


def test_an_admin_reply_that_python_cannot_hold_opens_the_gate():
    peer = Peer()
    admin = peer.sent("Manager", "identity", admin=True)
    data = b'{"result":' + b"1" * 5000 + b',"uid":"' + admin.uid.encode() + b'"}\n'
    assert peer.receive(data) == [admin]
    assert isinstance(admin.error, exc.ProtocolError)
    assert peer.protocol.outbox.gate is None


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_a_reply_that_is_too_deep_fails_its_request_only():
    peer = Peer()
    first, request, other = peer.sent(), peer.sent(), peer.sent()
    data = b'{"error":false,"requester":"C","result":[NaN,%b],"uid":"%b"}\n' % (DEEP, request.uid.encode())
    assert peer.receive(reply(first.uid, 1), data, reply(other.uid, 2)) == [first, request, other]
    assert isinstance(request.error, exc.ProtocolError)
    assert (first.result, other.result) == (1, 2)
    assert peer.protocol.broken is None


def test_a_late_reply_that_is_too_deep_is_dropped(caplog):
    peer = Peer()
    request, other = peer.sent(), peer.sent()
    peer.protocol.abandon(request)
    data = b'{"error":false,"requester":"C","result":%b,"uid":"%b"}\n' % (DEEP, request.uid.encode())
    assert peer.receive(data, data, reply(other.uid, 1)) == [other]
    assert peer.protocol.broken is None
    assert "cannot be decoded" in caplog.text


def test_a_notification_that_is_too_deep_is_dropped(caplog):
    peer = Peer()
    request = peer.sent()
    data = b'{"error":false,"result":[[%b],{}],"service":"S","uid":"notification"}\n' % DEEP
    assert peer.receive(data, reply(request.uid, 1)) == [request]
    assert peer.protocol.broken is None
    assert "'notification'" in caplog.text


def test_an_admin_reply_without_uid_that_is_too_deep_opens_the_gate():
    peer = Peer()
    admin = peer.sent("Manager", "identity", admin=True)
    assert peer.receive(b'{"error":false,"result":%b,"uid":""}\n' % DEEP) == [admin]
    assert isinstance(admin.error, exc.ProtocolError)
    assert peer.protocol.outbox.gate is None
    assert peer.receive(b'{"error":false,"result":%b,"uid":""}\n' % DEEP) == []
    assert isinstance(peer.protocol.broken, exc.StreamCorrupted), "nobody can tell what that is about"


def test_blank_lines_are_skipped():
    peer = Peer()
    request = peer.sent()
    assert peer.receive(b"\r\n\n  \r\n", reply(request.uid, 1), b"\n") == [request]
    assert peer.protocol.broken is None


@pytest.mark.parametrize("data", [b"[]\n", b"5\n", b"null\r\n", b"garbage \xff\n", b'{"uid":\n', b'"x"\n'])
def test_what_no_manager_sends_breaks_the_connection_and_is_quoted(data):
    peer = Peer()
    answered, waiting = peer.sent(), peer.sent()
    assert peer.receive(reply(answered.uid, 1), data, reply(waiting.uid, 2)) == [answered]
    broken = peer.protocol.broken
    assert isinstance(broken, exc.StreamCorrupted)
    assert isinstance(broken, exc.ConnectionLost)
    assert data.decode("utf-8", "backslashreplace").strip()[:4] in str(broken).replace("\\\\", "\\")
    assert peer.receive(reply(waiting.uid, 2)) == []
    peer.protocol.connection_lost(broken)
    assert isinstance(waiting.error, exc.StreamCorrupted)


@given(st.binary(max_size=80))
def test_no_bytes_make_the_protocol_raise(data):
    peer = Peer()
    peer.sent()
    peer.receive(data)
    Peer(connected=False).receive(data)


@given(
    st.dictionaries(
        st.sampled_from(
            ["uid", "error", "result", "requester", "message", "traceback", "attribute", "args", "service"]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(max_size=5),
            st.lists(st.text(max_size=3), max_size=2),
            st.sampled_from(["", "notification", "password", "username", "KeyError: 1", MANAGER]),
        ),
    ),
    st.booleans(),
)
def test_no_object_makes_the_protocol_raise(fields, admin):
    peer = Peer()
    peer.sent("Manager", "port", admin=admin)
    peer.receive(line(**fields))
    assert peer.protocol.broken is None
    Peer(connected=False).receive(line(**fields))


@pytest.mark.parametrize(
    "data",
    [
        reply("unknown", 1),
        reply("", 1),
        line(result=1, uid=7),
        line(result=1, uid={"any": [1]}),
        line(result=1),
        line(),
        error("unknown", "E: x"),
        ask("password", "alice"),
        ask("identity"),
        refusal("Echo"),
    ],
)
def test_what_nobody_asked_for_changes_nothing(data):
    peer = Peer()
    request = peer.sent("Manager", "identity")
    assert peer.receive(data) == []
    assert peer.written() == []
    assert peer.receive(reply(request.uid, 1)) == [request]


def test_a_reply_to_a_request_that_was_not_written_is_not_believed():
    peer = Peer()
    request = peer.request()
    assert peer.receive(reply(request.uid, "forged")) == []
    assert not request.settled
    assert len(peer.written()) == 1


def test_a_second_reply_is_dropped():
    peer = Peer()
    request = peer.sent()
    peer.receive(reply(request.uid, 1))
    assert peer.receive(reply(request.uid, 2)) == []
    assert request.result == 1


def test_a_line_over_the_read_limit_breaks_the_connection_after_what_came_before():
    peer = Peer(read_limit=200)
    request = peer.sent()
    assert peer.receive(reply(request.uid, 1), b"x" * 201) == [request]
    assert isinstance(peer.protocol.broken, exc.StreamCorrupted)
    assert "more than 200 bytes (see read_limit)" in str(peer.protocol.broken)


# ---- before anything is written ----


@pytest.mark.parametrize(
    ("service", "attribute"), [(5, "add"), ("Echo", None), (b"Echo", "add"), ("Echo", [])]
)
def test_names_must_be_text(service, attribute):
    with pytest.raises(TypeError, match="must be text"):
        Peer().protocol.make(Request, service, attribute, (), None)


def test_the_goodbye_cannot_be_sent_as_a_request():
    with pytest.raises(ValueError, match="disconnect"):
        Peer().protocol.make(Request, "Echo", "__disconnect__", (), None)


def test_take_joins_small_lines_and_gives_a_large_one_alone():
    peer = Peer()
    for size in (10, 20, 300_000, 30):
        peer.request("Echo", "size", "x" * size)
    unsent = peer.protocol.outbox.unsent
    pieces = []
    while piece := peer.protocol.take():
        pieces.append(piece)
        unsent -= len(piece)
        assert peer.protocol.outbox.unsent == unsent
    assert [piece.count(b"\n") for piece in pieces] == [2, 1, 1]
    assert unsent == 0
    assert not peer.protocol.outbox


# ---- giving up ----


def test_a_request_that_is_abandoned_before_it_is_written_never_is():
    peer = Peer()
    first, second, third = peer.request(), peer.request(), peer.request()
    peer.protocol.abandon(second)
    peer.protocol.abandon(second)
    assert [sent["uid"] for sent in peer.written()] == [first.uid, third.uid]
    assert not second.may_have_run
    assert peer.protocol.outbox.unsent == 0


def test_a_request_that_is_abandoned_while_a_batch_is_being_written_never_is_written():
    peer = Peer()
    peer.request("Echo", "size", "x" * 300_000)
    second = peer.request()
    assert second.uid.encode() not in peer.protocol.take()
    peer.protocol.abandon(second)
    assert peer.written() == []
    assert peer.protocol.outbox.unsent == 0


def test_abandoned_requests_leave_nothing_behind_while_the_manager_reads_nothing():
    peer = Peer()
    peer.sent()
    for _ in range(100):
        peer.protocol.abandon(peer.request())
    assert not peer.protocol.outbox
    assert peer.protocol.outbox.unsent == 0


def test_a_late_reply_is_dropped():
    peer = Peer()
    request, other = peer.sent(), peer.sent()
    peer.protocol.abandon(request)
    assert peer.protocol.in_flight == 1
    assert peer.receive(reply(request.uid, 1), reply(other.uid, 2)) == [other]
    assert not request.settled


def test_what_is_remembered_of_abandoned_requests_is_forgotten_when_later_ones_are_answered():
    peer = Peer()
    old = [peer.sent() for _ in range(10)]
    newer = peer.sent()
    newest = peer.sent()
    for request in (newest, *reversed(old)):
        peer.protocol.abandon(request)
    peer.receive(reply(newer.uid, 1))
    # newest was abandoned first and is not yet known to be read, so it may be kept, and what is behind it
    assert newest.uid in peer.protocol._acknowledged.abandoned
    last = peer.sent()
    peer.receive(reply(last.uid, 1))
    assert not peer.protocol._acknowledged.abandoned


def test_a_settled_request_cannot_be_abandoned():
    peer = Peer()
    request = peer.sent()
    peer.receive(reply(request.uid, 1))
    peer.protocol.abandon(request)
    assert not request.abandoned


def test_when_many_are_abandoned_the_manager_is_asked_how_far_it_has_read():
    peer = Peer()
    requests = [peer.sent() for _ in range(1001)]
    for request in requests[:999]:
        peer.protocol.abandon(request)
    assert peer.written() == []
    for request in requests[999:]:
        peer.protocol.abandon(request)
    [ping] = peer.written()
    assert ping["attribute"] == "unlink"
    peer.receive(reply(str(ping["uid"]), True))
    assert not peer.protocol._acknowledged.abandoned
    for _ in range(1000):
        peer.protocol.abandon(peer.sent())
    assert len(peer.written()) == 1


def test_a_ping_is_open_until_its_answer_and_is_not_repeated_meanwhile():
    peer = Peer()
    assert not peer.protocol.has_open_ping
    peer.protocol.ping()
    peer.protocol.ping()
    (ping,) = peer.written()
    assert (ping["service"], ping["attribute"]) == ("Manager", "unlink")
    assert peer.protocol.has_open_ping
    peer.receive(reply(ping["uid"], False))
    assert not peer.protocol.has_open_ping


def test_abandoning_what_was_never_queued_changes_nothing():
    peer = Peer()
    request = peer.protocol.make(Request, "Echo", "add", (), None)
    peer.protocol.abandon(request)
    assert peer.protocol.outbox.unsent == 0
    assert peer.written() == []


# ---- admin requests and the gate ----


def test_nothing_is_written_behind_an_admin_request_until_it_is_answered():
    peer = Peer()
    before, admin, after = peer.request(), peer.admin(), peer.request()
    assert [sent["uid"] for sent in peer.written()] == [before.uid, admin.uid]
    assert peer.protocol.outbox.unsent == len(after.data)
    assert peer.receive(reply(before.uid, "before")) == [before]
    assert peer.written() == []
    assert peer.receive(reply("", 1875)) == [admin]
    assert admin.result == 1875
    assert [sent["uid"] for sent in peer.written()] == [after.uid]
    assert peer.receive(reply(after.uid, 1)) == [after]


def test_admin_requests_are_written_one_at_a_time_in_their_order_among_the_others():
    peer = Peer()
    requests = [peer.admin("one"), peer.request(), peer.admin("two"), peer.admin("three"), peer.request()]
    written = [[sent["uid"] for sent in peer.written()]]
    for _ in range(3):
        peer.receive(reply("", None))
        written.append([sent["uid"] for sent in peer.written()])
    uids = [request.uid for request in requests]
    assert written == [uids[:1], uids[1:3], uids[3:4], uids[4:]]


def test_a_login_is_asked_of_the_admin_request_and_answered_past_the_gate():
    peer = Peer()
    admin, after = peer.admin(), peer.request()
    peer.written()
    for question, answer in [(ask("username", MANAGER), "alice"), (ask("password", "alice"), "pw")]:
        assert peer.receive(question) == [admin]
        assert not admin.settled
        assert admin.question is not None
        peer.protocol.answer(answer)
        assert admin.question is None
        assert [sent["result"] for sent in peer.written()] == [answer]
    assert peer.receive(reply("", [1])) == [admin]
    assert admin.result == [1]
    assert [sent["uid"] for sent in peer.written()] == [after.uid]


@pytest.mark.parametrize("requester", [US, MANAGER])
def test_an_error_without_uid_is_the_admin_requests(requester):
    peer = Peer()
    service, admin = peer.request(), peer.admin()
    peer.written()
    assert peer.receive(error("", "ValueError: Wrong login password", requester=requester)) == [admin]
    assert type(admin.error) is exc.ManagerError
    assert admin.error.message == "ValueError: Wrong login password"
    assert not service.settled
    assert peer.protocol.outbox.gate is None


def test_an_admin_request_may_be_answered_with_its_uid():
    peer = Peer()
    admin, after = peer.admin("identity"), peer.request()
    peer.written()
    assert peer.receive(reply(admin.uid, {})) == [admin]
    assert len(peer.written()) == 1
    assert peer.receive(reply(after.uid, 1)) == [after]


def test_an_answer_without_uid_is_not_given_to_an_admin_request_that_was_not_written():
    peer = Peer()
    admin = peer.admin()
    assert peer.receive(reply("", "early"), error("", "E: early"), ask("username", MANAGER)) == []
    assert not admin.settled
    assert admin.question is None


def test_an_abandoned_admin_request_keeps_the_gate_shut_until_its_answer():
    peer = Peer()
    admin, after = peer.admin(), peer.request()
    peer.written()
    peer.protocol.abandon(admin)
    assert peer.written() == []
    peer.receive(reply("", 1))
    assert [sent["uid"] for sent in peer.written()] == [after.uid]


@pytest.mark.parametrize("when", ["before the question", "after the question"])
def test_the_login_of_an_abandoned_admin_request_is_answered_with_nothing(when):
    peer = Peer()
    admin, after = peer.admin(), peer.request()
    peer.written()
    if when == "after the question":
        peer.receive(ask("username", MANAGER))
    peer.protocol.abandon(admin)
    if when == "before the question":
        assert peer.receive(ask("username", MANAGER)) == []
    assert [sent["result"] for sent in peer.written()] == [""]
    peer.receive(error("", "ValueError: You must be an administrator to send this request to the Manager"))
    assert [sent["uid"] for sent in peer.written()] == [after.uid]


def test_a_question_that_nobody_knows_is_answered_with_nothing():
    peer = Peer()
    admin = peer.sent("Manager", "port", admin=True)
    assert peer.receive(ask("color", MANAGER)) == []
    assert [sent["result"] for sent in peer.written()] == [""]
    assert admin.question is None


def test_an_admin_request_abandoned_before_it_is_written_opens_the_gate():
    peer = Peer()
    admin, after, second = peer.admin(), peer.request(), peer.admin()
    peer.protocol.abandon(admin)
    assert [sent["uid"] for sent in peer.written()] == [after.uid, second.uid]


def test_a_held_back_request_can_be_abandoned():
    peer = Peer()
    peer.admin()
    first, second = peer.request(), peer.request()
    peer.written()
    peer.protocol.abandon(first)
    peer.receive(reply("", 1))
    assert [sent["uid"] for sent in peer.written()] == [second.uid]


# ---- services that are not there ----


def test_the_refusal_of_the_only_request_is_its_own():
    peer = Peer()
    request, other = peer.sent("Gone"), peer.sent("Echo")
    assert peer.receive(refusal("Gone")) == [request]
    assert isinstance(request.error, exc.ServiceLost)
    assert request.error.may_have_run is False
    assert (request.error.service, request.error.attribute) == ("Gone", "add")
    assert "was refused" in str(request.error)
    assert peer.written() == []  # no further refusal is possible, so there is no barrier
    assert not other.settled


def test_an_answer_to_a_barrier_that_cannot_be_held_is_an_answer():
    peer = Peer()
    peer.sent("Echo"), peer.sent("Echo")
    peer.receive(refusal("Echo"))
    [barrier] = peer.written()
    peer.receive(b'{"result":' + b"1" * 5000 + b',"uid":"' + str(barrier["uid"]).encode() + b'"}\n')
    request = peer.sent("Echo")
    assert peer.receive(refusal("Echo")) == [request]


@pytest.mark.parametrize("service", ["it's", 'a "b"', "Ünï", "a\nb", "x' Service is not connected to y"])
def test_services_with_odd_names_are_recognised(service):
    peer = Peer()
    request = peer.sent(service)
    assert peer.receive(refusal(service)) == [request]


def test_requests_that_were_read_before_fail_with_the_outcome_unknown():
    peer = Peer()
    running = peer.sent("Echo", "slow")
    answered = peer.sent("Echo")
    peer.receive(reply(answered.uid, 1))
    refused = peer.sent("Echo")
    assert set(peer.receive(refusal("Echo"))) == {running, refused}
    assert running.error.may_have_run is True
    assert refused.error.may_have_run is False


def test_with_several_unread_requests_each_may_have_run_and_refusals_are_swallowed_to_the_barrier():
    peer = Peer()
    requests = [peer.sent("Echo") for _ in range(8)]
    assert peer.receive(refusal("Echo")) == requests
    assert all(request.error.may_have_run for request in requests)
    [barrier] = peer.written()
    assert (barrier["service"], barrier["attribute"]) == ("Manager", "unlink")
    new = peer.sent("Echo")
    assert peer.receive(refusal("Echo"), refusal("Echo")) == []
    assert not new.settled
    peer.receive(reply(str(barrier["uid"]), True))
    assert peer.receive(refusal("Echo")) == [new]
    assert new.error.may_have_run is False


@pytest.mark.parametrize("admin", [False, True], ids=["", "and an admin request"])
def test_a_request_that_waits_to_be_written_when_a_refusal_comes_is_refused_on_its_own(admin):
    peer = Peer()
    peer.sent("Echo"), peer.sent("Echo")
    waiting = peer.request("Echo")
    if admin:
        peer.admin()
    assert waiting not in peer.receive(refusal("Echo"))
    barrier, sent = peer.written()[:2]
    assert (barrier["attribute"], sent["uid"]) == ("unlink", waiting.uid)
    peer.receive(refusal("Echo"), reply(str(barrier["uid"]), True))
    assert peer.receive(refusal("Echo")) == [waiting]
    assert waiting.error.may_have_run is False
    assert peer.protocol.outbox.unsent == 0


def test_the_service_that_a_barrier_is_named_after_cannot_exist_twice():
    peer = Peer()
    names = set()
    for _ in range(2):
        peer.sent("Echo"), peer.sent("Echo")
        peer.receive(refusal("Echo"))
        [barrier] = peer.written()
        names.add(barrier["args"][0])
        peer.receive(reply(str(barrier["uid"]), True))
    assert len(names) == 2


def test_an_abandoned_request_counts_as_one_that_may_be_refused():
    peer = Peer()
    gone, request = peer.sent("Echo"), peer.sent("Echo")
    peer.protocol.abandon(gone)
    assert peer.receive(refusal("Echo")) == [request]
    assert request.error.may_have_run is True
    assert len(peer.written()) == 1  # the barrier, since a further refusal is possible


def test_the_refusal_of_an_abandoned_request_touches_no_other():
    peer = Peer()
    gone = peer.sent("Echo")
    peer.protocol.abandon(gone)
    assert peer.receive(refusal("Echo")) == []
    request = peer.sent("Echo")
    assert peer.receive(refusal("Echo")) == [request]
    assert request.error.may_have_run is False


def test_a_refusal_that_no_open_request_can_mean_is_dropped():
    peer = Peer()
    running = peer.sent("Echo")
    answered = peer.sent("Manager", "identity")
    peer.receive(reply(answered.uid, {}))  # which acknowledges `running`, so it was not refused
    assert peer.receive(refusal("Echo"), refusal("Other")) == []
    assert not running.settled


def test_a_refusal_while_an_admin_request_is_open_is_the_services_and_the_barrier_waits():
    peer = Peer()
    one, two, admin, after = peer.request("Echo"), peer.request("Echo"), peer.admin(), peer.request("Echo")
    peer.written()
    assert peer.receive(refusal("Echo")) == [one, two]
    assert peer.written() == []
    assert peer.receive(refusal("Echo"), reply("", 7)) == [admin]
    barrier, sent = peer.written()
    assert (barrier["attribute"], sent["uid"]) == ("unlink", after.uid)
    peer.receive(reply(str(barrier["uid"]), True))
    assert peer.receive(refusal("Echo")) == [after]


def test_a_refusal_of_a_service_that_was_not_asked_is_the_admin_requests():
    peer = Peer()
    admin = peer.sent("Manager", "nested.call", admin=True)
    assert peer.receive(refusal("Echo")) == [admin]


def test_a_line_that_the_manager_could_not_read_fails_what_it_has_not_answered():
    peer = Peer()
    read, answered = peer.sent("Echo"), peer.sent("Echo")
    peer.receive(reply(answered.uid, 1))
    unread, abandoned = peer.sent("Echo"), peer.sent("Echo")
    peer.protocol.abandon(abandoned)
    assert peer.receive(error("", "RecursionError: maximum recursion depth exceeded")) == [unread]
    assert unread.error.type_name == "RecursionError"
    assert not read.settled


# ---- services that have gone ----


def registry(**addresses: str) -> dict[str, object]:
    return {"services": {name: {"address": address} for name, address in addresses.items()}}


def test_the_registry_tells_which_services_have_gone():
    peer = Peer()
    gone, there, asked, later = peer.sent("Gone"), peer.sent("Echo"), None, None
    asked = peer.sent("Manager", "identity")
    later = peer.sent("Gone")
    events = peer.receive(reply(asked.uid, registry(Echo="vm:1")))
    assert events == [asked, gone]
    assert isinstance(gone.error, exc.ServiceLost)
    assert (gone.error.service, gone.error.attribute, gone.error.may_have_run) == ("Gone", "add", True)
    assert not there.settled
    assert not later.settled  # the answer says nothing about requests that were written after it


def test_a_service_at_another_address_does_not_answer_what_was_written_before():
    peer = Peer()
    for address in ("vm:1", "vm:1", "vm:2"):
        asked = peer.sent("Manager", "identity")
        peer.receive(reply(asked.uid, registry(Echo=address)))
        request = peer.sent("Echo")
    asked = peer.sent("Manager", "identity")
    assert peer.receive(reply(asked.uid, registry(Echo="vm:2"))) == [asked]
    assert not request.settled
    asked = peer.sent("Manager", "identity")
    assert len(peer.receive(reply(asked.uid, registry(Echo="vm:3")))) == 2


@pytest.mark.parametrize("result", [{"address": "vm:2", "attributes": {}}, {"attributes": {}}, None])
def test_a_link_tells_where_the_service_is(result):
    peer = Peer()
    asked = peer.sent("Manager", "identity")
    peer.receive(reply(asked.uid, registry(Echo="vm:1")))
    request, other = peer.sent("Echo"), peer.sent("Other")
    link = peer.protocol.make(Request, "Manager", "link", ("Echo",), None)
    peer.protocol.note_link(link, "Echo")
    peer.protocol.request(link)
    peer.written()
    assert peer.receive(reply(link.uid, result)) == [link, request]
    assert not other.settled


def test_an_error_or_an_abandoned_link_tells_nothing():
    peer = Peer()
    request = peer.sent("Echo")
    links = []
    for _ in range(2):
        link = peer.protocol.make(Request, "Manager", "link", ("Echo",), None)
        peer.protocol.note_link(link, "Echo")
        peer.protocol.request(link)
        links.append(link)
    peer.written()
    peer.protocol.abandon(links[1])
    assert peer.receive(error(links[0].uid, "PermissionError: locked")) == [links[0]]
    assert not request.settled
    assert not peer.protocol._services.linking


def test_open_requests_are_found_by_their_sequence():
    peer = Peer()
    protocol = peer.protocol
    assert not protocol.has_open_between(0, 100)
    first, second = peer.sent(), peer.sent()
    assert protocol.outbox.last_sequence == second.sequence
    assert protocol.has_open_between(0, first.sequence)
    peer.receive(reply(first.uid, 1))
    assert not protocol.has_open_between(0, first.sequence)
    assert protocol.has_open_between(first.sequence, second.sequence)
    assert not protocol.has_open_between(second.sequence, 100)


def test_a_login_question_is_open_until_it_is_answered():
    peer = Peer()
    assert not peer.protocol.has_login_question
    peer.sent("Manager", "port", admin=True)
    assert not peer.protocol.has_login_question
    peer.receive(ask("username", MANAGER))
    assert peer.protocol.has_login_question
    peer.protocol.answer("alice")
    assert not peer.protocol.has_login_question


def test_nothing_is_written_behind_an_admin_request():
    peer = Peer()
    admin = peer.sent("Manager", "port", admin=True)
    request = peer.request("Echo", "add")
    assert peer.protocol.take() == b""
    assert not request.may_have_run
    peer.receive(reply("", 1875))
    assert admin.settled
    assert [text["uid"] for text in peer.written()] == [request.uid]


def test_nothing_is_queued_when_the_connection_has_ended():
    peer = Peer()
    peer.protocol.connection_lost(exc.ConnectionLost("gone"))
    request = peer.protocol.make(Request, "Echo", "add", (), None)
    with pytest.raises(exc.ConnectionLost, match="cannot send request to 'Echo'"):
        peer.protocol.request(request)
    assert not request.may_have_run
    assert not peer.protocol.outbox


def test_services_with_barriers_are_compared_first_without_a_pass_through_all_requests():
    peer = Peer()
    peer.sent("Echo")
    peer.sent("Echo")
    peer.receive(refusal("Echo"))  # it may mean either, so there is a barrier
    expected = peer.protocol._refusals._candidates()
    peer.protocol._refusals._acknowledged = None  # which must not be used
    assert next(expected) == "Echo"


def test_the_result_of_a_request_without_a_waiter_is_no_event():
    peer = Peer()
    kept, failed, awaited = (peer.sent("Echo") for _ in range(3))
    kept.waiter = failed.waiter = NO_WAITER
    events = peer.receive(reply(kept.uid, 1), error(failed.uid, "ValueError: no"), reply(awaited.uid, 3))
    assert events == [failed, awaited]
    assert (kept.settled, kept.result) == (True, 1)


# ---- notifications ----


def test_notifications_come_in_order_among_the_replies():
    peer = Peer()
    request = peer.sent()

    def notify(number: int) -> bytes:
        return line(error=False, result=[[number], {"a": 1}], service="Echo", uid="notification")

    assert peer.receive(notify(1), reply(request.uid, 1), notify(2)) == [
        [Notification("Echo", [1], {"a": 1})],
        request,
        [Notification("Echo", [2], {"a": 1})],
    ]


@given(
    st.lists(
        st.sampled_from(["Echo", "Other", "Manager", "notice", "malformed", "reply", "late"]), max_size=8
    )
)
def test_what_comes_together_means_what_it_means_line_by_line(kinds):
    def conversation() -> tuple[Peer, list[bytes]]:
        peer = Peer()
        lines = []
        for number, kind in enumerate(kinds):
            fields = {"result": [[number], {}], "service": kind, "uid": "notification"}
            if kind == "malformed":
                fields["result"] = [number, {}]
            elif kind == "notice":
                fields |= {"service": "Manager", "result": [[], {"gone": str(number)}]}
            elif kind in {"reply", "late"}:
                fields["uid"] = peer.sent("Echo").uid if kind == "reply" else "nobody's"
            lines.append(line(error=False, **fields))
        return peer, lines

    def meaning(events: list[Event]) -> list[Any]:
        return [
            each
            for event in events
            for each in (
                event
                if isinstance(event, list)
                else [event if isinstance(event, ManagerNotice) else (event.attribute, event.result)]
            )
        ]

    together, lines = conversation()
    at_once = meaning(together.receive(*lines))
    one_by_one, lines = conversation()
    assert at_once == [each for text in lines for each in meaning(one_by_one.receive(text))]
    assert together.protocol._rejection == one_by_one.protocol._rejection


def notice(**kwargs: Any) -> bytes:
    return line(error=False, result=[[], kwargs], service="Manager", uid="notification")


def test_notices_of_the_manager_are_events_in_order_among_replies_and_notifications():
    peer = Peer()
    request = peer.sent()
    emitted = line(error=False, result=[[1], {}], service="Echo", uid="notification")
    assert peer.receive(
        notice(tells=["services"]), reply(request.uid, 1), notice(gone="Echo"), emitted, notice(came="Echo")
    ) == [
        ManagerNotice("tells", "services"),
        request,
        ManagerNotice("gone", "Echo"),
        [Notification("Echo", [1], {})],
        ManagerNotice("came", "Echo"),
    ]


@pytest.mark.parametrize(
    "kwargs", [{}, {"gone": 1}, {"came": None}, {"tells": [1, {}]}, {"else": "Echo"}, {"gone": {"a": "b"}}]
)
def test_notices_of_other_forms_are_ignored(kwargs):
    peer = Peer()
    assert peer.receive(notice(**kwargs)) == []
    assert peer.protocol.broken is None


def test_a_notice_is_no_reason_for_the_end_of_the_connection():
    peer = Peer()
    peer.receive(notice(gone="Echo"))
    assert str(peer.protocol.receive_eof()) == "Manager[localhost:1875] closed the connection"


def sizes(events: list[Event]) -> list[tuple[str, int, int]]:
    batches = [event for event in events if isinstance(event, NotificationBatch)]
    return [(batch[0].service, len(batch), batch.size) for batch in batches]


def test_the_size_of_notifications_is_that_of_their_lines():
    peer = Peer()

    def emit(text: str, service: str = "Echo") -> bytes:
        return line(error=False, result=[[text], {}], service=service, uid="notification")

    short, longer, long = emit(""), emit("x" * 1000), emit("x" * 50_000)
    other = emit("abc", "Other")
    manager = emit("says something", "Manager")
    together = [("Echo", 2, len(short + longer))]
    assert sizes(peer.receive(short + longer)) == together
    assert sizes(peer.receive(short + manager + longer + other)) == [
        ("Echo", 1, len(short)),
        ("Echo", 1, len(longer)),
        ("Other", 1, len(other)),
    ]
    # One event each, since the size of each must be known.
    assert sizes(peer.receive(long + short)) == [("Echo", 1, len(long)), ("Echo", 1, len(short))]
    uids = [peer.request("Echo", "add").uid for _ in range(3)]
    replies = [reply(uid, "y" * 1000) for uid in uids]
    block = replies[0] + short + longer + replies[1] + other + replies[2]
    assert sizes(peer.receive(block)) == [*together, ("Other", 1, len(other))]
    # A line that only the exact decoder can decode.
    exact = line(error=False, result=[[float("nan")], {}], service="Echo", uid="notification")
    assert sizes(peer.receive(short + exact)) == [("Echo", 1, len(short)), ("Echo", 1, len(exact))]


def test_notifications_of_one_service_that_come_together_are_one_event():
    def notify(service: str, number: int) -> bytes:
        return line(error=False, result=[[number], {}], service=service, uid="notification")

    assert Peer().receive(notify("A", 1), notify("A", 2), notify("B", 3), notify("A", 4)) == [
        [Notification("A", [1], {}), Notification("A", [2], {})],
        [Notification("B", [3], {})],
        [Notification("A", [4], {})],
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"result": None},
        {"result": [1, 2]},
        {"result": [[1]]},
        {"result": [[], {}], "service": None},
        {"service": 5},
    ],
)
def test_a_malformed_notification_is_dropped(fields):
    peer = Peer()
    assert peer.receive(line(**{"service": "Echo", "uid": "notification", **fields})) == []
    assert peer.protocol.broken is None


# ---- endings ----


def test_the_goodbye_is_written_behind_what_was_requested_and_ends_it():
    peer = Peer()
    request = peer.request()
    assert peer.protocol.say_goodbye() is True
    first, goodbye = peer.written()
    assert first["uid"] == request.uid
    assert goodbye["attribute"] == "__disconnect__"
    with pytest.raises(exc.ConnectionLost, match="cannot send request to 'Echo'"):
        peer.request()


def test_no_goodbye_is_written_while_the_gate_is_shut():
    peer = Peer()
    peer.sent("Manager", "port", admin=True)
    assert peer.protocol.say_goodbye() is False
    assert peer.written() == []


def test_the_end_settles_everything_and_says_what_may_have_run():
    peer = Peer()
    written, admin, held = peer.request(), peer.admin(), peer.request()
    peer.written()
    reason = peer.protocol.receive_eof()
    assert str(reason) == "Manager[localhost:1875] closed the connection"
    assert set(peer.protocol.connection_lost(reason)) == {written, admin, held}
    assert [r.error.may_have_run for r in (written, admin, held)] == [True, True, False]
    assert "Echo.add may have been executed" in str(written.error)
    assert "Echo.add was not sent" in str(held.error)
    assert peer.protocol.outbox.unsent == 0
    assert peer.protocol.in_flight == 0
    with pytest.raises(exc.ConnectionLost) as caught:
        peer.request("X")
    assert str(caught.value) == "Disconnected from Manager[localhost:1875], cannot send request to 'X'"
    assert caught.value.may_have_run is False
    assert caught.value.__cause__ is reason


def test_what_waits_to_be_written_at_the_end_was_not_sent():
    peer = Peer()
    requests = [peer.request("Echo", "size", "x" * 300_000), peer.request(), peer.request()]
    peer.protocol.take()
    peer.protocol.abandon(requests[2])
    assert peer.protocol.connection_lost(exc.ConnectionLost("gone")) == requests[:2]
    assert [r.error.may_have_run for r in requests[:2]] == [True, False]


def test_the_end_in_the_middle_of_a_line_says_so():
    peer = Peer()
    peer.receive(b'{"error": fal')
    assert "in the middle of a line that begins with '{\"error\": fal'" in str(peer.protocol.receive_eof())


def test_a_rejection_after_the_identity_is_the_reason_of_the_end():
    peer = Peer()
    assert peer.receive(error("", "TypeError: Unknown connection type", requester=MANAGER)) == []
    assert str(peer.protocol.receive_eof()).endswith(
        "closed the connection: TypeError: Unknown connection type"
    )


@pytest.mark.parametrize(
    ("field", "seconds"), [('"again": 10', 10.0), ('"again": null', None), ('"later": 10', None)]
)
@pytest.mark.parametrize("result", ["null", "NaN"])  # NaN: decoded by the exact path
@pytest.mark.parametrize("is_connected", [False, True])
def test_an_error_of_the_manager_may_contain_the_seconds_after_which_to_try_again(
    field, seconds, result, is_connected
):
    peer = Peer(connected=is_connected)
    text = "ValueError: 3 peers are connected, as many as this Manager allows (max_connections)"
    fields = f'"error": true, "message": "{text}", "requester": "{MANAGER}", "result": {result}, "uid": ""'
    assert peer.receive(f"{{{fields}, {field}}}\r\n".encode()) == []
    ended = peer.protocol.broken or peer.protocol.receive_eof()
    assert isinstance(ended, exc.ConnectionLost if is_connected else exc.AuthenticationError)
    assert ended.retry_after == seconds
    assert text in str(ended)


def test_the_end_is_the_answer_to_shutdown_manager():
    peer = Peer()
    admin, held = peer.admin("shutdown_manager"), peer.request()
    peer.written()
    peer.protocol.connection_lost(peer.protocol.receive_eof())
    assert (admin.settled, admin.result, admin.error) == (True, None, None)
    assert isinstance(held.error, exc.ConnectionLost)


@pytest.mark.parametrize("why", ["not written", "login not answered", "cut off", "reset"])
def test_the_end_is_no_answer_to_a_shutdown_that_cannot_have_happened(why):
    peer = Peer()
    admin = peer.admin("shutdown_manager")
    if why == "login not answered":
        peer.written()
        peer.receive(ask("username", MANAGER))
    if why in {"cut off", "reset"}:
        peer.written()
    reason = exc.ConnectionLost("reset") if why == "reset" else peer.protocol.receive_eof()
    peer.protocol.connection_lost(reason, cut_off=why == "cut off")
    assert isinstance(admin.error, exc.ConnectionLost)


# ---- however the stream is split ----


@given(st.lists(st.integers(1, 40), max_size=100))
def test_the_stream_may_be_split_anywhere(sizes):
    peer = Peer(connected=False)
    peer.receive(ask("identity"))
    peer.written()
    one, admin, two = peer.request(), peer.admin(), peer.request("Gone")
    peer.written()
    stream = b"".join(
        [
            line(error=False, result=[[1], {}], service="Echo", uid="notification"),
            ask("username", MANAGER),
            reply(one.uid, "é" * 10),
            error("", "ValueError: You must be an administrator"),
        ]
    )
    events: list[object] = []
    position = 0
    for size in [*sizes, len(stream)]:
        events += peer.receive(stream[position : position + size])
        position += size
    assert events == [[Notification("Echo", [1], {})], admin, one, admin]
    assert one.result == "é" * 10
    assert [sent["uid"] for sent in peer.written()] == [two.uid]


def test_an_abandoned_request_that_was_read_is_not_remembered():
    peer = Peer()
    read, answered = peer.sent("Echo"), peer.sent("Other")
    peer.receive(reply(answered.uid, 1))
    peer.protocol.abandon(read)
    request = peer.sent("Echo")
    assert peer.receive(refusal("Echo")) == [request]
    assert request.error.may_have_run is False


def test_a_late_reply_does_not_lower_the_watermark():
    peer = Peer()
    old, new, newer = peer.sent("Echo"), peer.sent("Echo"), peer.sent("Echo")
    for request in (newer, old):
        peer.protocol.abandon(request)
    peer.receive(reply(new.uid, 1), reply(old.uid, 1))
    running = peer.sent("Echo")
    assert peer.receive(refusal("Echo")) == [running]
    assert running.error.may_have_run is True  # it may be the refusal of the newer one, which was abandoned


def test_while_connected_requests_are_not_refused():
    Peer().protocol.check_open("Echo")


def test_answers_of_the_manager_may_come_in_any_order():
    peer = Peer()
    first, second = peer.sent("Manager", "identity"), peer.sent("Manager", "identity")
    assert peer.receive(reply(second.uid, {}), reply(first.uid, {})) == [second, first]
    assert first.settled


def test_the_last_word_of_our_own_manager_says_why_the_connection_has_ended():
    peer = Peer()
    text = f"{MANAGER} is shutting down"
    goodbye = line(error=False, result=[[text], {}], service="Manager", uid="notification")
    assert peer.receive(goodbye) == []
    assert str(peer.protocol.receive_eof()) == f"Manager[localhost:1875] closed the connection: {text}"


# ---- what our own Manager says ----


def test_a_manager_that_ends_is_the_end_of_the_connection_for_a_request_that_was_open():
    peer = Peer()
    request = peer.sent()
    text = f"ConnectionAbortedError: {MANAGER} is shutting down, the request may have been executed"
    assert peer.receive(error(request.uid, text)) == [request]
    assert isinstance(request.error, exc.ConnectionLost)
    assert request.error.may_have_run
    assert str(request.error) == (
        f"Manager[localhost:1875] closed the connection: {MANAGER} is shutting down; "
        "Echo.add may have been executed"
    )


def test_a_service_that_is_not_there_is_told_with_the_uid_of_the_request():
    peer = Peer()
    refused, other = peer.sent(), peer.sent()
    text = KeyError(f"the 'Echo' Service is not connected to {MANAGER}")
    assert peer.receive(error(refused.uid, f"KeyError: {text}")) == [refused]
    assert isinstance(refused.error, exc.ServiceLost)
    assert not refused.error.may_have_run
    assert not other.settled


def test_a_service_that_has_gone_is_told_with_the_uid_of_the_request():
    peer = Peer()
    request = peer.sent()
    text = f"ConnectionError: the 'Echo' Service has gone from {MANAGER}, the request may have been executed"
    assert peer.receive(error(request.uid, text)) == [request]
    assert isinstance(request.error, exc.ServiceLost)
    assert request.error.may_have_run


def test_a_last_word_without_words_is_none():
    peer = Peer()
    peer.receive(line(error=False, result=[[], {}], service="Manager", uid="notification"))
    assert str(peer.protocol.receive_eof()) == "Manager[localhost:1875] closed the connection"
