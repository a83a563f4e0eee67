"""Locks on several Services at Managers of both kinds: two clients that want the same ones get them in turn."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from msl_network_trio import (
    Client,
    Gap,
    LockLost,
    ManagerError,
    Notification,
    NotificationStream,
    ReplyTimeout,
    Service,
    acquire_locks,
    connect,
    sync,
)
from msl_network_trio.client import lock_set
from tests.interop.reference import Manager
from tests.interop.test_safe_state import cut
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

NAMES = ("Ramp", "Shutter", "Stage")


class Instrument(Service):
    """A Service that only one client at a time may use."""

    user = ""

    def begin(self, user):
        assert not self.user, f"{self.user} uses it"
        self.user = user

    def end(self, number):
        self.user = ""
        self.emit_notification(number)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_set, "_LONGEST_WAIT", 0.2)


@asynccontextmanager
async def instruments(lab: Manager):
    """Run the Services of `NAMES` in this process."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                run = partial(Instrument(name=name).run, **lab.service_arguments, auto_save=True)
                await nursery.start(run)
            yield
            nursery.cancel_scope.cancel()


async def assert_free(lab: Manager) -> None:
    """Check that nothing is linked or locked any more."""
    async with connect(**lab.arguments()) as client, acquire_locks(*((client, name) for name in NAMES)):
        pass


async def use(links, user: str, number: int) -> None:
    for link in links:
        await link.begin(user)
    await trio.sleep(0.02)
    for link in links:
        await link.end(number)


async def test_two_clients_that_want_the_same_services_use_them_in_turn(lab: Manager):
    """One of them has a link with a stream, which is in the way of the other one between its locks."""
    items: list[Notification | Gap] = []

    async def work(client: Client, names, first: int) -> None:
        for number in range(first, first + 3):
            async with acquire_locks(*((client, name) for name in names)) as links:
                assert [link.service_name for link in links] == list(names)
                await use(links, client.name, number)

    async def listen(stream: NotificationStream[Notification | Gap]) -> None:
        async for item in stream:
            items.append(item)

    async def work_with_link(client: Client) -> None:
        async with (
            client.link("Stage") as link,
            link.notifications(gaps=True) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(listen, stream)
            ready.set()
            await work(client, NAMES, 0)
            while [item.args for item in items if isinstance(item, Notification)][-1:] != [[2]]:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    ready = trio.Event()
    async with (
        instruments(lab),
        connect(**lab.arguments(name="one")) as one,
        connect(**lab.arguments(name="two")) as two,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work_with_link, one)
            await ready.wait()
            nursery.start_soon(work, two, NAMES[::-1], 10)
        await assert_free(lab)
    numbers = [item.args[0] for item in items if isinstance(item, Notification)]
    assert [number for number in numbers if number < 10] == [0, 1, 2]


async def test_a_link_that_the_client_has_is_restored_with_a_gap(lab: Manager):
    async with (
        instruments(lab),
        connect(**lab.arguments()) as client,
        connect(**lab.arguments()) as other,
        client.link("Ramp") as ramp,
        ramp.notifications(gaps=True) as stream,
    ):
        shutter = await other.link("Shutter")
        async with trio.open_nursery() as nursery:

            async def acquire() -> None:
                async with acquire_locks((client, "Ramp"), (client, "Shutter")) as links:
                    await links[0].end(1)

            nursery.start_soon(acquire)
            while True:  # until the other client can lock what the link of the first one excludes
                with suppress(ManagerError):
                    theirs = await other.link("Ramp")
                    async with theirs.acquire_lock():
                        await theirs.unlink()
                        break
                await trio.sleep(0.005)
            await shutter.unlink()
        gap, notification = await anext(stream), await anext(stream)
        assert isinstance(gap, Gap)
        assert "given up while locks were acquired" in gap.reason
        assert notification.args == [1]


async def test_locks_that_are_not_to_be_had_end_with_the_timeout(lab: Manager):
    async with instruments(lab), connect(**lab.arguments()) as client, connect(**lab.arguments()) as other:
        mine = await client.link("Ramp")
        theirs = await other.link("Stage")
        with pytest.raises(ReplyTimeout, match="'Ramp', 'Stage' could not be acquired within 0.5") as raised:
            async with acquire_locks((client, "Ramp"), (client, "Stage"), timeout=0.5):
                pytest.fail("entered")
        assert isinstance(raised.value.__cause__, ManagerError)
        assert not raised.value.may_have_run
        # Nothing is held any more but the link from before.
        async with mine.notifications() as stream:
            await mine.end(3)
            assert (await anext(stream)).args == [3]
        await theirs.acquire_lock()
        with pytest.raises(ManagerError, match="does not exist"):
            async with acquire_locks((client, "Ramp"), (client, "Nope")):
                pytest.fail("entered")
        await theirs.unlink()
        await mine.unlink()
        await assert_free(lab)


async def test_a_lost_lock_of_several_cancels_the_body(lab: Manager):
    async with instruments(lab), connect(**lab.arguments()) as one, connect(**lab.arguments()) as two:
        with pytest.raises(LockLost) as raised:
            async with acquire_locks((one, "Ramp"), (two, "Stage")):
                await cut(two)
                await trio.sleep_forever()
        assert raised.value.service == "Stage"
        await assert_free(lab)


async def test_threads_acquire_the_same_locks_in_turn(lab: Manager):
    used: list[str] = []
    turns = threading.Lock()

    def work(name: str, names) -> None:
        with sync.connect(**lab.arguments(name=name)) as client:
            for _ in range(2):
                with sync.acquire_locks(*((client, each) for each in names), timeout=PATIENCE) as links:
                    assert turns.acquire(blocking=False)
                    for link in links:
                        link.begin(name)
                    used.append(name)
                    for link in links:
                        link.end(0)
                    turns.release()

    async with instruments(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work, "one", NAMES)
            nursery.start_soon(trio.to_thread.run_sync, work, "two", NAMES[::-1])
        await assert_free(lab)
    assert sorted(used) == ["one", "one", "two", "two"]


async def test_the_end_of_a_blocking_block_reports_a_lost_lock(lab: Manager):
    def work() -> None:
        with (
            sync.connect(**lab.arguments()) as client,
            pytest.raises(LockLost, match="'Ramp'"),
            sync.acquire_locks((client, "Ramp"), (client, "Stage")),
        ):
            client._portal.call(cut, sync.to_async(client))

    async with instruments(lab):
        await trio.to_thread.run_sync(work)
        await assert_free(lab)


async def test_arguments_are_checked(lab: Manager):
    async with connect(**lab.arguments()) as client:
        for wrong in ((client, ""), (client,), ("Echo", client), "Echo", (None, "Echo")):
            with pytest.raises(TypeError, match="tuple of a client and the name of a Service"):
                acquire_locks(wrong)
        with pytest.raises(ValueError, match="at least one"):
            acquire_locks()
        with pytest.raises(ValueError, match="more than once"):
            acquire_locks((client, "Echo"), (client, "Echo"))
        with pytest.raises(TypeError, match="shared"):
            acquire_locks((client, "Echo"), shared="no")
