"""Tests of the command ``manager`` as a process, with both clients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from msl_network_trio import AuthenticationError, connect
from msl_network_trio.protocol.manager import answers
from tests.interop.reference import Manager, Process
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows can send no such signals")

RUNNING = re.compile(r"Network Manager running on (\S+):(\d+) \(TLS (ENABLED|DISABLED)\)")

ENDED = "shutting down the Network Manager"

_REFERENCE_CLIENT = """
import json, sys
from msl.network import connect
client = connect(auto_save=True, **json.loads(sys.argv[1]))
link = client.link("Echo")
print(json.dumps([link.add(1, 2), sorted(client.identities()["services"])]))
client.disconnect()
"""

_TWO_SERVICES = """
import sys, threading
from msl_network_trio.manager.running import run_services
from msl_network_trio.service.service import Service

class Adder(Service):
    def add(self, x, y):
        return x + y
    def shutdown_service(self):
        return True

class Sleeper(Service):
    def sleep(self):
        print("it sleeps", flush=True)
        threading.Event().wait()
    def shutdown_service(self):
        return True

class Broken(Service):
    def __init__(self):
        super().__init__()
        self.add_tasks(self._heat)
    async def _heat(self):
        raise OverflowError("too hot")

services = [globals()[name]() for name in sys.argv[1].split()]
run_services(*services, port=0, **eval(sys.argv[2]))
print("it has returned", flush=True)
"""


@attrs.define
class Running(Manager):
    """Our Manager as a process, with the attributes of `Manager` in `reference`."""

    def stop(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.popen.send_signal(number)
        return self.process.popen.wait(PATIENCE)

    def dial(self) -> socket.socket:
        """Connect without TLS, and read the first line of the Manager."""
        peer = socket.create_connection(("127.0.0.1", self.port), 20)
        assert peer.recv(4096)
        return peer


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start Managers with the command and further options."""
    started: list[Running] = []

    def run_one(*options: str, home: Path | None = None, program: tuple[str, ...] = ()) -> Running:
        home = home or tmp_path / f"our-manager-{len(started)}"
        home.mkdir(exist_ok=True)
        words = program or ("-m", "msl_network_trio", "manager", "-p", "0", *options)
        process = Process.start(list(words), home, "Network Manager running on")
        line = RUNNING.search(process.wait_for("Network Manager running on"))
        assert line is not None
        port, tls = int(line[2]), line[3] == "ENABLED"
        arguments = {"host": "localhost", "port": port, "disable_tls": not tls}
        started.append(Running(process, home, port, tls, arguments))
        return started[-1]

    yield run_one
    for manager in started:
        manager.end()


