"""The background thread that runs Trio for scripts, which have no Trio run of their own.

It is started when it is first needed, under the lock of the process. The goodbye at the end of the program is
registered when this module is imported.
"""

from __future__ import annotations

import atexit
import math
import threading

import trio

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.portal import process
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import Latch, let_go, wait

_AT_EXIT = 3.0
"""Most seconds that the end of the interpreter waits for goodbyes; a healthy Manager needs none."""


class Script:
    """The Trio thread of a program that has none of its own.

    Attributes:
        error: Why the Trio run could not start, or has failed; None while it is well.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._portal: Portal | None = None
        self._stop: trio.Event | None = None
        self._is_ready = Latch()
        self._is_unwanted = False
        # A daemon, since Python waits for others before it lets us say goodbye.
        self._thread = threading.Thread(target=self._run, name="msl_network_trio", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The operating system starts no more threads, or the interpreter is about to end.
        """
        try:
            self._thread.start()
        except BaseException:
            # Interrupted, it may run all the same.
            self._is_unwanted = True
            raise

    def portal(self) -> Portal:
        """Wait until the Trio run has started, and return the way into it.

        Raises:
            ConnectError: It could not start: no file descriptor is left, for example.
        """
        wait(self._is_ready.attempt, math.inf)
        if self._portal is None:
            raise ConnectError(
                f"Cannot start the event loop of msl_network_trio.sync: {self.error or 'it was interrupted'}"
            ) from self.error
        return self._portal

    def _run(self) -> None:
        try:
            if not self._is_unwanted:
                trio.run(self._main)
        except BaseException as error:
            self.error = error
            if self._portal is not None:
                raise  # a mistake of ours, for `threading.excepthook`
        finally:
            self._is_ready.set()

    async def _main(self) -> None:
        self._stop = trio.Event()
        self._portal = Portal.here()
        self._is_ready.set()
        await self._stop.wait()
        # The connections are system tasks, which are cancelled now, and then disconnect.

    @property
    def has_failed(self) -> bool:
        """Whether the Trio run could not start."""
        return self._is_ready.is_set and self._portal is None

    def end(self, seconds: float) -> None:
        """Disconnect all connections, and wait for that.

        Args:
            seconds: Most seconds to wait.
        """
        if self._portal is None or self._stop is None:
            return
        try:
            self._portal.post(self._stop.set)
        except ConnectionLost:
            return
        self._thread.join(seconds)


def current_portal() -> Portal:
    """Return the portal that a new connection belongs to.

    In a worker thread of a Trio application that is the one of the application; elsewhere it is that of a
    background thread, of which a process has one, and which is started when it is first needed.

    Raises:
        ConnectionLost: The interpreter is about to end.
        ConnectError: The background thread cannot start. Once the reason is gone, a later call starts it.
    """
    try:
        return trio.from_thread.run_sync(Portal.here)
    except RuntimeError:
        pass  # no worker thread
    lock = process.this.lock
    try:
        script = _running_script(lock)
    except BaseException:
        let_go(lock)
        raise
    return script.portal()


def _running_script(lock: threading.RLock) -> Script:
    """Return the background thread, started if it does not run; it may not be ready yet."""
    with lock:
        script = process.this.script
        if script is None or script.has_failed:
            if process.this.is_exiting:
                raise ConnectionLost("No connection can be made, since the interpreter is about to end")
            script = Script()
            try:
                process.this.script = script
                script.start()
            except BaseException as error:
                process.this.script = None
                if isinstance(error, RuntimeError):
                    raise ConnectError(
                        f"Cannot start the background thread of msl_network_trio.sync: {error}"
                    ) from error
                raise
        return script


def _say_goodbye() -> None:
    """Disconnect what is still connected; called when all threads but daemons have ended."""
    process.this.is_exiting = True
    if process.this.script is not None:
        process.this.script.end(_AT_EXIT)


# Functions registered with atexit run in reverse order, so those that are registered after this import can
# still use their links. The standard library has no supported way to come after earlier ones.
atexit.register(_say_goodbye)
