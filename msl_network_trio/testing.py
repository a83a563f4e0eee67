"""Helpers for tests of programs that use MSL-Network: a Manager with Services, in memory, in two lines.

.. code-block:: python

    async def test_the_mean_is_logged():
        async with open_lab(FakeService("DMM", {"read": lambda: 1.5})) as lab:
            assert await my_program(**lab.connect_kwargs()) == 1.5

There are no sockets, no threads and no files. Such a test takes milliseconds, also for a program that waits
for hours if the clock is ``trio.testing.MockClock(autojump_threshold=0)``. (Plain methods of a real `Service`
run in worker threads, which such a clock does not wait for: use ``async`` methods in such a test.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.client import Client, connect
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.opening import ManagerOpening, open_manager
from msl_network_trio.manager.server import Manager
from msl_network_trio.service.service import Service
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.memory import MemoryStream

logger = get_logger(__name__)


@attrs.frozen
class Call:
    """A call that a client has requested of a `FakeService`."""

    attribute: str
    """The name of the attribute."""

    args: tuple[Any, ...] = ()
    """The positional arguments."""

    kwargs: dict[str, Any] = attrs.field(factory=dict)
    """The keyword arguments."""


class FakeService(Service):
    """A Service whose attributes are those of a dictionary.

    Callables, plain or async, are called in the Trio thread; the reply for any other attribute is its value.

    Args:
        name: The name of the Service.
        attributes: The attributes that clients can request, by name.
        max_clients: Maximum number of clients that are linked at a time; None: no limit.

    Attributes:
        calls: The calls so far, in order.

    Raises:
        ValueError: A name belongs to the base class, or begins with an underscore.
    """

    def __init__(
        self, name: str, attributes: Mapping[str, Any] | None = None, *, max_clients: int | None = None
    ) -> None:
        super().__init__(name=name, max_clients=max_clients, ignore_attributes="calls")
        self.calls: list[Call] = []
        for attribute, value in (attributes or {}).items():
            if attribute.startswith("_") or hasattr(Service, attribute) or attribute == "calls":
                raise ValueError(f"{attribute!r} cannot be an attribute of a FakeService")
            setattr(self, attribute, self._recorded(attribute, value) if callable(value) else value)

    def _recorded(self, attribute: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(Call(attribute, args, kwargs))
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call


class Lab:
    """A Manager with Services in memory, which `open_lab` opens.

    Attributes:
        manager: The Manager.
        services: The running Services, by name.
    """

    def __init__(self, manager: Manager, nursery: trio.Nursery) -> None:
        self.manager = manager
        self.services: dict[str, Service] = {}
        self._nursery = nursery
        self._transports: dict[Service, MemoryStream] = {}

    def connect_kwargs(self, **more: Any) -> dict[str, Any]:
        """Return the arguments with which `connect` and `LinkedClient` connect to the Manager.

        Args:
            more: Further arguments to add.
        """
        return {**self.manager.connect_kwargs(), **more}

    def connect(self, **kwargs: Any) -> AwaitableContext[Client]:
        """Connect a client: await it, or enter it with ``async with``.

        Args:
            kwargs: Further arguments of `~msl_network_trio.connect`.
        """
        return connect(**self.connect_kwargs(**kwargs))

    async def start(self, service: Service) -> None:
        """Start another Service, and wait until the Manager has accepted it.

        Raises:
            AuthenticationError: A Service with this name is running.
        """
        await self._nursery.start(self._run, service)
        self.services[service.name] = service

    async def kill(self, name: str) -> None:
        """End a Service as if its process had died, and wait until the Manager has removed it.

        Args:
            name: The name of the Service.

        Raises:
            KeyError: No Service with this name runs.
        """
        killed = self._entry(name)
        self._transports.pop(self.services.pop(name)).reset()
        # Not until the name is free: another Service may take it at once.
        while killed is not None and self._entry(name) == killed:
            await trio.lowlevel.checkpoint()

    def _entry(self, name: str) -> dict[str, Any] | None:
        """Return the entry of a Service, with its address, in the identity of the Manager."""
        entry: dict[str, Any] | None = self.manager.identity()["services"].get(name)
        return entry

    async def _run(self, service: Service, task_status: trio.TaskStatus[None]) -> None:
        async def dial() -> Stream:
            transport = await self.manager.dial()
            self._transports[service] = transport
            return transport

        kwargs = self.connect_kwargs(transport=dial)
        try:
            await service.run(**kwargs, task_status=task_status)
        except ConnectionLost:
            if service in self._transports:
                raise
            logger.debug("%r was killed", service)
        finally:
            self._transports.pop(service, None)
            if self.services.get(service.name) is service:
                del self.services[service.name]

    def __repr__(self) -> str:
        return f"<Lab with {', '.join(self.services) or 'no Services'} at {self.manager.name}>"


class LabOpening:
    """The async context manager that `open_lab` returns."""

    def __init__(self, services: tuple[Service, ...], manager: ManagerOpening) -> None:
        self._services = services
        self._manager = manager

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Lab:
        manager = await self._manager.__aenter__()
        try:
            # Not with 'async with', which would wrap an exception of the body in a group.
            self._nursery = trio.open_nursery()
            nursery = await self._nursery.__aenter__()
            lab = Lab(manager, nursery)
            try:
                for service in self._services:
                    await lab.start(service)
            except BaseException:
                await self._close_nursery(nursery)
                raise
        except BaseException:
            await self._manager.__aexit__(None, None, None)
            raise
        self._lab_nursery = nursery
        return lab

    async def _close_nursery(self, nursery: trio.Nursery) -> None:
        # Shielded, or a cancellation from outside would replace the exception of the body.
        nursery.cancel_scope.shield = True
        nursery.cancel_scope.cancel()
        await leave_nursery(self._nursery)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        try:
            await self._close_nursery(self._lab_nursery)
        finally:
            await self._manager.__aexit__(None, None, None)


def open_lab(*services: Service, auth_password: str | None = None) -> LabOpening:
    """Open a Manager with Services in memory, for the length of an ``async with`` block.

    Args:
        services: The Services to start, in order.
        auth_password: The password of the Manager; None: no authentication.

    Raises:
        AuthenticationError: Two Services have the same name.
    """
    return LabOpening(services, open_manager(in_memory=True, auth_password=auth_password))
