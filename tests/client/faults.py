"""Fault injection in memory: Managers with Services, a client, and a caller that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from msl_network_trio import Client, Link, connect
from msl_network_trio.dialing import connect as connecting
from msl_network_trio.exceptions import ConnectError, ConnectionLost
from tests.client.peer import ECHO, MANAGER, Network, Peer

HANDSHAKES = ("at once", "silent", "asks", "asks, then silent")
"""Behaviour of a Manager towards a new connection."""


@attrs.define
class Manager:
    """The Manager at the other end of one connection, with links and locks."""

    lab: NetworkState
    peer: Peer
    links: set[str] = attrs.field(factory=set)
    locks: set[str] = attrs.field(factory=set)
    withheld: set[str] = attrs.field(factory=set)
    """Attributes whose requests are not answered for now."""
    kept: list[dict[str, Any]] = attrs.field(factory=list)
    """Lines that were read and not answered."""
    is_leaving: bool = False
    """Whether the connection is closed after __disconnect__, even with unanswered requests."""
    refuses_locks: bool = False
    asks_for_a_login: bool = False
    _awake: trio.Event = attrs.field(factory=trio.Event)
    _reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        try:
            await self._shake_hands()
            self._awake.set()
            while True:
                await self._awake.wait()
                with trio.CancelScope() as self._reading:
                    while (line := await self.peer.line()) is not None:
                        self._handle(line)
                    break
        except ConnectionLost:
            pass
        self.peer.transport.close()

    async def _shake_hands(self) -> None:
        handshake = self.lab.handshake
        if handshake.startswith("asks"):
            self.peer.ask("username", MANAGER)
            if await self.peer.line() is None:
                return
        if handshake.endswith("silent"):
            await self.peer.line()
        else:
            self.peer.ask("identity")
            await self.peer.line()

    # ---- control by the test ----

    def withhold(self, *attributes: str) -> None:
        """Leave requests for these attributes unanswered until `go_on`.

        An unanswered request to the Manager itself blocks all later lines, since a Manager handles lines in
        order.
        """
        self.withheld.update(attributes)

    def stall(self) -> None:
        """Stop reading and sending until `read` or `go_on`."""
        self._awake = trio.Event()
        self._reading.cancel()

    def read(self) -> None:
        """Resume reading."""
        self._awake.set()

    def go_on(self) -> None:
        """Resume reading, and answer everything, including withheld requests."""
        self.withheld.clear()
        kept, self.kept = self.kept, []
        for line in kept:
            self._handle(line)
        self.read()

    def say_goodbye(self) -> None:
        """Resume reading and closing the connection, but leave requests unanswered."""
        self.is_leaving = True
        if any(line.get("attribute") == "__disconnect__" for line in self.kept):
            self.peer.transport.close()
        self.read()

    def notify(self, service: str) -> None:
        self.peer.send(error=False, requester=service, result=[[1], {}], service=service, uid="notification")

    # ---- behaviour ----

    def _handle(self, line: dict[str, Any]) -> None:
        # The answer to a question has no attribute.
        attribute = line.get("attribute", "login")
        if attribute == "__disconnect__" and self.is_leaving:
            self.peer.transport.close()
        elif attribute in self.withheld or self._is_held_up():
            self.kept.append(line)
        elif attribute == "__disconnect__":
            self.peer.transport.close()
        elif attribute == "login":
            self._log_in(line["result"])
        elif line["service"] == "Manager":
            self._manage(attribute, line["uid"], line["args"])
        elif line["service"] in self.lab.services:
            self.peer.reply(line["uid"], self._serve(attribute, line["args"]))
        else:
            reason = f"the {line['service']!r} Service is not connected to {MANAGER}"
            self.peer.fail("", f"KeyError: {KeyError(reason)}")

    def _is_held_up(self) -> bool:
        """Whether a request to the Manager itself is unanswered."""
        return any(
            line.get("service") == "Manager" or line.get("attribute", "") in {"", "__disconnect__"}
            for line in self.kept
        )

    def _serve(self, attribute: str, args: list[Any]) -> Any:
        match attribute:
            case "add":
                return sum(args)
            case "size":
                return len(args[0])
        return f"the answer to {attribute}"

    def _log_in(self, username: str) -> None:
        if username:
            self.peer.reply("", 1875)
        else:
            self.peer.fail("", "ValueError: You must be an administrator to send this request to the Manager")

    def _manage(self, attribute: str, uid: str, args: list[Any]) -> None:
        service = args[0] if args else ""
        exists = service in self.lab.services
        match attribute:
            case "identity":
                self.peer.reply(uid, self.lab.registry())
            case "unlink":
                self.links.discard(service)
                self.locks.discard(service)
                self.peer.reply(uid, True)
            case "link" | "acquire_lock" | "release_lock" if not exists:
                self.peer.fail(uid, f"KeyError: the {service!r} service does not exist")
            case "link":
                self.links.add(service)
                self.peer.reply(uid, self.lab.registry()["services"][service])
            case "acquire_lock" if self.refuses_locks:
                why = f"cannot acquire an exclusive lock, there are 2 links with the {service!r} service"
                self.peer.fail(uid, f"PermissionError: Client[vm:1] {why}")
            case "acquire_lock":
                self.locks.add(service)
                self.peer.reply(uid, ["Client[vm:1]"])
            case "release_lock":
                self.locks.discard(service)
                self.peer.reply(uid, [])
            case "port" if self.asks_for_a_login:
                self.peer.ask("username", MANAGER)
            case "port":
                self.peer.reply("", 1875)
            case _:
                raise AssertionError(f"a request that no test makes: {attribute}")


@attrs.define
class NetworkState:
    """State shared by all Managers: the Services and their addresses."""

    network: Network
    services: dict[str, str] = attrs.field(factory=lambda: {"Echo": "vm:1", "Bell": "vm:2", "Other": "vm:3"})
    removed: set[str] = attrs.field(factory=set)
    """Services that have disconnected, even if they have reconnected."""
    handshake: str = attrs.field(default="at once", validator=attrs.validators.in_(HANDSHAKES))
    withheld: set[str] = attrs.field(factory=set)
    """Attributes that new Managers leave unanswered."""
    managers: list[Manager] = attrs.field(factory=list)

    async def serve(self) -> None:
        """Accept connections, each with its own Manager."""
        async with trio.open_nursery() as nursery:
            while True:
                manager = Manager(self, await self.network.accept(), withheld=set(self.withheld))
                self.managers.append(manager)
                nursery.start_soon(manager.run)

    def remove(self, service: str) -> None:
        """Disconnect a Service; Managers drop links with it and locks on it."""
        del self.services[service]
        self.removed.add(service)
        for manager in self.managers:
            manager.links.discard(service)
            manager.locks.discard(service)

    def kill(self, service: str) -> None:
        """Disconnect a Service, and with it all requests that it has received."""
        self.remove(service)
        for manager in self.managers:
            manager.kept = [line for line in manager.kept if line.get("service") != service]

    def registry(self) -> dict[str, Any]:
        services = {name: {**ECHO, "address": address} for name, address in self.services.items()}
        return {"hostname": "vm", "port": 1875, "attributes": {}, "clients": {}, "services": services}


class Person:
    """Prompts that answer when the test says so."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.answers = trio.Event()

    async def username(self, manager: str) -> str:
        self.asked.set()
        await self.answers.wait()
        return "alice"

    async def password(self, name: str) -> str:
        raise AssertionError("nobody asks for a password")

    def trust(self, certificate: object) -> bool:
        raise AssertionError("not over TLS")


