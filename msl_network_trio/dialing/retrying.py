"""Repeated tries to connect: the first connection, and those after a loss.

Clients and Services share both loops. They run in the Trio thread; what one try is, the caller decides.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
import trio

from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.reconnect import (
    LONGEST_TRY_TIMEOUT,
    STABLE_AFTER,
    TRY_TIMEOUT,
    UNSTABLE_ELAPSED,
    Reconnect,
    delay,
    is_final,
)
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectionLost, ConnectTimeout

T = TypeVar("T")

Attempt = Callable[[Settings], Awaitable[T]]
"""One try to connect; the settings have the timeout of this try."""

OnFailure = Callable[[Exception], Any]
"""Called with the error of each try after which there is another one."""


async def dial_first(
    settings: Settings,
    policy: Reconnect,
    credentials: Credentials,
    attempt: Attempt[T],
    *,
    on_failure: OnFailure = lambda error: None,
) -> T:
    """Connect for the first time: try again within the timeout, so that peers can start in any order.

    Args:
        settings: The settings; their ``timeout`` is the time limit, without the time in which a person was
            asked. None: ``give_up_after`` of the policy.
        policy: The policy.
        credentials: The credentials, which measure how long a person was asked.
        attempt: Makes one try.
        on_failure: See `OnFailure`.

    Raises:
        Exception: The last error that tells why there is no connection: a timeout of a try whose time was cut
            short replaces no other error.
    """
    began = trio.current_time()
    limit = _limit(settings.timeout, policy.give_up_after)
    reason: Exception | None = None
    tries = 0
    of_a_try = TRY_TIMEOUT
    while True:
        left = began + limit + credentials.seconds_asked - trio.current_time()
        seconds = _seconds_for_try(of_a_try, left)
        try:
            return await attempt(attrs.evolve(settings, timeout=seconds))
        except Exception as error:
            tries += 1
            if is_final(error, first=True):
                raise
            if reason is None or not _is_cut_short(error, seconds, min(of_a_try, limit)):
                reason = error
            of_a_try = _next_try_timeout(of_a_try, error)
        elapsed = trio.current_time() - began - credentials.seconds_asked
        pause = delay(policy, elapsed, reason)
        if elapsed + pause < limit:
            on_failure(reason)
            await trio.sleep(pause)
        else:
            await trio.sleep(max(0.0, limit - elapsed))
            if tries > 1:
                reason.add_note(f"{tries} tries to connect failed within {limit:g} s.")
            raise reason


def _seconds_for_try(most: float, left: float) -> float:
    """Return the time limit of a try; the time that is left may be over, since a task may wake late."""
    return max(0.0, min(most, left))


def _is_cut_short(error: Exception, seconds: float, most: float) -> bool:
    """Return whether an error is the timeout of a try that had less time than others.

    Args:
        error: The error of the try.
        seconds: The time limit of the try.
        most: The time limit that it would have had with more time left.
    """
    return isinstance(error, ConnectTimeout) and seconds < most


def _next_try_timeout(seconds: float, error: Exception) -> float:
    """Return the time limit of the next try: a Manager that is slow to answer needs a longer one."""
    return min(2 * seconds, LONGEST_TRY_TIMEOUT) if isinstance(error, ConnectTimeout) else seconds


def _limit(timeout: float | None, give_up_after: float | None) -> float:
    limit = give_up_after if timeout is None else timeout
    return math.inf if limit is None else limit


class Outage:
    """The time since the loss of a connection, for the delays between the tries.

    A connection that is lost within `STABLE_AFTER` seconds, as by a Manager that rejects the peer after the
    handshake, belongs to the outage before it: otherwise there would be no delay between the tries.

    Attributes:
        began: The time of the loss.
    """

    def __init__(self) -> None:
        self.began = -math.inf
        self._delays_from = -math.inf

    def begin(self, connected_at: float) -> None:
        """Note that the connection is lost that was made at this time."""
        now = trio.current_time()
        self.began = now
        if now - connected_at >= STABLE_AFTER:
            self._delays_from = now
        else:
            self._delays_from = max(self._delays_from, now - UNSTABLE_ELAPSED)

    @property
    def seconds(self) -> float:
        """The seconds since the loss."""
        return trio.current_time() - self.began

    @property
    def seconds_for_delay(self) -> float:
        """The seconds on which the delay before a try depends."""
        return trio.current_time() - self._delays_from


async def dial_again(
    settings: Settings,
    policy: Reconnect,
    attempt: Attempt[T],
    outage: Outage,
    *,
    reason: Exception,
    on_failure: OnFailure = lambda error: None,
) -> T:
    """Connect again after a loss, until a try succeeds, an error is final, or the policy gives up.

    Args:
        settings: The settings.
        policy: The policy.
        attempt: Makes one try.
        outage: The outage, which has begun.
        reason: The error with which the connection was lost.
        on_failure: See `OnFailure`.

    Raises:
        ConnectionLost: There will be no connection; its cause is the last error that tells why, as of
            `dial_first`, unless no try was made.
    """
    longest = math.inf if settings.timeout is None else settings.timeout
    limit = _limit(None, policy.give_up_after)
    of_a_try = TRY_TIMEOUT
    last = reason
    while True:
        left = limit - outage.seconds
        await trio.sleep(max(0.0, min(delay(policy, outage.seconds_for_delay, last), left)))
        if outage.seconds >= limit:
            text = f"{reason}; gave up reconnecting after {limit:g} s"
            raise ConnectionLost(text) from (None if last is reason else last)
        most = min(of_a_try, longest)
        seconds = _seconds_for_try(most, limit - outage.seconds)
        try:
            return await attempt(attrs.evolve(settings, timeout=seconds))
        except Exception as error:
            if is_final(error, first=False):
                raise ConnectionLost(f"{reason}; reconnecting is impossible: {error}") from error
            if last is reason or not _is_cut_short(error, seconds, most):
                last = error
            of_a_try = _next_try_timeout(of_a_try, error)
            on_failure(error)
