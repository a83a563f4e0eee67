"""The state of a Service, kept apart from the attributes of its subclass.

A subclass may be the driver of an instrument, with attributes of its own called ``_port``, ``_identity`` or
``_name``. So all that the base class keeps is one object, in the ``__dict__`` of the Service under a name
that no attribute of a class can have. The base class has no private methods either.

Some private attributes of the base class of msl-network can still be read, see `PRIVATE_NAMES`, as long as
no subclass uses the name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

if TYPE_CHECKING:
    from msl_network_trio.service.connection import ServiceConnection

_KEY: Final = "_msl_network_trio.service"
_MISSING: Final = object()


@attrs.define(eq=False)
class State:
    """What is known about a Service.

    Attributes:
        name: Its name.
        max_clients: See `Service.max_clients`.
        max_workers: Maximum number of plain methods that run at a time.
        ignored: The attributes that the identity leaves out.
        tasks: The tasks of `Service.add_tasks`.
        identity: What it tells the Manager; None before the first start.
        address_manager: See `Service.address_manager`.
        network_name: ``"name[HOST:port]"`` as the Manager calls it.
        username: The name of the user that it was started with.
        port: See `Service.port`.
        loop_thread_id: See `Service.loop_thread_id`.
        connection: Its connection; None while there is none.
        dialling: The scope in which it connects; None while it does not.
        is_running: Whether it runs.
        is_stopped: Whether it is to end, or not to begin.
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
    connection: ServiceConnection | None = None
    dialling: trio.CancelScope | None = None
    is_running: bool = False
    is_stopped: bool = False

    def __str__(self) -> str:
        if self.connection is None:
            return f"<{self.name} Service, not connected>"
        return f"<{self.name} Service manager={self.address_manager} port={self.port}>"

    def stop(self) -> None:
        """End it in order: methods that are at work have a little time, and no more requests are accepted."""
        self.is_stopped = True
        if self.connection is not None:
            self.connection.stop()
        elif self.dialling is not None:
            self.dialling.cancel()


def state_of(service: object) -> State:
    """Return what is known about a Service.

    Raises:
        RuntimeError: The ``__init__`` of a subclass has not called that of the base class, or not yet.
    """
    state: State | None = service.__dict__.get(_KEY)
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


def set_state(service: object, state: State) -> None:
    """Set what is known about a Service; no ``__setattr__`` of a subclass sees it."""
    service.__dict__[_KEY] = state


# ---- the private attributes of msl-network ----


def _gone(advice: str) -> Callable[[State], Any]:
    def read(_: State) -> Any:
        raise AttributeError(advice)

    return read


_NO_ASYNCIO: Final = "a Service runs in Trio, which has no {}; {}"
_EMIT: Final = "emit_notification() may be called from any thread, and nursery starts tasks"
_SECRET: Final = "a Service does not keep passwords"

PRIVATE_NAMES: Final[dict[str, Callable[[State], Any]]] = {
    "_address_manager": lambda state: state.address_manager,
    "_executor": _gone("max_workers= sets the number of threads in which plain methods run"),
    "_futures": _gone("a Service has no list of the requests that it carries out; see its request"),
    "_identity": lambda state: state.identity,
    "_ignore_attributes": lambda state: state.ignored,
    "_loop": _gone(_NO_ASYNCIO.format("event loop of asyncio", _EMIT)),
    "_loop_thread_id": lambda state: state.loop_thread_id,
    "_max_clients": lambda state: state.max_clients,
    "_name": lambda state: state.name,
    "_network_name": lambda state: state.network_name,
    "_password": _gone(_SECRET),
    "_password_manager": _gone(_SECRET),
    "_port": lambda state: state.port,
    "_queue": _gone(_NO_ASYNCIO.format("asyncio.Queue", _EMIT)),
    "_reader": _gone(_NO_ASYNCIO.format("asyncio.StreamReader", _EMIT)),
    "_tasks": lambda state: state.tasks,
    "_username": lambda state: state.username,
    "_writer": _gone(_NO_ASYNCIO.format("asyncio.StreamWriter", _EMIT)),
}
"""The private attributes of the base class of msl-network 1.0.0, and what is read of them here."""


class PrivateName:
    """Descriptor of a private attribute that gives way to any other definition of the name.

    What an instance sets, and what another base class defines, behaves as if this did not exist.

    Args:
        owner: The class that has it.
        name: The name.
        read: Returns the value.
    """

    def __init__(self, owner: type, name: str, read: Callable[[State], Any]) -> None:
        self._owner = owner
        self._name = name
        self._read = read

    def _other(self, cls: type) -> Any:
        """Return what another base class has under this name."""
        bases = cls.__mro__
        for base in bases[bases.index(self._owner) + 1 :]:
            if self._name in vars(base):
                return vars(base)[self._name]
        return _MISSING

    def __get__(self, service: Any, cls: type) -> Any:
        other = self._other(cls)
        if service is None:
            if other is _MISSING:
                raise AttributeError(f"type object {cls.__name__!r} has no attribute {self._name!r}")
            return getattr(super(self._owner, cls), self._name)
        own = service.__dict__
        if self._name in own and not hasattr(type(other), "__set__"):
            return own[self._name]
        if other is not _MISSING:
            return getattr(super(self._owner, service), self._name)
        return self._read(state_of(service))

    def __set__(self, service: Any, value: Any) -> None:
        other = self._other(type(service))
        if hasattr(type(other), "__set__"):
            type(other).__set__(other, service, value)
        else:
            service.__dict__[self._name] = value

    def __delete__(self, service: Any) -> None:
        other = self._other(type(service))
        if hasattr(type(other), "__delete__"):
            type(other).__delete__(other, service)
        elif self._name in service.__dict__:
            del service.__dict__[self._name]
        else:
            raise AttributeError(self._name)


def add_private_names(owner: type) -> None:
    """Add `PRIVATE_NAMES` to the base class; type checkers do not see them, and need not."""
    for name, read in PRIVATE_NAMES.items():
        setattr(owner, name, PrivateName(owner, name, read))
