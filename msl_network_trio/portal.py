"""From threads into Trio and back: calls, waits that can be interrupted, and the Trio thread of scripts.

What is here knows nothing of MSL-Network. A thread may wait in three surroundings, and must not be stuck in
any of them: the main thread has to notice Ctrl-C, a worker thread of a Trio application the cancellation of
the task that it works for, and no daemon thread may disturb the end of the interpreter.
"""

from __future__ import annotations

import atexit
import math
import os
import queue
import signal
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, TypeVarTuple

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost

try:
    # What signal.signal() calls, without making enums, which takes most of its time.
    from _signal import getsignal as _get_handler  # type: ignore[import-not-found]
    from _signal import signal as _set_handler
except ImportError:  # not CPython
    _get_handler, _set_handler = signal.getsignal, signal.signal

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

SLICE = 0.05
"""For how many seconds to wait before looking around, where nothing else would interrupt a wait."""

_CLEAN_UP = 5.0
"""How many seconds an interrupted call may take to leave everything tidy."""

_AT_EXIT = 3.0
"""How many seconds the end of the interpreter may wait for goodbyes; a Manager that is well needs none."""


class _Process:
    """What belongs to this process, and is not inherited by those that it forks."""

    # These are inherited.
    hooks_exit: ClassVar[bool] = False
    hooks_fork: ClassVar[bool] = False

    def __init__(self) -> None:
        self.main_thread = threading.main_thread().ident
        self.lock = threading.Lock()
        self.script: _Script | None = None
        self.is_exiting = False


_process = _Process()
_errand: ContextVar[_Errand[Any] | None] = ContextVar("errand", default=None)
_here: trio.lowlevel.RunVar[Portal] = trio.lowlevel.RunVar("portal")


# ---- waiting ----


def is_main_thread() -> bool:
    """Return whether this is the thread that signals interrupt."""
    return threading.get_ident() == _process.main_thread


def check_may_wait(what: str, instead: str = "") -> None:
    """Refuse to wait where nobody may.

    Args:
        what: The function that is to be called, for the message.
        instead: What is to be awaited in the Trio thread; nothing: what has the same name in the async API.

    Raises:
        RuntimeError: This is a Trio thread, and waiting would stop its event loop.
        trio.Cancelled: This is a worker thread, and the task that it works for was cancelled.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            f"{what}() of msl_network_trio.sync would block the event loop that runs in this thread; "
            f"here, await {instead or f'{what}() of msl_network_trio'}"
        )
    check_cancelled()


def check_cancelled() -> bool:
    """Return whether this is a worker thread of Trio.

    Raises:
        trio.Cancelled: It is, and the task that it works for was cancelled.
    """
    if is_main_thread():
        return False
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def wait(attempt: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something, interrupted by Ctrl-C and by cancellation, and return whether it came.

    Args:
        attempt: Waits for as many seconds as it is told to, and returns whether it came.
        seconds: How long to wait at the most; infinity: no limit.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and this is the main thread.
        trio.Cancelled: This is a worker thread, and the task that it works for was cancelled.
    """
    # Most waits are over before it pays to find out where we are.
    if attempt(min(seconds, SLICE)):
        return True
    deadline = monotonic() + seconds - SLICE
    # On Windows a signal does not interrupt a thread that waits for a lock.
    longest = SLICE if check_cancelled() or sys.platform == "win32" else threading.TIMEOUT_MAX
    while (left := deadline - monotonic()) > 0:
        if attempt(min(left, longest)):
            return True
        check_cancelled()
    return False


def stand_still_at_exit() -> None:
    """Return, but for a daemon thread of an interpreter that is about to end: it does not go on.

    The connections have ended, and the errors that this makes would be printed over what the program printed
    last.
    """
    if _process.is_exiting and not is_main_thread():
        while True:
            threading.Event().wait()


def is_exiting() -> bool:
    """Return whether the interpreter is about to end, and only daemon threads are left."""
    return _process.is_exiting