def fails(home: Path, *options: str) -> str:
    """Run the command, which must fail, and return its only line on standard error."""
    ran = subprocess.run(
        [sys.executable, "-m", "msl_network_trio", "manager", *options],
        env=dict(os.environ, MSL_NETWORK_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stdout
    (line,) = ran.stderr.splitlines()
    return line


def use_by_reference(manager: Manager, home: Path, **arguments: Any) -> list[Any]:
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            _REFERENCE_CLIENT,
            json.dumps({**manager.service_arguments, **arguments}),
        ],
        env=dict(os.environ, MSL_NETWORK_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("options", [(), ("--disable-tls",)], ids=["tls", "tcp"])
async def test_both_clients_use_a_manager_that_the_command_runs(run, tmp_path, options):
    manager = run(*options)
    assert manager.tls is (not options)
    manager.start_service("Echo")
    expected = [3, ["Echo"]]
    assert await trio.to_thread.run_sync(use_by_reference, manager, tmp_path / "reference") == expected
    for host in ("localhost", "127.0.0.1", "::1", socket.gethostname()):
        async with connect(**manager.arguments(host=host)) as client:
            assert await (await client.link("Echo")).add(1, 2) == 3
    assert manager.stop(signal.SIGINT if sys.platform != "win32" else signal.CTRL_BREAK_EVENT) == 0


def test_a_certificate_that_a_client_has_saved_is_the_same_after_a_restart(run, tmp_path):
    for _ in range(2):
        manager = run("-H", "127.0.0.1", home=tmp_path / "lab")
        manager.service_arguments["host"] = "127.0.0.1"
        manager.start_service("Echo")
        assert use_by_reference(manager, tmp_path / "reference") == [3, ["Echo"]]
        manager.end()


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_cleanly(run, name):
    manager = run("--disable-tls")
    peers = [manager.dial() for _ in range(3)]
    number = getattr(signal, name)
    assert manager.stop(number) == 0
    for peer in peers:
        with peer.makefile("rb") as file:
            *told, last = file.readlines() or [b""]
        assert (told, b"is shutting down" in last) == ([], True)
        peer.close()
    manager.process.wait_for(f"{number.name} received")
    manager.process.wait_for(ENDED)
    assert "Traceback" not in manager.process.log()


@posix_only
def test_a_signal_that_comes_with_the_line_that_it_runs_ends_it_cleanly(run):
    for _ in range(3):
        assert run("--disable-tls").stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("from_file", [True, False])
async def test_a_password_is_needed_by_all(run, tmp_path, from_file):
    words = ["abc", "123"]
    if from_file:
        words = [str(tmp_path / "password.txt")]
        Path(words[0]).write_text("abc 123\n")
    manager = run("--disable-tls", "-P", *words)
    manager.process.wait_for("using a password for authentication")
    manager.service_arguments["password_manager"] = "abc 123"
    manager.start_service("Echo")
    assert await trio.to_thread.run_sync(use_by_reference, manager, tmp_path / "reference") == [3, ["Echo"]]
    async with connect(**manager.arguments(password_manager="abc 123")) as client:
        assert await (await client.link("Echo")).add(1, 2) == 3
    for wrong in ("abc", words[0]):
        with pytest.raises(AuthenticationError, match="ValueError: Wrong Manager password"):
            await connect(**manager.arguments(password_manager=wrong))
    assert "abc 123" not in manager.process.log()


def test_a_client_of_the_reference_puts_up_with_being_told_when_to_come_again():
    line = answers.error("ConnectionAbortedError: Too many connections", "", "Manager[lab:1875]", again=1.0)
    assert json.loads(line)["again"] == 1.0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = (
            "from msl.network import connect; "
            f"connect(host='127.0.0.1', port={listener.getsockname()[1]}, disable_tls=True, timeout=20)"
        )
        client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        with client, listener.accept()[0] as connection:
            connection.sendall(line)
            assert client.stderr.read().rstrip().endswith(b"ConnectionAbortedError: Too many connections")


async def test_a_service_of_the_reference_answers_what_it_is_asked_when_its_name_is_wanted(run):
    """See `ManagerProtocol.ask_for_identity`; a client asks here, since a Manager can query TCP on this system."""
    manager = run("--disable-tls")
    manager.start_service("Echo")
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        assert (await link.identity())["type"] == "service"
        assert await link.add(1, 2) == 3


def test_without_a_password_it_says_so(run):
    run("--disable-tls").process.wait_for("not using authentication")


async def test_a_key_with_a_password_is_made_and_used_again(run, tmp_path):
    home = tmp_path / "lab"
    for _ in range(2):
        manager = run("-D", "open", "sesame", home=home)
        async with connect(**manager.arguments()) as client:
            assert client.is_connected()
        manager.end()
    assert "ENCRYPTED" in (home / "keys" / "localhost.key").read_text()
    assert "is encrypted" in fails(home, "-p", "0")


@pytest.mark.parametrize("host", [(), ("-H", "127.0.0.1")])
def test_a_port_in_use_is_one_line_and_exit_status_1(run, tmp_path, host):
    manager = run("--disable-tls", *host)
    line = fails(tmp_path / "other", "--disable-tls", "-p", str(manager.port), *host)
    assert line.startswith(f"error: Port {manager.port} is in use, perhaps by another Manager.")
    (log,) = (tmp_path / "other" / "logs").iterdir()
    assert f"Port {manager.port} is in use" in log.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("-p", "0", "-H", "192.0.2.77", "--disable-tls"), "192.0.2.77 is no address of this computer"),
        (
            ("-p", "0", "-H", "no.such.host.invalid", "--disable-tls"),
            "There is no host 'no.such.host.invalid'",
        ),
        (("-p", "0", "-c", "missing.crt"), "The file of the certificate does not exist: missing.crt"),
        (("-p", "0", "--disable-tls", "-P", ""), "The password of the Manager is empty"),
    ],
)
def test_what_cannot_be_started_is_one_line_and_exit_status_1(tmp_path, options, text):
    assert fails(tmp_path / "home", *options).startswith(f"error: {text}")


