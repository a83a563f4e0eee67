"""Looking after a connection on which nothing seems to happen.

msl-network tells nobody that a Service has died, and a Manager whose computer has lost its power says nothing
at all. So while requests stay open the client asks the Manager who is there: the answer tells
`ClientProtocol` which Services have gone, and that there is an answer tells that there is a Manager.
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
    """Asks for the Manager's identity while requests stay open.

    The task `run` looks after them, and ends when none is open.

    Args:
        protocol: Whose requests.
        lock: Is held by threads that make requests.
        start: Starts the task `run`.
        ask: Sends the question.
        give_up: Is told that the Manager has been silent for too long.
        first: How many seconds a request has to be open before the first question; infinity: none are asked.
        at_most_every: The most seconds from one question to the next; they start with `first` and double.
        unresponsive_after: How many seconds to wait for a Manager that owes an answer and says nothing.
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
        self._heard = False
        self.is_asleep = first != math.inf
        """Whether it has to be woken when a request is made; read with the lock held."""
        self._stays_awake = False

    def note_activity(self) -> None:
        """Note a sign of life: something has arrived, or has been taken after we had to wait for it."""
        self._heard = True

    def wake(self, *, for_a_while: bool = False) -> None:
        """Note that a request was made; of no cost while the idle_probe is awake.

        Args:
            for_a_while: Stay awake a little also if the request is over at once. Threads, for which it does
                cost something, must not have to wake the idle_probe for each of many short calls.
        """
        if self.is_asleep:
            self.is_asleep = False
            self._stays_awake = for_a_while
            self._start(self.run)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Probe the Manager while requests are open."""
        protocol = self._protocol
        # Snapshots in half steps: what was given out just after one is `first` old not at the next look,
        # but at the one after it, and has then waited for one and a half times as long at the most.
        older, newer, asked_about = 0, protocol.outbox.last_sequence, 0
        interval = self._first
        next_look = math.inf
        while self._is_needed():
            await trio.sleep(self._first / 2)
            with self._lock:
                # Requests that nobody has asked about yet are not made to wait for the sake of older
                # ones.
                is_new = protocol.has_open_between(asked_about, older)
                is_due = trio.current_time() >= next_look and protocol.has_open_between(0, older)
                # What cannot even be written waits for the Manager as well.
                is_stuck = protocol.outbox.unsent > 0 and protocol.outbox.last_sequence == older
            # While a person is asked to log in, the silence is ours.
            if (is_new or is_due or is_stuck) and not protocol.has_login_question:
                asked_about = protocol.outbox.last_sequence
                await self._look()
                interval = min(2 * interval, self._at_most_every)
                next_look = trio.current_time() + interval
            older, newer = newer, protocol.outbox.last_sequence

    def _is_needed(self) -> bool:
        """Whether a request is open; if none is, the next one has to wake us."""
        with self._lock:
            is_open = self._protocol.in_flight > 0 or self._protocol.outbox.unsent > 0
            self.is_asleep = not (is_open or self._stays_awake)
            self._stays_awake = False
        return not self.is_asleep

    async def _look(self) -> None:
        # Behind an open admin request the question is held back; that one is owed an answer as well.
        answer = self._ask()
        waited = trio.current_time()
        self._heard = False
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
            if not self._heard:
                self._give_up(self._unresponsive_after)
                return
            # It serves us, but this answer is stuck, behind a Service that does not read for example.
            self._heard = False
            waited = trio.current_time()
