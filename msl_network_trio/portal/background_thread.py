"""Background thread that runs Trio for the blocking API; a process has at most one.

It owns the global that refers to the thread. The thread starts when it is first needed, under the lock of
the global; a fork resets the global. Importing this module registers the disconnection at exit.
"""

from __future__ import annotations

import atexit
import math
import threading

import trio

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.portal import process
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import Latch, release_if_held, wait

_EXIT_TIMEOUT = 3.0
"""Maximum seconds that the end of the interpreter waits for disconnections. A healthy Manager needs none."""


class BackgroundThread:
    """A daemon thread that runs Trio until `end`.

    Attributes:
        error: Exception with which the Trio run failed to start or ended; None while it is well.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._portal: Portal | None = None
        self._stop: trio.Event | None = None
        self._is_ready = Latch()
        self._is_unwanted = False
        # A daemon, since the interpreter joins other threads before it calls what atexit has registered.
        self._thread = threading.Thread(target=self._run, name="msl_network_trio", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The operating system starts no more threads, or the interpreter is about to end.
        """
        try:
            self._thread.start()
        except BaseException:
            # Thread.start() may have been interrupted after the thread began to run.
            self._is_unwanted = True
            raise

    def portal(self) -> Portal:
        """Wait until the Trio run has started, and return its portal.

        Raises:
            ConnectError: The Trio run failed to start; for example, no file descriptor is left.
        """
        wait(self._is_ready.timed_wait, math.inf)
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
                raise  # an internal error, reported by threading.excepthook
        finally:
            self._is_ready.set()

    async def _main(self) -> None:
        self._stop = trio.Event()
        self._portal = Portal.here()
        self._is_ready.set()
        await self._stop.wait()
        # The connections are system tasks. Trio cancels these when the main task ends; then they disconnect.

    @property
    def has_failed(self) -> bool:
        """Whether the Trio run failed to start."""
        return self._is_ready.is_set and self._portal is None

    def end(self, seconds: float) -> None:
        """Disconnect all connections, and wait until they have ended.

        Args:
            seconds: Maximum seconds to wait.
        """
        if self._portal is None or self._stop is None:
            return
        try:
            self._portal.post(self._stop.set)
        except ConnectionLost:
            return
        self._thread.join(seconds)


class _Global:
    """The background thread of this process.

    Attributes:
        lock: Guards `thread`. Reentrant, since a signal handler may call the blocking API.
        thread: The background thread; None if it was not needed so far.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread: BackgroundThread | None = None

    def running(self) -> BackgroundThread:
        """Return the thread, started if it does not run; it may not be ready yet."""
        # Before the lock is held and the thread exists: a forked child would wait for both forever.
        process.hook_forks()
        with self.lock:
            thread = self.thread
            if thread is None or thread.has_failed:
                if process.is_exiting():
                    raise ConnectionLost("No connection can be made, since the interpreter is about to end")
                thread = BackgroundThread()
                try:
                    self.thread = thread
                    thread.start()
                except BaseException as error:
                    self.thread = None
                    if isinstance(error, RuntimeError):
                        raise ConnectError(
                            f"Cannot start the background thread of msl_network_trio.sync: {error}"
                        ) from error
                    raise
            return thread


current = _Global()
"""The background thread of this process. Look it up in this module each time: a fork replaces it."""


def _reset() -> None:
    global current  # noqa: PLW0603 - the parent's thread does not exist in this process
    current = _Global()


process.on_fork(_reset)


def current_portal() -> Portal:
    """Return the portal that a new connection belongs to.

    In a worker thread of a Trio application it is that of the application; elsewhere it is that of the
    background thread, which is started if it does not run.

    Raises:
        ConnectionLost: The interpreter is about to end.
        ConnectError: The background thread cannot start. A later call tries again.
    """
    try:
        return trio.from_thread.run_sync(Portal.here)
    except RuntimeError:
        pass  # not a worker thread
    owner = current
    try:
        thread = owner.running()
    except BaseException:
        release_if_held(owner.lock)
        raise
    return thread.portal()


def _disconnect_at_exit() -> None:
    """Disconnect all connections; called when only daemon threads are left."""
    process.this.is_exiting = True
    if current.thread is not None:
        current.thread.end(_EXIT_TIMEOUT)


# atexit calls functions in reverse order of registration, so those registered after this import can still use
# their links. The standard library has no supported way to run after those registered earlier.
atexit.register(_disconnect_at_exit)
