"""Client of a Manager, and the function that connects one; both belong to the Trio thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio

from msl_network_trio import arguments
from msl_network_trio.client import views
from msl_network_trio.client.admin_request import admin_request
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.identities import describe
from msl_network_trio.client.link import Link, link_state
from msl_network_trio.client.session import Session, open_session
from msl_network_trio.client.states import StateStream
from msl_network_trio.client.statistics import Statistics
from msl_network_trio.client.task_requests import GOODBYE_TIMEOUT
from msl_network_trio.constants import MANAGER, MAX_UNHANDLED, PORT
from msl_network_trio.dialing.local_identity import own_hostname
from msl_network_trio.dialing.prompts import Prompts
from msl_network_trio.dialing.reconnect import Reconnect, State
from msl_network_trio.dialing.settings import Dial, Settings
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import ManagerError
from msl_network_trio.hidden import hide
from msl_network_trio.protocol.handshake import LOGIN_REFUSALS
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    import msl_network_trio


class Client(trio.abc.AsyncResource):
    """A connection to a Manager; `connect` makes it.

    Its methods may be called from any task of the Trio run that it was made in.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sync: msl_network_trio.sync.Client | None = None
        session.client = self

    # ---- properties ----

    @property
    def name(self) -> str:
        """The name that `connect` was given."""
        return self._session.settings.name

    @property
    def address_manager(self) -> str:
        """Address of the Manager, ``host:port``, as `connect` was given it."""
        return self._session.settings.manager

    @property
    def port(self) -> int:
        """Port number on this computer that the connection uses."""
        return self._session.connection.port

    def __str__(self) -> str:
        # The name in the Manager's lines, once one has arrived: the Manager may use another host name.
        network_name = self._session.connection.protocol.network_name
        return visible(network_name or f"{self.name}[{own_hostname()}:{self.port}]")

    def __repr__(self) -> str:
        return repr(self._session)

    def __getstate__(self) -> object:
        return self._session.__getstate__()  # which raises

    @property
    def sync(self) -> msl_network_trio.sync.Client:
        """The same client for threads: the methods of `msl_network_trio.sync`, which block."""
        if self._sync is None:
            self._sync = views.registered().client(self)
        return self._sync

    def identity(self) -> dict[str, str]:
        """Return the identity of this client, as the Manager has received it."""
        return self._session.settings.identity()

    @property
    def state(self) -> State:
        """The state: ``"connected"``, ``"away"`` while the client reconnects, and ``"closed"`` at the end."""
        return self._session.states.state

    def states(self) -> StateStream:
        """Return an async iterator over the changes of the state from now on, each a `StateChange`.

        It ends after the change to ``"closed"``.
        """
        return StateStream(self._session.states)

    def is_connected(self) -> bool:
        """Return whether requests can be made: neither the Manager nor the client has disconnected."""
        return self._session.connection.is_open

    # ---- requests to the Manager ----

    def link(
        self, service: str, *, timeout: float | None = None, idempotent: Collection[str] = ()
    ) -> AwaitableContext[Link]:
        """Link with a Service.

        Await it, and unlink yourself; or enter it with ``async with``, which unlinks at the end of the
        block. A Manager keeps one link for a client and a Service, so only the last scope of this client
        that is linked with the Service sends the request to unlink.

        Args:
            service: Name of the Service.
            timeout: Seconds to wait for the Manager's reply.
            idempotent: Names of attributes of the Service whose requests may be executed several times. If
                the client reconnects, they are repeated until there is a reply, also if a request may have
                been executed, within its timeout.

        Raises:
            ManagerError: There is no such Service, it is locked, or has its maximum of clients.
        """
        names = arguments.names("idempotent", idempotent)
        return LinkContext(self._session, f"{type(self).__name__}.link", service, timeout, names)

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink from a Service; see `Link.unlink`.

        Args:
            link: A link of this client.
            timeout: Seconds to wait for the Manager's reply.

        Raises:
            TypeError: It is not a link.
            ValueError: It is a link of another client.
            ManagerError: The Manager has no such link; the Service was restarted, for example.
        """
        if not isinstance(link, Link):
            raise TypeError(f"Must pass in a Link object, received {type(link)}")
        state = link_state(link)
        if state not in self._session.links:
            raise ValueError(f"{link!r} is not a link of {self}")
        await self._session.links.unlink(state, timeout)

    @trio.lowlevel.enable_ki_protection
    async def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> Any:
        """Request the identities of the Manager and of everything that is connected to it.

        Args:
            as_string: Whether to return a text for people instead of a dictionary.
            indent: Number of spaces by which each level of the text is indented.
            timeout: Seconds to wait for the Manager's reply.

        Returns:
            The identities of the Manager, its clients and its Services.
        """
        is_text = arguments.flag("as_string", as_string)
        identity = await self._session.requests.request(MANAGER, "identity", timeout=timeout)
        return describe(identity, indent) if is_text else identity

    @trio.lowlevel.enable_ki_protection
    async def admin_request(self, /, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """Request an attribute of the Manager that is for administrators.

        If the connection has not logged in as one, the Manager asks for a user name and a password. The
        arguments of `connect` answer, or a person does. Nothing else is written to the Manager meanwhile.

        Args:
            attrib: The attribute; dots lead to attributes of attributes, as in
                ``"users_table.usernames"``. `constants.SHUTDOWN_MANAGER` ends the Manager.
            *args: Positional arguments.
            **kwargs: Keyword arguments, except ``timeout``: seconds to wait for the reply, without those in
                which a person is asked.

        Raises:
            ManagerError: Not an administrator, wrong credentials, or the request failed.
            AuthenticationError: The Manager asks, and there is no answer.
            ValueError: ``asynchronous`` was given, which is not possible.
        """
        if "asynchronous" in kwargs:
            raise ValueError("Cannot make asynchronous requests to a Manager")
        timeout = kwargs.pop("timeout", None)
        credentials = self._session.credentials
        requests, left = await self._session.connected(attrib, timeout)
        try:
            return await admin_request(requests, attrib, args, kwargs, left, answer=credentials.answer)
        except ManagerError as error:
            if error.message.startswith(LOGIN_REFUSALS):
                credentials.refuse()
            raise

    def dropped(self, service: str) -> int:
        """Return the number of notifications of a Service that were dropped.

        They are dropped if a handler or stream falls behind, and count for each of these. See
        ``max_unhandled`` of `connect`.

        Args:
            service: Name of the Service.
        """
        return self._session.mailboxes.dropped[service]

    def statistics(self) -> Statistics:
        """Return what this client has done since it was connected: requests, errors, bytes, latencies."""
        return self._session.statistics()

    def spawn(self, name: str = "Client") -> AwaitableContext[Client]:
        """Make another connection with the same arguments; await or enter it.

        Args:
            name: Name of the new client.
        """
        return ClientContext(attrs.evolve(self._session.settings, name=name))

    # ---- the end ----

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager. May be called again.

        Requests that were made before are still written, but raise `ConnectionLost`.

        Args:
            timeout: Maximum seconds to wait for the Manager to close the connection, which is then closed in
                any case; None: two. If a request has been written in part by then, the connection is reset,
                so that the Manager does not take the part for a whole line.
        """
        await self._session.disconnect(timeout)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Disconnect from the Manager; see `disconnect`."""
        await self._session.disconnect()

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        shutdown_handler: Callable[[], Any] | None
    else:

        def shutdown_handler(self) -> Any:
            """Do nothing; assign a plain or async function to be called when the connection has ended.

            It is called once, however the connection ended, and has two seconds; an exception in it is
            logged.
            """


def client_session(client: Client) -> Session:
    """Return the session of a client, for the other classes of the client and of the blocking API."""
    return client._session  # noqa: SLF001 - the one way in


class LinkContext(AwaitableContext[Link]):
    """Awaitable and context manager that links with a Service; `Client.link` returns it."""

    def __init__(
        self, session: Session, name: str, service: str, timeout: float | None, idempotent: frozenset[str]
    ) -> None:
        self._session = session
        self._idempotent = idempotent
        self._service = service
        self._timeout = timeout
        super().__init__(name)

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> Link:
        return Link(await self._session.links.make(self._service, self._timeout, self._idempotent))

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> Link:
        link = await self._open()
        self._link = link_state(link)
        return link

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        await self._session.links.leave(self._link)


class ClientContext(AwaitableContext[Client]):
    """Awaitable and context manager that connects a client; `connect` returns it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__("connect")

    # Protected, so that Ctrl-C arrives while it waits and not between two steps that belong together.
    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> Client:
        session = await open_session(self._settings)
        client = Client(session)
        name = f"<connection of {client}>"
        try:
            if self._settings.nursery is None:
                trio.lowlevel.spawn_system_task(session.run_in_background, name=name)
            else:
                self._settings.nursery.start_soon(session.run_in_background, name=name)
        except BaseException:  # the nursery is closed, or the run is ending
            session.close()
            raise
        self._session = session
        return client

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> Client:
        if self._settings.nursery is not None:
            return await self._open()
        self._session = session = await open_session(self._settings)
        client = Client(session)
        # Not with 'async with', so that what the body raises comes out as it is, in no group: the nursery is
        # left with no exception, once it has no task any more.
        self._nursery_manager = trio.open_nursery()
        nursery = await self._nursery_manager.__aenter__()
        nursery.start_soon(session.run, name=f"<connection of {client}>")
        return client

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        try:
            with trio.CancelScope(shield=True):
                await self._session.disconnect(GOODBYE_TIMEOUT)
        finally:
            self._session.callback_tasks.cancel()
            if self._settings.nursery is None:
                await leave_nursery(self._nursery_manager)


