"""Services that die and restart, at both Managers, as seen by clients that only listen."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import Any

import pytest
import trio

from msl_network_trio import Client, ManagerError, Notification, NotificationStream, ServiceLost, connect
from msl_network_trio.client import presence
from msl_network_trio.client.client import client_session
from msl_network_trio.sync import connect as blocking_connect
from msl_network_trio.sync import notifications
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask msl-network 1.0.0 for the link more often than every two seconds, to save time."""
    monkeypatch.setattr(presence, "PROBE_INTERVAL", 0.1)


async def linked(client: Client) -> Any:
    """Return a link with the Service as soon as there is one."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await client.link("Echo")
            except ManagerError:
                await trio.sleep(0.01)


async def next_of(stream: NotificationStream) -> Notification:
    with trio.fail_after(PATIENCE):
        return await anext(stream)


async def test_a_stream_of_a_client_that_only_listens_raises(start_either):
    manager: Manager = start_either()
    service = manager.start_service()
    async with connect(**manager.arguments()) as client, connect(**manager.arguments()) as other:
        link, theirs = await client.link("Echo"), await other.link("Echo")
        async with link.notifications() as stream:
            await theirs.notify(1)
            assert (await next_of(stream)).args == [1]
            service.kill()
            with pytest.raises(ServiceLost, match="'Echo'"):
                await next_of(stream)
        manager.start_service()
        again = await linked(client)
        async with link.notifications() as old, again.notifications() as stream:
            with pytest.raises(ServiceLost):
                await next_of(old)
            await (await linked(other)).notify(2)
            assert (await next_of(stream)).args == [2]


async def test_a_restart_within_the_interval_is_noticed_as_well(start_either, monkeypatch):
    monkeypatch.setattr(presence, "PROBE_INTERVAL", 1000)
    manager: Manager = start_either()
    service = manager.start_service()
    async with connect(**manager.arguments()) as client, connect(**manager.arguments()) as other:
        link = await client.link("Echo")
        async with link.notifications() as stream:
            service.kill()
            manager.start_service()
            await linked(other)
            client_session(client).presence.ask_soon("Echo")
            with pytest.raises(ServiceLost, match="has disconnected" if manager.ours else "was restarted"):
                await next_of(stream)
        assert await link.add(1, 2) == 3
        # The request for the link has not left one at the Manager.
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    async with other.link("Echo") as theirs, theirs.acquire_lock():
                        break
                except ManagerError:
                    await trio.sleep(0.01)


def test_blocking_streams_raise_and_handlers_are_logged_as_ended(start_either, caplog):
    manager: Manager = start_either()
    service = manager.start_service()
    received: queue.SimpleQueue[object] = queue.SimpleQueue()
    with blocking_connect(**manager.arguments()) as client, caplog.at_level(logging.WARNING):
        link, handled = client.link("Echo"), client.link("Echo")
        handled.notification_handler = received.put

        def listen() -> None:
            try:
                with notifications(link) as stream:
                    for notification in stream:
                        received.put(notification)
            except ServiceLost as error:
                received.put(error)

        listener = threading.Thread(target=listen)
        listener.start()
        got: list[object] = []
        while Notification("Echo", [1], {}) not in got:
            link.notify(1)
            got.append(received.get(timeout=PATIENCE))
        service.kill()
        while not isinstance(got[-1], ServiceLost):
            got.append(received.get(timeout=PATIENCE))
        listener.join(PATIENCE)
    assert 1 in got
    assert "the notification handler for 'Echo' will not be called any more" in caplog.text
