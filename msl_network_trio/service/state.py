"""The state of a Service, kept apart from the attributes of its subclass.

A subclass may be the driver of an instrument, with attributes of its own called ``_port``, ``_identity`` or
``_name``. So the base class keeps one object, in the ``__dict__`` of the Service under a name that no
attribute of a class can have. The base class has no private methods either; `private_names` keeps those
private attributes of msl-network readable that no subclass uses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from msl_network_trio.exceptions import ConnectionLost

if TYPE_CHECKING:
    from msl_network_trio.service.connection import ServiceConnection


class RunningSession(Protocol):
    """One run of a Service: a `ServiceSession`."""

    @property
    def nursery(self) -> trio.Nursery | None:
        """See `ServiceSession.nursery`."""

    def emit(self, args: Any, kwargs: Any) -> None:
        """See `ServiceSession.emit`."""

    def stop(self) -> None:
        """See `ServiceSession.stop`."""


_KEY: Final = "_msl_network_trio.service"


@attrs.define(eq=False)
class ServiceState:
    """The state of one Service.

    Attributes:
        name: The name of the Service.
        max_clients: See `Service.max_clients`.
        max_workers: Maximum number of plain methods that run at a time.
        ignored: The attributes that the identity leaves out.
        tasks: The tasks of `Service.add_tasks`.
        identity: The identity for the Manager; None before the first start.
        address_manager: See `Service.address_manager`.
        network_name: ``"name[HOST:port]"`` as the Manager calls it.
        username: The name of the user that the Service was started with.
        port: See `Service.port`.
        loop_thread_id: See `Service.loop_thread_id`.
        session: What outlives the connections of the present run; None while the Service does not run.
        connection: The connection; None while there is none.
        is_running: Whether the Service runs.
        is_stopped: Whether the Service is to end, or not to begin.
    """

    name: str
    max_clients: int
    max_workers: int
    ignored: list[str]
    tasks: list[Callable[[], Awaitable[Any]] | Coroutine[Any, Any, Any]] = attrs.Factory(list)
    identity: dict[str, Any] | None = None
    address_manager: str | None = None
    network_name: str = "<UNKNOWN>"
    username: str | None = None
    port: int | None = None
    loop_thread_id: int | None = None
    session: RunningSession | None = None
    connection: ServiceConnection | None = None
    is_running: bool = False
    is_stopped: bool = False

    def __str__(self) -> str:
        if self.connection is None:
            return f"<{self.name} Service, not connected>"
        return f"<{self.name} Service manager={self.address_manager} port={self.port}>"

    def cannot_emit(self) -> ConnectionLost:
        """Return the error for a notification of a Service that is not connected."""
        return ConnectionLost(f"The {self.name!r} Service is not connected, it cannot emit a notification")

    def stop(self) -> None:
        """Start an orderly shutdown; methods that are running have some seconds to finish."""
        self.is_stopped = True
        if self.session is not None:
            self.session.stop()


def state_of(service: object) -> ServiceState:
    """Return the state of a Service.

    Raises:
        RuntimeError: The ``__init__`` of a subclass has not called that of the base class, or not yet.
    """
    state: ServiceState | None = service.__dict__.get(_KEY)
    if state is None:
        name = type(service).__name__
        raise RuntimeError(
            f"{name}.__init__() has not called super().__init__(), which every Service has to do before it "
            "uses anything of its base class"
        )
    return state


def has_state(service: object) -> bool:
    """Return whether the ``__init__`` of the base class has been called."""
    return _KEY in service.__dict__


def set_state(service: object, state: ServiceState) -> None:
    """Set the state of a Service; no ``__setattr__`` of a subclass sees it."""
    service.__dict__[_KEY] = state
