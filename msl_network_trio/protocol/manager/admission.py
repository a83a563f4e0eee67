"""Who is let in, and who is an administrator: what a Manager asks its peers, as pure state.

A conversation begins with the questions of the authentication, of which there is one kind at most, and with
that for the identity. Later on, who makes a request that takes an administrator and is none is asked for
username and password; other requests of that peer go on meanwhile, and only what can be an answer is one.

What the peer says may have to be looked up. Then something is `AdmissionState.check`, and what the peer sends
is kept until `Admission.resolve` is told the verdict.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Any

import attrs

from msl_network_trio.hidden import Hidden, hide, reveal
from msl_network_trio.limits.login_throttle import LoginThrottle, Outcome
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.handshake import NO_ADMIN, UNREGISTERED, WRONG_MANAGER_PASSWORD, WRONG_PASSWORD
from msl_network_trio.protocol.manager import answers
from msl_network_trio.protocol.manager import typed_lines as terminal
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.pending_check import (
    AdminRequest,
    AdmissionState,
    HostCheck,
    LoginCheck,
    PendingCheck,
    ReplaceCheck,
    Revoked,
    Throttled,
    TryAgain,
    UserCheck,
)
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.registry import AddressTaken, Registry, RegistryFull
from msl_network_trio.protocol.manager.responder import Responder
from msl_network_trio.protocol.messages import NO_RESULT, UNSET, RoutedLine
from msl_network_trio.protocol.routed_lines import decode_routed

_ANSWER_LIMIT = 65_536
"""The largest line of a peer that has not shown yet that it may connect, in bytes."""

IDENTITY_LIMIT = 2_097_152
"""The largest line with an identity, in bytes: a Service says there what its attributes are."""

FORWARDED = "forwarded"
"""The field of a peer's first line in which a gateway tells the IP address of that peer."""

_FORWARDED_KEY = b'"forwarded"'

_LINES = 1000
"""How many lines a peer may send before it has said who it is: blank ones, for those that count need few."""

_ADMIN_REQUESTS = 100
"""How many requests for which it has to be an administrator a peer may make before it has logged in."""

_UNPROVEN = 16_384
"""How many bytes these may have."""

FULL_AGAIN = 10.0
"""Seconds after which a peer may try again that was one too many: others have to go first."""

TAKEN_AGAIN = 1.0
"""Seconds after which a peer may try again whose name and address are taken: it will have another port."""

UNDECIDED_AGAIN = 5.0
"""Seconds after which a peer may try again of which the Manager could not find out who it is."""


@attrs.frozen
class Authentication:
    """What peers have to show before they may say who they are; one of these at most.

    Raises:
        ValueError: It is more than one.
    """

    password: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    """The Manager's password, which everybody has to know; None: there is none."""

    hostname: bool = False
    """Whether their hosts have to be trusted."""

    login: bool = False
    """Whether they have to log in as a user."""

    def __attrs_post_init__(self) -> None:
        if (self.password is not None) + self.hostname + self.login > 1:
            raise ValueError("Cannot specify multiple authentication methods")


