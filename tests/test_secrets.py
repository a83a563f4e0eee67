"""Tests that no secret is logged, printed, or shown by errors and representations."""

from __future__ import annotations

import importlib
import io
import json
import logging
import pkgutil
import traceback
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import msl_network_trio
from msl_network_trio import AuthenticationError, ManagerError, connect
from msl_network_trio.cli.main import main
from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.gateway.server import open_gateway
from msl_network_trio.manager.logs import logging_to
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.manager.tables import Database
from msl_network_trio.protocol.manager.pending_check import AdminRequest, AdmissionState, LoginCheck
from msl_network_trio.service.service import Service
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.websocket_handshake import open_websocket
from tests.manager.wires import Wire
from tests.patience import PATIENCE
from tests.protocol.network import request

SECRET = "hunter2"
"""A substring of all secrets in these tests."""

RIGHT, WRONG = f"right-{SECRET}", f"wrong-{SECRET}"

NOT_TO_BE_READ = [
    b'{"result":"%s"' % WRONG.encode(),
    b'{"result":["%s"]}' % WRONG.encode(),
    b'{"result":{"%s":1}}' % WRONG.encode(),
    b'{"%s":1}' % WRONG.encode(),
    b"%s \xff" % WRONG.encode(),
    b"{%s" % WRONG.encode(),
    b"[%s" % WRONG.encode(),
    b'["%s"]' % WRONG.encode(),
    b'"%s"' % WRONG.encode(),
    b"%s\0" % WRONG.encode(),
    b"\xef\xbb\xbf%s" % WRONG.encode(),
    b'{"result":"%s\\ud800"}' % WRONG.encode(),
    b'{"result":"%s","x":%s}' % (WRONG.encode(), b"9" * 5000),
    b"x" * 70_000 + WRONG.encode(),
    WRONG.encode(),
    b"two words %s" % WRONG.encode(),
]
"""Answers to the question for a password, most of them invalid."""


class Vault(Service):
    def open(self, key):
        raise ValueError("that is not it")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("alice", RIGHT, True)
        database.users.insert("bob", RIGHT, False)
    return path


@pytest.fixture(params=["text", "json"])
def log(request, tmp_path, caplog):
    """Log all levels, as the command does; return a function that checks and returns the log."""
    path = tmp_path / "manager.log"
    caplog.set_level(logging.DEBUG)

    def read():
        text = path.read_text("utf-8")
        assert SECRET not in text
        assert SECRET not in caplog.text
        if request.param == "json":
            for line in text.splitlines():
                json.loads(line)
        return text

    with logging_to("DEBUG", path, style=request.param):
        yield read
    read()


@asynccontextmanager
async def lab(**settings):
    with trio.fail_after(PATIENCE):
        async with open_manager(in_memory=True, login_attempts=None, login_delay=0, **settings) as manager:
            yield manager


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# ---- a Manager's log ----


async def test_the_password_of_the_manager(log, capsys):
    async with lab(auth_password=RIGHT) as manager:
        for line in NOT_TO_BE_READ:
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send(line)
            assert SECRET not in (await wire.rest()).decode()
        with pytest.raises(AuthenticationError) as raised:
            await connect(**{**manager.connect_kwargs(), "password_manager": WRONG})
        assert SECRET not in shown(raised.value)
        async with connect(**manager.connect_kwargs()) as client:
            assert SECRET not in json.dumps([manager.status(), await client.identities()])
            assert SECRET not in repr(
                [client, client._session.settings, client._session.credentials, manager, manager._settings]
            )
    assert "Wrong Manager password" in log()
    assert SECRET not in str(capsys.readouterr())


async def test_the_login_of_a_user(log, database):
    async with lab(auth_login=True, database=database) as manager:
        for line in NOT_TO_BE_READ:
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send({"result": "alice"})
            await wire.line()
            await wire.send(line)
            assert SECRET not in (await wire.rest()).decode()
        for username, password in (("alice", WRONG), ("zed", WRONG), (WRONG, RIGHT)):
            with pytest.raises(AuthenticationError) as raised:
                await connect(**manager.connect_kwargs(), username=username, password=password)
            assert SECRET not in shown(raised.value)
        async with connect(**manager.connect_kwargs(), username="alice", password=RIGHT) as client:
            assert SECRET not in json.dumps(await client.admin_request("status"))
            assert SECRET not in repr(client)
    text = log()
    assert "Wrong login password" in text
    assert "has logged in as 'alice'" in text


