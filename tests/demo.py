"""A tour of the client: a real msl-network 1.0.0 Manager with its example Services, over TLS.

Run as ``python -m tests.demo``. Everything is started here, in a temporary home folder, and ended again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import trio

from msl_network_trio import (
    Certificate,
    Client,
    ConnectionLost,
    Link,
    RemoteError,
    ReplyTimeout,
    ServiceLost,
    connect,
)
from tests.interop.reference import Manager, Process, start_manager

COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def chapter(title: str) -> None:
    print(f"\n\033[1;36m{title}\033[0m" if COLOURED else f"\n{title}")


def say(text: object) -> None:
    print(f"  {text}", flush=True)


class AtFirstSight:
    """Prompts that trust the Manager's certificate, and show what a person would have been shown."""

    def username(self, manager: str) -> str:
        raise NotImplementedError

    def password(self, name: str) -> str:
        raise NotImplementedError

    def trust(self, certificate: Certificate) -> bool:
        say(f"never seen before: {certificate.host}:{certificate.port}")
        say(f"SHA-256 {certificate.fingerprint}")
        say("the demo says yes; you would be asked")
        return True


async def calls(client: Client) -> None:
    chapter("Calls")
    async with client.link("BasicMath") as math, client.link("MyArray") as array:
        say(repr(math))
        say(f"a property: await math.pi() = {await math.pi()}")
        say(f"a method: {array.linspace!r}")
        say(f"await array.linspace(0, 1, n=5) = {await array.linspace(0, 1, n=5)}")
        try:
            await array.linspace(0, 1, n=1)
        except RemoteError as error:
            say(f"await array.linspace(0, 1, n=1) raises: {error.type_name}: {error.message}")


async def concurrency(client: Client) -> None:
    chapter("Many at once")
    async with client.link("BasicMath") as math, client.link("Echo") as echo:
        results = {}

        async def calculate(name: str) -> None:
            results[name] = await math.request(name, (3, 4))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in ("add", "subtract", "multiply"):  # which take this Service 1, 2 and 3 seconds
                nursery.start_soon(calculate, name)
        say(f"{results} in {trio.current_time() - start:.1f} s: as long as the slowest of them")
        replies = [echo.echo(number, asynchronous=True) for number in range(200)]
        total = sum([(await reply)[0][0] for reply in replies])
        say(f"200 requests on their way from one task; the numbers that came back add up to {total}")


async def giving_up(client: Client) -> None:
    chapter("Giving up")
    async with client.link("BasicMath") as math, client.link("Echo") as echo:
        try:
            await math.multiply(2, 3, timeout=0.2)
        except ReplyTimeout as error:
            say(f"ReplyTimeout: {error}")
        with trio.move_on_after(0.1):
            await math.multiply(2, 3)
        say(f"cancelled after 0.1 s, and the next call gets its own answer: {await echo.echo('mine')}")


async def administration(client: Client) -> None:
    chapter("Administration")
    names, port = None, None

    async def ask_names() -> None:
        nonlocal names
        names = await client.admin_request("users_table.usernames")

    async def ask_port() -> None:
        nonlocal port
        port = await client.admin_request("port")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_names)
        nursery.start_soon(ask_port)
    say(f"asked at the same time, answered in their places: users {names}, port {port}")


async def failures(client: Client, manager: Manager, echo_process: Process) -> None:
    chapter("Failures are told")
    echo: Link = await client.link("Echo")
    echo_process.kill()
    with trio.fail_after(10):
        while "Echo" in (await client.identities())["services"]:
            await trio.sleep(0.01)
    try:
        await echo.echo("anybody there?")
    except ServiceLost as error:
        say(f"ServiceLost: {error} (may have run: {error.may_have_run})")
    manager.process.kill()
    try:
        await client.identities()
    except ConnectionLost as error:
        say(f"ConnectionLost: {error}")
    say(repr(client))


async def tour(manager: Manager, echo_process: Process) -> None:
    chapter("Trust on first use")
    arguments = {"port": manager.port, "username": "demo", "password": "demo"}
    async with connect(prompts=AtFirstSight(), name="Demo", **arguments) as client:
        chapter("Who is there")
        for line in (await client.identities(as_string=True)).splitlines():
            say(line)
        await calls(client)
        await concurrency(client)
        await giving_up(client)
        await administration(client)
        await failures(client, manager, echo_process)


def main() -> None:
    """Start everything, take the tour, end everything."""
    with tempfile.TemporaryDirectory(prefix="msl-network-trio-demo-") as folder:
        os.environ["MSL_NETWORK_HOME"] = str(Path(folder) / "client")
        print("Starting msl-network 1.0.0: a Manager with TLS, and Services ...", flush=True)
        manager = start_manager(Path(folder) / "manager", tls=True, users=(("demo", "demo", True),))
        try:
            echo_process = manager.start_example("Echo")
            for name in ("BasicMath", "MyArray"):
                manager.start_example(name)
            trio.run(tour, manager, echo_process)
        finally:
            manager.end()
    print("\nDone: everything that was started has been ended.")


if __name__ == "__main__":
    main()
