"""SSH connections: user, password, and trust of the host key. Blocks in the calling thread."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import sys
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import trio

from msl_network_trio import arguments
from msl_network_trio.exceptions import AuthenticationError, CertificateError, ConnectError, ConnectTimeout
from msl_network_trio.logger import get_logger
from msl_network_trio.visible import visible

try:
    import paramiko
except ImportError as error:
    raise ImportError(
        "msl_network_trio.ssh needs paramiko, which its extra installs: pip install msl-network-trio[ssh]",
        name="paramiko",
    ) from error

logger = get_logger(__name__)
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its errors are causes of ours

_FOR_ALL_USERS = (
    Path(os.environ.get("PROGRAMDATA", "C:\\ProgramData"), "ssh", "ssh_known_hosts")
    if sys.platform == "win32"
    else Path("/etc/ssh/ssh_known_hosts")
)
"""The file of host keys that all users of this computer trust."""


class SSHError(ConnectError, paramiko.SSHException):
    """No SSH connection: it was refused or lost, or there is no SSH server."""


class SSHAuthenticationError(AuthenticationError, paramiko.AuthenticationException):
    """The SSH server rejected the user, or no user is given."""


class HostKeyError(CertificateError, paramiko.SSHException):
    """The host key of the SSH server is unknown or has changed."""


def connect(
    host: str,
    *,
    username: str | None = None,
    password: str | None = None,
    timeout: float = 10,
    missing_host_key_policy: paramiko.MissingHostKeyPolicy
    | type[paramiko.MissingHostKeyPolicy]
    | None = None,
    **kwargs: Any,
) -> paramiko.SSHClient:
    """Connect to a remote computer by SSH. Blocks; Ctrl-C ends it.

    The host key must be in ``~/.ssh/known_hosts``, or in the file for all users of this computer. An unknown
    key is shown at the terminal, and saved if the user trusts it. A key that has changed is always refused.
    (msl-network accepts any key, so it may send the password to an impostor.)

    Args:
        host: The name or the address of the remote computer: ``"192.168.1.100"``, ``"pi@raspberrypi"``.
        username: The name of the user, unless it is in `host`; None: ask for it at the terminal.
        password: The password of the user; None: use the SSH keys of the user of this computer, and ask for a
            password at the terminal only if the remote computer accepts none of them.
        timeout: Maximum seconds for each step: to connect, to exchange keys, to log in.
        missing_host_key_policy: The policy for unknown host keys: ``paramiko.RejectPolicy()``, or
            ``paramiko.AutoAddPolicy()`` to trust any, as msl-network does; None: ask at the terminal.
        kwargs: Further arguments of ``paramiko.SSHClient.connect``: `port`, `key_filename`, for example.

    Returns:
        The connection, to be closed with ``close()``; it is also a context manager.

    Raises:
        ConnectTimeout: A step took too long.
        SSHError: There is no connection, or its other end is no SSH server.
        HostKeyError: The host key is unknown, or has changed.
        SSHAuthenticationError: The remote computer rejects the user, or there is no terminal to ask at.
        ValueError: The user name or the password is empty, or `timeout` is not positive.
        RuntimeError: This is the thread of a Trio program.
    """
    refuse_in_trio("connect")
    timeout = seconds(timeout)
    if "@" in host:
        username, _, host = host.rpartition("@")
    if username is None:
        username = _ask(lambda: input("User name for SSH: "), f"the user of {host}", "username=")
    if not username:
        raise ValueError("You must specify the SSH username")
    if password is not None and not password:
        raise ValueError("You must specify the SSH password")
    kwargs = {"banner_timeout": timeout, "auth_timeout": timeout, **kwargs, "timeout": timeout}
    port = kwargs.get("port", 22)
    where = f"{username}@{host}" + (f":{kwargs['port']}" if "port" in kwargs else "")
    client = paramiko.SSHClient()
    try:
        _load_host_keys(client)
        client.set_missing_host_key_policy(
            AskPolicy(f"ssh -p {port} {username}@{host}")
            if missing_host_key_policy is None
            else missing_host_key_policy
        )
        with _errors(where, host if port == 22 else f"[{host}]:{port}", timeout):
            if password is None:
                if _log_in_by_key(client, host, username, kwargs):
                    return client
                password = _ask_password(where)
                kwargs |= {"allow_agent": False, "look_for_keys": False}
            client.connect(host, username=username, password=password, **kwargs)
    except BaseException:
        client.close()
        raise
    return client


def refuse_in_trio(name: str) -> None:
    """Raise RuntimeError in the thread of a Trio program, which must not be blocked.

    Args:
        name: The name of the function that blocks.
    """
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(f"{name}() blocks; in a Trio program use: await trio.to_thread.run_sync(...)")


def seconds(timeout: float) -> float:
    """Return a timeout as a float; raise TypeError or ValueError if it is no positive number."""
    number = arguments.number("timeout", timeout, "a number of seconds")
    if not (number > 0 and isfinite(number)):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    return number


class AskPolicy(paramiko.MissingHostKeyPolicy):
    """Asks at the terminal whether to trust a host key, and saves it.

    Args:
        command: The command with which the user can connect by hand, for errors.
    """

    def __init__(self, command: str) -> None:
        self._command = command

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Save the key if the user trusts it; paramiko calls this, with its own form of the host name.

        Raises:
            HostKeyError: The user does not trust the key, or there is no terminal.
        """
        what = f"{hostname} ({key.get_name()} {key.fingerprint})"
        if sys.stdin is None or not sys.stdin.isatty():
            raise HostKeyError(
                f"The host key of {what} is not known, and there is no terminal to ask whether to trust it. "
                f"Connect once by hand ({self._command}), which saves it, or pass "
                "missing_host_key_policy=paramiko.AutoAddPolicy() to trust any key"
            )
        print(f"The host key of {hostname} is not known yet. Its fingerprint is", file=sys.stderr)
        print(f"\n  {key.get_name()} {key.fingerprint}\n", file=sys.stderr)
        answer = ""
        while not answer.startswith(("y", "n")):
            print("Trust it, and save it in ~/.ssh/known_hosts? y/n: ", end="", file=sys.stderr, flush=True)
            answer = (sys.stdin.readline() or "n").strip().lower()
        if answer.startswith("n"):
            raise HostKeyError(f"The host key of {what} was not trusted")
        client.get_host_keys().add(hostname, key.get_name(), key)
        _save_host_key(f"{hostname} {key.get_name()} {key.get_base64()}\n")


