"""Start a Manager on a remote computer by SSH; what the module ``msl.network.ssh`` was.

The functions are for scripts: they block. On this computer they need paramiko, which
``pip install msl-network-trio[ssh]`` installs; `parse_console_script_kwargs`, which runs on the remote
computer, does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from msl_network_trio.ssh.script import parse_console_script_kwargs

if TYPE_CHECKING:
    from msl_network_trio.ssh.connecting import HostKeyError, SSHAuthenticationError, SSHError, connect
    from msl_network_trio.ssh.executing import RemoteCommandError, exec_command
    from msl_network_trio.ssh.starting import start_manager

__all__ = [
    "HostKeyError",
    "RemoteCommandError",
    "SSHAuthenticationError",
    "SSHError",
    "connect",
    "exec_command",
    "parse_console_script_kwargs",
    "start_manager",
]

_NEED_PARAMIKO: Final = {
    "HostKeyError": "connecting",
    "RemoteCommandError": "executing",
    "SSHAuthenticationError": "connecting",
    "SSHError": "connecting",
    "connect": "connecting",
    "exec_command": "executing",
    "start_manager": "starting",
}
"""What is imported when it is used, and the modules that have it."""


def __getattr__(name: str) -> Any:
    module = _NEED_PARAMIKO.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
