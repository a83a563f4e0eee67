"""Admission: the handshake of new peers, and the login of administrators. Pure state.

The handshake begins with the question of the authentication, if there is one, and ends with that for the
identity; `Phase` shows its course. An admitted peer that makes an admin request is asked for username and
password of an administrator. Its other requests are handled meanwhile, so each line is checked for being an
answer.

What the Manager cannot decide itself is a check (`pending_check`): lines of the peer are kept until
`Admission.resolve` gets its result.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Any

from msl_network_trio.hidden import reveal
from msl_network_trio.limits.login_throttle import LoginThrottle, Outcome
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.handshake import NO_ADMIN, UNREGISTERED, WRONG_MANAGER_PASSWORD, WRONG_PASSWORD
from msl_network_trio.protocol.manager import answers, typed_lines
from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_answers import is_answer, take_forwarded
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
from msl_network_trio.protocol.messages import UNSET, RoutedLine

_ANSWER_LIMIT = 65_536
"""Maximum bytes of a line before the peer is authenticated."""

IDENTITY_LIMIT = 2_097_152
"""Maximum bytes of a line with an identity, which has the attributes of a Service."""

_MAX_LINES = 1000
"""Maximum number of lines of a peer until it is admitted. The handshake needs few; this bounds blank ones."""

_MAX_ADMIN_REQUESTS = 100
"""Maximum number of admin requests of a peer that wait for its login."""

_MAX_ADMIN_BYTES = 16_384
"""Maximum bytes of these requests."""

FULL_RETRY_AFTER = 10.0
"""Seconds until a peer may try again that exceeded a limit of all peers: others have to disconnect first."""

_TAKEN_RETRY_AFTER = 1.0
"""Seconds until a peer may try again whose name and address are taken: it will have another port."""

_FAILED_CHECK_RETRY_AFTER = 5.0
"""Seconds until a peer may try again whose check could not be made."""


class Admission:
    """Admits peers, and makes administrators of them.

    Args:
        name: ``"Manager[HOST:port]"``.
        registry: The admitted peers, to which it adds.
        authentication: The authentication method.
        read_limit: Maximum bytes of a line of an admitted peer; None: no limit.
        responder: Answers requests.
        admitted: Called for each peer that is admitted.
        record: Adds a row about a peer to the table of connections.
        event_log: The log.
        logins: The login throttle.
        replaces: Whether a dead peer may be replaced by one of the same name, see `ReplaceCheck`.
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
        """Return the state of a peer; None: it was admitted and does not log in."""
        return self._states.get(peer)

    def begin(self, peer: Peer) -> None:
        """Begin the handshake with a new peer."""
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
        """Remove a peer that has disconnected."""
        self._states.pop(peer, None)
        if peer.kind or peer.phase is Phase.CLOSING:
            self._record(peer, "disconnected")
        elif peer.phase in {Phase.USERNAME, Phase.PASSWORD, Phase.USER_PASSWORD}:
            what = "username" if peer.phase is Phase.USERNAME else "password"
            self._record(peer, f"connection closed before receiving the {what}")
        else:
            self._record(peer, "connection closed prematurely")

    def request(self, peer: Peer, routed: RoutedLine, line: bytes) -> None:
        """Handle an admin request."""
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
        if len(requests) >= _MAX_ADMIN_REQUESTS:
            self._responder.refuse(
                peer, routed.uid, f"{NO_ADMIN}, and {_MAX_ADMIN_REQUESTS} of them wait for a login"
            )
            return
        if state.size > _MAX_ADMIN_BYTES and not peer.is_admin:
            self._responder.refuse(
                peer, routed.uid, f"{NO_ADMIN}, and before that no more than {_MAX_ADMIN_BYTES:,} bytes"
            )
            if not requests:
                del self._states[peer]
            return
        requests.append(AdminRequest(routed.attribute, args, kwargs, routed.uid))
        if len(requests) == 1:
            self._next_request(peer)

    def take(self, peer: Peer, line: bytes) -> bool:
        """Handle a line of a peer that was asked a question.

        Returns:
            Whether it was handled; if not, the peer is admitted and the line is no answer.
        """
        assert self._states[peer].check is None
        if not peer.kind and peer.lines_received > _MAX_LINES:
            self.reject(
                peer, ValueError(f"{peer.phase.value!r} was not answered by any of {_MAX_LINES:,} lines")
            )
            return True
        if not line.strip():
            return True
        if not (peer.kind or peer.has_answered):
            peer.has_answered = True
            take_forwarded(peer, line)
        if peer.kind and (len(line) > _ANSWER_LIMIT or not is_answer(peer, line, self._name)):
            return False
        try:
            answer = codec.decode(line).result
        except codec.UndecodableLine as error:
            text = typed_lines.typed(line)
            answer = typed_lines.identity(text) if text and peer.phase is Phase.IDENTITY else text
            if answer is None:
                self._no_answer(peer, f"is not a line of JSON: {error}")
                return True
        if answer is UNSET:
            self._no_answer(peer, 'has no "result"')
        else:
            self._answer(peer, answer)
        return True

    def resolve(self, peer: Peer, result: Any) -> None:
        """Continue the handshake or login of a peer after its check.

        Args:
            peer: The peer.
            result: The result of the check, or the exception because of which there is none.
        """
        state = self._states[peer]
        check, state.check = state.check, None
        if isinstance(check, AdminRequest):
            self._answer_request(peer, check, result)
        elif isinstance(result, Throttled):
            self._throttle(peer, result)
        elif isinstance(result, Exception):
            self._fail_check(peer, result)
        elif isinstance(check, ReplaceCheck):
            self._check_identity(peer, check.identity, may_replace=False)
        elif isinstance(check, HostCheck):
            if result:
                self._ask_identity(peer)
            else:
                error = ValueError(f"{check.hostname!r} is not a trusted hostname")
                self.reject(peer, error, "rejected: untrusted hostname")
        elif isinstance(check, UserCheck):
            if result:
                state.username = check.username
                self._ask(peer, Phase.USER_PASSWORD, "password", check.username)
            else:
                self._fail(peer, ValueError(UNREGISTERED), "rejected: unregistered user")
        elif result is None:
            self._fail(peer, ValueError(WRONG_PASSWORD), "rejected: wrong login password")
        else:
            self._logged_in(peer, bool(result))

    def reject(self, peer: Peer, error: Exception, record: str = "", again: float | None = None) -> None:
        """Close the connection of a peer with an error as its last line.

        Args:
            peer: The peer.
            error: The reason.
            record: The row to add to the table of connections; empty: none.
            again: See `answers.error`.
        """
        reason = f"{type(error).__name__}: {error}"
        text = "%s is rejected: %s"
        self._event_log.write(peer, logging.WARNING, "rejected", text, peer.name, reason, reason=reason)
        if record:
            self._record(peer, record)
        # A peer that logs in while connected has made an admin request: this is the answer to it.
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

    def _no_answer(self, peer: Peer, what: str) -> None:
        error = ValueError(f"The answer to {peer.phase.value!r} {what}")
        self._fail(peer, error, "" if peer.kind else f"rejected: invalid {peer.phase.value}")

    def _fail(self, peer: Peer, error: Exception, record: str, again: float | None = None) -> None:
        """Reject a peer; if it is admitted, only refuse its admin request."""
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
        """Reject a login since too many have failed."""
        # An admitted peer can try again at once, and must not fill the database.
        record = "" if peer.kind else "rejected: too many failed logins"
        self._fail(peer, ValueError(str(throttled)), record, throttled.again)

    def _answer(self, peer: Peer, answer: Any) -> None:
        if peer.phase is Phase.IDENTITY:
            self._check_identity(peer, answer)
        elif peer.kind and (answer is None or answer == ""):
            self._next_request(peer, refused=True)  # the login is declined
        elif peer.phase is Phase.PASSWORD:
            self._check_password(peer, answer)
        elif peer.phase is Phase.USERNAME:
            self._wait_for_check(peer, UserCheck(_text(answer)))
        else:
            self._wait_for_check(peer, LoginCheck(self._states[peer].username, _text(answer)))

    def _check_password(self, peer: Peer, answer: Any) -> None:
        assert self._authentication.password is not None
        attempt = self._logins.begin(peer.host.address)  # never queued, since the attempt ends here
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
            self.reject(peer, ValueError(str(error)), "rejected: invalid identity", FULL_RETRY_AFTER)
            return
        except AddressTaken as error:
            self.reject(peer, NameError(str(error)), "rejected: invalid identity", _TAKEN_RETRY_AFTER)
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
        """Return the Service that has the name of a new peer, if the new one may replace it."""
        holder = self._registry.services.get(identity["name"])
        if holder is None or not self._replaces or peer.host.gateway or holder.host.gateway:
            return None
        return holder if (holder.host.address, holder.user) == (peer.host.address, peer.user) else None

    def _fail_check(self, peer: Peer, error: Exception) -> None:
        """Reject a peer, or refuse its admin request, since a check could not be made."""
        text = "cannot decide about %s: %s"
        self._event_log.write(
            peer, logging.ERROR, "undecided", text, peer.name, str(error), reason=str(error)
        )
        reason = RuntimeError(f"The Manager cannot check who you are: {error}")
        again = error.again if isinstance(error, TryAgain) else _FAILED_CHECK_RETRY_AFTER
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
        """Make the check, or begin the login, that the first admin request of a peer needs.

        Args:
            peer: The peer.
            refused: Whether to refuse the first request, and take the one behind it.
            why: The reason for the refusal.
            again: Seconds until the peer may try again.
        """
        requests = self._states[peer].requests
        if refused:
            self._responder.refuse(peer, requests.popleft().uid, why, again)
        if not requests:
            self._become_ready(peer)
        elif peer.is_admin:
            self._wait_for_check(peer, requests[0])
        else:
            self._ask(peer, Phase.USERNAME, "username", self._name)

    def _answer_request(self, peer: Peer, request: AdminRequest, result: Any) -> None:
        self._states[peer].requests.popleft()
        if isinstance(result, Revoked):
            peer.is_admin = False
            self._responder.refuse(peer, request.uid, f"{NO_ADMIN}: {result}")
        elif isinstance(result, Exception):
            self._responder.refuse(peer, request.uid, f"{type(result).__name__}: {result}")
        elif isinstance(result, answers.Encoded):
            self._responder.answer(peer, request.uid, result.value)
        else:
            try:
                line = answers.result(result, request.uid, peer.name)
            except (TypeError, ValueError) as error:
                self._responder.refuse(peer, request.uid, f"{type(error).__name__}: {error}")
            else:
                peer.route.put(line)
        self._next_request(peer)


def _smaller(limit: int | None, other: int) -> int:
    return other if limit is None else min(limit, other)


def _text(answer: Any) -> str:
    """Return an answer, or empty text instead of any other type."""
    return answer if isinstance(answer, str) else ""
