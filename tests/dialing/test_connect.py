"""The handshake: questions, time limit, failures; admin requests and prompts."""

from __future__ import annotations

import inspect
import io
import os
import sys
import threading

import attrs
import pytest
import trio
import trio.testing

import msl_network_trio
from msl_network_trio import (
    AuthenticationError,
    Certificate,
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HandshakeError,
    ManagerError,
    ReplyTimeout,
    connect,
    filter_client_connect_kwargs,
)
from msl_network_trio.dialing import connect as connecting
from msl_network_trio.dialing import dialers, prompts
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.memory import memory_pair
from tests.client.peer import MANAGER, Network, Peer
from tests.client.test_requests import start


async def run_manager(nursery: trio.Nursery, network: Network, talk) -> None:
    async def manager() -> None:
        await talk(await network.accept())

    nursery.start_soon(manager)


# ---- questions ----


@attrs.define
class Answers:
    """Prompts with fixed answers, which record the questions."""

    answers: dict[str, object]
    asked: list[tuple[str, str]] = attrs.field(factory=list)

    def username(self, manager: str) -> object:
        self.asked.append(("username", manager))
        return self.answers["username"]

    def password(self, name: str) -> object:
        self.asked.append(("password", name))
        return self.answers["password"]

    def trust(self, certificate: Certificate) -> object:
        raise AssertionError("not over TLS")


class AsyncAnswers(Answers):
    async def username(self, manager: str) -> object:
        await trio.sleep(100)
        return Answers.username(self, manager)

    async def password(self, name: str) -> object:
        await trio.sleep(100)
        return Answers.password(self, name)


async def login(peer: Peer) -> None:
    """Ask for a login, record the answers and accept them."""
    peer.ask("username", MANAGER)
    await peer.line()
    peer.ask("password", "alice")
    await peer.line()
    await peer.shake_hands()
    peer.transport.close()


async def test_a_login_is_answered_from_the_arguments(network: Network, nursery: trio.Nursery):
    peers = []

    async def talk(peer: Peer) -> None:
        peers.append(peer)
        await login(peer)

    await run_manager(nursery, network, talk)
    client = await connect(username="alice", password="pw", password_manager="not this one")
    await client.disconnect()
    assert [line["result"] for line in peers[0].received[:2]] == ["alice", "pw"]
    assert "pw" not in repr(client._session.credentials)
    assert "pw" not in repr(client._session.settings)


async def test_the_managers_password_is_another_one(network: Network, nursery: trio.Nursery):
    answers = []

    async def talk(peer: Peer) -> None:
        peer.ask("password", MANAGER)
        answers.append(await peer.line())
        await peer.shake_hands()
        peer.transport.close()

    await run_manager(nursery, network, talk)
    await (await connect(password="not this one", password_manager="se cret")).disconnect()
    assert answers[0]["result"] == "se cret"


@pytest.mark.parametrize("kind", [Answers, AsyncAnswers])
async def test_prompts_answer_what_the_arguments_do_not_and_pause_the_timer(
    network, nursery, autojump_clock, kind
):
    peers = []

    async def talk(peer: Peer) -> None:
        peers.append(peer)
        await login(peer)

    await run_manager(nursery, network, talk)
    answers = kind({"username": "alice", "password": "pw"})
    client = await connect(prompts=answers, timeout=1)
    await client.disconnect()
    assert answers.asked == [("username", MANAGER), ("password", "alice")]
    assert [line["result"] for line in peers[0].received[:2]] == ["alice", "pw"]


