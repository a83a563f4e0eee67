"""The handshake of a peer with the Manager, as it passes through the gateway.

Until the handshake ends, the gateway parses the lines of both sides, for two reasons. It throttles logins by
the peer's own address, since to a Manager that does not trust the gateway all peers are one host. And it adds
the peer's address to the first line, in a field that a Manager ignores unless it trusts the gateway. After
the handshake, lines pass unparsed. All of it runs in the two relay tasks of the connection, and needs no
lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from msl_network_trio.constants import MANAGER
from msl_network_trio.limits.login_throttle import Attempt, LoginThrottle, Outcome
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.handshake import LOGIN_FAILURES
from msl_network_trio.protocol.manager import answers, typed_lines
from msl_network_trio.protocol.manager.admission import IDENTITY_LIMIT
from msl_network_trio.protocol.manager.peer_answers import FORWARDED
from msl_network_trio.protocol.manager.pending_check import Throttled

_LINE_LIMIT: Final = 2 * IDENTITY_LIMIT
"""Maximum bytes of a line that is parsed; a longer one passes unparsed, and a Manager rejects it."""


class HandshakeProxy:
    """The state of one peer's handshake.

    Args:
        address: The IP address of the peer.
        logins: The login throttle of the gateway.
    """

    def __init__(self, address: str, logins: LoginThrottle) -> None:
        self.is_finished = False
        """Whether the handshake has ended, so that lines pass unparsed."""
        self._address = address
        self._logins = logins
        self._from_manager = b""
        self._from_peer = b""
        self._manager = ""
        self._user: str | None = None
        self._question = ""
        self._asked = trio.Event()
        self._is_first = True
        self._attempt: Attempt | None = None

    def receive_from_manager(self, data: bytes) -> None:
        """Parse the lines that the Manager has sent."""
        self._from_manager += data
        *lines, self._from_manager = self._from_manager.split(b"\n")
        for line in lines:
            if not self.is_finished:
                self._read_manager_line(line)
        if len(self._from_manager) > _LINE_LIMIT:
            self.finish()
        if self.is_finished:
            self._from_manager = b""

    def _read_manager_line(self, line: bytes) -> None:
        try:
            fields = codec.decode_object(line)
        except codec.UndecodableLine:  # the upstream is no Manager
            self.finish()
            return
        attribute, before = fields.get("attribute"), self._question
        if fields.get("error"):
            self._settle_attempt(
                Outcome.FAILED if fields.get("message") in LOGIN_FAILURES else Outcome.UNKNOWN
            )
            self.finish()
            return
        self._settle_attempt(Outcome.SUCCEEDED if before == "password" else Outcome.UNKNOWN)
        if attribute not in {"username", "password", "identity"}:
            self.finish()
            return
        self._manager = str(fields.get("requester"))
        if attribute == "password" and before != "username":
            self._user = None  # the password of the Manager, not of a user
        self._question = attribute
        self._asked.set()

    async def forward_to_manager(self, data: bytes, send: Callable[[bytes], Awaitable[str]]) -> str:
        """Pass on the peer's lines, each answer after its question, and when the throttle admits the login.

        Args:
            data: The bytes that the peer has sent.
            send: Sends bytes to the Manager; returns a reason if it has given up, else an empty text.

        Returns:
            The reason why `send` has given up; empty: all was sent.

        Raises:
            Throttled: Too many logins of the peer's host have failed.
        """
        data, self._from_peer = self._from_peer + data, b""
        while not self.is_finished:
            line, end, rest = data.partition(b"\n")
            if not end:
                if len(data) > _LINE_LIMIT:
                    self.finish()
                    break
                self._from_peer = data
                return ""
            if line.strip():
                await self._asked.wait()
                if self.is_finished:
                    break
                line = await self._forwarded_answer(line)
            data = rest
            if given_up := await send(line + end):
                return given_up
        return await send(data) if data else ""

    async def _forwarded_answer(self, line: bytes) -> bytes:
        """Wait for the throttle if the answer is part of a login, and return the line to pass on."""
        self._asked = trio.Event()
        if self._question == "identity":
            self.finish()
        else:
            if self._question == "username":
                self._user = _answer_text(line)
            await self._await_throttle()
        if self._is_first:
            self._is_first = False
            line = _with_address(line, self._address)
        return line

    async def _await_throttle(self) -> None:
        turn = trio.Event()
        self._attempt = self._logins.begin(self._address, self._user, turn.set)
        if self._attempt.is_queued:
            await turn.wait()
        if again := self._attempt.retry_after:
            raise Throttled(self._address, again)

    def throttled_reply(self, throttled: Throttled) -> bytes:
        """Return the error line for a peer that is throttled."""
        return answers.error(f"ValueError: {throttled}", "", self._manager or MANAGER, throttled.again)

    def _settle_attempt(self, outcome: Outcome) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end(outcome)

    def finish(self) -> None:
        """End the parsing: the handshake is over, or one of the two connections is closed."""
        self.is_finished = True
        self._settle_attempt(Outcome.UNKNOWN)
        self._asked.set()


def _answer_text(line: bytes) -> str:
    """Return the text of an answer; empty: it is none."""
    try:
        answer: Any = codec.decode(line).result
    except codec.UndecodableLine:
        answer = typed_lines.typed(line)
    return answer if isinstance(answer, str) else ""


def _with_address(line: bytes, address: str) -> bytes:
    """Return a line with the peer's address added as its last field.

    Of two fields with one name the last one counts, so a field that the peer has added has no effect. A line
    that is no JSON object is returned unchanged; it cannot have the field.
    """
    text = line.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return line
    comma = b"" if text[1:-1].strip() == b"" else b","
    return b"%b%b%b}" % (text[:-1], comma, codec.encode_value({FORWARDED: address})[1:-1])