async def test_the_login_of_an_administrator_while_connected(log, database):
    async with lab(database=database) as manager:
        for username, password in (("alice", WRONG), ("zed", WRONG), ("bob", RIGHT), ("alice", RIGHT)):
            kwargs = {**manager.connect_kwargs(), "username": username, "password": password}
            client = await connect(**kwargs)
            try:
                await client.admin_request("port")
            except (AuthenticationError, ManagerError) as error:
                assert SECRET not in shown(error)
            await client.disconnect()
        for line in NOT_TO_BE_READ:
            wire = Wire(await manager.dial())
            await wire.enter()
            await wire.send(request(MANAGER, "port", uid="1"))
            await wire.line()
            await wire.send({"result": "alice"})
            await wire.line()
            await wire.send(line)
            await wait_all_tasks_blocked()
            wire.transport.send_eof()
            assert SECRET not in (await wire.rest()).decode()
    assert "has logged in as 'alice'" in log()


async def test_what_an_administrator_says_of_users(log, database):
    async with (
        lab(database=database) as manager,
        connect(**manager.connect_kwargs(), username="alice", password=RIGHT) as client,
    ):
        await client.admin_request("users_table.insert", "carol", WRONG, False)
        await client.admin_request("users_table.update", "carol", password=RIGHT)
        assert await client.admin_request("users_table.is_password_valid", "carol", RIGHT)
        for args in (
            ("carol", WRONG, False),
            ("dave", WRONG),
            ("dave", [WRONG], False),
            ("dave", {WRONG: 1}, False),
            ("dave:1", WRONG, False),
            ("dave", WRONG, WRONG, WRONG, WRONG),
            ([WRONG], WRONG, False),
        ):
            with pytest.raises(ManagerError) as raised:
                await client.admin_request("users_table.insert", *args)
            assert SECRET not in raised.value.message
        assert SECRET not in json.dumps(await client.admin_request("users_table.records"))
    assert "users_table.insert" in log()


async def test_what_a_person_types(log, database):
    async with lab(database=database) as manager:
        for password in (WRONG, f"{{{WRONG}", f'"{WRONG}"', RIGHT):
            person = Wire(await manager.dial())
            await person.line()
            await person.send(b"client Me", b"Manager users_table.usernames")
            await person.line()
            await person.send(b"alice")
            await person.line()
            await person.send(password.encode(), b"exit", b"exit")  # of which one may be taken for a password
            assert SECRET not in (await person.rest()).decode()
    assert "received an admin request 'users_table.usernames' from Me" in log()


async def test_what_is_in_requests_and_replies(log, database):
    async with lab(database=database) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(Vault().run, **manager.connect_kwargs()))
        async with connect(**manager.connect_kwargs()) as client, client.link("Vault") as vault:
            with pytest.raises(Exception, match="that is not it"):
                await vault.open(RIGHT)
            for name in ("_open", "nope"):
                with pytest.raises(Exception, match=r"private|has no attribute"):
                    await vault.request(name, (RIGHT,))
        wire = Wire(await manager.dial())
        await wire.enter()
        for line in (
            request("Vault", "open", RIGHT, uid="notification"),
            request("Nope", "open", RIGHT),
            {**request("Vault", "open", RIGHT), "requester": "Other[vm:1]"},
            {"result": RIGHT, "requester": "Other[vm:1]", "uid": "1"},
            b'{"service":"Vault","args":["%s"' % RIGHT.encode(),
        ):
            await wire.send(line)
            await wait_all_tasks_blocked()
        wire.transport.close()
        nursery.cancel_scope.cancel()
    log()


async def test_what_is_sent_by_http(log, tmp_path):
    headers = {"Authorization": f"Bearer {RIGHT}", "Cookie": f"a={RIGHT}"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    settings = {"disable_tls": True, "database": tmp_path / "lab.sqlite3", "auth_password": RIGHT}
    with trio.fail_after(PATIENCE):
        async with open_manager(host="127.0.0.1", port=0, websocket_port=0, **settings) as manager:
            for head in (
                f"GET /?{RIGHT} HTTP/1.1\r\nHost: x\r\n{lines}\r\n",
                f"GET /{RIGHT} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n{lines}\r\n",
                f"{RIGHT}\r\n\r\n",
                f"GET / HTTP/1.1\r\n{RIGHT}\r\n\r\n",
            ):
                carrier = await open_tcp("127.0.0.1", manager.websocket_port)
                await carrier.send_all(head.encode())
                while await carrier.receive():
                    pass
                carrier.close()
            path = f"/msl?token={RIGHT}"
            carrier = await open_tcp("127.0.0.1", manager.websocket_port)
            websocket = await open_websocket(carrier, "127.0.0.1:1", path=path, headers=headers)
            await websocket.send_all(b'{"result":"%s"}\n' % WRONG.encode())
            while await websocket.receive():
                pass
            websocket.close()
            kwargs = {**manager.connect_kwargs("websocket"), "headers": headers, "path": path}
            async with connect(**kwargs) as client:
                assert SECRET not in repr([client, client._session.settings])
    assert "is a new client" in log()


# ---- what goes wrong at a client ----


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": f"wss://me:{RIGHT}@lab"},
        {"host": f"https://me:{RIGHT}@lab"},
        {"host": f"wss://me:{RIGHT}@lab:99999"},
        {"host": f"wss://me:{RIGHT}@"},
        {"host": f"wss://{RIGHT}@[lab/"},
        {"host": f"wss://{RIGHT}@lab", "port": 5},
        {"host": f"wss://lab/?key={RIGHT}", "port": 5},
        {"host": f"wss://lab/?key={RIGHT}", "path": f"/?key={WRONG}"},
        {"host": "wss://lab", "path": f"?key={RIGHT}"},
        {"host": "wss://lab", "headers": {"X-Key": RIGHT.encode()}},
        {"host": "wss://lab", "headers": {"X-Key": f"{RIGHT}\n"}},
        {"password": RIGHT.encode()},
        {"password_manager": [RIGHT]},
    ],
)
def test_arguments_that_make_no_sense(arguments):
    with pytest.raises((ValueError, TypeError)) as raised:
        connect(**arguments)
    assert SECRET not in shown(raised.value)


