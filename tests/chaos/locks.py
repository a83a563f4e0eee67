"""Load of clients that lock one Service in turn, and the check that no two hold it at a time.

Each scope of a lock has a name of its own, its holder, which each of its requests sends along. The requests
of one holder must be executed one after the other, without one of another holder between them, and by one
start of the Service: a scope ends when its lock is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from msl_network_trio import Client, Link, LockLost, NetworkError, RemoteError, acquire_locks, connect
from msl_network_trio.sync import connect as connect_blocking
from tests.chaos.load import LINK_TIMEOUT, Member, arguments
from tests.chaos.oracle import Oracle, Request
from tests.chaos.schedule import LONGEST_HOLD

BENCH = "Bench"
"""The Service that is locked."""

REQUESTS = 4
"""Requests of one scope."""


class Locker(Member):
    """A client that locks `BENCH` again and again."""

    scopes = 0

    def new_holder(self) -> str:
        """Return the name of the next scope."""
        self.scopes += 1
        return f"{self.name}.{self.scopes}"

    def is_back(self, since: float) -> bool:
        """Return True: nobody waits for locks, which others may hold."""
        return True

    def new_guarded(self) -> Request:
        """Return a new request that needs the lock."""
        return self.oracle.made(BENCH, "guarded")

    def settle_error(self, request: Request, error: Exception) -> None:
        """Record the error that a request has raised; a lost lock means that it was not sent."""
        if isinstance(error, LockLost):
            self.oracle.unanswered(request, may_have_run=False)
        else:
            super().settle_error(request, error)

    def count(self, error: Exception) -> None:
        """Count the end of a scope."""
        what = type(error).__name__ if isinstance(error, LockLost) else "others"
        self.oracle.counts[f"scopes of locks ended by {what}"] += 1


class AsyncLocker(Locker):
    """A client with the async API."""

    async def run(self) -> None:
        """Lock, ask, release, until cancelled."""
        while True:
            try:
                async with connect(**arguments(self.world, self.name)) as client:
                    while client.is_connected() or self.world.clients_reconnect:
                        await self._use(client)
                        await trio.sleep(self.draw.uniform(0.02, 0.3))
            except NetworkError as error:
                self.oracle.counts[f"clients ended: {type(error).__name__}"] += 1
            await trio.sleep(self.draw.uniform(0, 0.3))

    async def _use(self, client: Client) -> None:
        try:
            if self.draw.random() < 0.5:
                async with acquire_locks((client, BENCH), timeout=3 * LINK_TIMEOUT) as (link,):
                    await self._hold(link)
            else:
                async with (
                    client.link(BENCH, timeout=LINK_TIMEOUT) as link,
                    link.acquire_lock(timeout=LINK_TIMEOUT),
                ):
                    await self._hold(link)
            self.oracle.counts["scopes of locks that were complete"] += 1
        except RemoteError:
            self.oracle.counts["locks refused"] += 1
        except NetworkError as error:
            self.count(error)

    async def _hold(self, link: Link) -> None:
        """Make some requests while the lock is held."""
        holder = self.new_holder()
        for _ in range(REQUESTS):
            await trio.sleep(self.draw.uniform(0, 0.05))
            await self._ask(link, holder)

    async def _ask(self, link: Link, holder: str) -> None:
        request = self.new_guarded()
        try:
            result = await link.guarded(f"t{request.token}#", holder, timeout=5)
        except trio.Cancelled:
            self.oracle.given_up(request)
            raise
        except Exception as error:
            self.settle_error(request, error)
            raise
        self.oracle.ok(request, result)


class BlockingLocker(Locker):
    """A client with the blocking API, whose loop catches all errors and goes on."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)

    async def run(self) -> None:
        """Run the load in a thread, until cancelled."""
        self._thread.start()
        try:
            await trio.sleep_forever()
        finally:
            self._stopped.set()

    async def ended(self) -> None:
        """Wait until the thread has ended."""
        with trio.move_on_after(60) as scope:
            while self._thread.is_alive():
                await trio.sleep(0.02)
        if scope.cancelled_caught:
            self.oracle.wrong(f"{self.name}: the thread hangs")

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                with connect_blocking(**arguments(self.world, self.name)) as client:
                    while (
                        client.is_connected() or self.world.clients_reconnect
                    ) and not self._stopped.is_set():
                        self._use(client)
                        self._stopped.wait(self.draw.uniform(0.02, 0.3))
            except NetworkError as error:
                self.oracle.counts[f"clients ended: {type(error).__name__}"] += 1
            except BaseException as error:
                self.oracle.wrong(f"{self.name} ended: {error!r}")
                raise
            self._stopped.wait(self.draw.uniform(0, 0.3))

    def _use(self, client: Any) -> None:
        try:
            with client.link(BENCH, timeout=LINK_TIMEOUT) as link, link.acquire_lock(timeout=LINK_TIMEOUT):
                holder = self.new_holder()
                for _ in range(REQUESTS):
                    self._stopped.wait(self.draw.uniform(0, 0.05))
                    self._ask(link, holder)
            self.oracle.counts["scopes of locks that were complete"] += 1
        except RemoteError:
            self.oracle.counts["locks refused"] += 1
        except NetworkError as error:
            self.count(error)

    def _ask(self, link: Any, holder: str) -> None:
        """Make a request; its errors do not end the scope, as in a program that goes on with its loop."""
        request = self.new_guarded()
        try:
            result = link.guarded(f"t{request.token}#", holder, timeout=5)
        except NetworkError as error:
            self.settle_error(request, error)
        else:
            self.oracle.ok(request, result)


IN_FLIGHT = 2 * LONGEST_HOLD + 1
"""Seconds after the return of a Service within which a former holder may still use it.

The network may hold the notice that the Service has gone, and then the request of the holder, as long as each
of its faults lasts. Another client may lock the Service meanwhile: a Manager delivers requests of clients that
are not linked.
"""


def check_holders(
    oracle: Oracle, holders: Mapping[str, Sequence[tuple[str, float]]], *, is_told: bool
) -> None:
    """Check that the requests of each holder were executed in one block, over one connection of the Service.

    Args:
        oracle: The oracle.
        holders: The holders in the order of their executed requests, with the seconds since the Service has
            connected, by connection of the Service.
        is_told: Whether the Manager tells clients that a Service has gone. Else they notice it at the next
            probe, up to 2 s later, while another client may lock the Service that has returned; such cases
            are counted.
    """

    def report(text: str) -> None:
        if is_told:
            oracle.wrong(text)
        else:
            oracle.counts["locks that were lost without a word of the Manager"] += 1

    connections: dict[str, str] = {}
    for connection, each in holders.items():
        current = [
            (holder, after) for holder, after in each if connections.get(holder, connection) == connection
        ]
        for holder, after in each:
            if connections.setdefault(holder, connection) == connection:
                continue
            if is_told and after <= IN_FLIGHT:
                oracle.counts["requests that were in flight when the locked Service went"] += 1
            else:
                report(f"{holder} went on with its lock after {connections[holder]}, in {connection}")
        ended: set[str] = set()
        previous = ""
        for holder, _ in current:
            if holder != previous:
                ended.add(previous)
                if holder in ended:
                    report(f"{connection}: the lock of {holder} was held by {previous}, too")
            previous = holder
