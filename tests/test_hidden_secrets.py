"""Tests that crash reports, debuggers and variable viewers show no secrets."""

from __future__ import annotations

import copy
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
import trio

import msl_network_trio as asynchronous
from msl_network_trio import NetworkError, Service, open_gateway, run_services, sync
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.gateway.running import run_forever as gateway_run_forever
from msl_network_trio.hidden import Hidden, hide, reveal
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.running import run_forever
from msl_network_trio.manager.tables import Database

SECRET = "hunter2"
PASSWORD = f"login-{SECRET}"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
PATH = f"/msl?token={SECRET}"


class Vault(Service):
    """A Service that needs to log in."""


def locals_of_ours(error: BaseException | None) -> Iterator[str]:
    """Yield the variables of the frames of the package, and of trio-websocket, as a crash report shows them."""
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_globals["__name__"].startswith(("msl_network_trio", "trio_websocket")):
                for name, value in frame.f_locals.items():
                    yield f"{frame.f_code.co_qualname}: {name} = {value!r}"
                    yield from (f"{frame.f_code.co_qualname}: {name}: {text}" for text in inside(value))
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


def inside(value: object) -> Iterator[str]:
    """Yield what a variable viewer shows of an object, two levels down."""
    for name, inner in getattr(value, "__dict__", {}).items():
        yield f"{name} = {inner!r}"
        yield from (f"{name}.{key} = {each!r}" for key, each in getattr(inner, "__dict__", {}).items())


def raised_by(call: Callable[[], object]) -> BaseException:
    with pytest.raises((NetworkError, TypeError, ValueError)) as caught:
        call()
    return caught.value


def check(error: BaseException, *, after: str) -> None:
    shown = list(locals_of_ours(error))
    assert any(text.startswith(after) for text in shown), shown  # the check has seen the variables
    assert [text for text in shown if SECRET in text] == []


# ---- errors of connecting ----

FORMS: dict[str, Callable[..., object]] = {
    "connect": lambda **kwargs: trio.run(partial(asynchronous.connect, **kwargs)),
    "LinkedClient": lambda **kwargs: trio.run(lambda: asynchronous.LinkedClient("S", **kwargs)),
    "blocking connect": lambda **kwargs: sync.connect(**kwargs),
    "blocking LinkedClient": lambda **kwargs: sync.LinkedClient("S", **kwargs),
    "Service.run": lambda **kwargs: trio.run(partial(Vault().run, **kwargs)),
}


@pytest.fixture
def dead_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [{"password": PASSWORD}, {"password_manager": PASSWORD}], ids=str)
def test_no_manager(form, secret, dead_port):
    error = raised_by(partial(FORMS[form], port=dead_port, host="127.0.0.1", disable_tls=True, **secret))
    check(error, after="dial: ")


@pytest.mark.parametrize("form", FORMS)
def test_an_argument_that_is_wrong(form):
    secrets: dict[str, Any] = {"password": PASSWORD, "headers": HEADERS, "path": PATH}
    error = raised_by(partial(FORMS[form], transport="websocket", max_unsent="1", **secrets))
    assert "max_unsent" in str(error)
    check(error, after="converted.<locals>.validate: ")


def test_a_service_that_blocks(dead_port):
    start = partial(
        Vault().start, host="127.0.0.1", port=dead_port, disable_tls=True, password=PASSWORD, timeout=0.5
    )
    check(raised_by(start), after="Service.start: ")


@pytest.mark.parametrize("form", ["connect", "LinkedClient", "Service.run"])
def test_a_manager_that_does_not_accept_the_password(form):
    async def main() -> None:
        async with open_manager(
            port=0, disable_tls=True, auth_password="another one", database=":memory:"
        ) as manager:
            arguments = {**manager.connect_kwargs(), "password_manager": PASSWORD}
            with pytest.raises(NetworkError, match="Wrong Manager password") as caught:
                if form == "Service.run":
                    await Vault().run(**arguments)
                else:
                    await (
                        asynchronous.connect(**arguments)
                        if form == "connect"
                        else asynchronous.LinkedClient("S", **arguments)
                    )
            check(caught.value, after="shake_hands: ")

    trio.run(main)


def test_a_login_for_an_admin_request_that_is_wrong(tmp_path):
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("alice", "right", True)

    async def main() -> None:
        async with (
            open_manager(in_memory=True, database=path, login_delay=0) as manager,
            asynchronous.connect(**manager.connect_kwargs(), username="alice", password=PASSWORD) as client,
        ):
            with pytest.raises(NetworkError, match="Wrong login password") as caught:
                await client.admin_request("users_table.usernames")
            check(caught.value, after="admin_request: ")

    trio.run(main)