def test_a_log_file_that_cannot_be_written_is_one_line_and_exit_status_1(tmp_path):
    assert str(tmp_path) in fails(tmp_path, "-l", str(tmp_path))


def test_the_log_goes_to_the_console_and_to_the_file_from_its_level_on(run, tmp_path):
    log = tmp_path / "my.log"
    manager = run("--disable-tls", "-l", str(log))
    manager.dial().close()
    manager.process.wait_for("connection closed")
    manager.end()
    text = log.read_text()
    assert [line.split("] ", 1)[1] for line in text.splitlines()] == [
        line.split("] ", 1)[1].rstrip("\n") for line in manager.process.lines if line
    ]
    assert "DEBUG" not in text


# ---- run_services ----


def program(services: str, **kwargs: Any) -> tuple[str, ...]:
    return ("-c", _TWO_SERVICES, services, repr({"disable_tls": True, **kwargs}))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"disable_tls": False},
        {"auth_password": "abc 123"},
        {"password_manager": "abc 123", "host": "127.0.0.1"},
    ],
)
async def test_run_services_ends_when_all_services_have(run, kwargs):
    manager = run(program=program("Adder Sleeper", **kwargs))
    password = {"password_manager": "abc 123"} if len(kwargs) and "disable_tls" not in kwargs else {}
    if "host" in kwargs:
        password["host"] = kwargs["host"]
    async with connect(**manager.arguments(**password)) as client:
        with trio.fail_after(PATIENCE):
            while len((await client.identities())["services"]) < 2:
                await trio.sleep(0.01)
        adder = await client.link("Adder")
        assert await adder.add(1, 2) == 3
        assert await adder.shutdown_service() is True
        sleeper = await client.link("Sleeper")
        assert manager.process.popen.poll() is None
        assert await sleeper.shutdown_service() is True
        assert await trio.to_thread.run_sync(manager.process.popen.wait, PATIENCE) == 0
    manager.process.wait_for("it has returned")


@posix_only
def test_run_services_ends_on_a_signal(run):
    manager = run(program=program("Adder Sleeper"))
    assert manager.stop(signal.SIGTERM) == 0
    manager.process.wait_for("it has returned")


@posix_only
def test_a_second_signal_ends_what_the_first_could_not(run):
    manager = run(program=program("Sleeper"))
    process = manager.process

    async def call_it() -> None:
        async with connect(**manager.arguments()) as client:
            with trio.fail_after(PATIENCE):
                while not (await client.identities())["services"]:
                    await trio.sleep(0.01)
            link = await client.link("Sleeper")
            try:
                await link.sleep()
            except Exception:
                pass  # the Manager has ended, as it should

    caller = threading.Thread(target=trio.run, args=(call_it,))
    caller.start()
    try:
        process.wait_for("it sleeps")
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for("SIGTERM received")
        assert manager.stop(signal.SIGTERM) == -signal.SIGTERM
        assert ENDED not in process.log()  # it did not wait for the end of the first shutdown
    finally:
        process.kill()
        caller.join(PATIENCE)


def test_run_services_raises_what_ended_a_service(tmp_path):
    ran = subprocess.run(
        [sys.executable, *program("Adder Broken")],
        env=dict(os.environ, MSL_NETWORK_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "OverflowError: too hot"
    assert "ExceptionGroup" not in ran.stderr
    assert ENDED in ran.stdout
