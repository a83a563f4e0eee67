"""The session of a client: its connection can be replaced, and its state is not copied."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from msl_network_trio import ConnectionLost, LinkBroken, connect
from msl_network_trio.client.end_reason import EndReason
from msl_network_trio.client.link import link_state
from tests.client.peer import Network, served


class Requests:
    """Stand-in for the requests of another connection."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    async def request(self, *arguments: Any) -> str:
        self.made.append(arguments[:3])
        return "of the other connection"

    def start(self, *arguments: Any) -> str:
        self.made.append(arguments[:3])
        return "started"


async def test_methods_ask_the_link_for_its_route_at_each_call(network: Network):
    async with served(network), connect() as client, client.link("Echo") as link:
        state, add = link_state(link), link.add
        assert await add(1, 2) == 3
        other, first = Requests(), state.route
        state.route = other
        try:
            assert await add(3, 4) == "of the other connection"
            assert add(5, 6, asynchronous=True) == "started"
            assert await link.request("add", (7, 8)) == "of the other connection"
        finally:
            state.route = first
        assert other.made == [("Echo", "add", (3, 4)), ("Echo", "add", (5, 6)), ("Echo", "add", (7, 8))]
        assert await add(1, 2) == 3


async def test_blocking_methods_ask_the_link_for_its_route_at_each_call(network: Network):
    async with served(network), connect() as client, client.link("Echo") as link:
        add, state = link.sync.add, link_state(link)
        assert await trio.to_thread.run_sync(add, 1, 2) == 3
        made: list[Any] = []
        first = state.thread_route
        state.thread_route = SimpleNamespace(request=lambda *arguments: made.append(arguments[:3]))
        try:
            await trio.to_thread.run_sync(add, 3, 4)
        finally:
            state.thread_route = first
        assert made == [("Echo", "add", (3, 4))]


async def test_the_forms_of_a_link_are_notified_when_it_is_broken(network: Network):
    async with served(network), connect() as client:
        link = await client.link("Echo")
        blocking = link.sync
        methods = link.add, blocking.add
        await link.unlink()
        for form in (link, blocking):
            assert "add" not in vars(form)
            with pytest.raises(LinkBroken):
                _ = form.add
        with pytest.raises(LinkBroken):
            methods[0]()
        with pytest.raises(LinkBroken):
            await trio.to_thread.run_sync(methods[1])


async def test_a_session_cannot_be_copied(network: Network):
    async with served(network), connect() as client:
        with pytest.raises(TypeError, match=r"<Client manager=.* cannot be copied or pickled"):
            copy.copy(client._session)


def test_the_first_reason_for_the_end_counts_and_one_of_the_reader_before_a_failure_to_write():
    reason = EndReason("lab:1875")
    assert str(reason.final()) == "Disconnected from Manager[lab:1875]"
    reason.set_write_error(ConnectionLost("cannot write"))
    assert str(reason.final()) == "The connection to Manager[lab:1875] was lost: cannot write"
    reason.set_silent(60)
    reason.set_lost(ConnectionLost("cannot read"))
    assert str(reason.final()) == "Manager[lab:1875] has sent nothing for 60 seconds"