# ---- Managers, gateways, WebSockets ----


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Return a port on which a socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def opened(opening: Any) -> None:
    async with opening:
        pass


RUN: dict[str, Callable[..., object]] = {
    "open_manager": lambda **kwargs: trio.run(lambda: opened(open_manager(database=":memory:", **kwargs))),
    "run_forever": partial(run_forever, database=":memory:"),
    "run_services": lambda **kwargs: run_services(Vault(), database=":memory:", **kwargs),
}


@pytest.mark.parametrize("run", RUN)
def test_a_manager_whose_port_is_taken(run, taken_port, home):
    with pytest.raises(OSError, match="in use") as caught:
        RUN[run](host="127.0.0.1", port=taken_port, disable_tls=True, auth_password=PASSWORD)
    check(caught.value, after="ManagerOpening.")


@pytest.mark.parametrize(
    "run",
    [*RUN.values(), lambda **kwargs: trio.run(lambda: opened(open_gateway(**kwargs))), gateway_run_forever],
)
def test_a_private_key_that_is_not_there(run, home):
    with pytest.raises(NetworkError, match="does not exist") as caught:
        run(port=0, key_file=str(home / "no.key"), key_file_password=PASSWORD)
    check(caught.value, after="server_context: ")


@pytest.mark.parametrize("open_", [open_manager, open_gateway])
def test_an_argument_of_a_manager_or_gateway_that_is_wrong(open_):
    check(raised_by(lambda: open_(disable_tls="no", key_file_password=PASSWORD)), after="flag: ")


@pytest.mark.parametrize("secret", [[PASSWORD], PASSWORD.encode()], ids=["list", "bytes"])
def test_a_password_that_is_no_text(secret):
    check(raised_by(lambda: asynchronous.connect(password=secret)), after="is_secret_or_none: ")
    check(raised_by(lambda: open_manager(auth_password=secret)), after="_is_password: ")


@pytest.mark.parametrize("status", ["403 No", "200 OK", "101 Yes", ""])
@pytest.mark.parametrize("form", ["blocking connect", "blocking LinkedClient", "connect"])
def test_a_server_that_opens_no_websocket(form, status):
    def refuse() -> None:
        sock, _ = server.accept()
        with sock:
            sock.recv(10_000)
            sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode() if status else b"")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}{PATH}"
        error = raised_by(lambda: FORMS[form](host=url, headers=HEADERS))
        thread.join()
    check(error, after="open_websocket: ")


# ---- objects ----


def test_vars_of_clients_show_no_secret():
    async def main() -> None:
        async with open_manager(in_memory=True, auth_password=PASSWORD) as manager:
            arguments = {**manager.connect_kwargs(), "password": PASSWORD, "username": "alice"}
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(Vault(name="S").run, **manager.connect_kwargs()))
                async with asynchronous.LinkedClient("S", **arguments) as linked:
                    spawned = linked.spawn()
                    for thing in (linked, spawned, linked.client, linked.sync, linked.client.sync, manager):
                        assert vars(thing)
                        shown = [repr(thing), *inside(thing)]
                        assert [text for text in shown if SECRET in text] == []
                    async with spawned:  # the password is the same
                        assert spawned.is_connected()
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_settings_keep_secrets_and_cannot_be_pickled_with_them():
    settings = Settings(password=PASSWORD, headers=HEADERS, path=PATH, transport="websocket")
    assert SECRET not in repr(settings)
    assert attrs.evolve(settings, name="another").password == settings.password
    assert reveal(settings.password) == PASSWORD
    assert reveal(copy.deepcopy(settings).password) == PASSWORD
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(settings)


def test_settings_of_managers_and_gateways_keep_secrets():
    kept: list[Any] = [
        open_manager(auth_password=PASSWORD, key_file_password=PASSWORD)._settings,
        open_manager(auth_password=PASSWORD)._settings.authentication,
        open_gateway(key_file_password=PASSWORD)._settings,
    ]
    for settings in kept:
        shown = repr(attrs.asdict(settings, recurse=False))
        assert SECRET not in shown
        assert "<hidden>" in shown
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(settings)


def test_a_hidden_value():
    hidden = hide(PASSWORD)
    assert repr(hidden) == str(hidden) == f"{hidden}" == "<hidden>"
    assert not hasattr(hidden, "__dict__")
    assert hidden.reveal() == reveal(hidden) == reveal(PASSWORD) == PASSWORD
    assert hide(hidden) is hidden
    assert hide(None) is None
    assert hidden == hide(PASSWORD) != hide("another")
    assert hash(hidden) == hash(hide(PASSWORD))
    assert hidden != PASSWORD
    assert bool(hidden)
    assert not Hidden("")
    assert copy.copy(hidden) is hidden
