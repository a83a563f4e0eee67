"""Methods of a Service, as attributes of a link.

`RemoteMethod` makes requests in the Trio thread; that of the blocking API derives from it.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any, Protocol, TypeVar

import trio

from msl_network_trio import arguments
from msl_network_trio.client.session import SessionLink
from msl_network_trio.client.signatures import parse_signature
from msl_network_trio.exceptions import PrivateAttribute
from msl_network_trio.visible import visible

M = TypeVar("M", bound="RemoteMethod")


class RemoteMethod:
    """A method of a Service, ready to be called: ``await link.add(1, 2)``."""

    __slots__ = ("_link", "_name")

    def __init_subclass__(cls) -> None:
        # The docstring of a subclass would hide the property of the instances.
        cls.__doc__ = RemoteMethod.__doc__  # type: ignore[method-assign]

    def __init__(self, link: SessionLink, name: str) -> None:
        self._link = link
        self._name = name

    @trio.lowlevel.enable_ki_protection
    def __call__(
        self, /, *args: Any, timeout: float | None = None, asynchronous: bool = False, **kwargs: Any
    ) -> Any:
        """Request the attribute from the Service.

        Args:
            *args: Positional arguments for the Service.
            timeout: Seconds to wait for the reply; see `Link.request`.
            asynchronous: Whether to return at once.
            **kwargs: Keyword arguments for the Service. To call a method that has arguments of the names of
                the two above, use `Link.request`.

        Returns:
            A coroutine that returns the result. With ``asynchronous=True`` a `Reply`; the request is on its
            way already.
        """
        link = self._link
        route = link.route or link.require_route(self._name)
        if asynchronous:
            arguments.flag("asynchronous", asynchronous)
            return route.start(link.service_name, self._name, args, kwargs, timeout)
        return route.request(link.service_name, self._name, args, kwargs, timeout)

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature in the identity of the Service."""
        signature = parse_signature(self._link.service_attributes.get(self._name))
        if signature is None:
            raise AttributeError("__signature__")
        return signature

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """The text for ``help``, from the identity of the Service."""
        return f"{self!r}, requested from a Service of MSL-Network."

    @property
    def __name__(self) -> str:
        """The name of the attribute."""
        return self._name

    def __repr__(self) -> str:
        signature = self._link.service_attributes.get(self._name, "")
        if signature != "" and not is_method(signature):
            signature = f" = {signature!r}"  # a constant or a property
        return visible(f"<{self._link.service_name}.{self._name}{signature}>")


class MethodCache:
    """Keeps methods of a Service that were used in the ``__dict__`` of the object.

    Python finds them there by itself. Without this, `__getattr__` makes a call of the client take 1.05 to
    1.37 times the CPU time.
    """

    @property
    @abstractmethod
    def service_attributes(self) -> dict[str, Any]:
        """Attributes of the Service. Only these are kept, since any number of other names can be tried."""

    def _keep(self, name: str, method: M) -> M:
        if name in self.service_attributes:
            self.__dict__[name] = method
        return method

    def _drop_methods(self) -> None:
        """Remove all methods, so that `__getattr__` is called again, because the link is broken."""
        for name in self.service_attributes:
            if isinstance(self.__dict__.get(name), RemoteMethod):
                self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for a copy, which makes methods of its own."""
        return {name: value for name, value in self.__dict__.items() if not isinstance(value, RemoteMethod)}


class HasServiceAttributes(Protocol):
    """An object that has the identity of a Service."""

    @property
    def service_name(self) -> str:
        """See `Link.service_name`."""

    @property
    def service_attributes(self) -> dict[str, Any]:
        """See `Link.service_attributes`."""


def is_method(description: object) -> bool:
    """Return whether an attribute of a Service is a method, from its description: a signature."""
    return isinstance(description, str) and description.startswith("(")


def check_assignable(owner: object, link: HasServiceAttributes, name: str, value: object) -> None:
    """Check an assignment to an attribute that is not private.

    Args:
        owner: The object whose attribute is assigned.
        link: The link that has the identity of the Service.
        name: Name of the attribute.
        value: The value.

    Raises:
        AttributeError: The Service has a value of that name, which the assignment would not change.
    """
    attributes = link.service_attributes
    is_value = name in attributes and not is_method(attributes[name])
    if is_value and not callable(value) and not hasattr(type(owner), name):
        raise AttributeError(
            f"Assigning to {name!r} would not reach the {link.service_name!r} Service, whose value it is: "
            "only the Service can change it, in a method"
        )


def private_attribute(owner: object, name: str) -> AttributeError:
    """Return the error for a missing attribute whose name begins with an underscore."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name.startswith("__") and name.endswith("__"):
        return AttributeError(text)  # Python looks these up, and means no attribute of the Service
    return PrivateAttribute(f"Cannot request a private attribute of a Service: {text}")


def checked_args(args: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    """Return positional arguments, checked.

    Raises:
        TypeError: They are not a list or tuple. A text would become one argument for each letter.
    """
    if not isinstance(args, list | tuple):
        raise TypeError(f"args must be a list or tuple of arguments, not {type(args).__name__}")
    return args