async def test_a_plain_prompt_runs_in_a_worker_thread(network: Network, nursery: trio.Nursery):
    threads = []

    class Here(Answers):
        def username(self, manager: str) -> object:
            threads.append(threading.get_ident())
            return "alice"

    await run_manager(nursery, network, login)
    await (await connect(prompts=Here({}), password="pw")).disconnect()
    assert threads
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"username": ""}, AuthenticationError, "empty"),
        ({"prompts": Answers({"username": None})}, AuthenticationError, "must return text, not NoneType"),
        ({"prompts": Answers({"username": ""})}, AuthenticationError, "empty"),
    ],
)
async def test_answers_that_would_block_the_manager_are_rejected(network, nursery, arguments, error, text):
    async def talk(peer: Peer) -> None:
        peer.ask("username", MANAGER)
        assert await peer.line() is None

    await run_manager(nursery, network, talk)
    with pytest.raises(error, match=text):
        await connect(**arguments)


@pytest.mark.parametrize("text", ["ValueError: Wrong login password", "ValueError: Unregistered user"])
async def test_a_rejection_is_an_authentication_error(network, nursery, text):
    async def talk(peer: Peer) -> None:
        peer.fail("", text, requester=MANAGER)
        peer.transport.close()

    await run_manager(nursery, network, talk)
    with pytest.raises(AuthenticationError, match=text):
        await connect()


async def test_without_a_terminal_prompts_raise_an_error_at_once(network, nursery, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("alice\n"))

    async def talk(peer: Peer) -> None:
        peer.ask("username", MANAGER)
        assert await peer.line() is None

    await run_manager(nursery, network, talk)
    with pytest.raises(AuthenticationError, match="not a terminal. Pass username= to connect"):
        await connect()


