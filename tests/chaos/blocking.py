"""Load of clients with the blocking API, each in a thread, recorded by the oracle.

A handler receives the notifications of each link. Threads cannot be cancelled, so `stop` ends the load after
the current request.
"""

from __future__ import annotations

import threading
import time
from types import MethodType
from typing import Any

import trio

from msl_network_trio import NetworkError, RemoteError, ServiceLost, Unanswered
from msl_network_trio.sync import Client, Link, connect
from tests.chaos.load import LINK_TIMEOUT, PAUSE, Member, arguments
from tests.chaos.oracle import Request, StreamRecord
from tests.chaos.world import SERVICES


class Handler:
    """Receives the notifications of one link."""

    def __init__(self, member: BlockingMember, record: StreamRecord) -> None:
        self._member = member
        self._record = record
        self._has_gap = False

    def on_gap(self, gap: Any) -> None:
        """Take a gap, which belongs before the next notification."""
        self._has_gap = True

    def take(self, *args: Any, **kwargs: Any) -> None:
        """Take a notification."""
        self._member.notification(self._record, args, has_gap=self._has_gap)
        self._has_gap = False


class BlockingMember(Member):
    """A client with the blocking API."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Run the load in a thread, until cancelled."""
        try:
            await trio.to_thread.run_sync(self._run, abandon_on_cancel=True)
        finally:
            self._stopped.set()

    async def ended(self) -> None:
        """Wait until the thread has ended."""
        with trio.CancelScope(shield=True), trio.move_on_after(60) as scope:
            while self._thread.is_alive():
                await trio.sleep(0.02)
        if scope.cancelled_caught:
            self.oracle.wrong(f"{self.name}: the thread hangs")

    def _run(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                with connect(**arguments(self.world, self.name)) as client:
                    self._use(client)
            except NetworkError as error:
                self.oracle.counts[f"clients ended: {type(error).__name__}"] += 1
            except BaseException as error:
                self.oracle.wrong(f"{self.name} ended: {error!r}")
                raise
            self._stopped.wait(self.draw.uniform(0, 0.3))

    @property
    def _reconnects(self) -> bool:
        return self.world.clients_reconnect

    def _use(self, client: Client) -> None:
        links: dict[str, Link] = {}
        while (client.is_connected() or self._reconnects) and not self._stopped.is_set():
            for service in SERVICES:
                try:
                    if service not in links:
                        links[service] = self._link(client, service)
                    self._ask(links[service])
                except ServiceLost:
                    if not self._reconnects:
                        self._unlink(links.pop(service, None))
                except (Unanswered, RemoteError):
                    self._stopped.wait(0.05)

    def _unlink(self, link: Link | None) -> None:
        """Unlink, so that a new link has a handler of its own."""
        try:
            if link is not None:
                link.unlink(timeout=LINK_TIMEOUT)
        except (Unanswered, RemoteError):
            pass

    def _link(self, client: Client, service: str) -> Link:
        more: dict[str, Any] = {"idempotent": {"read"}} if self._reconnects else {}
        link = client.link(service, timeout=LINK_TIMEOUT, **more)
        handler = Handler(self, self.oracle.stream(self.name, service))
        link.notification_handler = MethodType(Handler.take, handler)
        return link

    def _ask(self, link: Link) -> None:
        """Make a request; raise ServiceLost if the Service is lost."""
        self._stopped.wait(self.draw.expovariate(1 / PAUSE) / 3)
        service = link.service_name
        request, timeout, _ = self.new_request(service)
        began = time.monotonic()
        try:
            result = self._call(link, request, timeout)
        except Exception as error:
            self.settle_error(request, error)
            if isinstance(error, ServiceLost):
                raise
        else:
            self.oracle.ok(request, result)
        if request.outcome in ("ok", "remote error"):
            self.progress[service].answered = time.monotonic()
            self.progress[service].asked = began

    def _call(self, link: Link, request: Request, timeout: float | None) -> Any:
        method = getattr(link, request.attribute)
        args = (f"t{request.token}#",)
        if not request.is_idempotent and self.draw.random() < 0.3:
            return method(*args, asynchronous=True, timeout=timeout).result()
        return method(*args, timeout=timeout)
