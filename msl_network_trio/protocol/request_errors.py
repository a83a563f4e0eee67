"""Request errors: the exceptions for error answers, refusals and departed Services.

The functions are pure.
"""

from __future__ import annotations

import re

from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ConnectionLost, ManagerError, NetworkError, RemoteError, ServiceLost
from msl_network_trio.protocol.messages import ReceivedLine, departure, ending, refusal
from msl_network_trio.protocol.requests import Request
from msl_network_trio.visible import visible

_REFUSAL = re.compile(r"KeyError: .the .+ Service is not connected to Manager\[", re.DOTALL)


def is_refusal(text: str) -> bool:
    """Return whether an error is the refusal of a request to some Service by some Manager."""
    return _REFUSAL.match(text) is not None


def answered_error(request: Request, message: ReceivedLine, manager: str, manager_name: str) -> NetworkError:
    """Return the error of an answer with a uid.

    The Manager of this package also sends refusals with a uid, and answers for departed Services.

    Args:
        request: The request.
        message: The answer.
        manager: The ``host:port`` of the Manager, for messages.
        manager_name: The Manager's name for itself.
    """
    if request.service != MANAGER:
        if message.message == refusal(request.service, manager_name):
            return refused_error(request, manager_name, may_have_run=False)
        if message.message == departure(request.service, manager_name):
            return departed_error(request, manager_name)
        if message.message == ending(manager_name):
            what = f"{request.service}.{request.attribute}"
            text = f"Manager[{manager}] closed the connection: {manager_name} is shutting down"
            return ConnectionLost(f"{text}; {what} may have been executed", may_have_run=True)
    return remote_error(request, message, manager)


def remote_error(request: Request, message: ReceivedLine, manager: str) -> RemoteError:
    """Return the error that the Service or the Manager has sent; arguments as in `answered_error`."""
    lines = message.traceback if isinstance(message.traceback, list) else []
    error_class = ManagerError if request.service == MANAGER else RemoteError
    return error_class.from_answer(
        message.message,
        traceback_lines=tuple(str(line) for line in lines),
        manager=manager,
        service=request.service,
        attribute=request.attribute,
    )


def refused_error(request: Request, manager_name: str, *, may_have_run: bool) -> ServiceLost:
    """Return the error of a request that was refused, or that may have been refused."""
    service, attribute = request.service, request.attribute
    fate = "may have been executed" if may_have_run else "was refused"
    text = (
        f"The {service!r} Service is not connected to {visible(manager_name)}; {service}.{attribute} {fate}"
    )
    return ServiceLost(text, service=service, attribute=attribute, may_have_run=may_have_run)


def departed_error(request: Request, manager_name: str) -> ServiceLost:
    """Return the error of a request whose Service disconnected before it answered."""
    service, attribute = request.service, request.attribute
    text = (
        f"The {service!r} Service has gone from {visible(manager_name)}; "
        f"{service}.{attribute} may have been executed"
    )
    return ServiceLost(text, service=service, attribute=attribute, may_have_run=True)
