"""Idle probe: asks the Manager for its identity while requests stay open.

Neither a Service that died nor a Manager whose computer lost its power is announced by msl-network. The
answer to a probe lists the Services that are connected; if there is no answer, the Manager is dead. The
probe is a task in the Trio thread that ends when no request is open. `IdleProbe.is_asleep` needs the lock of
the connection once other threads share it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import trio

from msl_network_trio.client.reply import Reply
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.protocol.client import ClientProtocol


class IdleProbe:
    """Probes the Manager while requests are open.

    Args:
        protocol: The protocol that keeps the open requests.
        lock: Held by threads that make requests.
        start: Starts the task `run`.
        ask: Sends a probe.
        give_up: Called with `unresponsive_after` if the Manager does not answer.
        first: Seconds that a request is open before the first probe; infinity: no probes.
        at_most_every: Maximum seconds between probes. The interval starts at `first` and doubles.
        unresponsive_after: Seconds to wait for a Manager that sends nothing while a probe is unanswered.

    Attributes:
        is_asleep: Whether `wake` must be called when a request is made; read with the lock held.
        is_active: Whether the Manager has shown any activity since the probe; set by the reader.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        lock: AbstractContextManager[object],
        start: Callable[[Callable[[], Awaitable[None]]], None],
        ask: Callable[[], Reply],
        give_up: Callable[[float], None],
        *,
        first: float,
        at_most_every: float,
        unresponsive_after: float,
    ) -> None:
        self._protocol = protocol
        self._lock = lock
        self._start = start
        self._ask = ask
        self._give_up = give_up
        self._first = first
        self._at_most_every = max(first, at_most_every)
        self._unresponsive_after = unresponsive_after
        self.is_active = False
        self.is_asleep = first != math.inf
        self._stays_awake = False

    def note_activity(self) -> None:
        """Note that data arrived, or was taken after waiting for that."""
        self.is_active = True

    def wake(self, *, for_a_while: bool = False) -> None:
        """Start the task for a request that was made; no effect while it runs.

        Args:
            for_a_while: Run for one interval even if the request is settled at once. Threads, for which a
                wake is expensive, need not wake the probe for each of many short calls then.
        """
        if self.is_asleep:
            self.is_asleep = False
            self._stays_awake = for_a_while
            self._start(self.run)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Probe the Manager while requests are open."""
        protocol = self._protocol
        # Snapshots in half intervals: a request that was written just after a snapshot is `first` old at the
        # second one after it, and has then waited for 1.5 intervals at most.
        older, newer, probed = 0, protocol.outbox.last_sequence, 0
        interval = self._first
        next_probe = math.inf
        while self._is_needed():
            await trio.sleep(self._first / 2)
            with self._lock:
                # New requests do not wait for the interval, which older ones have lengthened.
                is_new = protocol.has_open_between(probed, older)
                is_due = trio.current_time() >= next_probe and protocol.has_open_between(0, older)
                # What cannot even be written waits for the Manager as well.
                is_stuck = protocol.outbox.unsent > 0 and protocol.outbox.last_sequence == older
            # While a person is asked to log in, the Manager waits for this client.
            if (is_new or is_due or is_stuck) and not protocol.has_login_question:
                probed = protocol.outbox.last_sequence
                await self._probe()
                interval = min(2 * interval, self._at_most_every)
                next_probe = trio.current_time() + interval
            older, newer = newer, protocol.outbox.last_sequence

    def _is_needed(self) -> bool:
        """Return whether a request is open; if none is, fall asleep."""
        with self._lock:
            is_open = self._protocol.in_flight > 0 or self._protocol.outbox.unsent > 0
            self.is_asleep = not (is_open or self._stays_awake)
            self._stays_awake = False
        return not self.is_asleep

    async def _probe(self) -> None:
        """Send a probe, and wait for its answer while the Manager shows activity."""
        # Behind an open admin request the probe is held back; that request is owed an answer as well.
        answer = self._ask()
        waited = trio.current_time()
        self.is_active = False
        while not answer.done():
            with trio.move_on_at(waited + self._unresponsive_after):
                try:
                    await answer
                except NetworkError:
                    return
            if answer.done():
                return
            if self._protocol.has_login_question:
                answer.cancel()
                return
            if not self.is_active:
                self._give_up(self._unresponsive_after)
                return
            # The Manager is active, but this answer is stuck, behind a Service that does not read for
            # example.
            self.is_active = False
            waited = trio.current_time()
