"""State of a client, and the streams and the function that its changes are passed to; in the Trio thread."""

from __future__ import annotations

import time
from collections import deque
from typing import Self
from weakref import WeakSet

import trio

from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.callback_queue import CallbackQueue
from msl_network_trio.dialing.reconnect import Reconnect, State, StateChange
from msl_network_trio.exceptions import NetworkError


class StateStream:
    """An async iterator over the changes of the state of a client; `Client.states` makes it.

    It yields each `StateChange` since it was made, and ends after the change to ``"closed"``.
    """

    def __init__(self, states: States) -> None:
        self._changes: deque[StateChange] = deque()
        self._has_ended = states.state == "closed"
        self._arrivals = trio.lowlevel.ParkingLot()
        states.streams.add(self)

    def put(self, change: StateChange) -> None:
        """Add a change."""
        self._changes.append(change)
        self._has_ended = change.state == "closed"
        self._arrivals.unpark_all()

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> StateChange:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._changes:
            if self._has_ended:
                raise StopAsyncIteration
            await self._arrivals.park()
        return self._changes.popleft()


class States:
    """The state of a client: connected, away while it reconnects, and closed at the end.

    ==============  =============  ==================================================
    from            to             by
    ==============  =============  ==================================================
    connected       away           the loss of the connection, if it is reconnected
    connected       closed         the loss of the connection otherwise, `disconnect`
    away            connected      a connection on which the Manager has answered
    away            closed         a final error, ``give_up_after``, `disconnect`
    ==============  =============  ==================================================

    Args:
        policy: The policy of reconnection, whose ``on_change`` is called; None: there is none.
        tasks: Runs ``on_change``, in order.

    Attributes:
        state: The current state.
        streams: The streams that get the changes.
    """

    __slots__ = ("_calls", "state", "streams")

    def __init__(self, policy: Reconnect | None, tasks: CallbackTasks) -> None:
        self.state: State = "connected"
        self.streams: WeakSet[StateStream] = WeakSet()
        function = None if policy is None else policy.on_change
        self._calls = None if function is None else CallbackQueue(tasks, function, "the function on_change")

    @trio.lowlevel.enable_ki_protection
    def change(self, state: State, reason: NetworkError | None = None, *, final_seconds: float = 0) -> None:
        """Change the state, and notify the streams and the function of the policy.

        Args:
            state: The new state.
            reason: The error that caused the change; None: there was none.
            final_seconds: For the last change: maximum seconds that the function may take.
        """
        self.state = state
        change = StateChange(state, time.time(), reason)
        for stream in [*self.streams]:
            stream.put(change)
        if self._calls is None:
            return
        if final_seconds:
            self._calls.put_last(change, seconds=final_seconds)
        else:
            self._calls.put(change)