@attrs.define(eq=False)
class Caller:
    """A task that waits, and its outcome."""

    is_right: Callable[[Any], bool] = lambda _: True
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)
    cancelled: bool = False
    value: Any = None
    error: Exception | None = None

    async def run(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            with self.scope:
                self.value = await call()
        except trio.Cancelled:
            self.cancelled = True
            raise
        except Exception as error:
            self.error = error
        finally:
            self.cancelled = self.cancelled or self.scope.cancelled_caught
            self.done.set()


class Application:
    """A nursery of the user, for the caller and possibly its connection."""

    tasks: trio.Nursery

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.has_ended = trio.Event()
        self.error: BaseException | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as self.tasks:
                task_status.started()
                await self.is_over.wait()
        except ExceptionGroup as group:
            self.error = group
        self.has_ended.set()

    async def fail(self) -> None:
        raise ZeroDivisionError("a mistake in another task of the user's")


class Scene:
    """A client with an operation in progress, which moments set up and faults break.

    Args:
        network: The network that the client dials into.
        monkeypatch: Makes Managers unavailable.
        timeout: The ``timeout`` of the caller.
        in_the_nursery: Whether the connection runs in the caller's nursery.
    """

    manager: Manager
    client: Client
    link: Link
    bell: Link

    def __init__(
        self,
        network: Network,
        monkeypatch: pytest.MonkeyPatch,
        *,
        timeout: float | None = None,
        in_the_nursery: bool = False,
    ) -> None:
        self.network = network
        self.lab = NetworkState(network)
        self.application = Application()
        self.caller = Caller()
        self.timeout = timeout
        self.person: Person | None = None
        self.service = "Echo"
        """The Service concerned."""
        self.has_client = False
        """Whether the user has a client already."""
        self._in_the_nursery = in_the_nursery
        self._monkeypatch = monkeypatch

    def arguments(self, **arguments: Any) -> dict[str, Any]:
        """Return arguments for connect()."""
        if self._in_the_nursery:
            arguments["nursery"] = self.application.tasks
        if self.person is not None:
            arguments["prompts"] = self.person
        return arguments

    async def connect(self, **arguments: Any) -> None:
        """Connect, and link with two Services."""
        await self.use(await connect(**self.arguments(**arguments)))

    async def use(self, client: Client) -> None:
        self.client = client
        self.has_client = True
        self.manager = self.lab.managers[0]
        self.link = await self.client.link("Echo")
        self.bell = await self.client.link("Bell")

    async def wait_in(
        self, call: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool] = lambda _: True
    ) -> None:
        """Start this in the caller, and wait until it waits."""
        self.caller.is_right = is_right
        self.application.tasks.start_soon(self.caller.run, call)
        await trio.testing.wait_all_tasks_blocked()

    async def also(self, call: Callable[[], Awaitable[Any]]) -> Caller:
        """Start this in another task of the application, and wait until it waits."""
        caller = Caller()
        self.application.tasks.start_soon(caller.run, call)
        await trio.testing.wait_all_tasks_blocked()
        return caller

    async def restart_the_manager(self) -> None:
        """End the Manager, check that connecting fails, and start another one."""

        async def refuse(*_: object) -> None:
            raise ConnectError("Connection refused")

        with self._monkeypatch.context() as down:
            down.setattr(connecting, "_open_stream", refuse)
            self.lab.managers[0].peer.transport.close()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectError):
                await connect()
