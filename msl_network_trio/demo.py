"""A tour of MSL-Network on this computer: a Manager, Services, and a client that uses them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from rich.console import Console

from msl_network_trio.client.client import Client, connect
from msl_network_trio.client.linked_client import LinkedClient
from msl_network_trio.examples.basic_math import BasicMath
from msl_network_trio.examples.echo import Echo
from msl_network_trio.examples.heartbeat import Heartbeat
from msl_network_trio.examples.my_array import MyArray
from msl_network_trio.exceptions import ManagerError, RemoteError, ReplyTimeout, ServiceLost
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.server import Manager
from msl_network_trio.visible import visible_lines

PACE = 0.3
"""Seconds that the fastest method of BasicMath takes; the slowest takes six times as long."""

_START_TIMEOUT = 30.0
"""Maximum seconds until the process of BasicMath is connected."""


@attrs.define
class Narrator:
    """Prints the steps of the tour, in colour on a terminal."""

    console: Console = attrs.field(factory=lambda: Console(highlight=False))

    def chapter(self, title: str) -> None:
        """Print the title of a chapter."""
        self.console.print(f"\n{title}", style="bold cyan", markup=False)

    def code(self, text: str, result: object) -> None:
        """Print an expression and its result."""
        self.console.print(f"  {text}", style="green", end="", markup=False)
        self.console.print(f"  ->  {visible_lines(str(result))}", markup=False, soft_wrap=True)

    def say(self, text: object) -> None:
        """Print a line of text."""
        self.console.print(f"  {visible_lines(str(text))}", markup=False, soft_wrap=True)

    def failed(self, text: str, error: BaseException) -> None:
        """Print an expression and the error that it is meant to raise."""
        self.console.print(f"  {text}", style="green", end="", markup=False)
        self.console.print(
            f"  ->  {type(error).__name__}: {error}", style="yellow", markup=False, soft_wrap=True
        )


@attrs.define
class Demo:
    """The Manager and the process that the demo has started."""

    manager: Manager
    process: trio.Process
    """The process of the Service BasicMath, which the tour kills."""


async def calls(narrator: Narrator, client: Client) -> None:
    """Show methods, properties, and exceptions of a Service."""
    narrator.chapter("Calls")
    async with client.link("MyArray") as array, client.link("BasicMath") as math:
        narrator.say(repr(array))
        narrator.code("await math.pi()", await math.pi())
        narrator.code("await array.linspace(0, 1, n=5)", await array.linspace(0, 1, n=5))
        try:
            await array.linspace(0, 1, n=1)
        except RemoteError as error:
            narrator.say(f"await array.linspace(0, 1, n=1) raises {error.message}")
            narrator.say(f"and tells where in the Service: {error.traceback_lines[-2].strip()}")


async def concurrency(narrator: Narrator, client: Client) -> None:
    """Show many requests in flight, from one thread."""
    narrator.chapter("Many at once")
    async with client.link("BasicMath") as math, client.link("Echo") as echo:
        results: dict[str, float] = {}

        async def calculate(name: str) -> None:
            results[name] = await math.request(name, (3, 4))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in ("add", "subtract", "multiply"):  # take 1, 2 and 3 times PACE
                nursery.start_soon(calculate, name)
        took = trio.current_time() - began
        narrator.say(f"{results} in {took:.1f} s: as long as the slowest of the three")
        began = trio.current_time()
        replies = [echo.echo(number, asynchronous=True) for number in range(1000)]
        total = sum([(await reply)[0][0] for reply in replies])
        took = trio.current_time() - began
        narrator.say(f"1000 requests from one task came back in {took:.2f} s and add up to {total}")


async def giving_up(narrator: Narrator, client: Client) -> None:
    """Show timeouts and cancellation."""
    narrator.chapter("Giving up")
    async with client.link("BasicMath") as math, client.link("Echo") as echo:
        try:
            await math.multiply(2, 3, timeout=0.1)
        except ReplyTimeout as error:
            narrator.failed("await math.multiply(2, 3, timeout=0.1)", error)
        with trio.move_on_after(0.1):
            await math.multiply(2, 3)
        narrator.say("cancelled after 0.1 s; the next call gets its own answer, and not a late one:")
        narrator.code("await echo.echo('mine')", await echo.echo("mine"))


async def notifications(narrator: Narrator, client: Client) -> None:
    """Show notifications of a Service."""
    narrator.chapter("Notifications")
    async with client.link("Heartbeat") as heartbeat, heartbeat.notifications() as stream:
        await heartbeat.set_heart_rate(20)
        await heartbeat.reset()
        async for notification in stream:
            narrator.say(f"{notification.service} emitted {notification.args} {notification.kwargs}")
            if notification.args == [3]:
                break
        await heartbeat.set_heart_rate(1)


async def locks(narrator: Narrator, client: Client, demo: Demo) -> None:
    """Show an exclusive lock on a Service."""
    narrator.chapter("Locks")
    async with client.link("Echo") as echo, connect(name="Other", **demo.manager.connect_kwargs()) as other:
        async with echo.acquire_lock():
            narrator.say("this client holds a lock on Echo")
            try:
                await other.link("Echo")
            except ManagerError as error:
                narrator.say(f"another client wants to link: {error.message}")
        async with other.link("Echo"):
            narrator.say("the lock is released, and the other client is linked")


async def a_service_dies(narrator: Narrator, client: Client, demo: Demo) -> None:
    """Show how a call ends when its Service is killed."""
    narrator.chapter("A Service dies")
    math = await client.link("BasicMath")
    reply = math.power(2, asynchronous=True)  # takes 6 times PACE
    await client.identities()  # the reply shows that the Manager has forwarded the request before
    demo.process.kill()
    began = trio.current_time()
    try:
        await reply
    except ServiceLost as error:
        narrator.failed("await math.power(2)", error)
        took = trio.current_time() - began
        narrator.say(f"known {took * 1000:.0f} ms after the process of BasicMath was killed")
    try:
        await math.add(1, 2)
    except ServiceLost as error:
        narrator.failed("await math.add(1, 2)", error)
    narrator.code("client.is_connected()", client.is_connected())


async def tour(narrator: Narrator, demo: Demo) -> None:
    """Show all chapters with one client."""
    async with connect(name="Demo", **demo.manager.connect_kwargs()) as client:
        narrator.say(f"connected as {client}")
        await calls(narrator, client)
        await concurrency(narrator, client)
        await giving_up(narrator, client)
        await notifications(narrator, client)
        await locks(narrator, client, demo)
        await a_service_dies(narrator, client, demo)


@contextlib.asynccontextmanager
async def _basic_math_process(manager: Manager) -> AsyncGenerator[trio.Process]:
    """Run BasicMath in a process of its own, and wait until it is connected to the Manager."""
    command = [sys.executable, "-m", "msl_network_trio.examples.basic_math"]
    command += ["--pace", str(PACE), "--port", str(manager.port), "--cert-file", str(manager.certificate)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with LinkedClient("BasicMath", **manager.connect_kwargs() | {"timeout": _START_TIMEOUT}):
            pass
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def run(narrator: Narrator, *, port: int = 0, keep: bool = False) -> None:
    """Start a Manager and Services, take the tour, and end them.

    Args:
        narrator: Prints the steps.
        port: The port of the Manager; 0: any free one.
        keep: Whether to keep the Manager and the Services running after the tour, until Ctrl-C.
    """
    narrator.chapter("A Manager with four Services, over TLS")
    async with open_manager(host="localhost", port=port) as manager, trio.open_nursery() as nursery:
        kwargs: dict[str, Any] = manager.connect_kwargs()
        for service in (Echo(), MyArray(), Heartbeat()):
            await nursery.start(partial(service.run, **kwargs))
        async with _basic_math_process(manager) as process:
            narrator.say(f"{manager.name}, certificate {manager.certificate}")
            narrator.say(f"Echo, MyArray and Heartbeat in this process, BasicMath in process {process.pid}")
            await tour(narrator, Demo(manager, process))
        if keep:
            await nursery.start(partial(BasicMath(pace=PACE).run, **kwargs))
            _tell_how_to_connect(narrator, kwargs)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


def _tell_how_to_connect(narrator: Narrator, kwargs: dict[str, Any]) -> None:
    arguments = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    narrator.chapter("The Manager and the Services stay until Ctrl-C. To connect, in another terminal:")
    narrator.say("python -m trio")
    narrator.say(">>> from msl_network_trio import connect")
    narrator.say(f">>> client = await connect({arguments})")
    narrator.say('>>> math = await client.link("BasicMath")')
    narrator.say(">>> await math.add(1, 2)")


@contextlib.contextmanager
def own_home() -> Generator[Path]:
    """Use a temporary home folder, so that the demo leaves the user's certificates and logs alone."""
    before = os.environ.get("MSL_NETWORK_HOME")
    with tempfile.TemporaryDirectory(prefix="msl-network-demo-") as folder:
        os.environ["MSL_NETWORK_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["MSL_NETWORK_HOME"]
            else:
                os.environ["MSL_NETWORK_HOME"] = before
