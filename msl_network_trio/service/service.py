"""The base class of all Services."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import trio

from msl_network_trio.arguments import interval, whole
from msl_network_trio.asyncio_advice import check_task
from msl_network_trio.constants import PORT
from msl_network_trio.dialing.prompts import Prompts
from msl_network_trio.dialing.reconnect import Reconnect, as_reconnect
from msl_network_trio.dialing.settings import Dial, Settings
from msl_network_trio.hidden import hide
from msl_network_trio.service.current_request import ServedRequest, current_request
from msl_network_trio.service.logging_level import set_logging_level
from msl_network_trio.service.private_names import add_private_names
from msl_network_trio.service.running import make_identity, run_program
from msl_network_trio.service.session import ServiceSession
from msl_network_trio.service.state import ServiceState, has_state, set_state, state_of
from msl_network_trio.service.threads import default_max_workers
from msl_network_trio.visible import visible


class Service:
    """The base class of all Services: clients can request the public attributes of a subclass.

    ``async def`` methods run as Trio tasks, beside everything else. Plain methods run in worker threads, so
    they may block, as the methods of most instruments do; `max_workers` limits how many run at a time. For
    properties and other attributes the reply is the value. A result must have a JSON form, or a ``to_json()``
    method that returns something with a JSON form.

    A client can request all attributes of a subclass whose names do not begin with an underscore, and of this
    class `name`, `max_clients`, `address_manager`, `port`, `loop_thread_id`, `identity` and
    `set_logging_level`. The other methods are for the program that runs the Service: requests for them are
    refused, also where a subclass overrides them. (But `run`, `nursery` and `request`, which msl-network does
    not have, belong to a subclass that defines them for something else; `start` still works then.)

    Properties are read in threads of their own, at most `max_workers`, beside plain methods, and never wait
    for one: a client can request the progress of a measurement. Therefore a property must be safe to read
    while a method runs. Reading an attribute that methods set is safe; communication with an instrument is
    not, unless both hold a `threading.Lock`, for which the property then waits.

    A subclass may use any private names; see `msl_network_trio.service.private_names` for those of
    msl-network that can be read.

    A client can shut down a Service whose subclass defines a method ``shutdown_service``: when that method
    has returned, its result is sent, running methods have some seconds to finish, and the Service ends.

    A Service may run again after it has ended.

    Args:
        name: The name by which the Manager and clients know the Service; None: the name of the class.
        max_clients: Maximum number of clients that are linked at a time; None, or less than 1: no limit.
        ignore_attributes: Names to leave out of the identity; see `ignore_attributes`.
        max_workers: Maximum number of plain methods that run at a time, and again of properties that are read
            beside them. With 1, methods run one after the other, which most instruments need. None: some more
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
        # The only attribute of the base class: a subclass may use any name for its own.
        state = ServiceState(
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
        """The maximum number of clients that are linked at a time; -1: no limit."""
        return state_of(self).max_clients

    @property
    def address_manager(self) -> str | None:
        """The address of the Manager, ``host:port``, as it was given; None before the first start."""
        return state_of(self).address_manager

    @property
    def port(self) -> int | None:
        """The local port of the connection; None before the first connection."""
        return state_of(self).port

    @property
    def loop_thread_id(self) -> int | None:
        """The identifier of the thread that Trio runs in; None while the Service does not run."""
        return state_of(self).loop_thread_id

    def identity(self) -> dict[str, Any]:
        """Return the identity that the Service sends to the Manager: its name, attributes and limits.

        It is made when the Service starts, and stays the same until the next start.
        """
        state = state_of(self)
        return make_identity(self, state) if state.identity is None else state.identity

    def ignore_attributes(self, *names: str) -> None:
        """Leave attributes out of the identity, from the next start on. They can still be requested.

        This silences the warnings about attributes that cannot be described.

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
        """The request that the current task or thread serves, with the network name of the client.

        It is available in a method that was requested, plain or async, and in the functions that it calls.

        Raises:
            RuntimeError: There is none.
        """
        return current_request(self)

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery for tasks that run beside the Service, from its first connection to its end.

        They go on while the Service reconnects. An exception in one of them ends the Service, and is raised
        by `run`.

        Raises:
            RuntimeError: The Service is not connected, and has not been in this run.
        """
        state = state_of(self)
        nursery = None if state.session is None else state.session.nursery
        if nursery is None:
            raise RuntimeError(f"The {state.name!r} Service is not connected, so it has no nursery")
        return nursery

    def emit_notification(self, /, *args: Any, **kwargs: Any) -> None:
        """Emit a notification to all clients that are linked with the Service; from any thread or task.

        It blocks while the send queue is full, but raises `BacklogFull` in the thread of Trio. While the
        Service reconnects, notifications are dropped and counted; linked clients get a `Gap`.

        Args:
            args: The positional arguments for the handlers of the clients.
            kwargs: The keyword arguments for them.

        Raises:
            TypeError: An argument has no JSON form.
            ValueError: An argument cannot be sent.
            BacklogFull: The send queue is full, and this is the thread of Trio.
            ConnectionLost: The Service is not connected, and does not reconnect.
        """
        state = state_of(self)
        sink = state.connection or state.session
        if sink is None:
            raise state.cannot_emit()
        sink.emit(args, kwargs)

    def emit_notification_threadsafe(self, /, *args: Any, **kwargs: Any) -> None:
        """Emit a notification, as `emit_notification` does, which is thread-safe here anyway."""
        Service.emit_notification(self, *args, **kwargs)

    def add_tasks(self, *tasks: Callable[[], Awaitable[Any]] | Coroutine[Any, Any, Any]) -> None:
        """Add tasks that run beside the Service, from its first connection to its end.

        They go on while the Service reconnects. An exception in one of them ends the Service, and is raised
        by `run`.

        Args:
            tasks: Async functions without arguments, which are called each time the Service runs; or
                coroutines (an async function that was called), which can run only once.

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
        """Clean up after the Service has ended. A subclass overrides it; may be async.

        It is called once for each run in which the Service was connected, whatever the reason of the end; not
        each time a connection is lost if the Service reconnects. Its exceptions are logged.
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
        reconnect: bool | Reconnect = False,
        heartbeat: float | None = 30,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the Service until a client shuts it down, it is cancelled, or the connection ends.

        ``await nursery.start(service.run)`` returns when the Manager has accepted the Service. Cancellation
        cancels tasks and async methods; running plain methods have some seconds to finish, and requests that
        are not carried out get an error as their reply. Signals are left to the program.

        The identity is made in this task, which evaluates properties.

        Args:
            name: The name of the Service; None: its present name.
            host: See `~msl_network_trio.connect`, as for all arguments that are not explained here.
            port: The port of the Manager.
            timeout: Maximum seconds until the Manager has accepted the Service.
            username: The name of a user.
            password: The password of that user.
            password_manager: The password of the Manager.
            read_limit: Maximum bytes of a request.
            disable_tls: Whether the Manager does not use TLS.
            cert_file: The certificate of the Manager.
            assert_hostname: Whether the certificate must be for this host.
            auto_save: Trust a new certificate without asking.
            transport: The transport of the connection.
            path: The path of the WebSocket.
            headers: Further headers for opening a WebSocket.
            ping_interval: Seconds between pings of a WebSocket.
            prompts: Answers questions.
            max_unsent: Maximum bytes of queued replies, and of requests in progress, before reading pauses.
            reconnect: Whether to connect again when the connection is lost, and how. The first connection is
                then tried repeatedly within `timeout`. Requests in progress at a loss go on, and their
                replies are dropped; tasks go on, too.
            heartbeat: Seconds without received data after which a probe is sent to the Manager; without an
                answer in as many seconds more, the connection counts as lost. None: no probes.
            task_status: For ``nursery.start``.

        Raises:
            ValueError: Both `password` and `password_manager` are given, or an argument makes no sense.
            RuntimeError: The Service runs already.
            ConnectError: There is no connection, or its other end is no Manager.
            AuthenticationError: The Manager does not accept the Service; its name may be in use.
            ConnectionLost: The connection has ended, and this program has closed neither the Service nor the
                Manager. With `reconnect`, the Service has given up connecting again, because of the cause.
            Exception: The exception of a task of `add_tasks` or of the `nursery`.
        """
        state = state_of(self)
        # Crash reports have tracebacks with the values of variables, which must not show secrets.
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
            reconnect=as_reconnect("reconnect", reconnect),
        )
        heartbeat = None if heartbeat is None else interval("heartbeat", heartbeat)
        state.is_running = True
        try:
            state.name = settings.name
            state.address_manager = settings.manager
            state.username = username
            state.loop_thread_id = threading.get_ident()
            state.identity = make_identity(self, state)
            state.session = ServiceSession(self, state, settings, heartbeat)
            await state.session.run(task_status.started)
        finally:
            state.session = None
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
        reconnect: bool | Reconnect | None = None,
        heartbeat: float | None = 30,
    ) -> None:
        """Run the Service in a program that does not use Trio itself; returns when the Service has ended.

        In the main thread of a program the Service reconnects by default: it waits for a Manager that is not
        there yet, up to `timeout`, and for one that is restarted, without a limit.

        It returns when a client has shut the Service down, and after a signal that ends programs: Ctrl-C
        (SIGINT), SIGTERM, SIGHUP or, on Windows, CTRL_BREAK. Then no more requests are accepted, running
        methods have 2 seconds to finish, their replies are sent, and `shutdown_handler` is called. A second
        signal ends the process at once. Only the main thread of a program receives signals. A signal that is
        ignored when this is called (``nohup``), or has a handler of the program, keeps its disposition; if
        such a handler raises an exception, the Service shuts down, and this method raises the exception.

        A program that uses Trio awaits `run`, and handles signals itself.

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
            reconnect: See `run`. None: True in the main thread, and False in other threads.
            heartbeat: See `run`.

        Raises:
            ConnectionLost: The Manager has gone, and the Service does not reconnect or has given up. So the
                exit status of the program is not 0, and a supervisor starts it again.
            Exception: See `run`.
        """
        state = state_of(self)
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("start() blocks; in a Trio program use: await service.run()")
        password, password_manager = hide(password), hide(password_manager)
        if reconnect is None:
            reconnect = threading.current_thread() is threading.main_thread()
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
            reconnect=reconnect,
            heartbeat=heartbeat,
        )
        run_program(run, state)


add_private_names(Service)