async def test_a_prompt_that_gives_no_text(log):
    class Prompts:
        def password(self, name):
            return RIGHT.encode()

    async with lab(auth_password=RIGHT) as manager:
        kwargs = {**manager.connect_kwargs(), "password_manager": None, "prompts": Prompts()}
        with pytest.raises(AuthenticationError, match="must return text, not bytes") as raised:
            await connect(**kwargs)
        assert SECRET not in shown(raised.value)


# ---- commands ----


def test_the_command_for_users(tmp_path, capsys, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    database = ["--database", str(tmp_path / "lab.sqlite3")]
    file = tmp_path / "password.txt"
    file.write_text(f"{RIGHT}\n")
    for words in (
        ["add", "alice", "--password", RIGHT],
        ["add", "alice", "--password", RIGHT],
        ["add", "bob", "--password", "two", RIGHT],
        ["add", "carol", "--password", str(file)],
        ["add", "x:1", "--password", RIGHT],
        ["update", "zed", "--password", RIGHT],
        ["update", "alice", "--admin", "--password", RIGHT],
        ["list"],
        ["remove", "bob", "--password", RIGHT],
    ):
        main(["user", *words, *database])
    typed = iter([RIGHT, WRONG])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["user", "add", "dave", *database]) == 1
    assert SECRET not in str(capsys.readouterr())
    assert SECRET not in caplog.text


def test_a_manager_that_cannot_start(tmp_path, capsys, caplog):
    log = tmp_path / "manager.log"
    words = ["manager", "--port", "0", "--auth-password", RIGHT, "--key-file-password", RIGHT]
    words += ["--key-file", str(tmp_path / "nope.key"), "--log-level", "DEBUG", "--log-file", str(log)]
    assert main([*words, "--database", str(tmp_path / "lab.sqlite3"), "--host", "127.0.0.1"]) == 1
    assert "nope.key" in log.read_text("utf-8")
    assert SECRET not in log.read_text("utf-8") + str(capsys.readouterr()) + caplog.text


# ---- representations ----


def test_representations():
    things = [
        ManagerSettings(auth_password=RIGHT, key_file_password=RIGHT),
        ManagerSettings(auth_password=RIGHT).authentication,
        open_manager(auth_password=RIGHT),
        open_gateway(manager="lab", key_file_password=RIGHT),
        open_gateway(manager="lab", key_file_password=RIGHT)._settings,
        Settings(password=RIGHT, password_manager=RIGHT),
        Settings(host=f"wss://lab/?key={RIGHT}", headers={"X-Key": RIGHT}),
        Credentials("alice", RIGHT, RIGHT),
        LoginCheck("alice", RIGHT),
        AdminRequest("users_table.insert", ["alice", RIGHT], {"password": RIGHT}),
        AdmissionState(LoginCheck("alice", RIGHT), RIGHT.encode()),
    ]
    assert SECRET not in repr(things)


def test_no_field_of_a_class_that_has_a_password_is_shown():
    fields = 0
    for found in pkgutil.walk_packages(msl_network_trio.__path__, "msl_network_trio."):
        if found.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(found.name)).values():
            if isinstance(kind, type) and attrs.has(kind):
                for field in attrs.fields(kind):
                    if "password" in field.name and field.type not in {"bool", bool}:
                        fields += 1
                        assert not field.repr, f"{kind.__module__}.{kind.__qualname__}.{field.name}"
    assert fields > 5