def uninterrupted(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Call a function that Ctrl-C does not cut in two: it takes effect at the end.

    Of use in the main thread, and harmless in others. The function must not wait for anything.
    """
    if threading.get_ident() != _process.main_thread:
        return function(*args)
    handler = _get_handler(signal.SIGINT)
    if not callable(handler):  # it is ignored, or ends the process
        return function(*args)
    noted: dict[int, FrameType | None] = {}
    try:
        # Called with the number and the frame, it takes a note; this is on the way of every request.
        _set_handler(signal.SIGINT, noted.setdefault)
        return function(*args)
    finally:
        _set_handler(signal.SIGINT, handler)
        if noted:
            handler(signal.SIGINT, None)


# ---- into Trio ----


class Portal:
    """The way from threads into one Trio run.

    Args:
        token: The Trio run's.

    Attributes:
        thread_id: The identifier of the Trio thread.
    """

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._process = _process
        self.thread_id = threading.get_ident()
        if not _Process.hooks_fork and hasattr(os, "register_at_fork"):
            _Process.hooks_fork = True
            os.register_at_fork(after_in_child=_forget)

    @classmethod
    def here(cls) -> Portal:
        """Return the portal of the Trio run that this is called in."""
        try:
            return _here.get()
        except LookupError:
            portal = cls(trio.lowlevel.current_trio_token())
            _here.set(portal)
            return portal

    @property
    def is_inherited(self) -> bool:
        """Whether the Trio run belongs to the process that this one was forked from."""
        return self._process is not _process

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called in the Trio thread, soon; it must raise nothing.

        Raises:
            ConnectionLost: The Trio run has ended.
        """
        if self.is_inherited:
            raise ConnectionLost("The connection belongs to the process that this one was forked from")
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            stand_still_at_exit()
            raise ConnectionLost("The Trio run that the connection belonged to has ended") from None

    def call(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call an async function in the Trio thread, and wait for it.

        In a worker thread of the same Trio run the task that the thread works for calls it, and cancels it
        when it is cancelled; elsewhere a task of its own does.

        Raises:
            RuntimeError: This is a Trio thread.
            KeyboardInterrupt: Ctrl-C was pressed. The function has been cancelled.
            trio.Cancelled: The task that this worker thread works for was cancelled. So has been the
                function.
            ConnectionLost: The Trio run has ended.
        """
        return self.open(function, None, *args, **kwargs)

    def open(
        self,
        function: Callable[P, Awaitable[R]],
        close: Callable[[R], Awaitable[object]] | None,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call an async function that opens something; see `call`.

        Args:
            function: The function.
            close: Closes what it has opened if the thread was interrupted, and will never get to know it. It
                must raise nothing.
            args: The positional arguments of the function.
            kwargs: Its keyword arguments.
        """
        check_may_wait(getattr(function, "__qualname__", repr(function)))
        call = partial(function, *args, **kwargs)
        return trio.from_thread.run(call) if self._is_home() else _Errand(self, call, close).run()

    def do(self, function: Callable[[], None]) -> None:
        """Call a plain function in the Trio thread, be it this one or not, and wait for it; see `call`."""
        if threading.get_ident() == self.thread_id:
            function()
            return

        async def call() -> None:
            function()

        self.call(call)

    def _is_home(self) -> bool:
        """Whether this is a worker thread of this portal's Trio run."""
        try:
            return trio.from_thread.run_sync(trio.lowlevel.current_trio_token) is self._token
        except RuntimeError:
            return False


class _Errand(Generic[R]):
    """A call of a thread that is no worker thread of the Trio run; meanwhile it can be asked to do things."""

    def __init__(
        self,
        portal: Portal,
        function: Callable[[], Awaitable[R]],
        close: Callable[[R], Awaitable[object]] | None,
    ) -> None:
        self._portal = portal
        self._function = function
        self._close = close
        self._scope = trio.CancelScope()
        self._started = False
        self._ended = trio.Event()
        # What the thread shall do next; None: nothing more, since there is an outcome.
        self._next: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcome: outcome.Outcome[R] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    # In the thread.

    def run(self) -> R:
        try:
            self._portal.post(self._start)
            self._attend(math.inf)
            stand_still_at_exit()
        except BaseException:
            self._give_up()
            raise
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _attend(self, seconds: float) -> None:
        """Do what is asked for, until there is an outcome."""
        task: Callable[[], None] | None = None

        def arrived(seconds: float) -> bool:
            nonlocal task
            try:
                task = self._next.get(timeout=seconds)
            except queue.Empty:
                return False
            return True

        while wait(arrived, seconds) and task is not None:
            task()

    def _give_up(self) -> None:
        """Cancel the function, and wait until it has cleaned up and nothing is left of what it has done."""
        tidy: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._portal.post(self._start_tidying, tidy)
            tidy.get(timeout=_CLEAN_UP)
        except (ConnectionLost, queue.Empty):
            pass

    # In the Trio thread.

    def _start(self) -> None:
        self._started = True
        try:
            trio.lowlevel.spawn_system_task(self._run, name=self._function)
        except RuntimeError:  # the run is ending
            self._finish(
                outcome.Error(ConnectionLost("The Trio run that the connection belonged to has ended"))
            )

    async def _run(self) -> None:
        _errand.set(self)
        try:
            with self._scope:
                self._finish(outcome.Value(await self._function()))
        except Exception as error:  # noqa: BLE001 - it is raised in the thread
            self._finish(outcome.Error(error))
        finally:
            if self._outcome is None:  # cancelled, with the thread or with the run
                self._finish(
                    outcome.Error(ConnectionLost("The Trio run that the connection belonged to has ended"))
                )

    def _finish(self, result: outcome.Outcome[R]) -> None:
        self._outcome = result
        self._ended.set()
        if not is_exiting():
            self._next.put(None)

    def _start_tidying(self, tidy: queue.SimpleQueue[None]) -> None:
        if not self._started:  # Ctrl-C came before that was even asked for
            tidy.put(None)
            return
        try:
            trio.lowlevel.spawn_system_task(self._tidy_up, tidy)
        except RuntimeError:  # the run is ending, and closes everything
            tidy.put(None)

    async def _tidy_up(self, tidy: queue.SimpleQueue[None]) -> None:
        try:
            self._scope.cancel()
            await self._ended.wait()
            # It may have been too late to cancel it.
            if self._close is not None and isinstance(self._outcome, outcome.Value):
                await self._close(self._outcome.value)
        finally:
            tidy.put(None)

    async def ask(self, function: Callable[[], R]) -> R:
        """Have the thread call a function, and return what that returns."""
        answered = trio.Event()
        answer: outcome.Outcome[R] | None = None

        def answer_it() -> None:
            nonlocal answer
            try:
                answer = outcome.Value(function())
            except Exception as error:  # noqa: BLE001 - it is raised in the task; Ctrl-C is for the thread
                answer = outcome.Error(error)
            self._portal.post(answered.set)

        self._next.put(answer_it)
        await answered.wait()
        assert answer is not None
        return answer.unwrap()


async def in_calling_thread(function: Callable[..., R], *args: Any) -> R:
    """Call a function in the thread that waits for this task, if there is one, else in a worker thread.

    Cancellation abandons it.
    """
    errand = _errand.get()
    if errand is None or errand.is_done:  # it is inherited by tasks that live longer
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
    result: R = await errand.ask(partial(function, *args))
    return result


# ---- and back ----


class Worker:
    """A thread that calls functions, one after the other; it ends with this object.

    It is a daemon, so it does not keep the interpreter from ending.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def submit(self, function: Callable[[], object]) -> None:
        """Have a function called, after those that were submitted before; it must raise nothing."""
        self._jobs.put(function)

    async def call(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call a function from Trio, and wait for what it returns. Cancellation abandons it."""
        portal = Portal.here()
        done = trio.Event()
        result: outcome.Outcome[R] | None = None

        def job() -> None:
            nonlocal result
            result = outcome.capture(function, *args, **kwargs)
            try:
                portal.post(done.set)
            except ConnectionLost:
                pass  # nobody is there to be told

        self.submit(job)
        await done.wait()
        assert result is not None
        return result.unwrap()


def _work(jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it may be all that keeps the worker alive


# ---- scripts ----


class _Script:
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
    with _process.lock:
        if _process.script is None:
            if _process.is_exiting:
                raise ConnectionLost("No connection can be made, since the interpreter is about to end")
            _process.script = _Script()
            if not _Process.hooks_exit:
                _Process.hooks_exit = True
                atexit.register(_say_goodbye)
        return _process.script.portal


def _say_goodbye() -> None:
    """Disconnect what is still connected; called when all threads but daemons have ended."""
    _process.is_exiting = True
    if _process.script is not None:
        _process.script.end(_AT_EXIT)


def _forget() -> None:
    """Begin anew in a process that was forked, in which there is but one thread."""
    global _process  # noqa: PLW0603 - this is another process
    _process = _Process()
