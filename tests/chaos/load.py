"""Load of clients with the async API: requests of all kinds and streams, recorded by the oracle.

Each client runs in tasks of the Trio thread. Without reconnection it connects again itself, as programs do
that were written for msl-network 1.0.0.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any

import attrs
import trio

from msl_network_trio import (
    Client,
    ConnectionLost,
    Link,
    NetworkError,
    RemoteError,
    ServiceLost,
    Unanswered,
    connect,
)
from tests.chaos.oracle import Oracle, Request, StreamRecord
from tests.chaos.world import SERVICES, World

NUMBER = re.compile(r"n:(\w+):(\d+):(\d+)#")
PAUSE = 0.15
"""Mean seconds between two requests of one link."""

LINK_TIMEOUT = 3.0


def arguments(world: World, name: str) -> dict[str, Any]:
    """Return the arguments with which the clients of a world connect."""
    found = world.arguments(
        name=name,
        timeout=5,
        probe_after=0.5,
        probe_every=2,
        unresponsive_after=2,
        request_timeout=30 if world.direct else 5,  # the proxy drops some replies
    )
    return found | ({"reconnect": True} if world.clients_reconnect else {})


@attrs.define
class Progress:
    """Times of the last success of a link and its stream, of `time.monotonic`."""

    answered: float = 0.0
    asked: float = 0.0
    """The time of the request that was answered last."""

    notified: float = 0.0


@attrs.define
class Member:
    """A client of the load: its name, what it has reached, and its random numbers.

    Args:
        world: The world.
        name: The name of the client.
    """

    world: World
    name: str
    progress: dict[str, Progress] = attrs.field(init=False)
    draw: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.progress = {service: Progress() for service in SERVICES}
        self.draw = random.Random(f"{self.world.schedule.seed}/{self.name}")

    @property
    def oracle(self) -> Oracle:
        """The oracle of the world."""
        return self.world.oracle

    def is_back(self, since: float) -> bool:
        """Return whether each link has answered and each stream has delivered something since a time."""
        return all(each.asked > since and each.notified > since for each in self.progress.values())

    def missing(self, since: float) -> list[str]:
        """Return what has not worked since a time, with the seconds before it when it worked last."""
        return [
            f"{self.name} {service}, request {since - each.asked:.1f} s, stream {since - each.notified:.1f} s"
            for service, each in self.progress.items()
            if not self.is_back(since) and min(each.asked, each.notified) <= since
        ]

    # ---- what both APIs record ----

    def new_request(self, service: str) -> tuple[Request, float | None, float]:
        """Return a new request, its timeout, and the seconds until it is cancelled."""
        attribute = self.draw.choice(("work", "work_in_task", "work_in_task", "read", "fail"))
        request = self.oracle.made(service, attribute, is_idempotent=attribute == "read")
        timeout = self.draw.choice((None, 30.0 if self.world.direct else 4.0, 3.0, 0.5, 0.02))
        if self.world.direct and request.is_idempotent and self.world.clients_reconnect:
            request.must_answer = timeout is None or timeout >= 30
        patience = self.draw.choice((30.0, 30.0, 30.0, self.draw.uniform(0, 0.1)))
        return request, timeout, patience

    def settle_error(self, request: Request, error: Exception) -> None:
        """Record the error that a request has raised."""
        if isinstance(error, Unanswered):
            self.oracle.unanswered(request, may_have_run=error.may_have_run)
        elif isinstance(error, RemoteError):
            self.oracle.remote_error(request, str(error))
        else:
            self.oracle.given_up(request)
            self.oracle.wrong(f"{self.name}: request {request.token} raised {error!r}")

    def notification(self, record: StreamRecord, args: tuple[Any, ...], *, has_gap: bool) -> None:
        """Record a notification."""
        found = NUMBER.fullmatch(str(args[0])) if args else None
        if found is None or found[1] != record.service:
            self.oracle.wrong(f"{self.name}: a stream of {record.service} yielded {args!r}")
            return
        record.notification(int(found[2]), int(found[3]), has_gap=has_gap)
        self.progress[record.service].notified = time.monotonic()


class AsyncMember(Member):
    """A client with the async API."""

    async def run(self) -> None:
        """Connect, and use the connection, until cancelled."""
        while True:
            try:
                async with connect(**arguments(self.world, self.name)) as client:
                    await self._use(client)
            except NetworkError as error:
                self._lost(error)
            await trio.sleep(self.draw.uniform(0, 0.3))

    def _lost(self, error: NetworkError) -> None:
        self.oracle.counts[f"clients ended: {type(error).__name__}"] += 1

    async def _use(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            for service in SERVICES:
                nursery.start_soon(self._use_service, client, service, nursery.cancel_scope)

    async def _use_service(self, client: Client, service: str, scope: trio.CancelScope) -> None:
        """Link with a Service and use it, until the connection ends."""
        while client.is_connected() or self.world.clients_reconnect:
            try:
                async with (
                    client.link(service, timeout=LINK_TIMEOUT, **self._idempotent()) as link,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._listen, link, nursery.cancel_scope)
                    await self._ask(client, link)
                    nursery.cancel_scope.cancel()
            except (Unanswered, RemoteError):
                await trio.sleep(self.draw.uniform(0.05, 0.2))
        scope.cancel()

    def _idempotent(self) -> dict[str, Any]:
        return {"idempotent": {"read"}} if self.world.clients_reconnect else {}

    async def _listen(self, link: Link, scope: trio.CancelScope) -> None:
        record = self.oracle.stream(self.name, link.service_name)
        try:
            async with link.notifications() as stream:
                async for each in stream:
                    gap = getattr(each, "gap", None)
                    self.notification(record, each.args, has_gap=gap is not None)
        except (ConnectionLost, ServiceLost) as error:
            if self.world.clients_reconnect:
                self.oracle.wrong(f"{self.name}: a stream of {link.service_name} raised {error!r}")
        scope.cancel()

    async def _ask(self, client: Client, link: Link) -> None:
        """Make requests one after the other; return when the link can no longer be used."""
        while client.is_connected() or self.world.clients_reconnect:
            await trio.sleep(self.draw.expovariate(1 / PAUSE))
            service = link.service_name
            request, timeout, patience = self.new_request(service)
            began = time.monotonic()
            try:
                with trio.move_on_after(patience) as scope:
                    result = await self._call(link, request, timeout)
            except Exception as error:
                self.settle_error(request, error)
                if isinstance(error, ServiceLost) and not self.world.clients_reconnect:
                    return  # link again: the streams of a Service that has restarted receive nothing
            else:
                if scope.cancelled_caught:
                    self.oracle.given_up(request)
                else:
                    self.oracle.ok(request, result)
            if request.outcome in ("ok", "remote error"):
                self.progress[service].answered = time.monotonic()
                self.progress[service].asked = began

    async def _call(self, link: Link, request: Request, timeout: float | None) -> Any:
        method = getattr(link, request.attribute)
        args = (f"t{request.token}#",)
        if request.attribute.startswith("work"):
            args += (self.draw.choice((0.0, 0.0, 0.0, self.draw.uniform(0, 0.2))),)
        if not request.is_idempotent and self.draw.random() < 0.2:
            return await method(*args, asynchronous=True, timeout=timeout)
        return await method(*args, timeout=timeout)
