"""Execution of commands on a remote computer. Blocks in the calling thread."""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

import attrs

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.ssh.connecting import SSHError, refuse_in_trio, seconds
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    import paramiko

_PIECE = 65_536
"""Maximum bytes of one read."""


class RemoteCommandError(NetworkError, RuntimeError):
    """A command on a remote computer failed, or took too long.

    Attributes:
        output: The lines of output that were received.
    """

    def __init__(self, message: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.output = output


@attrs.frozen
class CommandResult:
    """The result of a command.

    Attributes:
        status: The exit status; -1: there is none, for example since a signal ended the command.
        output: The lines of its standard output.
        errors: The lines of its standard error.
    """

    status: int
    output: list[str]
    errors: list[str]


def exec_command(ssh_client: paramiko.SSHClient, command: str, *, timeout: float = 10) -> list[str]:
    """Execute a command on a remote computer, and wait until it has ended. Blocks; Ctrl-C ends it.

    Args:
        ssh_client: The connection, as `connect` returns it. It is closed if there is an error, as by
            msl-network.
        command: The command, for the shell of the user there. Other users can see it: do not put passwords in
            it.
        timeout: Maximum seconds until the command has ended.

    Returns:
        The lines of its standard output.

    Raises:
        RemoteCommandError: The command has written to its standard error, or has not ended in time.
        SSHError: The connection is lost.
        ValueError: `timeout` is not positive.
        RuntimeError: This is the thread of a Trio program.
    """
    refuse_in_trio("exec_command")
    timeout = seconds(timeout)
    try:
        ended = execute(ssh_client, command, timeout)
        if ended.errors:
            first = next((line for line in ended.errors if line.strip()), "")
            raise RemoteCommandError(
                f"The remote command {_program(command)} failed: {visible(first)}", tuple(ended.errors)
            )
    except BaseException:
        ssh_client.close()
        raise
    return ended.output


def execute(client: paramiko.SSHClient, command: str, timeout: float, data: bytes = b"") -> CommandResult:
    """Execute a command; see `exec_command`.

    Args:
        client: The connection.
        command: The command.
        timeout: Maximum seconds until the command has ended.
        data: The standard input of the command.

    Raises:
        RemoteCommandError: The command has not ended in time.
        SSHError: The connection is lost.
    """
    import paramiko

    deadline = time.monotonic() + timeout
    transport = client.get_transport()
    if transport is None or not transport.is_active():
        raise SSHError("The SSH connection is closed")
    try:
        channel = transport.open_session(timeout=timeout)
        try:
            channel.settimeout(timeout)
            channel.exec_command(command)
            channel.sendall(data)
            channel.shutdown_write()
            output, errors = _read(channel, deadline)
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
        finally:
            channel.close()
    except TimeoutError:
        raise RemoteCommandError(
            f"The remote command {_program(command)} has not ended within {timeout:g} s"
        ) from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise SSHError(f"The SSH connection is lost: {visible(str(error))}") from error
    if channel.exit_status == -1 and not transport.is_active():
        raise SSHError(f"The SSH connection was lost while the remote command {_program(command)} ran")
    return CommandResult(channel.exit_status, _lines(output), _lines(errors))


def _read(channel: paramiko.Channel, deadline: float) -> tuple[bytes, bytes]:
    """Return the standard output and the standard error of a command, read to their ends."""
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            has_ended = channel.eof_received or channel.closed  # before the data, which precedes the end
            if not has_ended and time.monotonic() >= deadline:
                raise TimeoutError  # also if there is always more to read
            if channel.recv_ready():
                output += channel.recv(_PIECE)
            elif channel.recv_stderr_ready():
                errors += channel.recv_stderr(_PIECE)
            elif has_ended:
                return bytes(output), bytes(errors)
            else:
                selector.select(max(0.0, deadline - time.monotonic()))


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").splitlines()


def _program(command: str) -> str:
    """Return the program of a command, for errors; the arguments may be secret."""
    return repr(command.split(maxsplit=1)[0]) if command.strip() else "''"
