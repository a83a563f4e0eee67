"""Locks: one for a client and a Service, shared by all its scopes and tasks."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import trio
import trio.testing

from msl_network_trio import (
    ConnectionLost,
    LinkBroken,
    LockLost,
    ManagerError,
    ReplyTimeout,
    ServiceLost,
    Unanswered,
)
from msl_network_trio.client.locks import Locks, LockScope
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


def lose_connection(session: Session) -> None:
    session.peer.transport.close()


async def sleep_in_scope(session: Session) -> None:
    async with session.link.acquire_lock():
        await trio.sleep_forever()


async def compute_in_scope(session: Session) -> None:
    """Notice the loss only at the end of the block."""
    async with session.link.acquire_lock():
        with trio.CancelScope(shield=True):
            await session.client._session.connection.closed.wait()


async def call_in_scope(session: Session) -> None:
    async with session.link.acquire_lock():
        await session.link.slow()


async def catch_in_scope(session: Session) -> None:
    """Catch what the call raises, as a measurement loop does; the cancellation must come through."""
    async with session.link.acquire_lock():
        while True:
            with contextlib.suppress(Unanswered):
                await session.link.slow()


async def open_nursery_in_scope(session: Session) -> None:
    async with session.link.acquire_lock(), trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize(
    "body", [sleep_in_scope, compute_in_scope, call_in_scope, catch_in_scope, open_nursery_in_scope]
)
async def test_a_lost_connection_cancels_the_scope_of_a_lock(network, nursery, body, caplog):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            scoped = await start(inner, body, session)
            await grant(session)
            await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
        assert isinstance(scoped.error, LockLost)
        assert scoped.error.service == "Echo"
        assert isinstance(scoped.error.__cause__, ConnectionLost)
        assert not isinstance(scoped.error, Unanswered)
        assert "the lock on 'Echo' is lost: Manager[localhost:1875] closed the connection" in caplog.text


async def test_a_body_that_raises_something_else_has_the_lost_lock_as_a_note(network, nursery):
    async for session in open_session(network, nursery):

        async def scope() -> None:
            async with session.link.acquire_lock():
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError("measured")

        async with trio.open_nursery() as inner:
            scoped = await start(inner, scope)
            await grant(session)
            await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
        assert isinstance(scoped.error, KeyError)
        (note,) = scoped.error.__notes__
        assert note.startswith("The lock on the 'Echo' Service was lost: ")


async def test_a_group_keeps_its_exceptions_when_the_lock_is_lost(network, nursery):
    async for session in open_session(network, nursery):

        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("measured")

        async def scope() -> None:
            async with session.link.acquire_lock(), trio.open_nursery() as bodies:
                bodies.start_soon(fail_when_cancelled)
                bodies.start_soon(trio.sleep_forever)

        async with trio.open_nursery() as inner:
            scoped = await start(inner, scope)
            await grant(session)
            await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
        assert isinstance(scoped.error, ExceptionGroup)
        assert [type(error) for error in scoped.error.exceptions] == [KeyError]
        assert "was lost" in scoped.error.__notes__[0]


async def test_all_scopes_of_a_lost_lock_are_cancelled(network, nursery):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            scopes = []
            for _ in range(3):
                scopes.append(await start(inner, sleep_in_scope, session))
                await grant(session)
                await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
        assert [type(scoped.error) for scoped in scopes] == [LockLost] * 3


async def test_a_cancelled_body_whose_lock_is_lost_is_a_cancelled_one(network, nursery):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            scoped = await start(inner, sleep_in_scope, session)
            await grant(session)
            await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
            scoped.scope.cancel()
        assert scoped.error is None


@pytest.mark.parametrize("end", ["release", "unlink", "disconnect"])
async def test_a_lock_that_was_let_go_is_not_lost(network, nursery, end, caplog):
    async for session in open_session(network, nursery):

        async def scope() -> str:
            async with session.link.acquire_lock():
                if end == "release":
                    await session.link.release_lock()
                elif end == "unlink":
                    await session.link.unlink()
                else:
                    await session.client.disconnect()
                await session.client._session.connection.closed.wait()
            return "left"

        async with trio.open_nursery() as inner:
            scoped = await start(inner, scope)
            await grant(session)
            line = await session.peer.line()
            session.peer.reply(line["uid"], [])
            await trio.testing.wait_all_tasks_blocked()
            lose_connection(session)
        assert scoped.error is None
        assert scoped.value == "left"
        assert "lost" not in caplog.text


class Owner:
    """Owner of locks whose connection grants every lock, after a function that it is given."""

    def __init__(self, before_return) -> None:
        self.connection = self.requests = self.presence = self
        self.is_open = True
        self.before_return = before_return
        self.posted: list[tuple[str, ...]] = []
        self.changed: list[str] = []

    def look_after(self) -> None:
        pass

    def seconds(self, timeout: float | None) -> float:
        return math.inf

    async def request(self, *_: object, **__: object) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.before_return()
        return ["Client[vm:1]"]

    def post(self, *request: str) -> None:
        self.posted.append(request)

    def lock_changed(self, service: str) -> None:
        self.changed.append(service)


async def test_a_lock_that_is_lost_behind_its_grant_is_not_given_out():
    """The reader takes the grant and the loss in one read, before the caller continues."""
    owner = Owner(lambda: locks.lose("Echo", ServiceLost("gone")))
    locks = Locks(owner)
    with pytest.raises(LockLost, match="was lost: gone"):
        await locks.acquire("Echo", False, None, False, owner)
    assert not locks.is_held("Echo")
    assert owner.posted == [("release_lock", "Echo")]


async def test_a_loss_of_an_earlier_connection_does_not_concern_a_lock_that_is_granted_over_a_later_one():
    def lose_and_reconnect() -> None:
        locks.lose_all(ConnectionLost("gone"))
        owner.connection = copy.copy(owner)

    owner = Owner(lose_and_reconnect)
    locks = Locks(owner)
    await locks.acquire("Echo", False, None, False, owner)
    assert locks.is_held("Echo")
    assert owner.posted == []


async def test_requests_are_refused_until_the_holders_without_a_scope_have_let_go():
    owner = Owner(lambda: None)
    locks = Locks(owner)
    grants = [await locks.acquire("Echo", False, None, False, owner) for _ in range(3)]
    scope = LockScope()
    grants[2].held.scopes.add(scope)
    locks.lose("Echo", ServiceLost("gone"))
    assert scope.lost is grants[0].held
    for _ in range(2):
        requests = locks.without_lock("Echo")
        for refused in (requests, requests.in_threads):
            with pytest.raises(LockLost, match="was lost: gone"):
                refused.start("Echo", "add", (1, 2))
        with pytest.raises(LockLost, match="was lost: gone"):
            await requests.request("Echo", "add", (1, 2))
        assert not locks.remove(grants.pop(0).held)
    assert locks.without_lock("Echo") is None
    assert not locks.remove(grants[0].held, scope)
    assert owner.changed == ["Echo", "Echo"]


@pytest.mark.parametrize("let_go", ["acquire", "release", "forget"])
async def test_a_lost_lock_is_let_go_of_when_it_is_acquired_or_released(let_go):
    owner = Owner(lambda: None)
    locks = Locks(owner)
    lost = await locks.acquire("Echo", False, None, False, owner)
    locks.lose("Echo", ServiceLost("gone"))
    assert locks.without_lock("Echo") is not None
    if let_go == "acquire":
        await locks.acquire("Echo", False, None, False, owner)
        # The end of a block that had the lock before releases no other lock.
        assert not locks.remove(lost.held)
        assert locks.is_held("Echo")
    elif let_go == "release":
        await locks.release("Echo", None)
    else:
        locks.forget_all()
    assert locks.without_lock("Echo") is None
    assert owner.changed == ["Echo", "Echo"]


async def test_after_the_final_end_of_the_connection_no_request_is_refused_for_a_lock():
    owner = Owner(lambda: None)
    locks = Locks(owner)
    await locks.acquire("Echo", False, None, False, owner)
    locks.lose_all(ConnectionLost("away"))
    await locks.acquire("Other", False, None, False, owner)
    assert locks.without_lock("Echo") is not None
    locks.lose_all(ConnectionLost("closed"), is_final=True)
    assert locks.without_lock("Echo") is None
    assert locks.without_lock("Other") is None


async def test_a_release_waits_for_a_request_of_another_task(session: Session):
    """The last scope ends while another task acquires the lock, which is then refused."""
    async with trio.open_nursery() as nursery:
        leave = trio.Event()

        async def scope() -> None:
            async with session.link.acquire_lock(shared=True):
                await leave.wait()

        await start(nursery, scope)
        await grant(session)
        call = await start(nursery, acquire, session)
        uid = await session.peer.expect("acquire_lock")
        leave.set()
        await trio.testing.wait_all_tasks_blocked()
        session.peer.fail(uid, REFUSAL)
        session.peer.reply(await session.peer.expect("release_lock"), [])
    assert isinstance(call.error, ManagerError)
    await nothing_more(session)


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
