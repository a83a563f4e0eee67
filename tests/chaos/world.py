"""One world of a chaos run: a Manager, Services and a proxy in front of the Manager, as processes.

The methods belong to the Trio thread; waiting for processes is left to worker threads.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import trio

from tests.chaos.oracle import Oracle
from tests.chaos.proxy import FaultProxy, TlsEnds, Wire
from tests.chaos.schedule import Schedule
from tests.interop.reference import Manager, Process, free_port, start_manager
from tests.interop.test_websocket import start_gateway

Kind = Literal["ours", "reference"]
SERVICES = ("Alpha", "Beta", "Gamma")
SINGLE = frozenset({"Alpha"})
"""Services with ``max_workers=1``."""

_CUT_IDENTITY = re.compile(r"AuthenticationError: (KeyError|TypeError|AttributeError|\w*DecodeError): ")
"""Rejection of half an identity by a Manager of msl-network, which executes half lines."""


@attrs.define
class ServiceProcess:
    """A Service that is started again whenever its process has ended."""

    name: str
    starts: int = 0
    process: Process | None = None
    was_killed: bool = False
    is_last: bool = False
    """Whether it is not started again."""


@attrs.define
class World:
    """The processes and the proxy.

    Args:
        kind: Whose Manager it is.
        wire: The transport of clients and Services.
        folder: An empty folder.
        oracle: The oracle.
        schedule: The faults.
        names: The names of the Services.
        direct: Whether clients and Services connect without the proxy.
        services_reconnect: Whether the Services reconnect; else they are started again.
        clients_reconnect: Whether the clients reconnect; else they connect again themselves.
    """

    kind: Kind
    wire: Wire
    folder: Path
    oracle: Oracle
    schedule: Schedule
    names: tuple[str, ...] = (*SERVICES, "Bench")
    direct: bool = False
    services_reconnect: bool = False
    clients_reconnect: bool = False
    manager: Manager = attrs.field(init=False)
    proxy: FaultProxy = attrs.field(init=False)
    services: dict[str, ServiceProcess] = attrs.field(init=False)
    counts: Counter[str] = attrs.field(factory=Counter)
    """Faults of processes, by kind."""

    manager_since: float = 0.0
    """Time at which the Manager has listened, of `time.monotonic`."""

    _websocket_port: int = 0
    _options: dict[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.services = {name: ServiceProcess(name) for name in self.names}

    # ---- life ----

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, and end it."""
        try:
            async with trio.open_nursery() as nursery:
                await self._start()
                await nursery.start(self.proxy.run)
                for service in self.services.values():
                    nursery.start_soon(self._supervise, service)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self.end()  # when no task starts a process any more

    async def _start(self) -> None:
        self.records.mkdir()
        port = free_port()
        if self.wire == "websocket" and self.kind == "ours":
            self._websocket_port = free_port()
            self._options = {"websocket_port": self._websocket_port}
        await self.start_manager(port)
        if self.wire == "websocket" and self.kind == "reference":
            _, self._websocket_port = await trio.to_thread.run_sync(start_gateway, self.manager)
        tls = None
        if self.wire == "tls":
            [key] = (self.manager.home / "keys").glob("*.key")
            tls = TlsEnds.of_manager(str(self.manager.certificate), str(key))
        target = self._websocket_port or self.manager.port
        self.proxy = FaultProxy(target, self.schedule, self.wire, self.oracle.ledger, tls)

    async def start_manager(self, port: int | None = None) -> None:
        """Start the Manager, at the same port as before."""
        start = partial(
            start_manager,
            self.folder / "manager",
            ours=self.kind == "ours",
            tls=self.wire == "tls",
            port=self.manager.port if port is None else port,
            **self._options,
        )
        services = [] if port is not None else self.manager.services
        self.manager = await trio.to_thread.run_sync(start)
        self.manager.services.extend(services)
        self.manager_since = time.monotonic()

    async def terminate_services(self) -> list[int]:
        """End all Services with SIGTERM and return their exit statuses."""
        popens = []
        for service in self.services.values():
            assert service.process is not None
            service.was_killed = service.is_last = True
            service.process.popen.terminate()
            popens.append(service.process.popen)
        return [await trio.to_thread.run_sync(popen.wait) for popen in popens]

    def end(self) -> None:
        """End all processes."""
        for service in self.services.values():
            if service.process is not None:
                service.process.end()
        if hasattr(self, "manager"):
            self.manager.end()

    def save_logs(self, folder: Path) -> None:
        """Save the output of the processes that ran last."""
        folder.mkdir(parents=True, exist_ok=True)
        processes = {each.name: each.process for each in self.services.values()}
        for name, process in {**processes, "Manager": self.manager.process}.items():
            if process is not None:
                (folder / f"{name}.log").write_text(process.log(), encoding="utf-8")

    @property
    def records(self) -> Path:
        """The folder with the records of the Services."""
        return self.folder / "records"

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Return the arguments with which clients and Services connect, with some more."""
        port = (self._websocket_port or self.manager.port) if self.direct else self.proxy.address
        if self.wire == "websocket":
            return {"host": f"ws://localhost:{port}/msl", **more}
        return {**self.manager.arguments(), "port": port, **more}

    # ---- Services ----

    async def _supervise(self, service: ServiceProcess) -> None:
        """Start a Service again and again, as a supervisor of programs does."""
        while not service.is_last:
            await trio.to_thread.run_sync(self._start_service, service)
            assert service.process is not None
            popen = service.process.popen
            while popen.poll() is None:
                await trio.sleep(0.02)
            if not service.was_killed:
                self.oracle.counts["Services that ended by themselves"] += 1
                log = service.process.log()
                is_new = "is connected to Manager" not in log
                if is_new and "is already running" in log:
                    # A new process is not told from another Service of the name. The supervisor tries again.
                    self.oracle.counts["Services refused since their name was taken"] += 1
                elif self.kind == "reference" and is_new and _CUT_IDENTITY.search(log):
                    # At its first connection a Service cannot know that its identity was cut on the way.
                    self.oracle.counts["Services refused since their identity was cut"] += 1
                elif self.services_reconnect:
                    self.oracle.wrong(f"{service.name} ended with status {popen.returncode}:\n{log[-1500:]}")
            service.process.end()
            service.was_killed = False

    def _start_service(self, service: ServiceProcess) -> None:
        service.starts += 1
        start = self.arguments(timeout=None if self.services_reconnect else 5)
        if self.services_reconnect:
            start |= {"reconnect": True, "heartbeat": 2}
        settings = {
            "service": {"name": service.name, **({"max_workers": 1} if service.name in SINGLE else {})},
            "start": start,
        }
        arguments = [str(self.records), str(service.starts), json.dumps(settings)]
        command = ["-m", "tests.chaos.service", *arguments]
        service.process = Process.start(command, self.folder, "starting")

    # ---- faults of processes ----

    async def kill_manager(self, down: float) -> None:
        """Kill the Manager and start it again.

        Args:
            down: Seconds until it is started again.
        """
        self.counts["Manager killed"] += 1
        self.manager_since = math.inf
        await trio.to_thread.run_sync(self.manager.process.kill)
        self.manager.process.end()
        await trio.sleep(down)
        await self.start_manager()

    async def stop_manager(self, seconds: float) -> None:
        """Stop the process of the Manager for some seconds."""
        self.counts["Manager stopped"] += 1
        self.manager.process.pause()
        try:
            await trio.sleep(seconds)
        finally:
            self.manager.process.resume()

    def kill_service(self, name: str) -> None:
        """Kill a Service; it is started again."""
        service = self.services[name]
        if service.process is not None and service.process.popen.poll() is None:
            self.counts["Service killed"] += 1
            service.was_killed = True
            service.process.popen.kill()

    async def stop_service(self, name: str, seconds: float) -> None:
        """Stop the process of a Service for some seconds."""
        process = self.services[name].process
        if process is None or process.popen.poll() is not None:
            return
        self.counts["Service stopped"] += 1
        process.pause()
        try:
            await trio.sleep(seconds)
        finally:
            if process.popen.poll() is None:
                process.resume()

    async def harass_processes(self) -> None:
        """Kill, restart and stop processes, as the schedule says, until cancelled."""
        draw = self.schedule.processes
        while True:
            await trio.sleep(draw.uniform(0.5, 3.0))
            name = draw.choice(self.names)
            seconds = draw.uniform(0.1, 2.0)
            match draw.choices(("kill M", "stop M", "kill S", "stop S", "reset"), (2, 1, 3, 2, 1))[0]:
                case "kill M":
                    with trio.CancelScope(shield=True):
                        await self.kill_manager(seconds)
                case "stop M":
                    await self.stop_manager(seconds)
                case "kill S":
                    self.kill_service(name)
                case "stop S":
                    await self.stop_service(name, seconds)
                case "reset":
                    self.counts["all connections reset"] += 1
                    self.proxy.reset_all()
