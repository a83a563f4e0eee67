"""Fault matrix: each operation that a user of the client waits for, with each fault during it.

`CONNECTION_FAULTS` and `SERVICE_FAULTS` have one cell for each moment and fault: the outcome for the caller. After
each, the connection either works or reports that it has ended, the client and the Manager agree on links and
locks, and no resource is left behind.

    cancel   the caller was cancelled
    right    the correct answer
    quiet    it ends and raises nothing: it waits for a goodbye only
    lost     ConnectionLost        garbage  StreamCorrupted, which is a ConnectionLost
    gone     ServiceLost           late     ReplyTimeout
    refused  ManagerError
    no conn  ConnectError          no Mgr   HandshakeError        too slow  ConnectTimeout

    ?        may_have_run is True; without it, it is False
    x        the connection has ended afterwards; without it, it works
    -N       impossible, see `REASONS`
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from msl_network_trio import (
    Client,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HandshakeError,
    Link,
    LinkedClient,
    ManagerError,
    ReplyTimeout,
    ServiceLost,
    StreamCorrupted,
    connect,
)
from tests.client.faults import Person, Scene
from tests.client.peer import Network

CONNECTION_FAULTS = """
                           | cancelled | sibling  | nursery  | time out   | closed    | reset     | stalled    | garbage    | restart
connecting                 | cancel x  | cancel x | cancel x | too slow x | no conn x | no conn x | too slow x | no Mgr x   | no conn x
connecting, asked          | cancel x  | cancel x | cancel x | too slow x | no conn x | no conn x | too slow x | no Mgr x   | no conn x
connecting, answered       | cancel x  | cancel x | cancel x | too slow x | no conn x | no conn x | too slow x | no Mgr x   | no conn x
call                       | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
call with a timeout        | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
call in the backlog        | cancel    | cancel   | cancel x | late       | lost x    | lost x    | lost x     | lost x     | lost x
call half written          | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
call held by an admin      | cancel    | cancel   | cancel x | late       | lost x    | lost x    | lost x     | garbage x  | lost x
call in a handler          | cancel    | -6       | lost? x  | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
reply                      | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
admin request              | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
admin request, unsent      | cancel    | cancel   | cancel x | late       | lost x    | lost x    | lost x     | garbage x  | lost x
admin request, asked       | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
admin request, answered    | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
identities                 | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
link                       | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
link scope, leaving        | quiet     | quiet    | quiet x  | -1         | quiet x   | quiet x   | quiet      | quiet x    | quiet x
unlink                     | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
lock                       | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
lock scope                 | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
lock scope, leaving        | quiet     | quiet    | quiet x  | -1         | quiet x   | quiet x   | quiet      | quiet x    | quiet x
lock with wait, asked      | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
lock with wait, refused    | cancel    | cancel   | cancel x | late       | lost x    | lost x    | lost? x    | lost x     | lost x
release                    | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
notifications              | cancel    | cancel   | cancel x | -1         | lost x    | lost x    | -2         | lost x     | lost x
shutdown_service           | cancel    | cancel   | cancel x | late?      | lost? x   | lost? x   | lost? x    | garbage? x | lost? x
LinkedClient, no Service   | cancel x  | cancel x | cancel x | too slow x | lost x    | lost x    | too slow x | lost x     | lost x
LinkedClient scope, linking| cancel x  | cancel x | cancel x | too slow x | lost? x   | lost? x   | too slow x | garbage? x | lost? x
disconnect                 | cancel x  | cancel x | cancel x | quiet x    | quiet x   | quiet x   | quiet x    | quiet x    | quiet x
connect scope, leaving     | quiet x   | quiet x  | quiet x  | -1         | quiet x   | quiet x   | quiet x    | quiet x    | quiet x
"""

SERVICE_FAULTS = """
                           | refused    | another refused | missing | moved | handler raises | handler disconnects
