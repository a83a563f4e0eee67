"""Peers of a Manager on real sockets."""

from __future__ import annotations

import contextlib

import trio

from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.trust import client_context
from msl_network_trio.manager.server import Manager
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import open_tls
from tests.manager.wires import Wire
from tests.protocol.network import notification, reply, request
from tests.transport.certificates import ordinary

LIMIT = 20.0
"""How many seconds a step may take before the test has failed."""


OPENED: list[Stream] = []
"""What the test has opened, for the fixture `everything_is_closed`."""


async def reach(manager: Manager, host: str = "127.0.0.1") -> Wire:
    if manager.certificate is None:
        transport = await open_tcp(host, manager.port)
    else:
        context = client_context(ordinary().pem, check_hostname=True)
        transport, _ = await open_tls(host, manager.port, context)
    OPENED.append(transport)
    return Wire(transport)


async def dial(manager: Manager, name: str = "C", kind: str = "client") -> Wire:
    wire = await reach(manager)
    await wire.enter(name, kind)
    return wire


@contextlib.asynccontextmanager
async def others_are_served(manager: Manager):
    """A client and a Service that must not notice anything."""
    with trio.fail_after(LIMIT):
        service, client = await dial(manager, "Echo", "service"), await dial(manager, "Good")
        await client.ask(MANAGER, "link", "Echo")
        yield
        await client.send(request("Echo", "e", 1))
        await service.send(notification("Echo", 0), reply(await service.line(), 1))
        assert [(await client.line())["result"] for _ in range(2)] == [[[0], {}], 1]