class Admission:
    """The part of a `ManagerProtocol` that lets peers in.

    Args:
        name: ``"Manager[HOST:port]"``.
        registry: Who is connected, to which is added who is let in.
        authentication: What peers have to show.
        read_limit: The largest line to accept of a peer that is connected, in bytes; None: no limit.
        delivery: Writes to peers.
        admitted: Is told of a peer that has been let in.
        record: Keeps for later what happened to a peer when it connected.
        event_log: The log.
        logins: The attempts to log in that have failed.
        replaces: Whether a peer that is gone may be replaced by one of the same name, see `ReplaceCheck`.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        authentication: Authentication,
        read_limit: int | None,
        *,
        responder: Responder,
        admitted: Callable[[Peer], None],
        record: Callable[[Peer, str], None],
        event_log: EventLog,
        logins: LoginThrottle,
        replaces: bool = False,
    ) -> None:
        self._name = name
        self._registry = registry
        self._authentication = authentication
        self._read_limit = read_limit
        self._responder = responder
        self._states: dict[Peer, AdmissionState] = {}
        self._admitted = admitted
        self._record = record
        self._event_log = event_log
        self._logins = logins
        self._replaces = replaces

    def state(self, peer: Peer) -> AdmissionState | None:
        """Return the state of a peer; None: it has been admitted, and does not log in."""
        return self._states.get(peer)

    def begin(self, peer: Peer) -> None:
        """Take up the conversation with a new peer."""
        self._record(peer, "new connection request")
        self._states[peer] = AdmissionState()
        peer.lines.limit = _smaller(self._read_limit, _ANSWER_LIMIT)
        if self._authentication.password is not None:
            self._ask(peer, Phase.PASSWORD, "password", self._name)
        elif self._authentication.hostname:
            self._wait_for_check(peer, HostCheck(peer.host.hostname))
        elif self._authentication.login:
            self._ask(peer, Phase.USERNAME, "username", self._name)
        else:
            self._ask_identity(peer)

    def end(self, peer: Peer) -> None:
        """Note that a peer has gone."""
        self._states.pop(peer, None)
        if peer.kind or peer.phase is Phase.CLOSING:
            self._record(peer, "disconnected")
        elif peer.phase in {Phase.USERNAME, Phase.PASSWORD, Phase.USER_PASSWORD}:
            what = "username" if peer.phase is Phase.USERNAME else "password"
            self._record(peer, f"connection closed before receiving the {what}")
        else:
            self._record(peer, "connection closed prematurely")

    def request(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Take a request for which a peer has to be an administrator."""
        try:
            fields = codec.decode_object(line)
        except codec.UndecodableLine as error:  # a number of more digits than Python converts, for example
            self._responder.refuse(peer, routed.uid, str(error))
            return
        args, kwargs = fields.get("args", []), fields.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            self._responder.refuse(peer, routed.uid, 'TypeError: "args" are an array, and "kwargs" an object')
            return
        text = "received an admin request %r from %s"
        name = routed.attribute
        self._event_log.write(peer, logging.INFO, "admin_request", text, name, peer.name, attribute=name)
        state = self._states.setdefault(peer, AdmissionState())
        requests = state.requests
        state.size += len(line)
        if len(requests) >= _ADMIN_REQUESTS:
            self._responder.refuse(
                peer, routed.uid, f"{NO_ADMIN}, and {_ADMIN_REQUESTS} of them wait for a login"
            )
            return
        if state.size > _UNPROVEN and not peer.is_admin:
            self._responder.refuse(
                peer, routed.uid, f"{NO_ADMIN}, and before that no more than {_UNPROVEN:,} bytes"
            )
            if not requests:
                del self._states[peer]
            return
        requests.append(AdminRequest(routed.attribute, args, kwargs, routed.uid))
        if len(requests) == 1:
            self._next_request(peer)

    def take(self, peer: Peer, line: bytes) -> bool:
        """Take a line of a peer that `Peer.waits_for` something.

        Returns:
            False if it is no answer, but to be handled as other lines of a peer that is connected.
        """
        assert self._states[peer].check is None
        if not peer.kind and peer.lines_received > _LINES:
            self.reject(peer, ValueError(f"{peer.phase.value!r} was not answered by any of {_LINES:,} lines"))
            return True
        if not line.strip():
            return True
        if not (peer.kind or peer.has_answered):
            peer.has_answered = True
            if _FORWARDED_KEY in line:
                _take_forwarded(peer, line)
        if peer.kind and (len(line) > _ANSWER_LIMIT or self._is_no_answer(peer, line)):
            return False
        try:
            answer = codec.decode(line).result
        except codec.UndecodableLine as error:
            text = terminal.typed(line)
            answer = terminal.identity(text) if text and peer.phase is Phase.IDENTITY else text
            if answer is None:
                self._no_answer(peer, f"is not a line of JSON: {error}")
                return True
        if answer is UNSET:
            self._no_answer(peer, 'has no "result"')
        else:
            self._answer(peer, answer)
        return True

    def resolve(self, peer: Peer, verdict: Any) -> None:
        """Take the verdict that a peer waits for, or the exception because of which there is none."""
        state = self._states[peer]
        question, state.check = state.check, None
        if isinstance(question, AdminRequest):
            self._answer_request(peer, question, verdict)
        elif isinstance(verdict, Throttled):
            self._throttle(peer, verdict)
        elif isinstance(verdict, Exception):
            self._undecidable(peer, verdict)
        elif isinstance(question, ReplaceCheck):
            self._check_identity(peer, question.identity, may_replace=False)
        elif isinstance(question, HostCheck):
            if verdict:
                self._ask_identity(peer)
            else:
                error = ValueError(f"{question.hostname!r} is not a trusted hostname")
                self.reject(peer, error, "rejected: untrusted hostname")
        elif isinstance(question, UserCheck):
            if verdict:
                state.username = question.username
                self._ask(peer, Phase.USER_PASSWORD, "password", question.username)
            else:
                self._fail(peer, ValueError(UNREGISTERED), "rejected: unregistered user")
        elif verdict is None:
            self._fail(peer, ValueError(WRONG_PASSWORD), "rejected: wrong login password")
        else:
            self._logged_in(peer, bool(verdict))

    def reject(self, peer: Peer, error: Exception, record: str = "", again: float | None = None) -> None:
        """Tell a peer why it is not served, and have its connection closed.

        Args:
            peer: The peer.
            error: Why.
            record: What to keep of it for later.
            again: See `answers.error`.
        """
        reason = f"{type(error).__name__}: {error}"
        text = "%s is rejected: %s"
        self._event_log.write(peer, logging.WARNING, "rejected", text, peer.name, reason, reason=reason)
        if record:
            self._record(peer, record)
        # Who has logged in while connected made a request, whose answer this is.
        state = self._states.get(peer)
        requests = state.requests if state is not None else ()
        uid, requester = (requests[0].uid, peer.name) if requests else ("", self._name)
        peer.route.put(answers.error(reason, uid, requester, again))
        peer.close(reason)

    # ---- questions ----

    def _ask(self, peer: Peer, phase: Phase, attribute: str, *args: str) -> None:
        peer.enter(phase)
        peer.route.put(answers.question(attribute, args, self._name))

    def _ask_identity(self, peer: Peer) -> None:
        peer.lines.limit = _smaller(self._read_limit, IDENTITY_LIMIT)
        self._ask(peer, Phase.IDENTITY, "identity")

    def _become_ready(self, peer: Peer) -> None:
        del self._states[peer]
        peer.enter(Phase.READY)

    def _wait_for_check(self, peer: Peer, check: PendingCheck) -> None:
        self._states[peer].check = check
        peer.enter(Phase.CHECK)

    # ---- answers ----

    def _is_no_answer(self, peer: Peer, line: bytes) -> bool:
        """Return whether a peer that is asked to log in says something else.

        Clients of msl-network answer with the fields of the question and a result. Replies of a Service,
        which has to log in like others, have the name of a client as their requester.
        """
        try:
            routed = decode_routed(line)
        except codec.UndecodableLine:
            return terminal.typed(line) is None
        if routed.attribute or routed.result is NO_RESULT:
            return True
        return peer.kind == "service" and routed.requester not in {UNSET, None, self._name}

    def _no_answer(self, peer: Peer, what: str) -> None:
        error = ValueError(f"The answer to {peer.phase.value!r} {what}")
        self._fail(peer, error, "" if peer.kind else f"rejected: invalid {peer.phase.value}")

    def _fail(self, peer: Peer, error: Exception, record: str, again: float | None = None) -> None:
        """Tell a peer that it is not let in; if it is connected, refuse only what it has requested."""
        if not peer.kind:
            self.reject(peer, error, record, again)
            return
        reason = f"{type(error).__name__}: {error}"
        text = "%s could not log in: %s"
        self._event_log.write(peer, logging.WARNING, "login_failed", text, peer.name, reason, reason=reason)
        if record:
            self._record(peer, record)
        self._next_request(peer, refused=True, why=reason, again=again)

    def _throttle(self, peer: Peer, throttled: Throttled) -> None:
        """Tell a peer that too many logins have failed."""
        # A client that is connected can do this as often as it wants, and must not fill the database.
        record = "" if peer.kind else "rejected: too many failed logins"
        self._fail(peer, ValueError(str(throttled)), record, throttled.again)

    def _answer(self, peer: Peer, answer: Any) -> None:
        if peer.phase is Phase.IDENTITY:
            self._check_identity(peer, answer)
        elif peer.kind and (answer is None or answer == ""):
            self._next_request(peer, refused=True)  # nobody logs in
        elif peer.phase is Phase.PASSWORD:
            self._check_password(peer, answer)
        elif peer.phase is Phase.USERNAME:
            self._wait_for_check(peer, UserCheck(_text(answer)))
        else:
            self._wait_for_check(peer, LoginCheck(self._states[peer].username, _text(answer)))

    def _check_password(self, peer: Peer, answer: Any) -> None:
        assert self._authentication.password is not None
        attempt = self._logins.begin(peer.host.address)  # which never waits: all are looked at just here
        if attempt.retry_after:
            self._throttle(peer, Throttled(peer.host.name, attempt.retry_after))
            return
        right = reveal(self._authentication.password).encode("utf-8", "surrogatepass")
        is_right = hmac.compare_digest(_text(answer).encode("utf-8", "surrogatepass"), right)
        attempt.end(Outcome.SUCCEEDED if is_right else Outcome.FAILED)
        if is_right:
            self._ask_identity(peer)
        else:
            self.reject(peer, ValueError(WRONG_MANAGER_PASSWORD), "rejected: wrong Manager password")

    def _check_identity(self, peer: Peer, identity: Any, *, may_replace: bool = True) -> None:
        try:
            self._registry.add(peer, identity)
        except RegistryFull as error:
            self.reject(peer, ValueError(str(error)), "rejected: invalid identity", FULL_AGAIN)
            return
        except AddressTaken as error:
            self.reject(peer, NameError(str(error)), "rejected: invalid identity", TAKEN_AGAIN)
            return
        except (TypeError, KeyError, NameError, ValueError) as error:
            holder = (
                self._replaceable(peer, identity) if isinstance(error, NameError) and may_replace else None
            )
            if holder is None:
                self.reject(peer, error, "rejected: invalid identity")
            else:
                self._wait_for_check(peer, ReplaceCheck(holder, identity))
            return
        self._become_ready(peer)
        peer.lines.limit = self._read_limit
        peer.request_suffix = b',"requester":' + codec.encode(peer.name)[:-1] + b"}\r\n"
        self._admitted(peer)
        self._record(peer, f"connected as a {peer.kind}")
        text = "%s is a new %s"
        self._event_log.write(peer, logging.INFO, "connected", text, peer.name, peer.kind, kind=peer.kind)

    def _replaceable(self, peer: Peer, identity: dict[str, Any]) -> Peer | None:
        """Return the Service that has the name of a newcomer and may be replaced by it if it is gone."""
        holder = self._registry.services.get(identity["name"])
        if holder is None or not self._replaces or peer.host.gateway or holder.host.gateway:
            return None
        return holder if (holder.host.address, holder.user) == (peer.host.address, peer.user) else None

    def _undecidable(self, peer: Peer, error: Exception) -> None:
        """There is no verdict on a peer that wants to be let in, or to log in."""
        text = "cannot decide about %s: %s"
        self._event_log.write(
            peer, logging.ERROR, "undecided", text, peer.name, str(error), reason=str(error)
        )
        reason = RuntimeError(f"The Manager cannot check who you are: {error}")
        again = error.again if isinstance(error, TryAgain) else UNDECIDED_AGAIN
        if peer.kind:
            self._next_request(peer, refused=True, why=f"RuntimeError: {reason}", again=again)
        else:
            self.reject(peer, reason, "rejected: the Manager could not check it", again)

    def _logged_in(self, peer: Peer, is_admin: bool) -> None:
        peer.is_admin = is_admin
        peer.user = self._states[peer].username
        text = "%s has logged in as %r"
        self._event_log.write(peer, logging.INFO, "logged_in", text, peer.name, peer.user, admin=is_admin)
        if not peer.kind:
            self._ask_identity(peer)
        else:
            self._next_request(peer, refused=not is_admin)

    # ---- requests ----

    def _next_request(
        self, peer: Peer, *, refused: bool = False, why: str = NO_ADMIN, again: float | None = None
    ) -> None:
        """Go on with the first request for which a peer has to be an administrator."""
        requests = self._states[peer].requests
        if refused:
            self._responder.refuse(peer, requests.popleft().uid, why, again)
        if not requests:
            self._become_ready(peer)
        elif peer.is_admin:
            self._wait_for_check(peer, requests[0])
        else:
            self._ask(peer, Phase.USERNAME, "username", self._name)

    def _answer_request(self, peer: Peer, request: AdminRequest, verdict: Any) -> None:
        self._states[peer].requests.popleft()
        if isinstance(verdict, Revoked):
            peer.is_admin = False
            self._responder.refuse(peer, request.uid, f"{NO_ADMIN}: {verdict}")
        elif isinstance(verdict, Exception):
            self._responder.refuse(peer, request.uid, f"{type(verdict).__name__}: {verdict}")
        elif isinstance(verdict, answers.Encoded):
            self._responder.answer(peer, request.uid, verdict.value)
        else:
            try:
                line = answers.result(verdict, request.uid, peer.name)
            except (TypeError, ValueError) as error:
                self._responder.refuse(peer, request.uid, f"{type(error).__name__}: {error}")
            else:
                peer.route.put(line)
        self._next_request(peer)


def _take_forwarded(peer: Peer, line: bytes) -> None:
    """Take the address of a peer from its first line, to which a gateway has added it."""
    try:
        address = codec.decode_object(line).get(FORWARDED)
    except codec.UndecodableLine:
        return  # the gateway can add it to JSON objects only
    behind = peer.host.behind(address)
    # Of another host it only counts that there is a gateway in between.
    peer.host = behind if peer.host.is_gateway else attrs.evolve(peer.host, gateway=behind.gateway)


def _smaller(limit: int | None, other: int) -> int:
    return other if limit is None else min(limit, other)


def _text(answer: Any) -> str:
    """An answer, of which only text can be right."""
    return answer if isinstance(answer, str) else ""