def connect(
    *,
    name: str = "Client",
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
    nursery: trio.Nursery | None = None,
    prompts: Prompts | None = None,
    request_timeout: float | None = None,
    probe_after: float | None = 5,
    probe_every: float = 60,
    unresponsive_after: float | None = 60,
    max_unsent: int = 64 * 1024 * 1024,
    max_unhandled: int = MAX_UNHANDLED,
    on_late_reply: Callable[[LateReply], object] | None = None,
    reconnect: bool | Reconnect = False,
) -> AwaitableContext[Client]:
    """Connect to a Manager.

    ``async with connect() as client`` disconnects at the end of the block. ``client = await connect()``
    lives until `Client.disconnect` or the end of the Trio run. With ``nursery=`` the connection's task runs
    in that nursery, which cannot end before it; cancelling the nursery disconnects.

    Args:
        name: Name of the client on the network.
        host: Name or address of the Manager's computer; an IPv6 address may be in brackets. Or the URL of a
            WebSocket, ``"wss://lab.example/msl"`` for example, which contains `transport`, `disable_tls`,
            `path` and `port` (443, or 80 for ``ws``, if there is none in it).
        port: The Manager's port; that for WebSocket is another one.
        timeout: Maximum seconds that connecting may take, without those in which a person is asked something;
            None: no limit.
        username: Name of a user, if the Manager asks for one.
        password: Password of that user.
        password_manager: The Manager's password, if it asks for one.
        read_limit: Maximum bytes of a received line; None: no limit.
        disable_tls: Whether the Manager was started without TLS.
        cert_file: A file with the Manager's certificate, or that of the CA that signed it (PEM). None: the
            certificate that was saved for the host, or else trust on first use. One is saved for each host,
            so of two Managers on one computer the second needs this.
        assert_hostname: Whether the certificate must be for this host.
        auto_save: Whether to trust the certificate of a host that has none saved, and to save it, without
            asking, if it is good (for this host, not expired). If it cannot be saved, a warning is logged,
            and it is trusted for this connection only.
        transport: The carrier of the connection: ``"tcp"``; ``"websocket"``, also through proxies; or an
            async function without arguments that returns an open `~msl_network_trio.transport.base.Stream`;
            then `host`, `port` and TLS are not used. By WebSocket, certificates signed by the system's CAs
            are trusted, too, if neither `cert_file` nor ``assert_hostname=False`` is given.
        path: Path of the server's WebSocket; None: ``/``.
        headers: Further headers to send when a WebSocket is opened: a token for a proxy, for example.
        ping_interval: Seconds between pings of a WebSocket, which also show proxies that it is in use. The
            connection is lost if a ping is not answered in the same time. None: no pings.
        nursery: Nursery for the task of the connection.
        prompts: Answers the Manager's questions, and the question of trust (`Prompts`); None: a person at
            the terminal does.
        request_timeout: Default for the seconds to wait for a reply; None: no limit.
        probe_after: Seconds that a request is open before the Manager is asked for the Services that are
            connected, since it does not announce that one is gone; None: never.
        probe_every: Maximum seconds between these probes, whose interval doubles.
        unresponsive_after: Seconds that the Manager may leave a probe unanswered and send nothing before the
            connection counts as lost; None: no limit.
        max_unsent: Maximum bytes that wait to be written, behind the message that is being written, before
            requests have to wait.
        max_unhandled: Maximum bytes of the notifications of one Service that wait for handlers and streams
            (`Link.notifications`); each counts its line and 500 bytes. If there are more, the oldest are
            dropped, and counted by `Client.dropped`. The maximum for all Services together is 256 MiB.
        on_late_reply: A plain or async function that is called with a `LateReply` when the reply arrives to a
            call of a Service whose caller waits no longer: its timeout has expired, it was cancelled, or it
            got an error with ``may_have_run=True``. It is called in the order of the replies, one at a time,
            and an exception in it is logged. Of calls that are not answered, the last 1000 are remembered,
            with their arguments. When the connection is lost, their replies are lost as well.
        reconnect: Whether to connect and link again when the connection is lost, and how (`Reconnect`). Then
            the first connection is tried within `timeout`, too, until it succeeds.

    Returns:
        An object to be awaited or entered.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has an invalid value.
        ConnectTimeout: Not connected in time.
        ConnectError: Not connected; the message contains the reason and a remedy.
        CertificateError: The Manager's certificate is not trusted.
        AuthenticationError: The Manager rejected the client, or a credential is missing.
    """
    # So that a traceback with the values of variables, as in crash reports, contains no secrets.
    password, password_manager, path, headers = map(hide, (password, password_manager, path, headers))
    host = hide(host)  # it may be a URL with a token
    return ClientContext(Settings(**locals()))
