"""Safe states at Managers of both kinds: the actions need neither the connection of the client nor a link."""

from __future__ import annotations

import logging
import math

import pytest
import trio

from msl_network_trio import Client, Link, LockLost, ManagerError, connect, safe_state, sync
from msl_network_trio.client.client import client_session
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


class Broken(Exception):
    """What the bodies of these tests raise."""


async def cut(client) -> None:
    """End the connection of a client without a goodbye."""
    connection = client_session(client).connection
    connection._end_before(-math.inf)
    await connection.closed.wait()


async def link_with_one(client: Client) -> Link:
    """Link with the Service One, as soon as the Manager knows that its only client is gone."""
    while True:
        try:
            return await client.link("One")
        except ManagerError:
            await trio.sleep(0.01)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_actions_reach_a_service_that_another_client_has_locked(lab: Manager, is_cut, caplog):
    caplog.set_level(logging.INFO)
    with trio.fail_after(PATIENCE):
        async with connect(**lab.arguments()) as other, connect(**lab.arguments()) as client:
            one = await client.link("One")
            with pytest.raises(Broken) as raised:
                async with safe_state(one, ("same", 0), "prop"):
                    if is_cut:
                        await cut(client)
                    else:
                        await client._session.connection.requests.request("Manager", "unlink", ("One",))
                    theirs = await link_with_one(other)  # which takes its only place
                    await theirs.acquire_lock()
                    raise Broken
            await theirs.unlink()
        assert not hasattr(raised.value, "__notes__")
        assert "the safe state of 'One' is reached" in caplog.text


async def test_a_body_that_holds_a_lock_is_left_in_a_safe_state(lab: Manager):
    with trio.fail_after(PATIENCE):
        async with connect(**lab.arguments()) as other, connect(**lab.arguments()) as client:
            echo, theirs = await client.link("Echo"), await other.link("Echo")
            async with theirs.notifications() as stream:
                with pytest.raises(LockLost) as raised:
                    async with echo.acquire_lock(shared=True), safe_state(echo, ("notify", "off")):
                        await cut(client)
                        await trio.sleep_forever()
                assert (await anext(stream)).args == ["off"]
            assert not hasattr(raised.value, "__notes__")


def test_a_blocking_body_is_left_in_a_safe_state(lab: Manager):
    called = []
    with sync.connect(**lab.arguments()) as client:
        link = client.link("One")
        state = sync.safe_state(link, ("same", 0), lambda: called.append(1), ("fail", "interlock"))
        with pytest.raises(Broken) as raised, state:
            client._portal.call(cut, sync.to_async(client))
            raise Broken
        assert called == [1]
        (note,) = raised.value.__notes__
        assert "fail('interlock'): RemoteError: " in note
        assert "ValueError: interlock" in note
