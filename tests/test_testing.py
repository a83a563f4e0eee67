"""The helpers for tests of users: a network in memory."""

from __future__ import annotations

import time
from unittest.mock import AsyncMock, Mock

import pytest
import trio
import trio.testing

from msl_network_trio import (
    AuthenticationError,
    LinkedClient,
    RemoteError,
    Service,
    ServiceLost,
    connect,
)
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.testing import Call, FakeService, open_lab
from tests.patience import PATIENCE


async def test_two_lines_make_a_network():
    async with open_lab(FakeService("DMM", {"read": lambda: 1.5})) as lab:
        meter = await LinkedClient("DMM", **lab.connect_kwargs())
        assert await meter.read() == 1.5
        await meter.disconnect()


async def test_callables_values_and_coroutines_of_the_dictionary_are_served():
    def add(x: int, y: int = 2) -> int:
        return x + y

    async def slowly(value):
        await trio.sleep(0)
        return value

    fake = FakeService("Fake", {"add": add, "slowly": slowly, "serial": "A-17", "nothing": None})
    async with open_lab(fake) as lab, lab.connect() as client, client.link("Fake") as link:
        assert await link.add(1) == 3
        assert await link.slowly([1]) == [1]
        assert await link.serial() == "A-17"
        assert await link.nothing() is None
        attributes = link.service_attributes
    assert attributes["add"] == "(x: 'int', y: 'int' = 2) -> 'int'"
    assert attributes["serial"] == "A-17"
    assert "calls" not in attributes
    assert fake.calls == [Call("add", (1,)), Call("slowly", ([1],))]


async def test_mocks_can_be_served():
    mock = Mock(return_value=7)
    fake = FakeService("Fake", {"plain": mock, "awaited": AsyncMock(return_value=8)})
    async with open_lab(fake) as lab, lab.connect() as client, client.link("Fake") as link:
        assert await link.plain(1, x=2) == 7
        assert await link.awaited() == 8
    mock.assert_called_once_with(1, x=2)


async def test_an_exception_of_a_fake_reaches_the_caller():
    def fail():
        raise ZeroDivisionError("meter is empty")

    async with open_lab(FakeService("Fake", {"fail": fail})) as lab, lab.connect() as client:
        link = await client.link("Fake")
        with pytest.raises(RemoteError, match="meter is empty") as caught:
            await link.fail()
    assert caught.value.type_name == "ZeroDivisionError"


@pytest.mark.parametrize("name", ["_private", "emit_notification", "name", "run", "calls"])
def test_names_that_every_service_has_are_refused(name: str):
    with pytest.raises(ValueError, match=name):
        FakeService("Fake", {name: 1})


async def test_a_fake_can_emit_notifications():
    fake = FakeService("Fake")
    async with open_lab(fake) as lab, lab.connect() as client:
        link = await client.link("Fake")
        async with link.notifications() as stream:
            fake.emit_notification(1, unit="V")
            notification = await anext(stream)
    assert (notification.args, notification.kwargs) == ([1], {"unit": "V"})


async def test_hours_pass_in_no_time(autojump_clock):
    async def measure():
        await trio.sleep(3600)
        return "done"

    began = time.monotonic()
    async with open_lab(FakeService("Slow", {"measure": measure})) as lab, lab.connect() as client:
        link = await client.link("Slow")
        assert await link.measure() == "done"
    assert trio.current_time() >= 3600
    assert time.monotonic() - began < 30


async def test_a_killed_service_fails_its_callers_and_can_be_started_again():
    async def hang():
        await trio.sleep_forever()

    async with open_lab(FakeService("Fake", {"hang": hang})) as lab, lab.connect() as client:
        link = await client.link("Fake")
        reply = link.hang(asynchronous=True)
        await trio.testing.wait_all_tasks_blocked()
        await lab.kill("Fake")
        with pytest.raises(ServiceLost, match="may have been executed"):
            await reply
        with pytest.raises(ServiceLost, match="was refused"):
            await link.hang()
        with pytest.raises(KeyError):
            await lab.kill("Fake")
        await lab.start(FakeService("Fake", {"ping": lambda: "pong"}))
        assert await (await client.link("Fake")).ping() == "pong"


async def test_a_kill_ends_though_another_service_takes_the_name_at_once(monkeypatch):
    async with open_lab(FakeService("Fake")) as lab:
        protocol = lab.manager._protocol
        disconnect = protocol.disconnect

        def replace(peer):
            disconnect(peer)
            monkeypatch.undo()
            new_peer = Peer("localhost", 1)
            protocol.connect(new_peer)
            protocol.receive(
                new_peer, codec.encode({"result": {"type": "service", "name": "Fake", "attributes": {}}})
            )

        monkeypatch.setattr(protocol, "disconnect", replace)
        with trio.fail_after(PATIENCE):
            await lab.kill("Fake")
        assert lab.manager.identity()["services"]["Fake"]["address"] == "localhost:1"


async def test_plain_methods_of_a_real_service_work_too():
    class Meter(Service):
        def read(self, channel):
            return channel * 1.5

        def shutdown_service(self):
            return "bye"

    async with open_lab(Meter()) as lab, lab.connect() as client:
        link = await client.link("Meter")
        assert await link.read(2) == 3.0
        assert "Meter" in repr(lab)
        assert await link.shutdown_service() == "bye"
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(PATIENCE):
            while lab.services:
                await trio.lowlevel.checkpoint()
        assert "no Services" in repr(lab)


async def test_the_password_of_the_manager_is_asked_for():
    async with open_lab(auth_password="secret") as lab:
        async with lab.connect() as client:
            assert client.is_connected()
        with pytest.raises(AuthenticationError, match="Wrong Manager password"):
            await connect(**lab.connect_kwargs(password_manager="guess"))


async def test_two_services_of_one_name_are_an_error():
    with pytest.raises(AuthenticationError, match="'Fake' service is already running"):
        async with open_lab(FakeService("Fake"), FakeService("Fake")):
            pytest.fail("entered")


async def test_what_the_body_raises_comes_out_as_it_is():
    with pytest.raises(ValueError, match="mine"):
        async with open_lab(FakeService("Fake")):
            raise ValueError("mine")


async def test_what_the_body_raises_when_it_is_cancelled_is_not_lost(autojump_clock):
    with pytest.raises(ValueError, match="mine"), trio.move_on_after(5):
        async with open_lab(FakeService("Fake")):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


def test_nothing_is_opened_before_a_lab_is_entered():
    assert open_lab()  # outside Trio, too


async def test_nothing_is_left_behind_when_the_body_is_cancelled():
    with trio.CancelScope() as scope:
        async with open_lab(FakeService("Fake")) as lab:
            client = await lab.connect()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert lab.manager.closed.is_set()
    await client.disconnect()
    assert not client.is_connected()
