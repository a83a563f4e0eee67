"""Tests of admission: the dialogue of authentication, administrators, and other lines meanwhile."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest

from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.pending_check import (
    AdminRequest,
    AdmissionState,
    HostCheck,
    LoginCheck,
    Revoked,
    Throttled,
    UserCheck,
)
from msl_network_trio.protocol.manager.phase import Phase
from tests.protocol.network import NAME, Network, encoded, raw, read, reply, request

USERS = {"alice": ("pw-a", True), "bob": ("pw-b", False)}

NO_ADMIN = "ValueError: You must be an administrator to send this request to the Manager"


class UserNetwork(Network):
    """A network with users, whose database answers when a test says so.

    Args:
        authentication: What the Manager wants to be shown.

    Attributes:
        records: What is kept of connections.
    """

    def __init__(self, **authentication: Any) -> None:
        self.records: list[str] = []
        super().__init__(
            authentication=Authentication(**authentication),
            record=lambda _peer, text: self.records.append(text),
        )

    def state(self, peer: Peer) -> AdmissionState | None:
        """Return the state of the admission of a peer."""
        return self.protocol._admission.state(peer)

    def resolve(self, peer: Peer, result: Any = ...) -> Any:
        """Make the check of a peer, by the users unless a result is given, and return the check."""
        check = self.protocol.pending_check(peer)
        assert check is not None
        if result is ...:
            match check:
                case UserCheck(username):
                    result = username in USERS
                case LoginCheck(username, password):
                    right, is_admin = USERS[username]
                    result = is_admin if password == right else None
                case AdminRequest():
                    result = [check.attribute, check.args, check.kwargs]
        self.protocol.resolve(peer, result)
        return check

    def log_in(self, peer: Peer, username: str, password: str) -> None:
        """Answer the questions of a login."""
        assert [line["attribute"] for line in read(peer)] == ["username"]
        self.send(peer, answer(username))
        assert self.resolve(peer) == UserCheck(username)
        [question] = read(peer)
        assert (question["attribute"], question["args"], question["uid"]) == ("password", [username], "")
        self.send(peer, answer(password))
        assert self.resolve(peer) == LoginCheck(username, password)

    def admin(self) -> Peer:
        """Connect a client that has logged in as an administrator."""
        peer = self.peer()
        self.send(peer, request("Manager", "port"))
        self.log_in(peer, "alice", "pw-a")
        self.resolve(peer)
        raw(peer)
        assert peer.is_admin
        return peer


def answer(text: Any, **more: Any) -> dict[str, Any]:
    """As the client of msl-network answers a question."""
    return {"error": False, "requester": NAME, "result": text, "uid": "", **more}


@pytest.fixture
def lab() -> UserNetwork:
    return UserNetwork()


@pytest.fixture
def client(lab: UserNetwork) -> Peer:
    return lab.peer()


def hello(name: str = "C") -> dict[str, Any]:
    return answer({"type": "client", "name": name}, requester=None)


# ---- to be let in ----


@pytest.mark.parametrize(
    "more", [{"hostname": True}, {"login": True}, {"hostname": True, "login": True, "password": None}]
)
def test_there_is_one_authentication_at_most(more):
    more = {"password": "x", **more}
    with pytest.raises(ValueError, match="^Cannot specify multiple authentication methods$"):
        Authentication(**more)


def test_the_password_is_not_shown():
    assert "secret" not in repr(Authentication("secret"))
    assert "secret" not in repr(LoginCheck("alice", "secret"))
    assert "secret" not in repr(AdminRequest("users_table.insert", ["eve", "secret"], {"password": "secret"}))


def test_a_host_that_is_trusted_is_asked_who_is_there():
    lab = UserNetwork(hostname=True)
    peer = Peer(Host("vm", "10.0.0.5", "lab-5.example.org", "lab-5"), 5)
    lab.protocol.connect(peer)
    assert peer.phase is Phase.CHECK
    assert read(peer) == []
    assert lab.resolve(peer, result=True) == HostCheck("lab-5")
    assert [line["attribute"] for line in read(peer)] == ["identity"]
    lab.send(peer, hello())
    assert peer.name == "C[vm:5]"
    assert lab.protocol.pending_check(peer) is None
    assert lab.records == ["new connection request", "connected as a client"]


def test_a_host_that_is_not_trusted_is_told_so_first():
    lab = UserNetwork(hostname=True)
    peer = lab.connect()
    lab.resolve(peer, result=False)
    [line] = read(peer)
    assert (line["message"], line["requester"]) == ("ValueError: 'vm' is not a trusted hostname", NAME)
    assert peer.close_reason
    lab.protocol.disconnect(peer)
    assert lab.records == ["new connection request", "rejected: untrusted hostname", "disconnected"]


@pytest.mark.parametrize(("username", "is_admin"), [("alice", True), ("bob", False)])
def test_a_user_logs_in_and_then_says_who_is_there(username, is_admin):
    lab = UserNetwork(login=True)
    peer = lab.connect()
    lab.log_in(peer, username, USERS[username][0])
    assert [line["attribute"] for line in read(peer)] == ["identity"]
    lab.send(peer, hello())
    assert (peer.kind, peer.is_admin) == ("client", is_admin)
    lab.send(peer, request("Manager", "port", uid="7"))
    if is_admin:
        lab.resolve(peer)
        assert [line["uid"] for line in read(peer)] == ["7"]
    else:
        assert [line["attribute"] for line in read(peer)] == ["username"]


def test_the_whole_login_and_the_first_requests_may_come_at_once():
    lab = UserNetwork(login=True)
    peer = lab.connect()
    lines = [
        answer("alice"),
        answer("pw-a"),
        hello(),
        request("Manager", "port"),
        request("Echo", "e", "x" * 200_000),
    ]
    lab.send(peer, *lines)
    for kind in (UserCheck, LoginCheck, AdminRequest):
        assert isinstance(lab.resolve(peer), kind)
    told = read(peer)
    assert [line.get("attribute") for line in told[:3]] == ["username", "password", "identity"]
    assert told[3]["result"] == ["port", [], {}]
    assert "the 'Echo' Service is not connected" in told[4]["message"]
    assert not peer.close_reason


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_the_whole_login_in_pieces(pieces):
    lab = UserNetwork(login=True)
    peer = lab.connect()
    lines = [answer("alice"), answer("pw-a"), hello(), request("Manager", "port")]
    data = b"".join(encoded(line) + b"\r\n" for line in lines)
    for start in range(0, len(data), pieces):
        lab.protocol.receive(peer, data[start : start + pieces])
        while lab.protocol.pending_check(peer) is not None:
            lab.resolve(peer)
    assert read(peer)[3]["result"] == ["port", [], {}]


@pytest.mark.parametrize(
    ("username", "password", "message", "record"),
    [
        ("zed", None, "ValueError: Unregistered user", "rejected: unregistered user"),
        ("alice", "guess", "ValueError: Wrong login password", "rejected: wrong login password"),
        ("alice", "pw-b", "ValueError: Wrong login password", "rejected: wrong login password"),
        ("", None, "ValueError: Unregistered user", "rejected: unregistered user"),
        (None, None, "ValueError: Unregistered user", "rejected: unregistered user"),
        (5, None, "ValueError: Unregistered user", "rejected: unregistered user"),
        ("alice", "", "ValueError: Wrong login password", "rejected: wrong login password"),
    ],
)
def test_who_cannot_log_in_is_told_and_sent_away(username, password, message, record):
    lab = UserNetwork(login=True)
    peer = lab.connect()
    lab.send(peer, answer(username))
    lab.resolve(peer)
    if password is not None:
        lab.send(peer, answer(password))
        lab.resolve(peer)
    line = read(peer)[-1]
    assert (line["message"], line["requester"], line["uid"]) == (message, NAME, "")
    assert peer.close_reason
    assert lab.records[1:] == [record]
    lab.send(peer, answer("alice"))
    assert read(peer) == []


@pytest.mark.parametrize("line", [{"nothing": 1}, request("Echo", "e"), b'{"result": "alice"', b"\xff"])
def test_a_login_that_makes_no_sense_is_told(line):
    lab = UserNetwork(login=True)
    peer = lab.connect()
    lab.send(peer, line)
    assert read(peer)[-1]["message"].startswith("ValueError: The answer to 'username' ")
    assert peer.close_reason
    assert lab.records[1:] == ["rejected: invalid username"]


@pytest.mark.parametrize("authentication", [{"hostname": True}, {"login": True}])
def test_if_the_database_cannot_be_used_a_new_peer_is_told(authentication):
    lab = UserNetwork(**authentication)
    peer = lab.connect()
    if "login" in authentication:
        lab.send(peer, answer("alice"))
    lab.resolve(peer, result=OSError("database is locked"))
    line = read(peer)[-1]
    assert line["message"] == "RuntimeError: The Manager cannot check who you are: database is locked"
    assert line["again"] == 5
    assert peer.close_reason


@pytest.mark.parametrize(
    ("authentication", "said", "record"),
    [
        ({}, [], "connection closed prematurely"),
        ({"password": "x"}, [], "connection closed before receiving the password"),
        ({"login": True}, [], "connection closed before receiving the username"),
        ({"login": True}, [answer("alice")], "connection closed before receiving the password"),
    ],
)
def test_who_goes_before_an_answer_is_recorded(authentication, said, record):
    lab = UserNetwork(**authentication)
    peer = lab.connect()
    for line in said:
        lab.send(peer, line)
        lab.resolve(peer)
    lab.protocol.disconnect(peer)
    assert lab.records == ["new connection request", record]


def test_who_was_connected_is_recorded(lab, client):
    service = lab.peer("Echo", "service")
    rejected = lab.connect()
    lab.send(rejected, answer({"type": "robot", "name": "R"}))
    for peer in (client, service, rejected):
        lab.protocol.disconnect(peer)
    assert lab.records == [
        "new connection request",
        "connected as a client",
        "new connection request",
        "connected as a service",
        "new connection request",
        "rejected: invalid identity",
        *["disconnected"] * 3,
    ]


# ---- to be an administrator ----


def test_an_administrator_logs_in_once(lab, client):
    lab.send(client, request("Manager", "users_table.is_admin", "bob", uid="7"))
    lab.log_in(client, "alice", "pw-a")
    assert read(client) == []
    assert lab.resolve(client) == AdminRequest("users_table.is_admin", ["bob"], {}, "7")
    assert read(client) == [
        {
            "error": False,
            "requester": client.name,
            "result": ["users_table.is_admin", ["bob"], {}],
            "uid": "7",
        }
    ]
    lab.send(client, request("Manager", "port", uid="8", x=1))
    assert lab.resolve(client) == AdminRequest("port", [], {"x": 1}, "8")
    assert [line["uid"] for line in read(client)] == ["8"]
    assert (client.phase, lab.state(client)) == (Phase.READY, None)


def test_who_is_no_administrator_is_told_so_and_stays_connected(lab, client):
    for uid in ("7", "8"):
        lab.send(client, request("Manager", "port", uid=uid))
        lab.log_in(client, "bob", "pw-b")
        [line] = read(client)
        assert (line["message"], line["uid"], line["requester"]) == (NO_ADMIN, uid, client.name)
    lab.send(client, request("Manager", "unlink", "nobody"))
    assert read(client)[0]["result"] is True


@pytest.mark.parametrize("at", ["username", "password"])
@pytest.mark.parametrize("nothing", ["", None])
def test_who_does_not_answer_is_no_administrator_and_stays_connected(lab, client, at, nothing):
    lab.send(client, request("Manager", "port", uid="7"))
    if at == "password":
        lab.send(client, answer("alice"))
        lab.resolve(client)
    raw(client)
    lab.send(client, answer(nothing))
    [line] = read(client)
    assert (line["message"], line["uid"]) == (NO_ADMIN, "7")
    assert (client.phase, client.close_reason) == (Phase.READY, "")


@pytest.mark.parametrize(
    ("username", "message"),
    [("zed", "ValueError: Unregistered user"), ("alice", "ValueError: Wrong login password")],
)
def test_who_cannot_log_in_gets_the_answer_to_the_request_and_stays_connected(lab, client, username, message):
    lab.send(client, request("Manager", "port", uid="7"))
    lab.send(client, answer(username))
    lab.resolve(client)
    if username == "alice":
        lab.send(client, answer("guess"))
        lab.resolve(client)
    line = read(client)[-1]
    assert (line["message"], line["uid"], line["requester"]) == (message, "7", client.name)
    assert (client.close_reason, client.phase, lab.state(client)) == ("", Phase.READY, None)
    assert lab.records[-1] == f"rejected: {message.removeprefix('ValueError: ').lower()}"
    lab.send(client, request("Manager", "port", uid="8"))
    lab.log_in(client, "alice", "pw-a")
    lab.resolve(client)
    assert read(client)[-1]["uid"] == "8"


def test_an_answer_to_a_connected_client_that_makes_no_sense_refuses_its_request_only(lab, client):
    lab.send(client, request("Manager", "port", uid="7"))
    lab.send(client, b'{"error": false, "uid": "", "result": 1' + b"0" * 5000 + b"}")
    assert (read(client)[-1]["uid"], client.close_reason) == ("7", "")
    assert lab.records[-1] == "connected as a client"


def test_a_client_that_logs_in_too_often_is_told_when_to_try_again_and_stays_connected(lab, client):
    lab.send(client, request("Manager", "port", uid="7"))
    lab.send(client, answer("alice"))
    lab.resolve(client, result=Throttled("vm", 33))
    line = read(client)[-1]
    text = "ValueError: Too many logins from vm have failed, the next one may begin in 33 s"
    assert (line["message"], line["uid"], line["again"]) == (text, "7", 33)
    assert lab.records[-1] == "connected as a client"
    assert (client.close_reason, lab.state(client)) == ("", None)


def test_an_administrator_who_is_none_any_more_is_told_and_may_log_in_again(lab):
    client = lab.admin()
    lab.send(client, request("Manager", "port", uid="7"), request("Manager", "port", uid="8"))
    lab.resolve(client, result=Revoked("the user 'alice' was deleted"))
    refused, question = read(client)
    assert (refused["message"], refused["uid"]) == (f"{NO_ADMIN}: the user 'alice' was deleted", "7")
    assert not client.is_admin
    assert question["attribute"] == "username"
    lab.send(client, answer("alice"))
    lab.resolve(client)
    lab.send(client, answer("pw-a"))
    lab.resolve(client)
    lab.resolve(client)
    assert read(client)[-1]["uid"] == "8"


def test_other_requests_go_on_while_somebody_types(lab, client):
    echo = lab.peer("Echo", "service")
    lab.send(
        client,
        request("Manager", "port", uid="1"),
        request("Echo", "e", uid="2"),
        request("Manager", "link", "Echo", uid="3"),
    )
    question, link = read(client)
    assert (question["attribute"], link["uid"]) == ("username", "3")
    lab.send(echo, reply(read(echo)[0], "ok"))
    assert [line["uid"] for line in read(client)] == ["2"]
    lab.send(client, answer("alice"))
    lab.resolve(client)
    lab.send(client, request("Echo", "e", uid="4"))
    assert [line["uid"] for line in read(echo)] == ["4"]
    lab.send(client, answer("pw-a"))
    lab.resolve(client)
    lab.resolve(client)
    assert [line["uid"] for line in read(client)] == ["", "1"]


def test_what_comes_while_something_is_decided_waits_in_order(lab):
    client = lab.admin()
    echo = lab.peer("Echo", "service")
    lab.send(
        client,
        request("Manager", "a", uid="1"),
        request("Echo", "e", uid="2"),
        request("Manager", "b", uid="3"),
    )
    lab.protocol.receive(
        client, encoded(request("Echo", "f", uid="4")) + b"\n" + encoded(request("Manager", "c", uid="5"))
    )
    assert (read(client), read(echo)) == ([], [])
    assert lab.resolve(client).attribute == "a"
    assert [line["uid"] for line in read(client)] == ["1"]
    assert [line["uid"] for line in read(echo)] == ["2"]
    assert lab.resolve(client).attribute == "b"
    assert [line["uid"] for line in read(echo)] == ["4"]
    lab.protocol.receive(client, b"\r\n")
    assert lab.resolve(client).attribute == "c"
    assert [line["uid"] for line in read(client)] == ["3", "5"]


def test_further_admin_requests_wait_for_the_login_and_are_answered_in_order(lab, client):
    lab.send(client, *[request("Manager", "port", uid=str(uid)) for uid in range(3)])
    lab.log_in(client, "alice", "pw-a")
    for _ in range(3):
        lab.resolve(client)
    assert [line["uid"] for line in read(client)] == ["0", "1", "2"]
    assert lab.state(client) is None


def test_after_a_refusal_the_next_admin_request_may_log_in(lab, client):
    lab.send(client, *[request("Manager", "port", uid=str(uid)) for uid in range(2)])
    lab.log_in(client, "bob", "pw-b")
    refused, question = read(client)
    assert (refused["uid"], refused["message"], question["attribute"]) == ("0", NO_ADMIN, "username")
    lab.send(client, answer(""))
    assert [line["uid"] for line in read(client)] == ["1"]


def test_not_any_number_of_admin_requests_wait_for_a_login(lab, client):
    lab.send(client, *[request("Manager", "port", uid=str(uid)) for uid in range(150)])
    question, *refused = read(client)
    assert question["attribute"] == "username"
    assert [line["uid"] for line in refused] == [str(uid) for uid in range(100, 150)]
    assert refused[0]["message"] == f"{NO_ADMIN}, and 100 of them wait for a login"


def test_the_end_of_the_connection_may_come_in_the_middle(lab, client):
    lab.send(client, request("Manager", "port"), request(client.name, "__disconnect__"), answer("alice"))
    assert client.close_reason
    assert lab.protocol.pending_check(client) is None
    lab.protocol.disconnect(client)
    assert lab.protocol.identity()["clients"] == {}


def test_goodbye_may_wait_behind_a_check(lab):
    client = lab.admin()
    lab.send(
        client, request("Manager", "port"), request(client.name, "__disconnect__"), request("Manager", "port")
    )
    assert not client.close_reason
    lab.resolve(client)
    assert client.close_reason
    assert len(read(client)) == 1


@pytest.mark.parametrize(
    "line",
    [
        answer("alice"),
        answer("alice", requester=None),
        {"result": "alice"},
        answer("alice", requester="C[vm:1]"),
        b"alice",
        b" alice \r",
    ],
)
def test_what_is_an_answer(lab, client, line):
    lab.send(client, request("Manager", "port"))
    lab.send(client, line)
    assert lab.protocol.pending_check(client) == UserCheck("alice")


@pytest.mark.parametrize("line", [b"{}", b'{"result": "alice"', b"\xff", {"error": True, "uid": ""}])
def test_a_broken_line_is_no_answer(lab, client, line):
    lab.send(client, request("Manager", "port"))
    raw(client)
    lab.send(client, line, b"", b"   ")
    [refused] = read(client)
    assert refused["error"]
    assert client.phase is Phase.USERNAME


def test_a_name_that_is_a_number_can_be_typed(lab, client):
    lab.send(client, request("Manager", "port"))
    lab.send(client, b"42")
    assert lab.protocol.pending_check(client) == UserCheck("42")


def test_replies_of_a_service_that_logs_in_are_no_answers(lab, client):
    echo = lab.peer("Echo", "service")
    lab.send(client, request("Echo", "e", uid="9"))
    asked = read(echo)[0]
    lab.send(echo, request("Manager", "port"))
    lab.send(echo, reply(asked, "ok"))
    assert [line["result"] for line in read(client)] == ["ok"]
    lab.send(echo, answer("alice"))
    assert lab.protocol.pending_check(echo) == UserCheck("alice")


def test_an_error_of_a_request_is_its_answer(lab):
    client = lab.admin()
    lab.send(client, request("Manager", "nope", uid="7"))
    lab.resolve(client, result=AttributeError("'Manager' object has no attribute 'nope'"))
    [line] = read(client)
    assert line["message"] == "AttributeError: 'Manager' object has no attribute 'nope'"
    assert (line["uid"], line["traceback"], client.close_reason) == ("7", [], "")


@pytest.mark.parametrize("result", [{1, 2}, b"key", "\ud800"])
def test_a_result_that_cannot_be_sent_is_an_error(lab, result):
    client = lab.admin()
    lab.send(client, request("Manager", "x", uid="7"))
    lab.resolve(client, result=result)
    [line] = read(client)
    assert (line["error"], line["uid"]) == (True, "7")


def test_tuples_are_lists(lab):
    client = lab.admin()
    lab.send(client, request("Manager", "users_table.users"))
    lab.resolve(client, result=[("alice", True)])
    assert read(client)[0]["result"] == [["alice", True]]


def test_if_the_database_cannot_be_used_who_logs_in_is_told_and_stays_connected(lab, client):
    lab.send(client, request("Manager", "port", uid="7"), answer("alice"))
    lab.resolve(client, result=OSError("database is locked"))
    line = read(client)[-1]
    assert line["message"] == "RuntimeError: The Manager cannot check who you are: database is locked"
    assert (line["uid"], line["again"], client.close_reason, client.phase) == ("7", 5, "", Phase.READY)


@pytest.mark.parametrize("fields", [{"args": 5}, {"args": {}}, {"kwargs": []}, {"kwargs": None}])
def test_an_admin_request_without_arguments_as_they_are_is_refused(lab, fields):
    client = lab.admin()
    lab.send(client, {**request("Manager", "port", uid="7"), **fields})
    [line] = read(client)
    assert (line["message"].partition(":")[0], line["uid"]) == ("TypeError", "7")


def test_an_admin_request_that_python_cannot_hold_is_refused(lab):
    client = lab.admin()
    lab.send(client, b'{"service":"Manager","attribute":"x","uid":"7","args":[' + b"9" * 5000 + b"]}")
    assert [(line["uid"], line["error"]) for line in read(client)] == [("7", True)]
    assert (client.close_reason, client.phase) == ("", Phase.READY)


def test_an_admin_request_that_is_too_long_to_be_kept_is_refused(lab, client):
    lab.send(client, request("Manager", "x", "y" * 70_000, uid="7"))
    [line] = read(client)
    assert (line["message"], line["uid"]) == (
        "ValueError: A request to the Manager has no more than 65,536 bytes",
        "7",
    )
    assert client.phase is Phase.READY


def test_a_person_at_a_terminal_logs_in(lab):
    person = lab.peer("Me")
    lab.send(person, b"Manager users_table.usernames")
    assert read(person)[0]["attribute"] == "username"
    lab.send(person, b"alice")
    lab.resolve(person)
    assert read(person)[0]["args"] == ["alice"]
    lab.send(person, b"pw-a\r")
    lab.resolve(person)
    lab.resolve(person)
    [line] = read(person)
    assert (line["result"], line["uid"]) == (["users_table.usernames", [], {}], "")


def test_of_who_is_no_administrator_yet_little_is_kept(lab, client):
    lab.send(client, request("Manager", "x", "y" * 16_400, uid="1"))
    [line] = read(client)
    assert (line["uid"], "no more than 16,384 bytes" in line["message"]) == ("1", True)
    assert (client.phase, lab.state(client)) == (Phase.READY, None)
    lab.send(client, *[request("Manager", "x", "y" * 6000, uid=str(number)) for number in range(4)])
    question, *refused = read(client)
    assert question["attribute"] == "username"
    assert [line["uid"] for line in refused] == ["2", "3"]
    assert len(lab.state(client).requests) == 2


def test_an_administrator_may_send_more(lab):
    client = lab.admin()
    lab.send(client, request("Manager", "x", "y" * 60_000, uid="1"))
    lab.resolve(client)
    assert [line["uid"] for line in read(client)] == ["1"]


# ---- gateways ----


GATEWAY = Host("gw", "10.0.0.1", "gw.lab", "gw", is_gateway=True)


def behind_gateway(lab: UserNetwork, *lines: Any, host: Host = GATEWAY) -> Peer:
    peer = Peer(host, 1)
    lab.protocol.connect(peer)
    lab.send(peer, *lines)
    return peer


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("fd00::9", "fd00::9"),
        ("nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
        (167772169, "10.0.0.1"),
        (None, "10.0.0.1"),
        (["10.0.0.9"], "10.0.0.1"),
    ],
)
def test_a_gateway_tells_the_address_of_a_peer_and_nothing_else_changes(told, address):
    peer = behind_gateway(UserNetwork(), b"\r\n", {"result": hello()["result"], "forwarded": told})
    assert (peer.host.address, peer.host.gateway) == (address, "" if address == "10.0.0.1" else "10.0.0.1")
    assert (peer.name, peer.host.hostname, peer.host.domain) == ("C[gw:1]", "gw", "gw.lab")


def test_another_host_tells_nothing():
    host = Host("vm", "10.0.0.1", "vm", "vm")
    peer = behind_gateway(UserNetwork(), {"result": hello()["result"], "forwarded": "10.0.0.9"}, host=host)
    assert (peer.host.address, peer.kind) == ("10.0.0.1", "client")
    assert peer.host.gateway == "10.0.0.1"  # but that there is a gateway


def test_without_the_field_no_gateway_is_known():
    peer = behind_gateway(UserNetwork(), {"result": {**hello()["result"], "name": "forwarded"}})
    assert (peer.host.address, peer.host.gateway) == ("10.0.0.1", "")


@pytest.mark.parametrize("first", [b"secret", b'{"forwarded": "10.0.0.9"', {"result": "secret"}])
def test_only_the_first_line_tells_it(first):
    lab = UserNetwork(password="secret")
    peer = behind_gateway(lab, first, {"result": hello()["result"], "forwarded": "10.0.0.9"})
    lab.send(peer, request("Manager", "unlink", "x", forwarded="10.0.0.9"))
    lab.send(
        peer, {**request("Manager", "port"), "forwarded": "10.0.0.9"}, {"result": "", "forwarded": "10.0.0.9"}
    )
    assert (peer.host.address, peer.host.gateway) == ("10.0.0.1", "")


def test_the_log_has_both_addresses(caplog):
    caplog.set_level(logging.INFO)
    behind_gateway(UserNetwork(), {"result": hello()["result"], "forwarded": "10.0.0.9"})
    behind_gateway(
        UserNetwork(),
        {"result": hello()["result"], "forwarded": "10.0.0.9"},
        host=attrs.evolve(GATEWAY, is_gateway=False),
    )
    trusted, other = [record.event_fields for record in caplog.records]
    assert (trusted["event"], trusted["host"], trusted["gateway"]) == ("connected", "10.0.0.9", "10.0.0.1")
    assert (other["host"], other.get("gateway")) == ("10.0.0.1", None)
