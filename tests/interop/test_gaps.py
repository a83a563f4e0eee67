"""Notifications over restarts of Services and Managers, of clients that reconnect."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from msl_network_trio import Gap, Notification, Reconnect, connect
from msl_network_trio.client import presence
from msl_network_trio.sync import connect as blocking_connect
from msl_network_trio.sync import notifications
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]

SOON = Reconnect(first_delay=0.05, longest_delay=0.05)

WHAT = pytest.mark.parametrize("what", ["service", "manager"])


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask msl-network 1.0.0 for the link more often than every two seconds, to save time."""
    monkeypatch.setattr(presence, "PROBE_INTERVAL", 0.2)


def restart(manager: Manager, what: str, start: Callable[..., Manager]) -> Manager:
    """Kill the Service, or the Manager with it, and start them again at the same port."""
    manager.services[-1].kill()
    if what == "manager":
        manager.process.kill()
        manager = start(port=manager.port)
    manager.start_service()
    return manager


class Recorder:
    """A handler that records notifications and gaps."""

    def __init__(self) -> None:
        self.got: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.threads: set[int] = set()

    def handle(self, number: int) -> None:
        self.got.put(number)
        self.threads.add(threading.get_ident())

    def on_gap(self, gap: Gap) -> None:
        self.got.put(gap)
        self.threads.add(threading.get_ident())


@WHAT
async def test_streams_and_handlers_go_on_with_one_gap(start_either, what: str):
    manager: Manager = start_either()
    manager.start_service()
    recorder = Recorder()
    began = time.time()
    async with connect(**manager.arguments(), reconnect=SOON) as client:
        link = await client.link("Echo")
        link.notification_handler = recorder.handle
        async with link.notifications(gaps=True) as stream, link.notifications() as plain:
            with trio.fail_after(PATIENCE):
                await link.notify(1)
                elements: list[Any] = [await anext(stream)]
                for number in (2, 3):
                    manager = await trio.to_thread.run_sync(restart, manager, what, start_either)
                    elements.append(await anext(stream))
                    assert type(elements[-1]) is Gap
                    await link.notify(number)
                    elements.append(await anext(stream))
                folded = [await anext(plain) for _ in range(3)]
    first, gap, second, later, third = elements
    assert [first.args, second.args, third.args] == [[1], [2], [3]]
    assert began <= first.received <= gap.since <= gap.until <= second.received <= later.since
    assert gap.service == "Echo"
    assert gap.reason
    assert folded == [first, second, third]
    assert [each.gap for each in folded] == [None, gap, later]
    assert [recorder.got.get_nowait() for _ in range(5)] == [1, gap, 2, later, 3]
    assert recorder.got.empty()


@pytest.mark.parametrize("what", ["service"])
def test_blocking_iterations_and_handlers_go_on_with_one_gap(start_either, what: str):
    manager: Manager = start_either()
    manager.start_service()
    recorder = Recorder()
    with blocking_connect(**manager.arguments(), reconnect=True) as client:
        link = client.link("Echo")
        link.notification_handler = recorder.handle
        with notifications(link, gaps=True) as stream:
            link.notify(1)
            assert next(stream) == Notification("Echo", [1], {})
            restart(manager, what, start_either)
            gap = next(stream)
            assert type(gap) is Gap
            link.notify(2, timeout=PATIENCE)
            assert next(stream) == Notification("Echo", [2], {})
    assert [recorder.got.get(timeout=PATIENCE) for _ in range(3)] == [1, gap, 2]
    assert len(recorder.threads) == 1
    assert threading.get_ident() not in recorder.threads
