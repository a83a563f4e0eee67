"""Services whose previous connection the Manager does not know to be lost, so that their name is taken."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest
import trio

from msl_network_trio import Service, connect
from msl_network_trio.dialing.reconnect import Reconnect
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


class Proxy:
    """A proxy whose connections can be cut at the Service's side only."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self._relays: list[tuple[trio.SocketStream, trio.SocketStream]] = []
        self._release = trio.Event()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Relay connections until cancelled."""
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listener.socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, self._relay, [listener]))
            task_status.started()

    async def _relay(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._target)
        self._relays.append((near, far))
        async with far, near, trio.open_nursery() as nursery:

            async def copy(source: trio.SocketStream, to: trio.SocketStream) -> None:
                try:
                    async for data in source:
                        await to.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                if source is near and not self._release.is_set():
                    await self._release.wait()  # the Manager notices nothing until then
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, near, far)
            await copy(far, near)

    async def cut(self) -> None:
        """Close all connections at the Service's side."""
        for near, _ in self._relays:
            await near.aclose()
        self._relays.clear()

    def release(self) -> None:
        """Close the Manager's sides, too."""
        self._release.set()


async def test_a_service_returns_when_the_manager_notices_the_loss_of_its_old_connection(
    start_either, caplog
):
    manager = await trio.to_thread.run_sync(start_either)
    caplog.set_level(logging.INFO, "msl_network_trio.service")
    proxy = Proxy(manager.port)
    service = Service(name="Proxied")
    policy = Reconnect(first_delay=0.05, longest_delay=0.05)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            arguments = {**manager.arguments(), "host": "127.0.0.1", "port": proxy.port}
            await nursery.start(partial(service.run, **arguments, reconnect=policy))
            await proxy.cut()
            while "already running" not in caplog.text:
                await trio.sleep(0.01)
            proxy.release()
            while "is connected to Manager" not in caplog.text.partition("already running")[2]:
                await trio.sleep(0.01)
            async with connect(**manager.arguments()) as client:
                services = (await client.identities())["services"]
            assert "Proxied" in services
            nursery.cancel_scope.cancel()
