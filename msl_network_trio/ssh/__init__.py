"""Start of a Manager on a remote computer by SSH; replaces the module ``msl.network.ssh``.

The functions are for scripts: they block, in any thread but that of a Trio program. They need paramiko, which
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
"""Names that are imported on first use, and the modules that define them."""


def __getattr__(name: str) -> Any:
    module = _NEED_PARAMIKO.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