connecting                 | -3         | -3              | -3      | -3    | -3             | -3
connecting, asked          | -3         | -3              | -3      | -3    | -3             | -3
connecting, answered       | -3         | -3              | -3      | -3    | -3             | -3
call                       | gone       | gone?           | gone?   | gone? | right          | lost? x
call with a timeout        | gone       | gone?           | gone?   | gone? | right          | lost? x
call in the backlog        | gone       | -5              | -5      | -5    | right          | lost x
call half written          | gone       | -5              | -5      | -5    | right          | lost? x
call held by an admin      | gone       | -5              | -5      | -5    | right          | lost x
call in a handler          | gone       | gone?           | gone?   | gone? | right          | lost? x
reply                      | gone       | gone?           | gone?   | gone? | right          | lost? x
admin request              | -4         | -4              | -4      | -4    | right          | lost? x
admin request, unsent      | -4         | -4              | -4      | -4    | right          | lost? x
admin request, asked       | -4         | -4              | -4      | -4    | right          | lost? x
admin request, answered    | -4         | -4              | -4      | -4    | right          | lost? x
identities                 | -4         | -4              | -4      | -4    | right          | lost? x
link                       | refused    | -4              | -4      | -4    | right          | lost? x
link scope, leaving        | quiet      | -4              | -4      | -4    | quiet          | quiet x
unlink                     | right      | -4              | -4      | -4    | right          | lost? x
lock                       | refused    | -4              | -4      | -4    | right          | lost? x
lock scope                 | refused    | -4              | -4      | -4    | right          | lost? x
lock scope, leaving        | quiet      | -4              | -4      | -4    | quiet          | quiet x
lock with wait, asked      | refused    | -4              | -4      | -4    | right          | lost? x
lock with wait, refused    | refused    | -4              | -4      | -4    | right          | lost x
release                    | refused    | -4              | -4      | -4    | right          | lost? x
notifications              | -2         | -2              | -2      | -2    | right          | lost x
shutdown_service           | gone       | gone?           | gone?   | gone? | right          | lost? x
LinkedClient, no Service   | -3         | -3              | -3      | -3    | -3             | -3
LinkedClient scope, linking| too slow x | -4              | -4      | -4    | -3             | -3
disconnect                 | -4         | -4              | -4      | -4    | quiet x        | quiet x
connect scope, leaving     | -4         | -4              | -4      | -4    | quiet x        | quiet x
"""

REASONS = {
    "-1": "it takes no timeout",
    "-2": "nothing is owed, so silence tells nothing; no Service has to say anything",
    "-3": "there is no link yet, so no Service and no handler",
    "-4": "the Manager answers, whatever the Services do",
    "-5": "the Service has not been given it, so nothing that it held can be lost with it",
    "-6": "a handler runs in no nursery of the user's",
}

PATIENCE = 3.0
"""The timeout of the caller, where the fault is that it expires."""

NEVER = 1000.0
"""Longer than any operation may take."""


# ---- moments: operations that the caller waits for ----


async def connecting(scene: Scene) -> None:
    scene.lab.handshake = "silent"
    await scene.wait_in(lambda: connect(**scene.arguments(timeout=scene.timeout or 10)))


async def connecting_asked(scene: Scene) -> None:
    scene.lab.handshake = "asks, then silent"
    scene.person = Person()
    await scene.wait_in(lambda: connect(**scene.arguments(timeout=scene.timeout or 10)))
    assert scene.person.asked.is_set()


async def connecting_answered(scene: Scene) -> None:
    scene.lab.handshake = "asks, then silent"
    arguments = scene.arguments(timeout=scene.timeout or 10, username="alice")
    await scene.wait_in(lambda: connect(**arguments))


def is_the_answer(value: object) -> bool:
    return value == "the answer to wait"


async def call(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("wait")
    await scene.wait_in(lambda: scene.link.wait(timeout=scene.timeout), is_the_answer)


async def call_with_a_timeout(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("wait")
    await scene.wait_in(lambda: scene.link.wait(timeout=scene.timeout or NEVER), is_the_answer)


def give_little_room(scene: Scene) -> None:
    scene.manager.peer.client_end._outgoing.capacity = 1000
    scene.manager.stall()


async def call_in_the_backlog(scene: Scene) -> None:
    await scene.connect(max_unsent=5000)
    give_little_room(scene)
    await scene.also(lambda: scene.link.first("x" * 10_000))  # it is being written, and needs no room
    await scene.also(
        lambda: scene.client._session.connection.requests.request("Other", "first", ("x" * 4500,))
    )
    unsent = scene.client._session.connection.protocol.outbox.unsent
    await scene.wait_in(lambda: scene.link.wait("x" * 1000, timeout=scene.timeout), is_the_answer)
    assert scene.client._session.connection.protocol.outbox.unsent == unsent > 4500  # not even queued


async def call_half_written(scene: Scene) -> None:
    await scene.connect()
    give_little_room(scene)
    scene.manager.withhold("size")
    await scene.wait_in(
        lambda: scene.link.size("x" * 10_000, timeout=scene.timeout), lambda value: value == 10_000
    )
    assert scene.client._session.connection._queue.rest_size


async def call_held_by_an_admin(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("port")
    await scene.also(lambda: scene.client.admin_request("port"))
    await scene.wait_in(lambda: scene.link.wait(timeout=scene.timeout), is_the_answer)
    assert scene.client._session.connection.protocol.outbox.unsent > 0


async def call_in_a_handler(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("wait")
    scene.caller.is_right = is_the_answer

    async def handler(_: int) -> None:
        if not scene.caller.done.is_set():
            await scene.caller.run(lambda: scene.link.wait(timeout=scene.timeout))

    scene.link.notification_handler = handler
    scene.manager.notify("Echo")
    await trio.testing.wait_all_tasks_blocked()


async def reply(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("wait")
    await scene.wait_in(lambda: scene.link.wait(asynchronous=True, timeout=scene.timeout), is_the_answer)


async def admin_request(scene: Scene) -> None:
    # The Manager, when it resumes, asks for a user name.
    await scene.connect(username="alice")
    scene.manager.asks_for_a_login = True
    scene.manager.withhold("port")
    await scene.wait_in(
        lambda: scene.client.admin_request("port", timeout=scene.timeout), lambda value: value == 1875
    )


async def admin_request_asked(scene: Scene) -> None:
    scene.person = Person()
    await scene.connect()
    scene.manager.asks_for_a_login = True
    scene.manager.withhold("login")
    await scene.wait_in(
        lambda: scene.client.admin_request("port", timeout=scene.timeout), lambda value: value == 1875
    )
    assert scene.person.asked.is_set()


async def admin_request_answered(scene: Scene) -> None:
    await scene.connect(username="alice")
    scene.manager.asks_for_a_login = True
    scene.manager.withhold("login")
    await scene.wait_in(
        lambda: scene.client.admin_request("port", timeout=scene.timeout), lambda value: value == 1875
    )
    assert [line["result"] for line in scene.manager.kept] == ["alice"]


async def admin_request_unsent(scene: Scene) -> None:
    await scene.connect()
    give_little_room(scene)
    scene.manager.withhold("port")
    await scene.also(lambda: scene.link.first("x" * 10_000))
    await scene.wait_in(
        lambda: scene.client.admin_request("port", timeout=scene.timeout), lambda value: value == 1875
    )
    assert scene.client._session.connection.protocol.outbox.gate is not None


async def identities(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("identity")
    await scene.wait_in(
        lambda: scene.client.identities(timeout=scene.timeout), lambda value: "Echo" in value["services"]
    )


async def link(scene: Scene) -> None:
    await scene.connect()
    scene.service = "Other"
    scene.manager.withhold("link")
    await scene.wait_in(
        lambda: scene.client.link("Other", timeout=scene.timeout), lambda value: isinstance(value, Link)
    )


async def link_scope_leaving(scene: Scene) -> None:
    await scene.connect()
    scene.service = "Other"
    scene.manager.withhold("unlink")

    async def scope() -> None:
        async with scene.client.link("Other"):
            pass

    await scene.wait_in(scope)


async def unlink(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("unlink")
    await scene.wait_in(lambda: scene.link.unlink(timeout=scene.timeout), lambda value: value is None)


def is_the_holders(value: object) -> bool:
    return value == ["Client[vm:1]"]


async def lock(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("acquire_lock")
    await scene.wait_in(lambda: scene.link.acquire_lock(timeout=scene.timeout), is_the_holders)


async def lock_scope(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("acquire_lock")

    async def scope() -> list[str]:
        async with scene.link.acquire_lock(timeout=scene.timeout) as names:
            return names

    await scene.wait_in(scope, is_the_holders)


async def lock_scope_leaving(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("release_lock")

    async def scope() -> None:
        async with scene.link.acquire_lock():
            pass

    await scene.wait_in(scope)


async def lock_with_wait_asked(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("acquire_lock")
    await scene.wait_in(lambda: scene.link.acquire_lock(timeout=scene.timeout, wait=True), is_the_holders)


async def lock_with_wait_refused(scene: Scene) -> None:
    await scene.connect()
    scene.manager.refuses_locks = True
    await scene.wait_in(lambda: scene.link.acquire_lock(timeout=scene.timeout, wait=True), is_the_holders)
    assert scene.client._session.connection.protocol.in_flight == 0


async def release(scene: Scene) -> None:
    await scene.connect()
    await scene.link.acquire_lock()
    scene.manager.withhold("release_lock")
    await scene.wait_in(lambda: scene.link.release_lock(timeout=scene.timeout), lambda value: value == [])


async def notifications(scene: Scene) -> None:
    await scene.connect()

    async def consume() -> object:
        async with scene.link.notifications() as stream:
            async for notification in stream:
                return notification.args
        return None

    await scene.wait_in(consume, lambda value: value == [1])


async def shutdown_service(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("shutdown_service")
    await scene.wait_in(
        lambda: scene.link.shutdown_service(timeout=scene.timeout),
        lambda value: value == "the answer to shutdown_service",
    )


async def linked_client_no_service(scene: Scene) -> None:
    arguments = scene.arguments(timeout=scene.timeout or 10)
    await scene.wait_in(lambda: LinkedClient("Nobody", **arguments))
    scene.manager = scene.lab.managers[0]


async def linked_client_scope_linking(scene: Scene) -> None:
    scene.service = "Other"
    scene.lab.withheld = {"link"}

    async def scope() -> None:
        async with LinkedClient("Other", **scene.arguments(timeout=scene.timeout or 10)):
            raise AssertionError("it was opened")

    await scene.wait_in(scope)
    scene.manager = scene.lab.managers[0]
    assert [line["attribute"] for line in scene.manager.kept] == ["link"]


async def disconnect(scene: Scene) -> None:
    await scene.connect()
    scene.manager.withhold("__disconnect__")
    await scene.wait_in(lambda: scene.client.disconnect(scene.timeout))


async def connect_scope_leaving(scene: Scene) -> None:
    async def scope() -> None:
        async with connect(**scene.arguments()) as client:
            await scene.use(client)
            scene.manager.withhold("__disconnect__")

    await scene.wait_in(scope)


MOMENTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "connecting": connecting,
    "connecting, asked": connecting_asked,
    "connecting, answered": connecting_answered,
    "call": call,
    "call with a timeout": call_with_a_timeout,
    "call in the backlog": call_in_the_backlog,
    "call half written": call_half_written,
    "call held by an admin": call_held_by_an_admin,
    "call in a handler": call_in_a_handler,
    "reply": reply,
    "admin request": admin_request,
    "admin request, unsent": admin_request_unsent,
    "admin request, asked": admin_request_asked,
    "admin request, answered": admin_request_answered,
    "identities": identities,
    "link": link,
    "link scope, leaving": link_scope_leaving,
    "unlink": unlink,
    "lock": lock,
    "lock scope": lock_scope,
    "lock scope, leaving": lock_scope_leaving,
    "lock with wait, asked": lock_with_wait_asked,
    "lock with wait, refused": lock_with_wait_refused,
    "release": release,
    "notifications": notifications,
    "shutdown_service": shutdown_service,
    "LinkedClient, no Service": linked_client_no_service,
    "LinkedClient scope, linking": linked_client_scope_linking,
    "disconnect": disconnect,
    "connect scope, leaving": connect_scope_leaving,
}


# ---- faults ----


async def cancelled(scene: Scene) -> None:
    scene.caller.scope.cancel()


async def sibling(scene: Scene) -> None:
    """Another task raises in the nursery of the caller, in which the connection does not run."""
    scene.application.tasks.start_soon(scene.application.fail)


async def nursery(scene: Scene) -> None:
    """The same, with the connection in that nursery."""
    scene.application.tasks.start_soon(scene.application.fail)
    await trio.testing.wait_all_tasks_blocked()  # or the caller may get its result at the same moment
    scene.lab.managers[0].say_goodbye()


async def time_out(scene: Scene) -> None:
    """The timeout expires."""


async def closed(scene: Scene) -> None:
    scene.lab.managers[0].peer.transport.close()


async def reset(scene: Scene) -> None:
    scene.lab.managers[0].peer.transport.reset()


async def stalled(scene: Scene) -> None:
    """The Manager neither reads nor sends, like a computer without power."""
    scene.lab.managers[0].stall()


async def garbage(scene: Scene) -> None:
    scene.lab.managers[0].peer.transport.send_nowait(b"garbage\n")


async def restart(scene: Scene) -> None:
    await scene.restart_the_manager()


async def refused(scene: Scene) -> None:
    """The Service disconnects before the Manager handles the request."""
    scene.lab.remove(scene.service)
    scene.manager.go_on()


async def another_refused(scene: Scene) -> None:
    """The Service disconnects with its requests, and another request to it is refused."""
    await scene.client.identities()  # which shows that the Manager has read the earlier lines
    scene.lab.kill(scene.service)
    other = await scene.also(lambda: scene.link.add(1, 2))
    assert isinstance(other.error, ServiceLost)
    assert other.error.may_have_run is False


async def missing(scene: Scene) -> None:
    """The Service disconnects with its requests, and only a probe reveals it."""
    scene.lab.kill(scene.service)


async def moved(scene: Scene) -> None:
    """The same, but it has reconnected before the probe."""
    scene.lab.kill(scene.service)
    scene.lab.services[scene.service] = "vm:99"


async def handler_raises(scene: Scene) -> None:
    def handler(_: int) -> None:
        raise ZeroDivisionError("a mistake in the handler")

    scene.bell.notification_handler = handler
    scene.manager.notify("Bell")
    await trio.testing.wait_all_tasks_blocked()
    if not scene.caller.done.is_set():
        scene.manager.refuses_locks = False
        scene.manager.notify("Echo")
        scene.manager.go_on()


async def handler_disconnects(scene: Scene) -> None:
    disconnected = trio.Event()

    async def handler(_: int) -> None:
        await scene.client.disconnect()
        disconnected.set()

    scene.bell.notification_handler = handler
    scene.manager.notify("Bell")
    await trio.testing.wait_all_tasks_blocked()
    scene.manager.say_goodbye()
    await disconnected.wait()


FAULTS: dict[str, tuple[Callable[[Scene], Awaitable[None]], float]] = {
    "cancelled": (cancelled, 2),
    "sibling": (sibling, 2),
    "nursery": (nursery, 2),
    "time out": (time_out, PATIENCE + 2),
    "closed": (closed, 1),
    "reset": (reset, 1),
    "stalled": (stalled, 1.5 * 5 + 60 + 1),
    "garbage": (garbage, 1),
    "restart": (restart, 1),
    "refused": (refused, 1),
    "another refused": (another_refused, 0),
    "missing": (missing, 1.5 * 5),
    "moved": (moved, 1.5 * 5),
    "handler raises": (handler_raises, 1),
    "handler disconnects": (handler_disconnects, 2),
}
"""Faults, and seconds within which the caller must get its outcome.