async def test_without_a_terminal_the_message_names_the_argument(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    terminal = msl_network_trio.TerminalPrompts()
    with pytest.raises(AuthenticationError, match="password_manager="):
        await terminal.password(MANAGER)
    with pytest.raises(AuthenticationError, match="Pass password="):
        await terminal.password("alice")
    with pytest.raises(CertificateError, match="auto_save=True or cert_file="):
        await terminal.trust(Certificate("lab-3", 1875, b"der"))


# ---- the terminal ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_terminal_is_asked_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal("alice\nwhat\nYES\n"))
    terminal = msl_network_trio.TerminalPrompts()
    assert await terminal.username(MANAGER) == "alice"
    certificate = Certificate("lab-3", 1875, b"der")
    assert await terminal.trust(certificate) is True
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"Enter a username for {MANAGER} > " in shown.err
    assert certificate.fingerprint in shown.err
    assert certificate.fingerprint_sha1 in shown.err
    assert "lab-3:1875" in shown.err
    assert "Please answer y or n" in shown.err
    with pytest.raises(AuthenticationError, match="asks for a username, and standard input has ended"):
        await terminal.username(MANAGER)
    with pytest.raises(CertificateError, match="standard input has ended"):
        await terminal.trust(certificate)


async def test_the_answer_no_declines_the_certificate(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert await msl_network_trio.TerminalPrompts().trust(Certificate("h", 1, b"")) is False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals to test with")
async def test_an_abandoned_password_prompt_gives_the_echo_back(monkeypatch):
    import pty
    import termios

    manager_end, terminal_end = pty.openpty()
    echo_off = trio.Event()
    token = trio.lowlevel.current_trio_token()
    give_up = threading.Event()

    def getpass(_: str) -> str:
        attributes = termios.tcgetattr(terminal_end)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal_end, termios.TCSADRAIN, attributes)
        trio.from_thread.run_sync(echo_off.set, trio_token=token)
        give_up.wait(30)
        return ""

    with os.fdopen(terminal_end, "r", closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(prompts.getpass, "getpass", getpass)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(msl_network_trio.TerminalPrompts().password, "alice")
            await echo_off.wait()
            assert not termios.tcgetattr(terminal_end)[3] & termios.ECHO
            nursery.cancel_scope.cancel()
        assert termios.tcgetattr(terminal_end)[3] & termios.ECHO
    give_up.set()
    os.close(manager_end)
    os.close(terminal_end)


async def test_a_terminal_without_a_descriptor_is_asked_all_the_same(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(prompts.getpass, "getpass", lambda _: "pw")
    assert await msl_network_trio.TerminalPrompts().password("alice") == "pw"


@pytest.mark.parametrize("answer", ["n", 1, None, ""])
async def test_trust_takes_a_clear_answer(answer):
    class Vague(Answers):
        def trust(self, certificate: Certificate) -> object:
            return answer

    with pytest.raises(CertificateError, match="must return True or False"):
        await prompts.Credentials(prompts=Vague({})).trust(Certificate("h", 1, b""))


# ---- the time limit ----


async def stall_at_once(peer: Peer) -> None:
    await peer.line()


async def stall_after_a_question(peer: Peer) -> None:
    peer.ask("username", MANAGER)
    await peer.line()
    await peer.line()


@pytest.mark.parametrize("talk", [stall_at_once, stall_after_a_question])
@pytest.mark.parametrize("disable_tls", [True, False])
async def test_a_silent_manager_is_a_timeout_that_names_the_phase(
    network, nursery, autojump_clock, talk, disable_tls
):
    await run_manager(nursery, network, talk)
    before = trio.current_time()
    with pytest.raises(ConnectTimeout) as caught:
        await connect(timeout=3, username="alice", disable_tls=disable_tls)
    assert trio.current_time() - before == pytest.approx(3)
    text = str(caught.value)
    assert "Cannot connect to localhost:1875 within 3 seconds" in text
    assert "before the Manager asked for our identity" in text
    end = "\nThe connection to localhost:1875 was not established after 3 second(s)"
    if disable_tls:
        end += "\nYou have TLS disabled. Perhaps the Manager is using TLS for the connection."
    assert text.endswith(end)


async def test_one_time_limit_covers_dialling_and_the_handshake(
    network, nursery, autojump_clock, monkeypatch
):
    async def dial_slowly(*args: object) -> object:
        await trio.sleep(2)
        return await network.dial()

    monkeypatch.setattr(connecting, "_open_stream", dial_slowly)
    await run_manager(nursery, network, stall_at_once)
    before = trio.current_time()
    with pytest.raises(ConnectTimeout):
        await connect(timeout=3)
    assert trio.current_time() - before == pytest.approx(3)


async def test_a_dial_that_takes_too_long_is_a_timeout(autojump_clock, monkeypatch):
    async def dial_forever(*args: object) -> object:
        await trio.sleep_forever()

    monkeypatch.setattr(dialers, "open_tcp", dial_forever)
    monkeypatch.setattr(dialers, "open_trusted", lambda *args, **kwargs: dial_forever())
    end = "Cannot connect to localhost:1875 within 10 seconds$"
    with pytest.raises(ConnectTimeout, match=f"before the connection was made\n{end}"):
        await connect(disable_tls=True)
    with pytest.raises(ConnectTimeout, match=f"before the connection was made secure\n{end}"):
        await connect()


async def test_a_server_without_a_certificate_in_time_has_the_error_of_a_missing_manager(
    mock_clock, monkeypatch
):
    async def fetch_forever(*args: object) -> object:
        mock_clock.jump(3)  # here, as the threads before take no time by this clock
        await trio.sleep_forever()

    monkeypatch.setattr(dialers, "fetch_certificate", fetch_forever)
    fetched = "within 2.5 seconds: the time was over before the Manager had shown its certificate\n"
    with pytest.raises(ConnectTimeout) as caught:
        await connect(host="lab-3.invalid", timeout=2.5)
    assert str(caught.value).endswith(f"{fetched}Cannot connect to lab-3.invalid:1875 to get the certificate")
    with pytest.raises(ConnectTimeout) as caught:
        await connect(timeout=2.5)
    assert str(caught.value).endswith("\nMake sure a Manager is running on this computer")


async def test_without_a_time_limit_it_waits(network, nursery, autojump_clock):
    async def talk(peer: Peer) -> None:
        await trio.sleep(10_000)
        await peer.shake_hands()
        await peer.expect_end()

    await run_manager(nursery, network, talk)
    async with connect(timeout=None) as client:
        assert client.is_connected()


async def test_a_cancelled_connect_leaves_nothing_open(network, nursery):
    await run_manager(nursery, network, stall_at_once)
    async with trio.open_nursery() as inner:
        inner.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    network.assert_all_closed()


async def test_a_websocket_that_cannot_be_opened_leaves_its_carrier_closed(monkeypatch):
    ours, _ = memory_pair()

    async def dial(*_: object) -> Stream:
        await trio.lowlevel.checkpoint()
        return ours

    monkeypatch.setattr(dialers, "open_tcp", dial)
    # Resolvers may know names that are no valid header.
    with pytest.raises(ConnectError, match="cannot be the name of a host"):
        await connect(host="x" * 64, transport="websocket", disable_tls=True)
    with pytest.raises(ConnectionLost):
        ours.send_nowait(b"x")


# ---- servers that are no Manager ----


async def test_the_end_in_the_handshake_is_a_connect_error(network, nursery):
    async def talk(peer: Peer) -> None:
        peer.transport.close()

    await run_manager(nursery, network, talk)
    with pytest.raises(ConnectError, match="closed the connection before the handshake was over"):
        await connect()


async def test_a_broken_connection_in_the_handshake_is_a_connect_error(network, nursery):
    async def talk(peer: Peer) -> None:
        peer.transport.reset()

    await run_manager(nursery, network, talk)
    with pytest.raises(ConnectError, match="lost in the handshake: Connection reset by peer"):
        await connect()


async def test_garbage_after_the_handshake_is_a_connect_error(network, nursery):
    async def talk(peer: Peer) -> None:
        peer.transport.send_nowait(
            b'{"args":[],"attribute":"identity","error":false,"kwargs":{},"uid":""}\ngarbage\n'
        )

    await run_manager(nursery, network, talk)
    with pytest.raises(ConnectError, match="garbage"):
        await connect()


@pytest.mark.parametrize("data", [b"220 smtp ready\r\n", b"[]\n", b"\x00" * 100_000])
async def test_another_server_is_a_handshake_error(network, nursery, data):
    network.capacity = 1_000_000

    async def talk(peer: Peer) -> None:
        peer.transport.send_nowait(data)

    await run_manager(nursery, network, talk)
    with pytest.raises(HandshakeError, match="is it a Manager"):
        await connect()


async def test_the_next_call_raises_the_error_of_a_manager_that_closes_after_the_identity(network, nursery):
    async def talk(peer: Peer) -> None:
        await peer.shake_hands()
        peer.fail("", "TypeError: no more clients", requester=MANAGER)
        peer.transport.close()

    await run_manager(nursery, network, talk)
    client = await connect()
    with pytest.raises(ConnectionLost, match="TypeError: no more clients"):
        await client.identities()
    assert not client.is_connected()


# ---- admin requests ----


async def admin_session(network: Network, nursery: trio.Nursery, **arguments: object):
    peers: list[Peer] = []

    async def talk(peer: Peer) -> None:
        peers.append(peer)
        await peer.shake_hands()

    await run_manager(nursery, network, talk)
    client = await connect(**arguments)  # type: ignore[arg-type]
    await trio.testing.wait_all_tasks_blocked()
    yield client, peers[0]
    peers[0].transport.close()
    await client.disconnect()


async def test_two_admin_requests_and_others_get_their_own_answers(network, nursery):
    async for client, peer in admin_session(network, nursery):
        async with trio.open_nursery() as inner:
            calls = [
                await start(inner, client.admin_request, "port"),
                await start(inner, client.identities),
                await start(inner, client.admin_request, "users_table.usernames"),
                await start(inner, client.identities),
            ]
            await peer.expect("port")
            peer.reply("", 1875)
            identities = await peer.expect("identity")
            await peer.expect("users_table.usernames")
            peer.reply("", ["alice"])
            peer.reply(await peer.expect("identity"), {"b": 2})
            peer.reply(identities, {"a": 1})
        assert [call.value for call in calls] == [1875, {"a": 1}, ["alice"], {"b": 2}]


async def test_the_login_of_an_admin_request_is_answered_and_remembered(network, nursery):
    answers = AsyncAnswers({"username": "alice", "password": "pw"})
    async for client, peer in admin_session(
        network, nursery, prompts=Answers(answers.answers, answers.asked)
    ):
        for _ in range(2):
            async with trio.open_nursery() as inner:
                call = await start(inner, client.admin_request, "port")
                await peer.expect("port")
                peer.ask("username", MANAGER)
                assert (await peer.line())["result"] == "alice"
                peer.ask("password", "alice")
                assert (await peer.line())["result"] == "pw"
                peer.reply("", 1875)
            assert call.value == 1875
    assert len(answers.asked) == 2


async def test_the_time_that_a_person_takes_does_not_count(network, nursery, autojump_clock):
    answers = AsyncAnswers({"username": "alice", "password": "pw"})
    async for client, peer in admin_session(network, nursery, prompts=answers):

        async def request() -> object:
            return await client.admin_request("port", timeout=5)

        async with trio.open_nursery() as inner:
            call = await start(inner, request)
            await peer.expect("port")
            peer.ask("username", MANAGER)
            await peer.line()
            peer.reply("", 1875)
        assert call.value == 1875
        with pytest.raises(ReplyTimeout, match=r"Manager\.port within 5 seconds"):
            await request()


async def test_a_login_cancelled_half_way_leaves_the_connection_usable(network, nursery, autojump_clock):
    answers = AsyncAnswers({})
    async for client, peer in admin_session(network, nursery, prompts=answers):
        async with trio.open_nursery() as inner:
            call = await start(inner, client.admin_request, "port")
            await peer.expect("port")
            peer.ask("username", MANAGER)
            await trio.sleep(50)
            call.scope.cancel()
            assert (await peer.line())["result"] == ""
            other = await start(inner, client.identities)
            peer.fail("", "ValueError: You must be an administrator to send this request to the Manager")
            peer.reply(await peer.expect("identity"), {"a": 1})
        assert other.value == {"a": 1}
        assert client.is_connected()


async def test_a_failing_prompt_raises_an_error_and_keeps_the_connection(network, nursery, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    async for client, peer in admin_session(network, nursery):
        async with trio.open_nursery() as inner:
            call = await start(inner, client.admin_request, "port")
            await peer.expect("port")
            peer.ask("username", MANAGER)
            assert (await peer.line())["result"] == ""
            peer.fail("", "ValueError: You must be an administrator to send this request to the Manager")
            other = await start(inner, client.identities)
            peer.reply(await peer.expect("identity"), {"a": 1})
        assert isinstance(call.error, AuthenticationError)
        assert other.value == {"a": 1}


async def test_wrong_credentials_are_a_manager_error_and_the_end(network, nursery):
    async for client, peer in admin_session(network, nursery, username="alice", password="x"):
        async with trio.open_nursery() as inner:
            call = await start(inner, client.admin_request, "port")
            await peer.expect("port")
            peer.fail("", "ValueError: Wrong login password", requester=MANAGER)
            peer.transport.close()
        assert isinstance(call.error, ManagerError)
        assert isinstance(call.error, RuntimeError)


async def test_the_connection_may_end_while_a_person_is_asked(network, nursery, autojump_clock):
    answers = AsyncAnswers({"username": "alice"})
    async for client, peer in admin_session(network, nursery, prompts=answers):
        async with trio.open_nursery() as inner:
            call = await start(inner, client.admin_request, "port")
            await peer.expect("port")
            peer.ask("username", MANAGER)
            peer.transport.close()
        assert isinstance(call.error, ConnectionLost)


async def test_admin_requests_are_not_asynchronous(network, nursery):
    async for client, _ in admin_session(network, nursery):
        with pytest.raises(ValueError, match="^Cannot make asynchronous requests to a Manager$"):
            await client.admin_request("port", asynchronous=True)


async def test_identities_as_a_text(network, nursery):
    async for client, peer in admin_session(network, nursery):

        async def text() -> str:
            return await client.identities(as_string=True, indent=1)

        async with trio.open_nursery() as inner:
            call = await start(inner, text)
            identity = {
                "hostname": "vm",
                "port": 1875,
                "attributes": {"link": "(service: str) -> bool", "identity": "() -> dict"},
                "os": "Linux",
                "language": "Python",
                "clients": {"C[vm:1]": {"name": "C", "address": "vm:1", "os": "Linux", "language": "Rust"}},
                "services": {
                    "Echo": {
                        "attributes": {"const": 42, "add": "(x, y)", "text": "plain"},
                        "address": "vm:2",
                        "os": "Linux",
                        "max_clients": -1,
                    }
                },
            }
            peer.reply(await peer.expect("identity"), identity)
        assert call.value == (
            "Manager[vm:1875]\n attributes:\n  identity() -> dict\n  link(service: str) -> bool\n"
            " language: Python\n os: Linux\nClients [1]:\n C[vm:1]\n  language: Rust\n  os: Linux\n"
            "Services [1]:\n Echo[vm:2]\n  attributes:\n   add(x, y)\n   const() -> 42\n"
            "   text() -> plain\n  max_clients: -1\n  os: Linux"
        )


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": None}, TypeError),
        ({"name": ""}, TypeError),
        ({"host": ""}, TypeError),
        ({"port": 0}, ValueError),
        ({"port": 65536}, ValueError),
        ({"port": "no"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"username": 5}, TypeError),
        ({"password": b"pw"}, TypeError),
        ({"password_manager": 5}, TypeError),
        ({"read_limit": 0}, ValueError),
        ({"request_timeout": float("nan")}, ValueError),
        ({"max_unsent": -1}, ValueError),
        ({"probe_after": 0}, ValueError),
        ({"probe_every": 0}, ValueError),
        ({"probe_every": None}, TypeError),
        ({"timeout": "5"}, TypeError),
        ({"max_unsent": None}, TypeError),
        ({"nursery": "mine"}, TypeError),
        ({"transport": "pigeon"}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_arguments_that_cannot_be_right_raise_at_once(arguments, error):
    with pytest.raises(error):
        connect(**arguments)


async def test_a_name_that_cannot_be_sent_raises(network):
    with pytest.raises(ValueError, match="surrogates"):
        await connect(name="\ud800")


def test_a_port_may_be_text_as_in_a_configuration_file():
    assert Settings(port="1875").manager == "localhost:1875"


def test_connect_and_its_settings_have_the_same_arguments_and_defaults():
    parameters = inspect.signature(connect).parameters
    fields = {field.name: field.default for field in attrs.fields(Settings)}
    fields["reconnect"] = bool(fields["reconnect"])  # the argument may be a bool, which becomes a policy
    assert {name: parameter.default for name, parameter in parameters.items()} == fields


def test_the_arguments_of_the_reference_have_its_defaults():
    parameters = inspect.signature(connect).parameters
    assert {name: parameters[name].default for name in list(parameters)[:12]} == {
        "name": "Client",
        "host": "localhost",
        "port": 1875,
        "timeout": 10,
        "username": None,
        "password": None,
        "password_manager": None,
        "read_limit": None,
        "disable_tls": False,
        "cert_file": None,
        "assert_hostname": True,
        "auto_save": False,
    }


def test_only_what_connect_accepts_is_left():
    kwargs = {"host": "a", "colour": "red", "auth_password": "x", "timeout": None}
    assert filter_client_connect_kwargs(**kwargs) == {"host": "a", "timeout": None, "password_manager": "x"}
    kwargs["password_manager"] = "y"
    assert filter_client_connect_kwargs(**kwargs)["password_manager"] == "y"