def _save_host_key(line: str) -> None:
    """Append a line to the known hosts; paramiko would rewrite the file without the lines it cannot parse."""
    path = Path("~/.ssh/known_hosts").expanduser()
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        with path.open("ab") as file:
            file.write(b"\n" if before and not before.endswith(b"\n") else b"")
            file.write(line.encode())
    except OSError as error:
        logger.warning("the host key could not be saved: %s", error)


def _load_host_keys(client: paramiko.SSHClient) -> None:
    client.load_system_host_keys()  # those of the user; paramiko ignores a missing file
    with contextlib.suppress(OSError):
        client.load_system_host_keys(str(_FOR_ALL_USERS))


def _log_in_by_key(client: paramiko.SSHClient, host: str, username: str, kwargs: dict[str, Any]) -> bool:
    """Log in without a password; return False if the server does not accept that."""
    try:
        client.connect(host, username=username, **kwargs)
    except paramiko.AuthenticationException as error:
        if _is_timeout(error):
            raise
        return False
    except paramiko.SSHException as error:
        if "No authentication methods available" in str(error):  # there is no key to try
            return False
        raise
    return True


def _is_timeout(error: paramiko.SSHException) -> bool:
    """Return whether a step took too long, for which paramiko has no exception of its own."""
    if isinstance(error.__cause__ or error.__context__, TimeoutError):
        return True
    return str(error) in {"Authentication timeout.", "No existing session"}


def _ask_password(where: str) -> str:
    reason = f"None of the SSH keys of this user is accepted by {where}"
    password = _ask(lambda: getpass.getpass(f"{where}'s password: "), "the password", "password=", reason)
    if not password:
        raise ValueError("You must specify the SSH password")
    return password


def _ask(ask: Callable[[], str], what: str, argument: str, reason: str = "") -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        text = f"there is no terminal to ask for {what}: pass {argument} to connect(), or ssh_{argument} to "
        text = f"{text}start_manager()"
        raise SSHAuthenticationError(f"{reason}, and {text}" if reason else text[0].upper() + text[1:])
    try:
        return ask()
    except EOFError:
        raise SSHAuthenticationError(f"The terminal was closed instead of typing {what}") from None


@contextlib.contextmanager
def _errors(where: str, known_as: str, timeout: float) -> Iterator[None]:
    """Raise the errors of paramiko as those of this package, each with a text of one line."""
    try:
        yield
    except (SSHError, SSHAuthenticationError, HostKeyError):
        raise
    except paramiko.BadHostKeyException as error:
        raise HostKeyError(
            f"The host key of {where} is not the one that is known: either the computer was set up anew, "
            f"then remove the old key (ssh-keygen -R '{known_as}'), or somebody pretends to be it"
        ) from error
    except paramiko.SSHException as error:
        if _is_timeout(error):
            raise ConnectTimeout(f"{where} does not speak SSH within {timeout:g} s") from error
        if not isinstance(error, paramiko.AuthenticationException):
            raise SSHError(f"Cannot connect with {where} by SSH: {visible(str(error))}") from error
        raise SSHAuthenticationError(f"{where} does not accept the login: {visible(str(error))}") from error
    except TimeoutError as error:
        raise ConnectTimeout(f"Cannot connect with {where} by SSH within {timeout:g} s") from error
    except (OSError, EOFError) as error:
        text = visible(str(error)) or "the connection was closed"
        raise SSHError(f"Cannot connect with {where} by SSH: {text}") from error
