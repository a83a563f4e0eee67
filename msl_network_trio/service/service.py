"""The base class of all Services."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import trio

from msl_network_trio import callbacks as user_code
from msl_network_trio import ended_managers
from msl_network_trio.arguments import whole
from msl_network_trio.asyncio_advice import check_task, forget_event_loop
from msl_network_trio.constants import PORT
from msl_network_trio.dialing.connect import dial
from msl_network_trio.dialing.local_identity import language, operating_system
from msl_network_trio.dialing.prompts import Prompts
from msl_network_trio.dialing.settings import Dial, Settings
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.hidden import hide
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import ServiceProtocol
from msl_network_trio.service.connection import GRACE, ServiceConnection
from msl_network_trio.service.current_request import ServedRequest, current_request
from msl_network_trio.service.identity import describe_attributes
from msl_network_trio.service.logging_level import set_logging_level
from msl_network_trio.service.state import State, add_private_names, has_state, set_state, state_of
from msl_network_trio.service.threads import default_max_workers
from msl_network_trio.signals import StopSignals, stop_signals
from msl_network_trio.visible import visible

logger = get_logger(__name__)


class Service:
    """The base class of all Services: the public attributes of a subclass are what clients can request.

    ``async def`` methods run as tasks of Trio, beside everything else. Plain methods run in worker threads,
    so that they may block, as most instruments have them do; `max_workers` says how many run at a time. Of
    properties and other attributes the value is requested; see below. What is returned has to have a JSON
    form, or a ``to_json()`` method that returns something which has one.

    A client can request all attributes of a subclass whose names do not begin with an underscore, and of this
    class `name`, `max_clients`, `address_manager`, `port`, `loop_thread_id`, `identity` and
    `set_logging_level`. The rest is for the program that runs the Service: requests for it are refused, also
    where a subclass overrides it. (But `run`, `nursery` and `request`, which msl-network does not have,
    belong to a subclass that defines them for something else; `start` then works as ever.)

    Properties are read in threads of their own (as many as `max_workers`), beside plain methods and never
    waiting for one: so a client can ask how far a measurement is. Therefore what a property uses must be safe
    to use while a method runs. Reading one attribute that methods set is; talking to an instrument is not,
    unless both hold a `threading.Lock`, for which the property then waits.

    A subclass may use any private names; see `msl_network_trio.service.state` for those that can be read.

    A subclass that defines a method ``shutdown_service`` can be shut down by a client: when that method has
    returned, its result is sent, methods that are at work have a little time to end, and the Service ends.

    A Service may run again after it has ended.

    Args:
        name: The name by which the Manager and clients know it; None: the name of the class.
        max_clients: How many clients can be linked at a time; None, or less than 1: any number.
        ignore_attributes: Names not to tell of in the identity; see `ignore_attributes`.
        max_workers: How many plain methods may run at a time, and how many properties may be read at a time
            beside them; 1 has methods wait for each other, which is what an instrument needs; None: some more
            than there are processors.

    Raises:
        TypeError: `max_clients` or `max_workers` is no number.
        ValueError: One of them is not whole, or `max_workers` is less than 1.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        max_clients: int | None = None,
        ignore_attributes: str | Iterable[str] | None = None,
        max_workers: int | None = None,
    ) -> None:
        ignored = [ignore_attributes] if isinstance(ignore_attributes, str) else list(ignore_attributes or ())
        most = -1 if max_clients is None else whole("max_clients", max_clients, -math.inf)
        # Nothing else of ours is an attribute: a subclass may have its own under any name.
        state = State(
            name=type(self).__name__ if name is None else name,
            max_clients=most if most > 0 else -1,
            max_workers=default_max_workers()
            if max_workers is None
            else whole("max_workers", max_workers, 1),
            ignored=ignored,
        )
        set_state(self, state)

    # ---- who and where ----

    @property
    def name(self) -> str:
        """The name of the Service."""
        return state_of(self).name

    @property
    def max_clients(self) -> int:
        """How many clients can be linked at a time; -1: any number."""
        return state_of(self).max_clients

    @property
    def address_manager(self) -> str | None:
        """The address of the Manager, ``host:port``, as it was given; None before the first start."""
        return state_of(self).address_manager

    @property
    def port(self) -> int | None:
        """The number of the port on this computer that the connection uses; None before the first one."""
        return state_of(self).port

    @property
    def loop_thread_id(self) -> int | None:
        """Identifies the thread that Trio runs in; None while the Service does not run."""
        return state_of(self).loop_thread_id

    def identity(self) -> dict[str, Any]:
        """Return what the Service tells the Manager about itself.

        It is made when the Service starts, and stays the same until the next start.
        """
        state = state_of(self)
        return _make_identity(self, state) if state.identity is None else state.identity

    def ignore_attributes(self, *names: str) -> None:
        """Leave attributes out of the identity, from the next start on. They can be requested all the same.

        That silences the warnings about what cannot be described, and hides what need not be known.

        Args:
            names: The names of the attributes.
        """
        state_of(self).ignored.extend(names)

    def __str__(self) -> str:
        return visible(state_of(self).network_name) if has_state(self) else "<UNKNOWN>"

    def __repr__(self) -> str:
        return str(state_of(self)) if has_state(self) else f"<{type(self).__name__} Service, not initialized>"

    set_logging_level = staticmethod(set_logging_level)

    # ---- for methods and tasks ----

    @property
    def request(self) -> ServedRequest:
        """The request that the current task or thread serves: who made it, for example.

        It can be asked for in a method that was requested, plain or async, and in what that method calls.

        Raises:
            RuntimeError: There is none.
        """
        return current_request(self)

    @property
    def nursery(self) -> trio.Nursery:
        """Where to start tasks that run beside the Service, for as long as it is connected.

        An exception in one of them ends the Service, and is raised by `run`.

        Raises:
            RuntimeError: The Service is not connected.
        """
        state = state_of(self)
        if state.connection is None:
            raise RuntimeError(f"The {state.name!r} Service is not connected, so it has no nursery")
        return state.connection.nursery

    def emit_notification(self, /, *args: Any, **kwargs: Any) -> None:
        """Emit a notification to all clients that are linked with the Service; from any thread or task.

        In another thread than that of Trio it waits if too much is waiting to be written.

        Args:
            args: The positional arguments that the clients' handlers get.
            kwargs: Their keyword arguments.

        Raises:
            TypeError: An argument has no JSON form.
            ValueError: An argument cannot be sent.
            BacklogFull: Too much is waiting to be written, and this is the thread of Trio.
            ConnectionLost: The Service is not connected.
        """
        state = state_of(self)
        serving = state.connection
        if serving is None:
            raise ConnectionLost(
                f"The {state.name!r} Service is not connected, it cannot emit a notification"
            )
        serving.emit(args, kwargs)

    def emit_notification_threadsafe(self, /, *args: Any, **kwargs: Any) -> None:
        """The same as `emit_notification`, which in msl-network is for the thread of the event loop only."""
        Service.emit_notification(self, *args, **kwargs)

    def add_tasks(self, *tasks: Callable[[], Awaitable[Any]] | Coroutine[Any, Any, Any]) -> None:
        """Add tasks that run beside the Service: from when it is connected until it ends.

        An exception in one of them ends the Service, and is raised by `run`.

        Args:
            tasks: Async functions without arguments, which are called whenever the Service has connected; or
                coroutines (an async function that was called), which can run just once.

        Raises:
            TypeError: One of them is neither.
            RuntimeError: The Service runs already: use its `nursery`.
        """
        for task in tasks:
            check_task(task)
        state = state_of(self)
        if state.is_running:
            raise RuntimeError(f"{state} runs already, use its nursery to start tasks")
        state.tasks.extend(tasks)

    def shutdown_handler(self) -> Any:
        """Called once after the connection to the Manager has ended, for whatever reason; may be async.

        Override it to clean up. What it raises is logged.
        """

    # ---- running ----

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        *,
        name: str | None = None,
        host: str = "localhost",
        port: int = PORT,
        timeout: float | None = 10,
        username: str | None = None,
        password: str | None = None,
        password_manager: str | None = None,
        read_limit: int | None = None,
        disable_tls: bool = False,
        cert_file: str | os.PathLike[str] | None = None,
        assert_hostname: bool = True,
        auto_save: bool = False,
        transport: Literal["tcp", "websocket"] | Dial = "tcp",
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
        ping_interval: float | None = 20,
        prompts: Prompts | None = None,
        max_unsent: int = 64 * 1024 * 1024,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the Service until a client shuts it down, it is cancelled, or the connection ends.

        ``await nursery.start(service.run)`` returns when the Manager has accepted the Service. When it is
        cancelled, tasks and async methods are; plain methods that are at work have some seconds to end, and
        everybody whose request is still not carried out is told so. Signals are the program's own business:
        nothing happens with them here.

        The identity is made in this task, which evaluates properties.

        Args:
            name: The name of the Service; None: the one that it has.
            host: See `~msl_network_trio.connect`, as for all that are not explained here.
            port: The port of the Manager.
            timeout: How many seconds it may take until the Manager has accepted the Service.
            username: The name of a user.
            password: The password of that user.
            password_manager: The password of the Manager.
            read_limit: The largest request to accept, in bytes.
            disable_tls: Whether the Manager does without TLS.
            cert_file: The Manager's certificate.
            assert_hostname: Whether the certificate must be for this host.
            auto_save: Trust a certificate that is new without asking.
            transport: What carries the connection.
            path: The path of the server's WebSocket.
            headers: Further headers to send when a WebSocket is opened.
            ping_interval: After how many seconds to ask the other end of a WebSocket whether it is there.
            prompts: Answers questions.
            max_unsent: How many bytes of answers may wait to be written, and of requests to be carried out,
                before no more requests are read.
            task_status: For ``nursery.start``.

        Raises:
            ValueError: Both `password` and `password_manager` are given, or an argument makes no sense.
            RuntimeError: The Service runs already.
            ConnectError: No connection, or not to a Manager.
            AuthenticationError: The Manager does not accept the Service; one with that name is running, for
                example.
            ConnectionLost: The connection has ended, and this program has closed neither the Service nor the
                Manager.
            Exception: What a task of `add_tasks` or of the `nursery` has raised.
        """
        state = state_of(self)
        # So that a traceback with the values of variables, as crash reports have it, shows no secrets.
        password, password_manager, path, headers = map(hide, (password, password_manager, path, headers))
        if password and password_manager:
            raise ValueError(
                "Specify either password or password_manager but not both: a Manager asks for just one"
            )
        if state.is_running:
            raise RuntimeError(f"{state} runs already")
        settings = Settings(
            name=state.name if name is None else name,
            host=host,
            port=port,
            timeout=timeout,
            username=username,
            password=password,
            password_manager=password_manager,
            read_limit=read_limit,
            disable_tls=disable_tls,
            cert_file=cert_file,
            assert_hostname=assert_hostname,
            auto_save=auto_save,
            transport=transport,
            path=path,
            headers=headers,
            ping_interval=ping_interval,
            prompts=prompts,
            max_unsent=max_unsent,
        )
        state.is_running = True
        try:
            state.name = settings.name
            state.address_manager = settings.manager
            state.username = username
            state.loop_thread_id = threading.get_ident()
            await _connect_and_serve(self, state, settings, task_status)
        finally:
            state.is_running = False
            state.is_stopped = False
            state.loop_thread_id = None

    def start(
        self,
        *,
        name: str | None = None,
        host: str = "localhost",
        port: int = PORT,
        timeout: float | None = 10,
        username: str | None = None,
        password: str | None = None,
        password_manager: str | None = None,
        read_limit: int | None = None,
        disable_tls: bool = False,
        cert_file: str | os.PathLike[str] | None = None,
        assert_hostname: bool = True,
        auto_save: bool = False,
    ) -> None:
        """Run the Service in a program that does not use Trio itself; returns when the Service has ended.

        It returns when a client has shut the Service down, and after a signal that ends programs: Ctrl-C
        (SIGINT), SIGTERM, SIGHUP or, on Windows, CTRL_BREAK. Then no more requests are accepted, methods that
        are at work have `GRACE` seconds to end, their answers are sent, and `shutdown_handler` is called. A
        second signal ends the process at once. Only the main thread of a program receives signals. One that
        is ignored when this is called (``nohup``), or has a handler of the program, is left alone; if such a
        handler raises an exception, the Service ends in order and this raises it then.

        A program that uses Trio awaits `run`, and does with signals what it likes.

        Args:
            name: See `run`.
            host: See `run`.
            port: See `run`.
            timeout: See `run`.
            username: See `run`.
            password: See `run`.
            password_manager: See `run`.
            read_limit: See `run`.
            disable_tls: See `run`.
            cert_file: See `run`.
            assert_hostname: See `run`.
            auto_save: See `run`.

        Raises:
            ConnectionLost: The Manager has gone, so that the exit status of the program is not 0 and a
                supervisor starts it again.
            Exception: See `run`.
        """
        state = state_of(self)
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("start() blocks; in a Trio program use: await service.run()")
        password, password_manager = hide(password), hide(password_manager)
        run = partial(
            Service.run,  # a subclass may have a method of that name for something else
            self,
            name=name,
            host=host,
            port=port,
            timeout=timeout,
            username=username,
            password=password,
            password_manager=password_manager,
            read_limit=read_limit,
            disable_tls=disable_tls,
            cert_file=cert_file,
            assert_hostname=assert_hostname,
            auto_save=auto_save,
        )
        forget_event_loop()
        try:
            with stop_signals(interrupt=True) as signals:
                try:
                    trio.run(_run_until_stopped, run, state, signals)
                except ConnectionLost as error:
                    if signals.received is None:
                        raise
                    logger.warning("%s", error)  # it was about to end anyway
        except KeyboardInterrupt:
            logger.info("%s was interrupted", state)
        except BaseExceptionGroup as group:
            if group.split(KeyboardInterrupt)[1] is not None:
                raise
            logger.info("%s was interrupted", state)


add_private_names(Service)


@trio.lowlevel.enable_ki_protection
async def _run_until_stopped(run: Callable[[], Awaitable[None]], state: State, signals: StopSignals) -> None:
    signals.on_stop(state.stop)
    await run()


@trio.lowlevel.disable_ki_protection
def _make_identity(service: Service, state: State) -> dict[str, Any]:
    return {
        "type": "service",
        "name": state.name,
        "attributes": describe_attributes(service, state.ignored),
        "max_clients": state.max_clients,
        "language": language(),
        "os": operating_system(),
    }


async def _connect_and_serve(
    service: Service, state: State, settings: Settings, task_status: trio.TaskStatus[None]
) -> None:
    state.identity = _make_identity(service, state)
    protocol = ServiceProtocol(state.identity, settings.manager, settings.read_limit)
    if state.is_stopped:
        return
    try:
        with trio.CancelScope() as state.dialling:
            dialled = await dial(settings, settings.credentials(), protocol)
        if state.dialling.cancelled_caught:
            return
    finally:
        state.dialling = None
    state.port = dialled.transport.port
    state.network_name = protocol.network_name
    state.connection = ServiceConnection(
        service,
        state.name,
        dialled.transport,
        protocol,
        max_workers=state.max_workers,
        max_unsent=settings.max_unsent,
    )
    if state.is_stopped:
        state.connection.stop()
    logger.info("%s is connected to Manager[%s]", visible(state.network_name), settings.manager)
    try:
        await state.connection.run(dialled.early, _take_tasks(state), task_status.started)
    except ConnectionLost as error:
        if not ended_managers.remove(protocol.manager_name, state.network_name):
            raise
        logger.info("%s", error)  # this program has closed the Manager itself
    finally:
        state.connection = None
        logger.info("%s has disconnected from Manager[%s]", visible(state.network_name), settings.manager)
        with trio.move_on_after(GRACE, shield=True):
            await user_code.call(service.shutdown_handler, (), {}, "shutdown_handler")


def _take_tasks(state: State) -> list[Callable[[], Awaitable[Any]]]:
    """Return the tasks to run; coroutines are taken, since they can run just once."""
    functions: list[Callable[[], Awaitable[Any]]] = [
        partial(_await, task) if isinstance(task, Coroutine) else task for task in state.tasks
    ]
    state.tasks = [task for task in state.tasks if not isinstance(task, Coroutine)]
    return functions


async def _await(coroutine: Coroutine[Any, Any, Any]) -> None:
    await coroutine
