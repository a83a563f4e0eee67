"""Locks of a client that reconnects: they are reported lost, and never acquired again silently."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from msl_network_trio import Client, ConnectionLost, Link, LockLost, connect
from tests.client.peer import Network, Peer
from tests.client.test_requests import start


async def accept(network: Network) -> Peer:
    """Accept a connection of the client, which asks for an answer before it is connected."""
    peer = await network.accept()
    await peer.shake_hands()
    line = await peer.line()
    peer.reply(line["uid"], True)
    return peer


class Session:
    """A client that reconnects, with a link, and the scripted Manager."""

    def __init__(self, network: Network, client: Client, link: Link, peer: Peer) -> None:
        self.network = network
        self.client = client
        self.link = link
        self.peer = peer

    async def grant(self) -> None:
        self.peer.reply(await self.peer.expect("acquire_lock"), ["Client[vm:1]"])

    async def lose_connection(self) -> None:
        self.peer.transport.close()
        await self.client._session.connection.closed.wait()

    async def accept_again(self) -> None:
        """Accept the next connection, and the link."""
        self.peer = await accept(self.network)
        await self.peer.link()

    async def serve_one(self, attribute: str, value: object) -> None:
        self.peer.reply(await self.peer.expect(attribute), value)


@pytest.fixture
async def session(network: Network, autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:
        peers: list[Peer] = []

        async def manager() -> None:
            peers.append(await accept(network))
            await peers[0].link()

        nursery.start_soon(manager)
        client = await connect(reconnect=True)
        link = await client.link("Echo")
    session = Session(network, client, link, peers[0])
    yield session
    session.peer.transport.close()
    await client.disconnect()


async def test_a_scope_is_cancelled_and_the_link_works_again_without_the_lock(session: Session):
    async def scope() -> None:
        async with session.link.acquire_lock():
            await session.link.slow()

    async with trio.open_nursery() as nursery:
        scoped = await start(nursery, scope)
        await session.grant()
        await session.peer.expect("slow")
        await session.lose_connection()
        await scoped.done.wait()
        assert isinstance(scoped.error, LockLost)
        await session.accept_again()
        call = await start(nursery, session.link.add, 1, 2)
        await session.serve_one("add", 3)  # the lock was not requested again
    assert call.value == 3


async def test_without_a_scope_requests_raise_until_the_lock_is_released(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, session.link.acquire_lock)
        await session.grant()
        await held.done.wait()
        await session.lose_connection()
        with pytest.raises(LockLost):
            await session.link.add(1, 2)
        await session.accept_again()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(LockLost, match="'Echo' Service was lost") as raised:
                await session.link.add(1, 2)
            assert isinstance(raised.value.__cause__, ConnectionLost)
            with pytest.raises(LockLost):
                session.link.add(1, 2, asynchronous=True)
            with pytest.raises(LockLost):
                await session.link.request("add", (1, 2))
        # Nor does another link with the Service help.
        linking = await start(nursery, session.client.link, "Echo")
        await session.peer.link()
        await linking.done.wait()
        with pytest.raises(LockLost):
            await linking.value.add(1, 2)
        released = await start(nursery, session.link.release_lock)
        await session.serve_one("release_lock", [])
        await released.done.wait()
        for link in (session.link, linking.value):
            call = await start(nursery, link.add, 1, 2)
            await session.serve_one("add", 3)
            await call.done.wait()
            assert call.value == 3


async def test_a_lost_lock_is_released_locally_while_the_client_is_away(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, session.link.acquire_lock)
        await session.grant()
        await held.done.wait()
        await session.lose_connection()
        assert await session.link.release_lock() == []
        call = await start(nursery, session.link.add, 1, 2)
        await session.accept_again()
        await session.serve_one("add", 3)
    assert call.value == 3


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_lock_is_acquired_when_the_client_is_back(session: Session, is_lost):
    async with trio.open_nursery() as nursery:
        if is_lost:
            held = await start(nursery, session.link.acquire_lock)
            await session.grant()
            await held.done.wait()
        await session.lose_connection()

        async def scope() -> object:
            async with session.link.acquire_lock():
                return await session.link.add(1, 2)

        scoped = await start(nursery, scope)
        await session.accept_again()
        await session.grant()
        await session.serve_one("add", 3)
        await session.serve_one("release_lock", [])
    assert scoped.value == 3


async def test_when_the_client_gives_up_requests_raise_the_loss_of_the_connection(session: Session):
    async with trio.open_nursery() as nursery:
        held = await start(nursery, session.link.acquire_lock)
        await session.grant()
        await held.done.wait()
    await session.lose_connection()
    await session.client.disconnect()
    with pytest.raises(ConnectionLost):
        await session.link.add(1, 2)
