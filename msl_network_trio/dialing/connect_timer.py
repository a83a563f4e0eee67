"""The time limit of one `connect`, and the error when it has passed. Runs in the Trio thread."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from typing import Final

import trio

from msl_network_trio.dialing.trust import TO_GET_IT
from msl_network_trio.transport.tcp_connect import cannot_connect

CONNECTED: Final = "the connection was made"
CERTIFICATE_SHOWN: Final = "the Manager had shown its certificate"
SECURED: Final = "the connection was made secure"
WEBSOCKET_OPEN: Final = "the WebSocket was open"
ADMITTED: Final = "the Manager had answered a request"


class ConnectTimer:
    """The time limit of one `connect`, paused while a person is asked.

    Args:
        seconds: The time limit; None: no limit.

    Attributes:
        scope: The cancel scope with the time limit.
        phase: The next step, as a clause in the past tense, for the error.
    """

    def __init__(self, seconds: float | None) -> None:
        self.scope = trio.CancelScope(deadline=math.inf if seconds is None else trio.current_time() + seconds)
        self.phase = CONNECTED
        self._began = trio.current_time()
        self._paused_for = 0.0

    @property
    def seconds(self) -> float:
        """The elapsed seconds without the pauses."""
        return trio.current_time() - self._began - self._paused_for

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Pause the timer for the length of a ``with`` block."""
        paused = trio.current_time()
        left = self.scope.deadline - paused
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self.scope.deadline = trio.current_time() + left
            self._paused_for += trio.current_time() - paused

    def error_text(
        self, host: str, port: int, timeout: float | None, *, has_stream: bool, disable_tls: bool
    ) -> str:
        """Return the text of the timeout error. Its last lines are those of msl-network, which users match.

        Args:
            host: The host.
            port: The port.
            timeout: The time limit in seconds.
            has_stream: Whether the stream is open and only the handshake with the Manager is not complete.
            disable_tls: Whether TLS is disabled.
        """
        limit = f"Cannot connect to {host}:{port} within {timeout} seconds"
        if has_stream:
            end = f"The connection to {host}:{port} was not established after {timeout} second(s)"
            if disable_tls:
                end += "\nYou have TLS disabled. Perhaps the Manager is using TLS for the connection."
        elif self.phase == CERTIFICATE_SHOWN:
            end = cannot_connect(host, port, TO_GET_IT)
        else:
            return f"The time was over before {self.phase}\n{limit}"
        return f"{limit}: the time was over before {self.phase}\n{end}"
