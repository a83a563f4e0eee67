"""Start of a Manager on a remote computer, and the wait until it runs. Blocks in the calling thread."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from msl_network_trio import arguments
from msl_network_trio.constants import NETWORK_MANAGER_RUNNING_PREFIX
from msl_network_trio.exceptions import ConnectTimeout
from msl_network_trio.ssh.connecting import connect, refuse_in_trio, seconds
from msl_network_trio.ssh.executing import RemoteCommandError, execute
from msl_network_trio.ssh.script import ON_STANDARD_INPUT, OPTION
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    import paramiko

_SECRET = re.compile("password|secret|token|credential", re.IGNORECASE)
"""Matches the names of keyword arguments whose values are secret."""

_HOME = re.compile(r"~[\w.-]*/")

_SLACK = 10.0
"""Seconds added to the time that the remote computer should need until it reports on the script."""

_ENDED, _SILENT = 3, 4
"""Exit statuses of `_SCRIPT`: the script of the user has ended; the Manager did not report in time."""

# The shell script for the remote computer. The subshell stays the parent of the user's script, and belongs to
# the user even if sudo runs that script, so that `kill -0` can test if it exists. It closes its copies of
# the SSH channel, so that the channel can end.
_SCRIPT = """\
log={log}
: > "$log" || exit 1
exec 3<&0
(trap '' HUP; {command}; exit $?) <&3 >"$log" 2>&1 3<&- &
pid=$!
exec 3<&-
left={tenths}
while :; do
  alive=no
  kill -0 "$pid" 2>/dev/null && alive=yes
  grep -q {running} "$log" && exit 0
  if [ $alive = no ]; then
    wait "$pid"
    echo "$?"
    tail -c 50000 "$log"
    exit {ended}
  fi
  if [ $left -le 0 ]; then
    tail -c 50000 "$log"
    exit {silent}
  fi
  if sleep 0.1 2>/dev/null; then left=$((left - 1)); else sleep 1; left=$((left - 10)); fi
done
"""


def start_manager(
    host: str,
    console_script_path: str,
    *,
    ssh_username: str | None = None,
    ssh_password: str | None = None,
    timeout: float = 10,
    as_sudo: bool = False,
    missing_host_key_policy: paramiko.MissingHostKeyPolicy
    | type[paramiko.MissingHostKeyPolicy]
    | None = None,
    paramiko_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Start a Manager on a remote computer, and wait until it runs. Blocks; Ctrl-C ends the wait.

    The remote computer has a script that calls `parse_console_script_kwargs`, of this package or of
    msl-network, and runs a Manager, maybe with Services, with the arguments that it returns. The output of
    the script goes to a file beside it, whose name ends with ``.log``. The Manager must log there that it
    runs, so its `log_level` must not be above INFO. The script continues to run after this function has
    returned.

    Passwords among the `kwargs` are sent to its standard input, where no other user of the remote computer
    can see them. The script has to use this package then: msl-network reads its command line only.

    Args:
        host: See `connect`. It must have a POSIX shell, so it cannot run Windows.
        console_script_path: The path of the script on the remote computer, which must be executable there.
        ssh_username: See `connect`.
        ssh_password: See `connect`.
        timeout: Maximum seconds for the connection, and again until the Manager runs.
        as_sudo: Whether the script runs as root. The user must have the right to do so without a password.
        missing_host_key_policy: See `connect`.
        paramiko_kwargs: Further arguments of `connect`.
        kwargs: Keyword arguments for the script: those of `run_forever`, and if it starts Services, of
            `Service.start`.

    Raises:
        RemoteCommandError: The script cannot be started, or has ended; `output` has the end of its log.
        ConnectTimeout: There is no connection within `timeout`; or the Manager does not run within `timeout`,
            and the script is left running.
        TypeError: A keyword argument has no JSON form.
        Exception: See `connect`.
    """
    refuse_in_trio("start_manager")
    timeout = seconds(timeout)
    as_sudo = arguments.flag("as_sudo", as_sudo)
    encoded = json.dumps(kwargs, default=_as_text)
    has_secrets = any(_SECRET.search(name) and value is not None for name, value in kwargs.items())
    argument = ON_STANDARD_INPUT if has_secrets else encoded
    path = _quoted(console_script_path)
    client = connect(
        host,
        username=ssh_username,
        password=ssh_password,
        timeout=timeout,
        missing_host_key_policy=missing_host_key_policy,
        **(paramiko_kwargs or {}),
    )
    with client:
        _refuse_windows(client, host)
        script = _SCRIPT.format(
            log=_quoted(f"{console_script_path}.log"),
            command=f"{'sudo -n ' if as_sudo else ''}{path} {OPTION} {shlex.quote(argument)}",
            running=shlex.quote(NETWORK_MANAGER_RUNNING_PREFIX),
            tenths=math.ceil(timeout * 10),
            ended=_ENDED,
            silent=_SILENT,
        )
        data = f"{encoded}\n".encode() if has_secrets else b""
        # The script counts its waits of 0.1 s, each of which may take longer.
        ended = execute(client, f"exec sh -c {shlex.quote(script)}", 2 * timeout + _SLACK, data)
    if ended.status == 0:
        return
    if ended.status == _SILENT:
        raise ConnectTimeout(
            f"The Manager on {host} does not run within {timeout:g} s, but may do so later; its log, "
            f"{console_script_path}.log on that computer, ends with: {_last(ended.output)}"
        )
    if ended.status == _ENDED:
        status, *lines = ended.output
        text = (
            f"Cannot start Manager on {host}: {_last(lines)} (exit status {status} of {console_script_path})"
        )
        if has_secrets:
            text += (
                "; passwords are sent to standard input, which msl-network's own parse_console_script_kwargs"
            )
            text += " does not read, only that of msl_network_trio"
        raise RemoteCommandError(text, tuple(lines))
    raise RemoteCommandError(f"Cannot start Manager on {host}: {_last(ended.errors)}", tuple(ended.errors))


def _as_text(value: object) -> object:
    """Return a substitute for a value that has no JSON form."""
    if isinstance(value, PurePath):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # a NumPy number or array
        return value.tolist()
    raise TypeError(f"A keyword argument for the Manager cannot be sent, since it is {type(value).__name__}")


def _quoted(path: str) -> str:
    """Quote a path for the shell, except for a leading ``~user/``, which the shell expands."""
    home = _HOME.match(path)
    start = home[0] if home else ""
    return start + shlex.quote(path[len(start) :])


def _refuse_windows(client: paramiko.SSHClient, host: str) -> None:
    transport = client.get_transport()
    version = transport.remote_version if transport is not None else ""
    if "windows" in version.lower():
        raise RemoteCommandError(
            f"Cannot start Manager on {host}: it runs Windows, which ends what an SSH connection started; "
            "run the Manager as a service there, see docs/operation.md"
        )


def _last(lines: list[str]) -> str:
    """Return the last line that is not blank; of a traceback, the line with the error."""
    return next((visible(line.strip()) for line in reversed(lines) if line.strip()), "it has printed nothing")
