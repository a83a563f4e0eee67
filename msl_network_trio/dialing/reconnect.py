"""Policy of reconnection: delays between the tries, and errors after which there are no more tries.

Clients and Services share it. The functions are pure and may be called from any thread: they know neither
clocks nor Trio.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, Literal

import attrs

from msl_network_trio import arguments
from msl_network_trio.exceptions import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    HandshakeError,
    NetworkError,
)
from msl_network_trio.validators import converted, optional

State = Literal["connected", "away", "closed"]
"""State of a client: ``"away"`` while it is reconnecting, ``"closed"`` once it has ended for good."""

WhileAway = Literal["wait", "raise"]
"""Treatment of requests that are made while a client is reconnecting."""

TRY_TIMEOUT: Final = 5.0
"""Maximum seconds of one try to connect; doubled after each try whose time was over."""

LONGEST_TRY_TIMEOUT: Final = 60.0
"""Limit of that doubling in seconds."""

STABLE_AFTER: Final = 1.0
"""Seconds that a connection must have lasted for the next loss to count as a new outage."""

UNSTABLE_ELAPSED: Final = 2.0
"""Maximum seconds that count as elapsed at the loss of a connection that was shorter than `STABLE_AFTER`."""

_TRANSIENT_HTTP_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of refused WebSockets that may change, as of a proxy whose Manager restarts."""

_NAME_TAKEN: Final = re.compile(r" is already (running|connected)\b")
"""The refusal of a name that another connection has, perhaps our own that was lost."""

_TRANSIENT_REJECTION: Final = re.compile(
    r"(ConnectionAbortedError|TimeoutError|RuntimeError|BufferError|OSError):|ValueError: Too many logins"
    r"|.*\(max_\w+\)|KeyError: .* Service is not connected to "
)
"""Temporary rejections, as by a Manager that is overloaded or ends."""

_BROKEN_LINE: Final = re.compile(r"(KeyError|TypeError|AttributeError|\w*DecodeError):")
"""Rejections by a Manager that does not understand our identity. Once another connection was accepted with
it, the reason is a line that was cut in the network: Managers of msl-network execute half lines, too."""

_RETRY_IN: Final = re.compile(r"\bin (\d{1,5}) s\b")
"""The time to wait in the text of a Manager that counts failed logins."""


@attrs.frozen
class StateChange:
    """A change of the state of a client; `Client.states` yields it."""

    state: State
    """The new state."""

    when: float
    """The time of the change, in seconds since the epoch, as of `time.time`."""

    reason: NetworkError | None = None
    """The error that caused it; None: there was none."""


def _is_while_away(policy: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("wait", "raise"):
        raise ValueError(f"while_away must be 'wait' or 'raise', not {value!r}")


def _is_callable_or_none(policy: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{attribute.name} must be a function or None, not {value!r}")


@attrs.frozen(kw_only=True)
class Reconnect:
    """Policy of reconnection, for the argument ``reconnect`` of `connect` and of Services.

    The delay before a try is random, from 0 to half of the seconds that have passed since the loss. The two
    delays below limit this maximum.

    Args:
        first_delay: Minimum of the maximum delay, in seconds.
        longest_delay: Maximum delay in seconds.
        give_up_after: Seconds after a loss until the client or the Service ends; None: no limit. It is also
            the time limit for the first connection if the ``timeout`` of `connect` is None.
        while_away: ``"wait"``: requests that are made while the client is reconnecting wait, within their
            timeouts. ``"raise"``: they raise `ConnectionLost`.
        on_change: A plain or async function to be called with each `StateChange`; an exception in it is
            logged.

    Services ignore `while_away` and `on_change`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has an invalid value.
    """

    first_delay: float = attrs.field(default=0.1, validator=converted(arguments.interval))
    longest_delay: float = attrs.field(default=10.0, validator=converted(arguments.interval))
    give_up_after: float | None = attrs.field(default=None, validator=optional(arguments.seconds))
    while_away: WhileAway = attrs.field(default="wait", validator=_is_while_away)
    on_change: Callable[[StateChange], Any] | None = attrs.field(default=None, validator=_is_callable_or_none)

    def __attrs_post_init__(self) -> None:
        if self.first_delay > self.longest_delay:
            raise ValueError(
                f"first_delay ({self.first_delay:g}) must not be more than longest_delay "
                f"({self.longest_delay:g})"
            )


def as_reconnect(name: str, value: Any) -> Reconnect | None:
    """Return the policy for the value of an argument: True, False, None or a `Reconnect`.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        TypeError: The value is of another type.
    """
    if isinstance(value, Reconnect):
        return value
    try:
        return Reconnect() if arguments.flag(name, value) else None
    except TypeError:
        raise TypeError(f"{name} must be True, False or a Reconnect, not {value!r}") from None


def delay(
    policy: Reconnect,
    elapsed: float,
    error: BaseException | None = None,
    draw: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return the seconds to wait before the next try.

    With many peers, a delay that doubles with each try draws a long one for one of them early; half of the
    elapsed time keeps the outage of each peer at about twice that of the Manager at most.

    Args:
        policy: The policy.
        elapsed: Seconds since the loss.
        error: The error of the last try, which may contain the seconds to wait.
        draw: Returns a random number between two.
    """
    seconds = draw(0, min(max(elapsed / 2, policy.first_delay), policy.longest_delay))
    asked = None if error is None else retry_after(error)
    if asked is None:
        return seconds
    return asked + draw(0, min(max(asked / 2, policy.first_delay), policy.longest_delay))


def retry_after(error: BaseException) -> float | None:
    """Return the seconds after which the Manager asks to try again; None: it does not say."""
    for each in _chain(error):
        seconds = getattr(each, "retry_after", None)
        if isinstance(seconds, int | float) and seconds >= 0:
            return float(min(seconds, 3600))
    if isinstance(error, AuthenticationError) and "Too many logins" in str(error):
        found = _RETRY_IN.search(str(error))
        if found:
            return float(found[1])
    return None


def is_final(error: BaseException, *, first: bool) -> bool:
    """Return whether further tries to connect are useless.

    Args:
        error: The error of a try.
        first: Whether there was no connection yet. Then a name that is taken is final: it is not a lost
            connection of our own that has the name. A peer that is no Manager, or that does not understand
            our identity or the request for a WebSocket, is final then, too; later it may be a Manager with a
            broken line in between.
    """
    text = str(error)
    if first and _NAME_TAKEN.search(text):
        return True
    if isinstance(error, CertificateError):
        return True
    if isinstance(error, HandshakeError):
        return first
    if isinstance(error, AuthenticationError):
        is_transient = _TRANSIENT_REJECTION.match(text) or _NAME_TAKEN.search(text)
        is_broken = not first and _BROKEN_LINE.match(text)
        return not (is_transient or is_broken) and retry_after(error) is None
    if isinstance(error, ConnectError):
        statuses = (each.http_status for each in _chain(error) if isinstance(each, ConnectError))
        status = next(filter(None, statuses), None)
        may_pass = status in _TRANSIENT_HTTP_STATUS or (status == HTTPStatus.BAD_REQUEST and not first)
        return status is not None and not may_pass
    # ConnectionLost (the Manager of a `transport=` function has ended) is final, as is every error of user
    # code that is no OSError.
    return isinstance(error, NetworkError) or not isinstance(error, OSError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
