"""Private attributes of msl-network's base class that can still be read, unless a subclass uses the name.

Drivers written for msl-network read some of them. Each is a descriptor that yields to any other definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msl_network_trio.service.state import ServiceState, state_of

_MISSING: Final = object()


def _gone(advice: str) -> Callable[[ServiceState], Any]:
    """Return a reader that raises AttributeError with the advice."""

    def read(_: ServiceState) -> Any:
        raise AttributeError(advice)

    return read


_NO_ASYNCIO: Final = "a Service runs in Trio, which has no {}; {}"
_EMIT: Final = "emit_notification() may be called from any thread, and nursery starts tasks"
_SECRET: Final = "a Service does not keep passwords"

PRIVATE_NAMES: Final[dict[str, Callable[[ServiceState], Any]]] = {
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
"""The private attributes of the base class of msl-network 1.0.0, and the functions that read them here."""


class PrivateName:
    """Descriptor of a private attribute that yields to any other definition of the name.

    What an instance sets, and what another base class defines, behaves as if this descriptor did not exist.

    Args:
        owner: The class that has the descriptor.
        name: The name of the attribute.
        read: Returns the value.
    """

    def __init__(self, owner: type, name: str, read: Callable[[ServiceState], Any]) -> None:
        self._owner = owner
        self._name = name
        self._read = read

    def _other(self, cls: type) -> Any:
        """Return the definition of the name in another base class."""
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
    """Add `PRIVATE_NAMES` to the base class; type checkers do not see them."""
    for name, read in PRIVATE_NAMES.items():
        setattr(owner, name, PrivateName(owner, name, read))
