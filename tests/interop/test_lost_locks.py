"""Locks that are lost when Services and Managers of both kinds are killed and started again."""

from __future__ import annotations

import sys

import pytest
import trio

from msl_network_trio import LockLost, acquire_locks, connect, safe_state
from msl_network_trio.client import presence
from tests.interop.reference import Manager
from tests.interop.test_gaps import restart
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have"),
]


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask msl-network 1.0.0 for the link more often than every two seconds, to save time."""
    monkeypatch.setattr(presence, "PROBE_INTERVAL", 0.2)


@pytest.mark.parametrize("what", ["service", pytest.param("manager", marks=pytest.mark.slow)])
async def test_a_lost_lock_ends_its_body_and_can_be_acquired_again(start_either, what: str):
    manager: Manager = start_either()
    manager.start_service()
    with trio.fail_after(PATIENCE):
        async with connect(**manager.arguments(), reconnect=True) as client:
            link = await client.link("Echo")
            async with trio.open_nursery() as nursery:
                with pytest.raises(LockLost) as raised:
                    async with link.acquire_lock(), safe_state(link, ("same", 0)):
                        nursery.start_soon(trio.to_thread.run_sync, restart, manager, what, start_either)
                        await trio.sleep_forever()
            assert raised.value.service == "Echo"
            async with link.acquire_lock():
                assert await link.add(1, 2) == 3
            await link.acquire_lock()
            assert await link.add(1, 2) == 3
            await link.unlink()
            async with acquire_locks((client, "Echo")) as (again,):
                assert await again.add(1, 2) == 3


async def test_a_lost_lock_on_a_service_ends_its_body_without_reconnection(start_either):
    manager: Manager = start_either()
    service = manager.start_service()
    with trio.fail_after(PATIENCE):
        async with connect(**manager.arguments()) as client:
            link = await client.link("Echo")
            async with trio.open_nursery() as nursery:
                with pytest.raises(LockLost):
                    async with link.acquire_lock():
                        nursery.start_soon(trio.to_thread.run_sync, service.kill)
                        await trio.sleep_forever()
