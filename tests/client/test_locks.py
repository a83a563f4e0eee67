"""Locks: one for a client and a Service, shared by all its scopes and tasks."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from msl_network_trio import LinkBroken, ManagerError, ReplyTimeout
from tests.client.peer import ECHO, Network
from tests.client.test_requests import Session, open_session, start

REFUSAL = (
    "PermissionError: Client[vm:1] cannot acquire an exclusive lock, there are 2 links with the 'Echo' service\n"
    "The linked Clients are:\n  Client[vm:1]\n  Other[vm:2]"
)


@pytest.fixture
async def session(network: Network, nursery: trio.Nursery):
    async for session in open_session(network, nursery):
        yield session


async def acquire(session: Session, *args: object, **kwargs: object) -> list[str]:
    return await session.link.acquire_lock(*args, **kwargs)


async def grant(session: Session) -> None:
    session.peer.reply(await session.peer.expect("acquire_lock"), ["Client[vm:1]"])


async def nothing_more(session: Session) -> None:
    """Check that nothing was requested before this."""
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


async def test_a_lock_is_acquired_and_released(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, acquire, session, True)
        line = await session.peer.line()
        assert (line["service"], line["args"], line["kwargs"]) == ("Manager", ["Echo"], {"shared": True})
        session.peer.reply(line["uid"], ["a", "b"])
        await call.done.wait()
        assert call.value == ["a", "b"]
        released = await start(nursery, session.link.release_lock)
        session.peer.reply(await session.peer.expect("release_lock"), ["b"])
    assert released.value == ["b"]


@pytest.mark.parametrize("error", [None, KeyError])
async def test_a_scope_releases_its_lock_also_on_an_error(session: Session, error):
    async with trio.open_nursery() as nursery:

        async def scope() -> None:
            async with session.link.acquire_lock() as names:
                assert names == ["Client[vm:1]"]
                if error is not None:
                    raise error

        scoped = await start(nursery, scope)
        await grant(session)
        session.peer.reply(await session.peer.expect("release_lock"), [])
    assert isinstance(scoped.error, error or type(None))


async def test_only_the_last_scope_releases(session: Session):
    async with trio.open_nursery() as nursery:

        async def scopes() -> None:
            async with session.link.acquire_lock():
                async with session.link.acquire_lock():
                    pass
                await session.link.between()

        scoped = await start(nursery, scopes)
        await grant(session)
        await grant(session)
        session.peer.reply(await session.peer.expect("between"), None)
        session.peer.reply(await session.peer.expect("release_lock"), [])
    assert scoped.error is None


async def test_a_scope_leaves_a_lock_that_was_awaited_before(session: Session):
    async with trio.open_nursery() as nursery:

        async def both() -> None:
            await session.link.acquire_lock()
            async with session.link.acquire_lock():
                pass

        call = await start(nursery, both)
        await grant(session)
        await grant(session)
        await call.done.wait()
        assert call.error is None
    await nothing_more(session)


async def test_an_explicit_release_goes_out_at_once_and_the_scope_sends_no_other(session: Session):
    async with trio.open_nursery() as nursery:

        async def scope() -> None:
            async with session.link.acquire_lock():
                await session.link.release_lock()

        scoped = await start(nursery, scope)
        await grant(session)
        session.peer.reply(await session.peer.expect("release_lock"), [])
        await scoped.done.wait()
        assert scoped.error is None
    await nothing_more(session)


async def test_unlinking_in_a_scope_has_released_the_lock(session: Session):
    async with trio.open_nursery() as nursery:

        async def scope() -> None:
            async with session.link.acquire_lock():
                await session.link.unlink()

        scoped = await start(nursery, scope)
        await grant(session)
        session.peer.reply(await session.peer.expect("unlink"), True)
        await scoped.done.wait()
        assert scoped.error is None
        with pytest.raises(LinkBroken, match="Cannot access 'acquire_lock'"):
            await session.link.acquire_lock()
        other = await start(nursery, session.client.identities)
        session.peer.reply(await session.peer.expect("identity"), {})
    assert other.value == {}


async def test_a_refused_lock_raises_and_holds_nothing(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, acquire, session)
        session.peer.fail(await session.peer.expect("acquire_lock"), REFUSAL)
    assert isinstance(call.error, ManagerError)
    assert call.error.type_name == "PermissionError"
    await nothing_more(session)


async def test_a_lock_whose_acquiring_is_cancelled_is_released(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, acquire, session)
        late = await session.peer.expect("acquire_lock")
        call.scope.cancel()
        session.peer.reply(await session.peer.expect("release_lock"), [])
        session.peer.reply(late, ["Client[vm:1]"])
    await nothing_more(session)


async def test_a_lock_that_another_task_holds_is_not_released_by_a_cancelled_one(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, acquire, session)
        await grant(session)
        await held.done.wait()
        call = await start(nursery, acquire, session)
        await session.peer.expect("acquire_lock")
        call.scope.cancel()
        await call.done.wait()
    await nothing_more(session)


async def test_waiting_asks_again_until_the_lock_is_granted(session: Session, autojump_clock):
    async with trio.open_nursery() as nursery:

        async def wait() -> list[str]:
            return await session.link.acquire_lock(wait=True)

        began = trio.current_time()
        call = await start(nursery, wait)
        asked = []
        for _ in range(8):
            uid = await session.peer.expect("acquire_lock")
            asked.append(trio.current_time() - began)
            session.peer.fail(uid, REFUSAL)
        await grant(session)
    assert call.value == ["Client[vm:1]"]
    assert asked == pytest.approx([0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55])


async def test_waiting_ends_with_the_timeout_and_tells_the_last_refusal(session: Session, autojump_clock):
    async with trio.open_nursery() as nursery:

        async def wait() -> list[str]:
            return await session.link.acquire_lock(wait=True, timeout=2)

        began = trio.current_time()
        call = await start(nursery, wait)
        while not call.done.is_set():
            with trio.move_on_after(3):
                session.peer.fail(await session.peer.expect("acquire_lock"), REFUSAL)
    assert isinstance(call.error, ReplyTimeout)
    assert "lock on 'Echo' could not be acquired within 2 seconds" in str(call.error)
    assert "there are 2 links" in str(call.error.__cause__)
    assert trio.current_time() - began < 6
    await nothing_more(session)


async def test_a_refusal_that_time_will_not_change_is_raised_at_once(session: Session):
    async with trio.open_nursery() as nursery:

        async def wait() -> list[str]:
            return await session.link.acquire_lock(wait=True, timeout=math.inf)

        call = await start(nursery, wait)
        uid = await session.peer.expect("acquire_lock")
        session.peer.fail(
            uid, "PermissionError: C cannot acquire a lock because it is not linked with 'Echo'"
        )
    assert isinstance(call.error, ManagerError)


async def test_the_end_of_the_connection_in_a_scope_is_no_error_of_the_scope(network, nursery):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:

            async def scope() -> str:
                async with session.link.acquire_lock():
                    session.peer.transport.close()
                    await session.client._session.connection.closed.wait()
                return "left"

            scoped = await start(inner, scope)
            await grant(session)
        assert scoped.value == "left"


async def test_a_release_that_is_given_up_counts_as_one(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, acquire, session)
        await grant(session)
        await held.done.wait()
        release = await start(nursery, session.link.release_lock)
        late = await session.peer.expect("release_lock")
        release.scope.cancel()
        await release.done.wait()
        session.peer.reply(late, [])

        async def scope() -> None:
            async with session.link.acquire_lock():
                pass

        await start(nursery, scope)
        await grant(session)
        session.peer.reply(await session.peer.expect("release_lock"), [])
    await nothing_more(session)


async def test_a_lock_on_a_service_that_was_restarted_is_none_on_the_new_one(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, acquire, session)
        await grant(session)
        await held.done.wait()

        async def again() -> None:
            link = await session.client.link("Echo")
            async with link.acquire_lock():
                pass

        await start(nursery, again)
        await session.peer.link({**ECHO, "address": "vm:99"})
        await grant(session)
        session.peer.reply(await session.peer.expect("release_lock"), [])
    await nothing_more(session)
