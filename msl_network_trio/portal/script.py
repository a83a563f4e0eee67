"""The Trio thread of scripts, which have none of their own."""

from __future__ import annotations

import atexit
import queue
import threading

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.portal import process
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.portal import Portal

_AT_EXIT = 3.0
"""How many seconds the end of the interpreter may wait for goodbyes; a Manager that is well needs none."""


class Script:
    """The Trio thread of a program that has none of its own.

    Attributes:
        portal: The way into it.
    """

    def __init__(self) -> None:
        self._stop = trio.Event()
        ready: queue.SimpleQueue[Portal] = queue.SimpleQueue()
        # A daemon, since Python waits for others before it lets us say goodbye.
        self._thread = threading.Thread(
            target=trio.run, args=(self._main, ready), name="msl_network_trio", daemon=True
        )
        self._thread.start()
        self.portal = ready.get()

    async def _main(self, ready: queue.SimpleQueue[Portal]) -> None:
        ready.put(Portal.here())
        await self._stop.wait()
        # The connections are system tasks, which are cancelled now, and then disconnect.

    def end(self, seconds: float) -> None:
        """Disconnect all connections."""
        try:
            self.portal.post(self._stop.set)
        except ConnectionLost:
            return
        self._thread.join(seconds)


def current_portal() -> Portal:
    """Return the portal that a new connection belongs to.

    In a worker thread of a Trio application that is the one of the application; elsewhere it is that of a
    background thread, of which a process has one, and which is started when it is first needed.

    Raises:
        ConnectionLost: The interpreter is about to end.
    """
    try:
        return trio.from_thread.run_sync(Portal.here)
    except RuntimeError:
        pass  # no worker thread
    return uninterrupted(_script_portal)  # a thread that was started by half could not be taken back


def _script_portal() -> Portal:
    with process.this.lock:
        if process.this.script is None:
            if process.this.is_exiting:
                raise ConnectionLost("No connection can be made, since the interpreter is about to end")
            process.this.script = Script()
            if not process.Process.hooks_exit:
                process.Process.hooks_exit = True
                atexit.register(_say_goodbye)
        return process.this.script.portal


def _say_goodbye() -> None:
    """Disconnect what is still connected; called when all threads but daemons have ended."""
    process.this.is_exiting = True
    if process.this.script is not None:
        process.this.script.end(_AT_EXIT)
