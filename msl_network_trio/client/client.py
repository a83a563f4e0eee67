"""A client of a Manager, and how to connect one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio

from msl_network_trio import arguments, callbacks
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.connection import GOODBYE_TIMEOUT, Connection
from msl_network_trio.client.identities import describe
from msl_network_trio.client.link import Link, LinkContext, checked_identity
from msl_network_trio.client.locks import Locks
from msl_network_trio.client.session import open_connection
from msl_network_trio.constants import MANAGER, MAX_UNHANDLED, PORT
from msl_network_trio.dialing.local_identity import own_hostname
from msl_network_trio.dialing.prompts import Credentials, Prompts
from msl_network_trio.dialing.settings import Dial, Settings
from msl_network_trio.exception_groups import leave_nursery
from msl_network_trio.exceptions import ConnectionLost, ManagerError, ReplyTimeout
from msl_network_trio.hidden import hide
from msl_network_trio.protocol.handshake import LOGIN_REFUSALS
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    from msl_network_trio.sync.client import Client as BlockingClient


@attrs.define(eq=False, slots=False, repr=False)
class Client(trio.abc.AsyncResource):
    """A connection to a Manager; `connect` makes it.

    Its methods may be called from any task of the Trio run that it was made in.
    """

    _connection: Connection
    _settings: Settings
    _credentials: Credentials
    _links: list[Link] = attrs.field(factory=list, init=False)
    _linked: Counter[str] = attrs.field(factory=Counter, init=False)
    """How many links there are with each Service, those counted that are being made."""
    _unlinking: Counter[Link] = attrs.field(factory=Counter, init=False)
    """How many tasks are unlinking each link."""
    _locks: Locks = attrs.field(init=False)
    _sync: BlockingClient | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._locks = Locks(self._connection)
        self._connection.on_notifications = self._notify
        self._connection.on_end = self._ended

    # ---- who and where ----

    @property
    def name(self) -> str:
        """The name that `connect` was given."""
        return self._settings.name

    @property
    def address_manager(self) -> str:
        """The address of the Manager, ``host:port``, as `connect` was given it."""
        return self._settings.manager

    @property
    def port(self) -> int:
        """The number of the port on this computer that the connection uses."""
        return self._connection.port

    def __str__(self) -> str:
        # As the Manager says it, once it has; it may know this computer under another name.
        network_name = self._connection.protocol.network_name
        return visible(network_name or f"{self.name}[{own_hostname()}:{self.port}]")

    def __repr__(self) -> str:
        if self.is_connected():
            return visible(f"<{self.name} manager={self.address_manager} port={self.port}>")
        return visible(f"<{self.name} disconnected>")

    def __getstate__(self) -> object:
        raise TypeError(f"{self!r} cannot be copied or pickled, since its connection cannot; see spawn()")

    @property
    def sync(self) -> BlockingClient:
        """The same client for threads: the methods of `msl_network_trio.sync`, which block."""
        if self._sync is None:
            from msl_network_trio.sync.client import Client as BlockingClient

            self._sync = BlockingClient(self)
        return self._sync

    def identity(self) -> dict[str, str]:
        """Return what this client tells the Manager about itself."""
        return self._settings.identity()

    def is_connected(self) -> bool:
        """Return whether requests can be made: the Manager has not closed the connection, nor have we."""
        return self._connection.is_open

    # ---- requests to the Manager ----

    def link(self, service: str, *, timeout: float | None = None) -> AwaitableContext[Link]:
        """Link with a Service.

        Await it, and unlink yourself; or enter it with ``async with``, which unlinks at the end of the
        block. A Manager keeps one link for a client and a Service, so only the last scope of this client
        that is linked with the Service sends the request to unlink.

        Args:
            service: The name of the Service.
            timeout: How many seconds to wait for the Manager's reply.

        Raises:
            ManagerError: There is no such Service, it is locked, or has its maximum of clients.
        """
        return LinkContext(self, service, timeout)

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink from a Service; see `Link.unlink`.

        Args:
            link: A link of this client.
            timeout: How many seconds to wait for the Manager's reply.

        Raises:
            TypeError: It is no link.
            ValueError: It is a link of another client.
            ManagerError: The Manager knows of no such link; the Service was restarted, for example.
        """
        if not isinstance(link, Link):
            raise TypeError(f"Must pass in a Link object, received {type(link)}")
        if link not in self._links:
            raise ValueError(f"{link!r} is not a link of {self}")
        self._unlinking[link] += 1
        try:
            await self._connection.request(MANAGER, "unlink", (link.service_name,), timeout=timeout)
        except ManagerError:
            if self._unlinking[link] == 1 and link in self._links:
                raise  # else another task unlinks it as well, or has done so
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            # The Manager may have unlinked us, so the link is broken; and if it has not, it shall.
            if getattr(error, "may_have_run", True) and not self._forget(link):
                self._connection.post("unlink", link.service_name)
            raise
        finally:
            self._unlinking -= Counter([link])
        self._forget(link)

    @trio.lowlevel.enable_ki_protection
    async def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> Any:
        """Ask who is connected to the Manager.

        Args:
            as_string: Whether to return a text for people instead of a dictionary.
            indent: How many spaces each level of the text is indented by.
            timeout: How many seconds to wait for the Manager's reply.

        Returns:
            The identities of the Manager, its clients and its Services.
        """
        text = arguments.flag("as_string", as_string)
        identity = await self._connection.request(MANAGER, "identity", timeout=timeout)
        return describe(identity, indent) if text else identity

    @trio.lowlevel.enable_ki_protection
    async def admin_request(self, /, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """Request an attribute of the Manager, for which one has to be an administrator.

        If the connection has not logged in as one, the Manager asks who is there; the arguments of
        `connect` answer, or a person does. Nothing else is written to the Manager in the meantime.

        Args:
            attrib: The attribute; dots lead to attributes of attributes, as in
                ``"users_table.usernames"``. `constants.SHUTDOWN_MANAGER` ends the Manager.
            *args: The positional arguments.
            **kwargs: The keyword arguments, but for ``timeout``: how many seconds to wait for the reply,
                those not counted in which a person is asked.

        Raises:
            ManagerError: Not an administrator, wrong credentials, or the request failed.
            AuthenticationError: The Manager asks, and nobody can answer.
            ValueError: ``asynchronous`` was given, which there is not.
        """
        if "asynchronous" in kwargs:
            raise ValueError("Cannot make asynchronous requests to a Manager")
        timeout = kwargs.pop("timeout", None)
        credentials = self._credentials
        try:
            return await self._connection.admin_request(attrib, args, kwargs, timeout, credentials.answer)
        except ManagerError as error:
            if error.message.startswith(LOGIN_REFUSALS):
                credentials.refuse()
            raise

    def dropped(self, service: str) -> int:
        """Return the number of notifications of a Service that handlers or streams were too slow for.

        A notification that several of them have lost counts for each. See ``max_unhandled`` of `connect`.

        Args:
            service: The name of the Service.
        """
        return self._connection.mailboxes.dropped[service]

    def spawn(self, name: str = "Client") -> AwaitableContext[Client]:
        """Make another connection with the same arguments; await or enter it.

        Args:
            name: The name of the new client.
        """
        return ClientContext(attrs.evolve(self._settings, name=name))

    # ---- the end ----

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager. Disconnecting again does no harm.

        What was requested before is still written, and not waited for: it raises `ConnectionLost`.

        Args:
            timeout: How many seconds to wait for the Manager to close the connection, which is then closed
                in any case; None: two. If a request has been written in part by then, the connection is
                reset, so that the Manager can tell.
        """
        await self._connection.disconnect(timeout)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Do what `disconnect` does."""
        await self._connection.disconnect()

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        shutdown_handler: Callable[[], Any] | None = attrs.field(init=False)
    else:

        def shutdown_handler(self) -> Any:
            """Does nothing; assign a plain or async function to be called when the connection has ended.

            It is called once, however the connection ended, and has two seconds; what it raises is logged.
            """

    # ---- for links ----

    @trio.lowlevel.enable_ki_protection
    def _notify(self, batch: NotificationBatch) -> None:
        service = batch[0].service
        for link in self._links:
            if link._service_name == service:
                link._notify(batch, self._connection.callback_tasks.start)

    @trio.lowlevel.enable_ki_protection
    def _ended(self, reason: ConnectionLost) -> Callable[[], Awaitable[None]] | None:
        for link in self._links:
            link._end_notifications(ConnectionLost(str(reason)))
        handler = self.__dict__.get("shutdown_handler")
        return None if handler is None else partial(callbacks.call, handler, (), {}, "the shutdown handler")

    @trio.lowlevel.enable_ki_protection
    async def _link(self, service: str, timeout: float | None) -> Link:
        self._linked[service] += 1
        try:
            answer = await self._connection.request(
                MANAGER, "link", (service,), timeout=timeout, linking=service
            )
            link = Link(self, service, checked_identity(service, answer), self._connection.mailboxes)
        except BaseException as error:
            if not self._release_count(service) and not isinstance(error, ManagerError):
                # The Manager may have linked us all the same, and would keep the place.
                self._connection.post("unlink", service)
            raise
        if any(
            other.service_name == service and other.service_address != link.service_address
            for other in self._links
        ):
            self._locks.forget(service)  # it was a lock on the Service that was there before
        self._links.append(link)
        return link

    @trio.lowlevel.enable_ki_protection
    def _release_count(self, service: str) -> bool:
        """Count one link less, and return whether there is another one."""
        self._linked[service] -= 1
        if self._linked[service] > 0:
            return True
        del self._linked[service]
        self._locks.forget(service)  # as the Manager does, with the link
        return False

    @trio.lowlevel.enable_ki_protection
    def _forget(self, link: Link) -> bool:
        """Break a link, without telling the Manager, and return whether there is another one."""
        link._break()
        link._end_notifications(None)
        if link not in self._links:
            return True
        self._links.remove(link)
        return self._release_count(link.service_name)

    @trio.lowlevel.enable_ki_protection
    async def _leave(self, link: Link) -> None:
        """End the scope of a link."""
        if not self._forget(link):
            await self._connection.say("unlink", link.service_name)


class ClientContext(AwaitableContext[Client]):
    """What `connect` returns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        super().__init__("connect")

    async def _connect(self) -> Client:
        credentials = self._settings.credentials()
        connection = await open_connection(self._settings, credentials)
        return Client(connection, self._settings, credentials)

    # Protected, so that Ctrl-C arrives while it waits and not between two steps that belong together.
    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> Client:
        client = await self._connect()
        connection, name = client._connection, f"<connection of {client}>"
        try:
            if self._settings.nursery is None:
                trio.lowlevel.spawn_system_task(connection.run, name=name)
            else:
                self._settings.nursery.start_soon(connection.run, name=name)
        except BaseException:  # the nursery is closed, or the run is ending
            connection.close()
            raise
        return client

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> Client:
        if self._settings.nursery is not None:
            self._client = await self._open()
            return self._client
        self._client = client = await self._connect()
        # Not with 'async with', so that what the body raises comes out as it is, in no group: the nursery
        # is left with no exception, once it has no task any more.
        self._nursery_manager = trio.open_nursery()
        nursery = await self._nursery_manager.__aenter__()
        nursery.start_soon(client._connection.move_bytes, name=f"<connection of {client}>")
        return client

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        assert self._client is not None
        try:
            with trio.CancelScope(shield=True):
                await self._client._connection.disconnect(GOODBYE_TIMEOUT)
        finally:
            self._client._connection.callback_tasks.cancel()
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
) -> AwaitableContext[Client]:
    """Connect to a Manager.

    ``async with connect() as client`` disconnects at the end of the block. ``client = await connect()``
    lives until `Client.disconnect` or the end of the Trio run. With ``nursery=`` the connection's task runs
    in that nursery, which cannot end before it; cancelling the nursery disconnects.

    Args:
        name: The name of the client on the network.
        host: The name or address of the Manager's computer; an IPv6 address may be in brackets. Or the URL of
            a WebSocket, ``"wss://lab.example/msl"`` for example, which says `transport`, `disable_tls`,
            `path` and `port` (443, or 80 for ``ws``, if there is none in it).
        port: The Manager's port; that for WebSocket is another one.
        timeout: How many seconds connecting may take in all, not counting those in which a person is asked
            something; None: no limit.
        username: The name of a user, if the Manager asks for one.
        password: The password of that user.
        password_manager: The Manager's password, if it asks for it.
        read_limit: The largest line to receive, in bytes; None: no limit.
        disable_tls: Whether the Manager was started without TLS.
        cert_file: A file with the Manager's certificate, or that of the CA that signed it (PEM). None: the
            certificate that was saved for the host, or else trust on first use. One is saved for each host,
            so of two Managers on one computer the second needs this.
        assert_hostname: Whether the certificate must be for this host.
        auto_save: Trust the certificate of a host that has none saved, and save it, without asking, if it is
            good (for this host, not expired). If it cannot be saved, a warning is logged, and it is trusted
            for this connection only.
        transport: What carries the connection: ``"tcp"``; ``"websocket"``, also through proxies; or an async
            function without arguments that returns an open `~msl_network_trio.transport.base.Stream`; then
            `host`, `port` and TLS do not count. By WebSocket, certificates for which the system's CAs vouch
            are trusted, too, if neither `cert_file` nor ``assert_hostname=False`` is given.
        path: The path of the server's WebSocket; None: ``/``.
        headers: Further headers to send when a WebSocket is opened: a token for a proxy, for example.
        ping_interval: After how many seconds to ask the other end of a WebSocket whether it is there, which
            shows proxies that it is in use, too; it is lost if no answer comes in the same time. None: never.
        nursery: Where the task of the connection runs.
        prompts: Answers the Manager's questions, and the question of trust (`Prompts`); None: a person at
            the terminal does.
        request_timeout: How many seconds to wait for a reply if a call does not say; None: no limit.
        probe_after: After how many seconds with a request open the Manager is asked whether the Services are
            still there, which otherwise nobody would tell; None: never.
        probe_every: The most seconds between two such questions, whose distance doubles.
        unresponsive_after: For how many seconds a Manager that owes an answer may say nothing before the
            connection counts as lost; None: for ever. It is noticed only while there are questions.
        max_unsent: Maximum bytes that wait to be written, behind the message that is being written, before
            requests have to wait.
        max_unhandled: Maximum bytes of the notifications of one Service that wait for handlers and streams
            (`Link.notifications`), each counted for its line and 500 bytes. If there are more, the oldest are
            dropped, and counted by `Client.dropped`. All Services together may have 256 MiB.

    Returns:
        What is to be awaited, or entered.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has no possible value.
        ConnectTimeout: Not connected in time.
        ConnectError: Not connected; the text says why, and what to do.
        CertificateError: The Manager's certificate is not trusted.
        AuthenticationError: The Manager rejected us, or a credential is missing.
    """
    # So that a traceback with the values of variables, as crash reports have it, shows no secrets.
    password, password_manager, path, headers = map(hide, (password, password_manager, path, headers))
    host = hide(host)  # it may be a URL with a token
    return ClientContext(Settings(**locals()))


def filter_client_connect_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Return those of the keyword arguments that `connect` accepts.

    ``auth_password``, which is what a Manager calls it, is returned as ``password_manager``, unless that
    is given as well.
    """
    accepted = {field.name for field in attrs.fields(Settings)}
    filtered = {name: value for name, value in kwargs.items() if name in accepted}
    if "auth_password" in kwargs:
        filtered.setdefault("password_manager", kwargs["auth_password"])
    return filtered
