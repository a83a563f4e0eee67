"""Tests of keyword arguments: any name arrives, since settings come from files and other programs."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest
import trio

from msl_network_trio import Link, LinkedClient, Service, connect, sync
from msl_network_trio.manager.admin import AdminRequests
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import Database
from msl_network_trio.sync.link import notifications as notifications_of
from msl_network_trio.testing import FakeService

NAMES = [
    "self",
    "cls",
    "service",
    "attribute",
    "name",
    "args",
    "kwargs",
    "function",
    "func",
    "fn",
    "sync_fn",
    "call",
    "method",
    "link",
    "client",
    "request",
    "what",
    "uid",
    "error",
    "requester",
    "result",
    "handler",
    "twin",
    "worker",
    "message",
    "owner",
    "seconds",
    "linking",
]
SETTINGS = {name: number for number, name in enumerate(NAMES)}


class Lab(Service):
    """Methods of all kinds that take any keyword."""

    def plain(*args: Any, **settings: Any) -> Any:
        return settings

    async def task(*args: Any, **settings: Any) -> Any:
        return settings

    async def waiting(*args: Any, **settings: Any) -> Any:
        await trio.sleep(0)
        return settings

    def awaited(*args: Any, **settings: Any) -> Any:
        return args[0].task(**settings)

    def emit(self) -> None:
        """Emit a notification with these keywords, from a worker thread."""
        self.emit_notification(**SETTINGS)
        self.emit_notification_threadsafe(**SETTINGS)

    def __getattr__(self, name: str) -> Any:
        if name != "computed":
            raise AttributeError(name)
        return self.plain

    def shutdown_service(*args: Any, **settings: Any) -> Any:
        return settings


METHODS = ["plain", "task", "waiting", "awaited", "computed"]


@pytest.fixture
async def lab():
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(Lab().run, **manager.connect_kwargs()))
        async with LinkedClient("Lab", **manager.connect_kwargs()) as linked:
            yield linked
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", METHODS)
async def test_on_a_link_and_on_a_linked_client(lab, method):
    for thing in (lab, lab.link):
        assert await getattr(thing, method)(**SETTINGS) == SETTINGS
        assert await getattr(thing, method)(**SETTINGS, asynchronous=True, timeout=10) == SETTINGS


@pytest.mark.parametrize("method", METHODS)
async def test_on_the_blocking_forms(lab, method):
    for thing in (lab.sync, lab.link.sync):
        call = partial(getattr(thing, method), **SETTINGS)
        assert await trio.to_thread.run_sync(call) == SETTINGS
        future = await trio.to_thread.run_sync(partial(call, asynchronous=True))
        assert await trio.to_thread.run_sync(future.result, 10) == SETTINGS


@pytest.mark.parametrize("kind", ["Link", "LinkedClient", "sync.Link", "sync.LinkedClient"])
async def test_when_a_service_is_shut_down(lab, kind):
    thing = {
        "Link": lab.link,
        "LinkedClient": lab,
        "sync.Link": lab.link.sync,
        "sync.LinkedClient": lab.sync,
    }[kind]
    if kind.startswith("sync"):
        assert await trio.to_thread.run_sync(partial(thing.shutdown_service, **SETTINGS)) == SETTINGS
    else:
        assert await thing.shutdown_service(**SETTINGS) == SETTINGS


async def test_in_admin_requests(monkeypatch, tmp_path):
    asked = []

    async def answer(self: Any, request: Any, asking: Any) -> Any:
        asked.append(request.kwargs)
        return True

    monkeypatch.setattr(AdminRequests, "answer", answer)
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("admin", "pw", True)
    async with open_manager(in_memory=True, database=path) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(Lab().run, **manager.connect_kwargs()))
        login = {"username": "admin", "password": "pw"}
        async with LinkedClient("Lab", **manager.connect_kwargs(), **login) as linked:
            for client in (linked, linked.client):
                assert await client.admin_request("status", **SETTINGS)
                assert await client.admin_request(attrib="status")
            for client in (linked.sync, linked.client.sync):
                assert await trio.to_thread.run_sync(partial(client.admin_request, "status", **SETTINGS))
        nursery.cancel_scope.cancel()
    assert asked == [SETTINGS, {}, SETTINGS, {}, SETTINGS, SETTINGS]


async def test_in_notifications(lab):
    got: list[Any] = []
    all_are_there = trio.Event()

    def handle(*args: Any, **settings: Any) -> None:
        got.append(settings)
        if len(got) == 2:
            all_are_there.set()

    link = lab.link
    async with link.notifications() as stream:
        link.notification_handler = handle
        await link.emit()
        assert (await stream.__anext__()).kwargs == SETTINGS
        assert (await stream.__anext__()).kwargs == SETTINGS
    await all_are_there.wait()
    assert got == [SETTINGS, SETTINGS]
    link.notification_handler = Link.notification_handler.__get__(link)  # the one that does nothing
    await link.emit()


async def test_in_notifications_of_the_blocking_api(lab):
    got: list[Any] = []
    all_are_there = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def handle(*args: Any, **settings: Any) -> None:
        got.append(settings)
        if len(got) == 2:
            token.run_sync_soon(all_are_there.set)

    def use() -> None:
        link = lab.link.sync
        with notifications_of(link) as stream:
            link.notification_handler = handle
            link.emit()
            assert next(stream).kwargs == SETTINGS

    await trio.to_thread.run_sync(use)
    await all_are_there.wait()
    assert got == [SETTINGS, SETTINGS]


async def test_at_a_fake_service():
    service = FakeService("Fake", {"configure": lambda **settings: settings})
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(service.run, **manager.connect_kwargs()))
        async with connect(**manager.connect_kwargs()) as client, client.link("Fake") as link:
            assert await link.configure(**SETTINGS) == SETTINGS
        nursery.cancel_scope.cancel()


# ---- assigning to what belongs to the Service ----


class Meter(Service):
    """A Service with a method, a value and a property."""

    unit = "V"
    nothing = None
    text = "(not a signature, but it looks like one)"

    @property
    def level(self) -> int:
        """A value that changes."""
        return 5

    def read(self) -> int:
        """A method."""
        return 1


@pytest.fixture
async def meter():
    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(Meter().run, **manager.connect_kwargs()))
        yield manager.connect_kwargs()
        nursery.cancel_scope.cancel()


REASON = "^Assigning to '{}' would not reach the 'Meter' Service, whose value it is"


async def test_a_value_of_the_service_cannot_be_assigned(meter):
    async with LinkedClient("Meter", **meter) as linked:
        for thing in (linked.link, linked.link.sync, linked, linked.sync):
            for name in ("unit", "nothing", "level"):
                with pytest.raises(AttributeError, match=REASON.format(name)):
                    setattr(thing, name, 7)
                assert name not in vars(thing)
            for name in ("read", "anything", "text"):
                setattr(thing, name, 7)
                assert getattr(thing, name) == 7
                delattr(thing, name)
            thing.level = len  # a test replaces what would ask the Service
            assert thing.level("ab") == 2
            del thing.level
            thing._private = 7
            thing.notification_handler = None
        assert await linked.level() == 5


async def test_a_subclass_of_a_linked_client_has_attributes_of_its_own(meter):
    class Mine(LinkedClient):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__("Meter", **kwargs)
            self.level = 1

    async with Mine(**meter) as mine:
        mine.unit = "mV"
        assert (mine.level, mine.unit) == (1, "mV")

    class MineToo(sync.LinkedClient):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__("Meter", **kwargs)
            self.level = 1

    def use() -> None:
        with MineToo(**meter) as mine:
            mine.unit = "mV"
            assert (mine.level, mine.unit) == (1, "mV")

    await trio.to_thread.run_sync(use)


async def test_before_a_linked_client_is_open_nothing_is_known_of_its_service(meter):
    linked = LinkedClient("Meter", **meter)
    linked.level = 1
    async with linked:
        assert linked.level == 1


# ---- keyword arguments of a LinkedClient ----


async def open_async(**kwargs: Any) -> None:
    async with LinkedClient("Meter", **kwargs) as linked, linked.spawn():
        pass


async def open_blocking(**kwargs: Any) -> None:
    def use() -> None:
        with sync.LinkedClient("Meter", **kwargs) as linked, linked.spawn():
            pass

    await trio.to_thread.run_sync(use)


@pytest.mark.parametrize("opened", [open_async, open_blocking])
@pytest.mark.parametrize(
    ("misspelt", "hint"),
    [
        ("disable_tsl", "; did you mean 'disable_tls'?"),
        ("user_name", "; did you mean 'username'?"),
        ("certfile", "; did you mean 'cert_file'?"),
        ("Timeout", "; did you mean 'timeout'?"),
        ("colour", ""),
    ],
)
async def test_a_misspelt_argument_is_told_once(meter, caplog, opened, misspelt, hint):
    await opened(**meter, **{misspelt: "secret value"})
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        f"LinkedClient ignores the argument {misspelt!r}, which connect() does not have{hint}"
    ]


@pytest.mark.parametrize("opened", [open_async, open_blocking])
async def test_arguments_that_are_right_or_of_a_manager_are_not_told(meter, caplog, opened):
    await opened(**meter, timeout=10, username="x", auth_password="y", auth_login=False, log_level="INFO")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
