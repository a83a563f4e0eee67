"""Replies: settle the open requests of a client with what Services and the Manager answer.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ProtocolError
from msl_network_trio.protocol.acknowledged import Acknowledged
from msl_network_trio.protocol.codec import UndecodableLine
from msl_network_trio.protocol.messages import UNSET, ReceivedLine
from msl_network_trio.protocol.request_errors import answered_error
from msl_network_trio.protocol.requests import SETTLED, Request


class Replies:
    """The settling of open requests with their replies.

    Args:
        open_requests: The written requests without a reply, by uid.
        acknowledged: The watermark of the same connection, which replies advance.
        manager: The ``host:port`` that the user gave, for messages.

    Attributes:
        manager_name: The Manager's name for itself; to be set when it is received.
    """

    __slots__ = ("_acknowledged", "_manager", "_open", "manager_name")

    def __init__(
        self, open_requests: dict[str | None, Request], acknowledged: Acknowledged, manager: str
    ) -> None:
        self.manager_name = ""
        self._open = open_requests
        self._acknowledged = acknowledged
        self._manager = manager

    def settle(self, request: Request, message: ReceivedLine) -> None:
        """Settle a request, which is no longer open, with its reply."""
        if message.error:
            request.error = answered_error(request, message, self._manager, self.manager_name)
        elif message.result is UNSET:
            what = f"{request.service}.{request.attribute}"
            request.error = ProtocolError(f"The reply to {what} has no result")
        else:
            request.result = message.result
        request.phase = SETTLED
        self._acknowledged.advance(request.sequence)

    def settle_undecodable(self, request: Request, error: UndecodableLine) -> None:
        """Settle a request, which is no longer open, whose reply is JSON that cannot be decoded."""
        what = f"{request.service}.{request.attribute}"
        request.fail(ProtocolError(f"The reply to {what} cannot be decoded: {error}"))
        self._acknowledged.advance(request.sequence)

    # ---- for threads ----

    def settle_all(self, messages: Sequence[ReceivedLine]) -> list[Request] | None:
        """Settle requests to Services, in a thread that an exception may interrupt.

        The requests stay open until `forget`, so this can be repeated with the same messages, or left to
        `ClientProtocol.receive`, at any point.

        Returns:
            The requests; None, with no request settled, unless every message is a reply of a Service.
        """
        find, manager, unset = self._open.get, MANAGER, UNSET
        requests: list[Request] = []
        for message in messages:
            request = find(message.uid)
            if (
                request is None
                or request.service == manager
                or (message.result is unset and not message.error)
            ):
                return None
            requests.append(request)
        acknowledged = self._acknowledged
        for request, message in zip(requests, messages, strict=True):
            if message.error:
                self.settle(request, message)
            else:  # what settle() does, without the calls
                request.result = message.result
                request.phase = SETTLED
                if request.sequence > acknowledged.watermark:  # noqa: PLR1730 - max() takes longer
                    acknowledged.watermark = request.sequence
        return requests

    def forget(self, requests: Iterable[Request]) -> None:
        """Remove requests that `settle_all` has settled; to repeat this changes nothing."""
        for request in requests:
            self._open.pop(request.uid, None)
        if self._acknowledged.abandoned:
            self._acknowledged.prune()
