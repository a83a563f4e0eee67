"""The load: correct peers, and peers that reconnect, die, read slowly or send garbage, all at the same time."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from msl_network_trio import (
    ConnectError,
    ConnectionLost,
    ManagerError,
    NetworkError,
    RemoteError,
    ReplyTimeout,
    ServiceLost,
    connect,
)
from msl_network_trio.client.link import Link
from msl_network_trio.dialing.trust import client_context
from msl_network_trio.service.service import Service
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import open_tls
from tests.soak.process import Manager

HONEST = (ServiceLost, ConnectionLost, ConnectError)
"""The only errors with which a call may fail, if a peer has been killed."""

_ANSWER = 60.0
"""Maximum seconds for an answer, on a busy machine."""

_LARGEST = 2_000_000
"""Size of the largest values, in bytes."""


class Steady(Service):
    """A Service that runs as long as the load."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.add_tasks(self._emit)

    async def echo(self, value: object, seconds: float = 0) -> object:
        await trio.sleep(seconds)
        return value

    def plain(self, value: object) -> object:
        return value

    async def _emit(self) -> None:
        number = 0
        while True:
            self.emit_notification(number, "x" * 200)
            number += 1
            await trio.sleep(0.01)


class Load:
    """The load on one Manager.

    Args:
        manager: The Manager.

    Attributes:
        counts: Number of each kind of event.
        wrong: Descriptions of errors.
    """

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._random = random.Random(1875)

    async def run(self, seconds: float) -> None:
        """Load the Manager for some seconds, then close all connections."""
        async with trio.open_nursery() as nursery:

            async def serve(name: str, task_status: trio.TaskStatus) -> None:
                await Service.run(Steady(name), **self.manager.arguments, task_status=task_status)

            with trio.fail_after(_ANSWER):
                await nursery.start(serve, "Steady")
                await nursery.start(serve, "Lockable")
            workers = [
                *[self._call_steady] * 4,
                *[self._call_mortal] * 2,
                *[self._come_and_go] * 3,
                *[self._lock] * 2,
                self._listen,
                self._read_slowly,
                self._send_rubbish,
                self._stall,
                self._kill_services,
                self._kill_clients,
            ]
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as load:
                    for worker in workers:
                        load.start_soon(self._repeat, worker)
            nursery.cancel_scope.cancel()

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except HONEST as error:
                self.counts[f"{work.__name__.strip('_')}: {type(error).__name__}"] += 1
            except ManagerError as error:
                if "service is locked" not in str(error):
                    self.wrong.append(f"{work.__name__}: {error!r}")
                self.counts["links refused because of a lock"] += 1
            except NetworkError as error:
                self.wrong.append(f"{work.__name__}: {error!r}")
            await trio.sleep(0.01)

    def _value(self) -> object:
        size = int(math.exp(self._random.uniform(0, math.log(_LARGEST))))
        kind = self._random.randrange(3)
        if kind == 0:
            return [self._random.random() for _ in range(min(size // 20, 20_000))]
        return [self._random.getrandbits(64), ("ü" if kind == 1 else "x") * (size // kind)]

    async def _check(self, link: Link, attribute: str = "echo", seconds: float = 0) -> None:
        """Make a call, which must return its own answer or raise one of the errors allowed."""
        value = self._value()
        args = (value,) if attribute == "plain" else (value, seconds)
        try:
            answer = await link.request(attribute, args, timeout=_ANSWER)
        except ServiceLost:
            self.counts["calls told that their Service has gone"] += 1
            raise
        except ReplyTimeout as error:
            self.wrong.append(f"no answer: {error}")
        else:
            self.counts["right answers"] += 1
            if answer != value:
                self.wrong.append(f"{link.service_name} answered {str(answer)[:60]} to {str(value)[:60]}")

    async def _call_steady(self) -> None:
        async with connect(**self.manager.arguments) as client, client.link("Steady") as link:
            for _ in range(200):
                async with trio.open_nursery() as nursery:
                    for attribute in ("echo", "plain", "echo"):
                        nursery.start_soon(self._check, link, attribute)

    async def _call_mortal(self) -> None:
        async with connect(**self.manager.arguments) as client:
            try:
                link = await client.link("Mortal")
            except RemoteError:
                await trio.sleep(0.2)  # the Service has been killed
                return
            while True:
                await self._check(link, seconds=0.02)

    async def _come_and_go(self) -> None:
        async with connect(**self.manager.arguments) as client:
            link = await client.link("Steady")
            await self._check(link)
            self.counts["connections that came and went"] += 1

    async def _lock(self) -> None:
        async with connect(**self.manager.arguments) as client, client.link("Lockable") as link:
            for _ in range(20):
                async with link.acquire_lock(shared=True):
                    await self._check(link)
                    self.counts["locks"] += 1
                await trio.sleep(0.05)  # so that others can link meanwhile

    async def _listen(self) -> None:
        async with connect(**self.manager.arguments) as client, client.link("Steady") as link:
            last = -1
            async with link.notifications(max_buffer_size=10_000) as stream:
                with trio.move_on_after(10):
                    async for notification in stream:
                        number = notification.args[0]
                        if last >= 0 and number != last + 1:
                            self.wrong.append(f"notification {number} came after {last}")
                        last = number
                        self.counts["notifications"] += 1

    async def _read_slowly(self) -> None:
        """Request large answers, read little of them, then disconnect."""
        transport = await self._dial()
        try:
            await transport.receive()
            await transport.send_all(b'{"result":{"name":"slow","type":"client"},"uid":""}\n')
            line = b'{"args":["%b"],"attribute":"echo","error":false,"kwargs":{},"service":"Steady","uid":"%d"}\n'
            with trio.move_on_after(2):
                for number in range(50):
                    await transport.send_all(line % (b"x" * 200_000, number))
            for _ in range(10):
                await transport.receive()
                await trio.sleep(0.1)
            self.counts["slow readers"] += 1
        finally:
            transport.close()

    async def _dial(self) -> Stream:
        """Open a connection without a handshake."""
        arguments = self.manager.arguments
        if not self.manager.tls:
            return await open_tcp(arguments["host"], arguments["port"])
        certificate = Path(arguments["cert_file"]).read_text(encoding="ascii")
        context = client_context(certificate, check_hostname=False)
        transport, _ = await open_tls(arguments["host"], arguments["port"], context)
        return transport

    async def _send_rubbish(self) -> None:
        transport = await self._dial()
        try:
            with trio.move_on_after(2):
                await transport.send_all(self._random.randbytes(self._random.randrange(5000)) + b"\n")
                while await transport.receive():
                    pass
            self.counts["peers that send rubbish"] += 1
        finally:
            transport.close()
        await trio.sleep(0.2)

    async def _stall(self) -> None:
        """Hold connections without a handshake."""
        transport = await open_tcp(self.manager.arguments["host"], self.manager.arguments["port"])
        try:
            await trio.sleep(self._random.uniform(0, 15))
            self.counts["peers that say nothing"] += 1
        finally:
            transport.close()

    async def _kill_services(self) -> None:
        await self._start_and_kill("service", name="Mortal")

    async def _kill_clients(self) -> None:
        await self._start_and_kill("client", name="mortal")

    async def _start_and_kill(self, kind: str, **arguments: object) -> None:
        process = self.manager.start_peer(kind, **arguments)
        try:
            await trio.sleep(self._random.uniform(3, 8))
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(process.wait)
        self.counts[f"{kind}s killed"] += 1
