"""Tests of a Manager program, as far as they need no process."""

from __future__ import annotations

import errno
import inspect
import signal
import socket
import threading
from functools import partial

import pytest
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.hidden import Hidden
from msl_network_trio.manager.running import filter_run_forever_kwargs, run_forever, run_services
from msl_network_trio.service.service import Service

pytestmark = pytest.mark.usefixtures("home")


class Adder(Service):
    def add(self, x, y):
        return x + y


class Other(Service):
    """Has a method that is called as one of ours, for something else."""

    def run(self, seconds):
        return seconds


@pytest.fixture
def runs(monkeypatch):
    """Replace the run of Services by one that ends at once and is recorded."""
    noted = []

    async def run(service, **kwargs):
        await trio.lowlevel.checkpoint()
        noted.append((service, kwargs))

    monkeypatch.setattr(Service, "run", run)
    return noted


def test_services_do_not_wait_for_the_manager_of_their_program(runs):
    run_services(Adder(), port=0, disable_tls=True, reconnect=True)
    [(_, kwargs)] = runs
    assert kwargs["reconnect"] is False


@pytest.mark.parametrize("thing", [Adder, "Adder", None])
def test_what_is_no_service_is_refused(thing):
    with pytest.raises(TypeError, match="All services must be of type"):
        run_services(Adder(), thing)


def test_no_services_are_refused():
    with pytest.raises(ValueError, match="no services"):
        run_services(port=0)


def test_run_forever_takes_the_arguments_of_the_reference():
    from msl.network.manager import run_forever as reference

    ours, theirs = (inspect.signature(function).parameters for function in (run_forever, reference))
    assert set(theirs) <= set(ours)
    for name, parameter in theirs.items():
        assert parameter.default == ours[name].default
        assert parameter.kind is ours[name].kind


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"port": 1, "name": "x", "timeout": 3, "log_level": "DEBUG"}, {"port": 1, "log_level": "DEBUG"}),
        ({"password_manager": "a"}, {"auth_password": "a"}),
        ({"password_manager": "a", "auth_password": "b"}, {"auth_password": "b"}),
    ],
)
def test_arguments_of_others_are_left_out(given, kept):
    assert filter_run_forever_kwargs(**given) == kept


def test_services_get_their_arguments_and_the_way_to_the_manager(runs):
    service = Other()
    run_services(
        service, port=0, disable_tls=True, auth_password="abc", timeout=3, rubbish=1, log_level="ERROR"
    )
    ((ran, kwargs),) = runs
    assert ran is service
    assert kwargs.pop("port") > 0
    assert kwargs == {
        "host": "localhost",
        "disable_tls": True,
        "password_manager": Hidden("abc"),
        "timeout": 3,
        "assert_hostname": False,
        "reconnect": False,
    }


@pytest.mark.parametrize("services", [[], [Adder]])
def test_it_is_alone_in_its_event_loop_unless_services_run_there(monkeypatch, services):
    class Opening(Exception):
        pass

    def open_manager(*, alone, **_):
        raise Opening(alone)

    monkeypatch.setattr("msl_network_trio.manager.running.open_manager", open_manager)
    run = partial(run_services, *(each() for each in services)) if services else run_forever
    with pytest.raises(Opening, match=str(not services)):
        run(host="127.0.0.1", port=0)


def test_a_service_whose_connection_has_ended_has_not_failed(monkeypatch, caplog):
    async def run(service, **kwargs):
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("The Manager has gone")

    monkeypatch.setattr(Service, "run", run)
    run_services(Adder(), port=0, disable_tls=True)
    assert "The Manager has gone" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_it_runs_in_another_thread_too(runs):
    service = Adder()
    failures = []

    def run() -> None:
        try:
            run_services(service, port=0, disable_tls=True, log_level="ERROR")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert failures == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EADDRINUSE, "x"), "Port 80 is in use"),
        (PermissionError(errno.EACCES, "x"), "Listening on port 80 is not allowed"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "lab is no address of this computer"),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), r"There is no host 'lab' \(Name not known\)"),
        (OSError(errno.EMFILE, "Too many open files"), "Cannot listen on lab, port 80: Too many open files"),
    ],
)
def test_why_it_cannot_listen_is_explained_by_an_error_of_the_same_kind(monkeypatch, error, text):
    async def open_tcp_listeners(port, *, host):
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with pytest.raises(type(error), match=text) as caught:
        run_forever(host="lab", port=80, disable_tls=True)
    assert caught.value.errno == error.errno
    assert caught.value.__cause__ is error


# ---- signals ----


class Signalled(Service):
    """Sends its own program a signal as soon as it runs, and has something to do then."""

    ended = 0

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.add_tasks(self._send)

    async def _send(self):
        signal.raise_signal(self.number)

    def shutdown_handler(self):
        self.ended += 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_services_and_their_manager_in_order(name, caplog):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"there is no {name}")
    before = signal.getsignal(number)
    services = [Signalled(number), Adder()]
    run_services(*services, host="localhost", port=0, disable_tls=True)
    assert services[0].ended == 1
    assert f"{name} received" in caplog.text
    assert "shutting down the Network Manager" in caplog.text
    assert signal.getsignal(number) == before