Two seconds are for goodbyes, one for the next request for a lock; `probe_after` is 5 and `unresponsive_after` 60."""

OUTCOMES: dict[str, type[Exception]] = {
    "lost": ConnectionLost,
    "garbage": StreamCorrupted,
    "gone": ServiceLost,
    "late": ReplyTimeout,
    "refused": ManagerError,
    "no conn": ConnectError,
    "no Mgr": HandshakeError,
    "too slow": ConnectTimeout,
}


# ---- the table ----


def rows(table: str) -> Iterator[tuple[str, str, str]]:
    """Yield moment, fault and the text of their cell."""
    head, *lines = table.strip("\n").splitlines()
    faults = [fault.strip() for fault in head.split("|")][1:]
    for line in lines:
        moment, *cells = (cell.strip() for cell in line.split("|"))
        for fault, cell in zip(faults, cells, strict=True):
            yield moment, fault, cell


CELLS = {
    (moment, fault): cell
    for table in (CONNECTION_FAULTS, SERVICE_FAULTS)
    for moment, fault, cell in rows(table)
}


def test_the_table_has_a_cell_for_each_moment_and_fault():
    assert set(CELLS) == {(moment, fault) for moment in MOMENTS for fault in FAULTS}
    assert {cell for cell in CELLS.values() if cell.startswith("-")} == set(REASONS)


@pytest.mark.parametrize(
    ("moment", "fault", "cell"),
    [
        pytest.param(moment, fault, cell, id=f"{moment}: {fault}")
        for (moment, fault), cell in CELLS.items()
        if cell not in REASONS
    ],
)
async def test_each_fault_gives_the_caller_an_outcome_and_leaves_nothing_behind(
    moment: str,
    fault: str,
    cell: str,
    network: Network,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.ERROR)
    break_it, seconds = FAULTS[fault]
    expected = cell.removesuffix(" x")
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as test:
        scene = Scene(
            network,
            monkeypatch,
            timeout=PATIENCE if fault == "time out" else None,
            in_the_nursery=fault == "nursery",
        )
        test.start_soon(scene.lab.serve)
        await test.start(scene.application.run)

        await MOMENTS[moment](scene)
        assert not scene.caller.done.is_set()
        began = trio.current_time()
        await break_it(scene)
        began += await let_the_person_answer(scene)
        with trio.fail_after(NEVER):
            await scene.caller.done.wait()
        if expected == "too slow":
            seconds = (scene.timeout or 10) + 2
        elif fault == "stalled" and scene.person is not None:
            seconds = 60 + 60  # by now the interval between probes is one minute
        assert trio.current_time() - began <= seconds

        check_what_the_caller_was_told(scene, expected)
        if cell.endswith("x"):
            await check_that_it_is_dead(scene)
        else:
            await check_that_it_is_of_use(scene)
            await scene.client.disconnect()
        await check_the_application(scene, fault)
        test.cancel_scope.cancel()
    network.assert_all_closed()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    errors = [record.message for record in caplog.records]
    if fault == "handler raises":
        assert [error.split(":")[0] for error in errors] == [
            "exception in the notification handler for 'Bell'"
        ]
    else:
        assert errors == []


async def let_the_person_answer(scene: Scene) -> float:
    """Answer the question to a person, if there is one, after some time, and return these seconds."""
    if scene.person is None:
        return 0
    await trio.testing.wait_all_tasks_blocked()
    seconds = 0.0
    if not scene.caller.done.is_set():
        before = trio.current_time()
        await trio.sleep(NEVER)
        assert not scene.caller.done.is_set()  # no fault limits the time of a person
        seconds = trio.current_time() - before
    scene.person.answers.set()
    return seconds


def check_what_the_caller_was_told(scene: Scene, expected: str) -> None:
    caller = scene.caller
    assert caller.cancelled == (expected == "cancel"), caller.error
    if expected in {"cancel", "right", "quiet"}:
        assert caller.error is None
        if expected == "right":
            assert caller.is_right(caller.value), caller.value
        return
    kind = OUTCOMES[expected.removesuffix("?")]
    assert type(caller.error) is kind, repr(caller.error)
    assert getattr(caller.error, "may_have_run", False) == expected.endswith("?"), caller.error


def check_that_nothing_is_open(client: Client) -> None:
    protocol = client._session.connection.protocol
    assert protocol.in_flight == 0
    assert protocol.outbox.unsent == 0
    assert not protocol.outbox
    assert protocol.outbox.gate is None
    for queue in (
        protocol.open,
        protocol._acknowledged.abandoned,
        protocol._services.linking,
        protocol._refusals.barriers,
    ):
        assert not queue
    assert not client._session.connection._queue.rest_size


async def check_that_it_is_of_use(scene: Scene) -> None:
    """Check that it works, with late answers, a Service that has reconnected, and a call."""
    client, manager = scene.client, scene.manager
    assert client.is_connected()
    manager.refuses_locks = False
    manager.go_on()
    scene.lab.services.setdefault("Echo", "vm:77")
    with trio.fail_after(1):
        if "Echo" not in client._session.links.services:
            scene.link = await client.link("Echo")
        assert await scene.link.add(1, 2) == 3
    await trio.testing.wait_all_tasks_blocked()
    check_that_nothing_is_open(client)
    # No link or lock that would never be released, and none that only the client believes to have, except
    # those that ended with a Service.
    for held, known in (
        (manager.links, set(client._session.links.services)),
        (manager.locks, set(client._session.locks._held)),
    ):
        assert held <= known
        assert known - scene.lab.removed <= held


async def check_that_it_is_dead(scene: Scene) -> None:
    """Check that calls fail immediately, and that another connection can be made."""
    before = trio.current_time()
    if scene.has_client:
        if not scene.client._session.connection.closed.is_set():
            await (
                scene.client._session.connection.closed.wait()
            )  # the goodbye after the cancellation of a nursery
            assert trio.current_time() - before <= 2
        before = trio.current_time()
        assert not scene.client.is_connected()
        for call in (scene.bell.add, scene.client.identities):
            with pytest.raises(ConnectionLost) as lost:
                await call()
            assert lost.value.may_have_run is False
        assert trio.current_time() == before
        check_that_nothing_is_open(scene.client)
        await scene.client.disconnect()
    await trio.testing.wait_all_tasks_blocked()
    scene.network.assert_all_closed()
    scene.lab.handshake = "at once"
    scene.lab.withheld.clear()
    scene.lab.services.setdefault("Echo", "vm:77")
    async with connect() as client, client.link("Echo") as link:
        assert await link.add(1, 2) == 3
    assert scene.lab.managers[-1].links == set()


async def check_the_application(scene: Scene, fault: str) -> None:
    """Check that its nursery raises the exceptions of its own tasks only."""
    application = scene.application
    application.is_over.set()
    await application.has_ended.wait()
    if fault in {"sibling", "nursery"}:
        assert isinstance(application.error, ExceptionGroup)
        assert [type(error) for error in application.error.exceptions] == [ZeroDivisionError]
    else:
        assert application.error is None
