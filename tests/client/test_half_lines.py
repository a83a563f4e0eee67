"""Ends of a connection while a large request is being sent: half a line never looks like a regular end."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, ReplyTimeout, connect
from msl_network_trio.transport.memory import memory_pair
from tests.client.peer import Peer
from tests.service.peer import tcp_pair
from tests.transport.websockets import open_websocket_pair

LARGE = "x" * 10_000_000
"""More bytes than any stream accepts while the peer does not read."""


@attrs.define
class Scene:
    """A connection whose Manager reads nothing after the link."""

    nursery: trio.Nursery
    peer: Peer

    async def read_all(self) -> tuple[list[bytes], str]:
        """Read everything; return the lines, of which the last may be incomplete, and the kind of end."""
        received = b""
        try:
            while data := await self.peer.transport.receive():
                received += data
            end = "in order"
        except ConnectionLost:
            end = "lost"
        return received.splitlines(keepends=True), end


@pytest.fixture(params=["memory", "websocket", "tcp"])
async def scene(request, nursery):
    if request.param == "websocket":
        ours, theirs, *_ = await open_websocket_pair()
    else:
        ours, theirs = tcp_pair() if request.param == "tcp" else memory_pair()
    yield Scene(nursery, Peer(theirs, ours))
    theirs.close()


async def use(scene, end, **kwargs):
    """Connect, link, and end the connection while a large request is being sent."""

    async def dial():
        await trio.lowlevel.checkpoint()
        return scene.peer.client_end

    async def link_only():
        await scene.peer.shake_hands()
        await scene.peer.link()

    scene.nursery.start_soon(link_only)
    async with connect(transport=dial, **kwargs) as client:
        await end(client, await client.link("Echo"))


# ---- the end ----


async def give_up(link):
    with trio.move_on_after(0.05):
        await link.size(LARGE)


async def time_is_over(client, link):
    with pytest.raises(ReplyTimeout):
        await link.size(LARGE, timeout=0.05)


async def cancelled(client, link):
    await give_up(link)


async def disconnected_at_once(client, link):
    await give_up(link)
    await client.disconnect(timeout=0)


async def behind_others(client, link):
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(give_up, link)


async def with_a_lock(client, link):
    await give_up(link)
    with trio.move_on_after(0.05):
        async with link.acquire_lock():
            raise AssertionError("nobody has answered")


@pytest.mark.parametrize(
    "end",
    [
        time_is_over,
        cancelled,
        disconnected_at_once,
        behind_others,
        with_a_lock,
    ],
)
async def test_half_a_line_is_followed_by_a_reset(scene, end, monkeypatch):
    monkeypatch.setattr("msl_network_trio.client.client.GOODBYE_TIMEOUT", 0.05)
    monkeypatch.setattr("msl_network_trio.client.session.GOODBYE_TIMEOUT", 0.05)
    await use(scene, end)
    lines, how = await scene.read_all()
    assert how == "lost"
    assert len(b"".join(lines)) < len(LARGE)


@pytest.mark.parametrize("end", [cancelled, with_a_lock])
async def test_the_line_is_finished_and_the_goodbye_follows_if_there_is_time(scene, end, monkeypatch):
    monkeypatch.setattr("msl_network_trio.client.client.GOODBYE_TIMEOUT", 30)
    monkeypatch.setattr("msl_network_trio.client.session.GOODBYE_TIMEOUT", 30)
    over = trio.Event()

    async def run():
        await use(scene, end)
        over.set()

    scene.nursery.start_soon(run)
    await trio.sleep(0.2)
    lines = []
    with trio.fail_after(30):
        while not lines or lines[-1]["attribute"] != "__disconnect__":
            lines.append(await scene.peer.line())
        assert len(lines[0]["args"][0]) == len(LARGE)
        scene.peer.transport.close()
        await over.wait()
