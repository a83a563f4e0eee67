"""Tests of log handlers that raise: client, Service and Manager lose no reply, thread or connection."""

from __future__ import annotations

import asyncio
import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import RemoteError, Service, connect
from msl_network_trio import logger as module
from msl_network_trio.manager.opening import open_manager


class Raising(logging.Handler):
    """A handler that raises for every record, in one of several ways."""

    def __init__(self, where: str) -> None:
        super().__init__(logging.DEBUG)
        self.where = where
        self.loggers: set[str] = set()
        if where == "filter":
            self.addFilter(self.refuse)

    def refuse(self, record):
        self.loggers.add(record.name)
        raise OSError(28, "No space left on device")

    def emit(self, record):
        if self.where == "recursion":
            self.emit(record)
        if self.where == "base":
            self.loggers.add(record.name)
            raise asyncio.CancelledError
        self.refuse(record)


@pytest.fixture(params=["emit", "filter", "recursion", "base"])
def handler(request, monkeypatch):
    monkeypatch.setattr(module, "failures", module.Failures())
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = Raising(request.param)
    log = logging.getLogger("msl_network_trio")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


class Failing(Service):
    unsendable = frozenset({1})

    def __init__(self):
        super().__init__(name="Failing", max_workers=1)

    def plain(self):
        raise ValueError("plain")

    async def task(self):
        raise ValueError("task")

    @property
    def computed(self):
        raise ValueError("computed")

    def tell(self):
        self.emit_notification(1)
        return 1

    def shutdown_handler(self):
        raise ValueError("shutdown handler")

    async def shutdown_service(self):
        return "bye"


async def test_a_network_whose_log_raises_works_all_the_same(handler):
    told = trio.Event()

    def notified(*args, **kwargs):
        told.set()
        raise ValueError("notification handler")

    async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
        kwargs = manager.connect_kwargs()
        service = Failing()
        await nursery.start(lambda task_status: service.run(**kwargs, task_status=task_status))
        async with connect(**kwargs) as client, client.link("Failing") as link:
            link.notification_handler = notified
            for _ in range(2):
                for name in ("plain", "task", "computed"):
                    with pytest.raises(RemoteError) as caught:
                        await getattr(link, name)()
                    assert caught.value.message == f"ValueError: {name}"
            assert await link.tell() == 1
            await told.wait()
            stranger = await manager.dial()
            await stranger.send_all(b'\xff{"\r\n')  # what is refused is logged, too
            await wait_all_tasks_blocked()
            stranger.close()
            assert await link.shutdown_service() == "bye"
    assert module.failures.count >= 10
    assert (
        handler.where == "recursion"
        or {
            "msl_network_trio.manager",
            "msl_network_trio.callbacks",
            "msl_network_trio.service.identity",
            "msl_network_trio.service.session",
            "msl_network_trio.service.error_reply",
        }
        <= handler.loggers
    )


def test_the_blocking_api_works_with_a_log_that_raises(handler):
    began, go_on = [], []

    async def main():
        async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
            kwargs = manager.connect_kwargs()
            service = Failing()
            await nursery.start(lambda task_status: service.run(**kwargs, task_status=task_status))
            client = await connect(**kwargs)
            await trio.to_thread.run_sync(work, client.sync.link)
            await client.disconnect()
            nursery.cancel_scope.cancel()

    def work(link_with):
        link = link_with("Failing")
        futures = [link.tell(asynchronous=True) for _ in range(3)]

        def callback(future):
            began.append(future)
            raise ValueError("callback")

        for future in futures:
            future.add_done_callback(callback)
        assert [future.result(10) for future in futures] == [1, 1, 1]
        assert link.tell() == 1
        go_on.append(True)

    trio.run(main)
    assert go_on == [True]
