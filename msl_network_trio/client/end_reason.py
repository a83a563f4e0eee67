"""Reason for the end of a connection; belongs to the Trio thread."""

from __future__ import annotations

from msl_network_trio.exceptions import ConnectionLost, NetworkError


class EndReason:
    """The reason for the end of a connection: the first one that the reader or the user gives.

    A failure to write counts only if there is no such reason: a line of the Manager from before it closed the
    connection explains more.

    Args:
        manager: The ``host:port`` of the Manager, for messages.

    Attributes:
        error: The reason; None while there is none.
        write_error: Error of the first failure to write; None while there is none.
    """

    __slots__ = ("_manager", "error", "write_error")

    def __init__(self, manager: str) -> None:
        self._manager = manager
        self.error: ConnectionLost | None = None
        self.write_error: ConnectionLost | None = None

    def set(self, error: NetworkError) -> None:
        """Set the reason, unless there is one already."""
        if self.error is None:
            self.error = error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))

    def set_lost(self, error: ConnectionLost) -> None:
        """Set the error of a stream that could not be read as the reason."""
        self.set(self._lost(error))

    def set_write_error(self, error: ConnectionLost) -> None:
        """Set the error of a stream that could not be written."""
        self.write_error = self._lost(error)

    def set_failed(self, error: Exception) -> None:
        """Set an internal error as the reason."""
        self.set(ConnectionLost(f"The connection to Manager[{self._manager}] failed: {error!r}"))

    def set_silent(self, seconds: float) -> None:
        """Set the silence of the Manager, in seconds, as the reason."""
        self.set(ConnectionLost(f"Manager[{self._manager}] has sent nothing for {seconds:g} seconds"))

    def set_disconnected(self) -> None:
        """Set the disconnection by the user as the reason."""
        self.set(self._disconnected())

    def final(self) -> ConnectionLost:
        """Return the reason for a connection that has ended."""
        return self.error or self.write_error or self._disconnected()

    def _disconnected(self) -> ConnectionLost:
        return ConnectionLost(f"Disconnected from Manager[{self._manager}]")

    def _lost(self, error: ConnectionLost) -> ConnectionLost:
        """Add the name of the Manager, which a stream does not know, to an error."""
        return ConnectionLost(f"The connection to Manager[{self._manager}] was lost: {error}")
