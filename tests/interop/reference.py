"""Processes of msl-network 1.0.0: its Managers and Services, and our own for comparison."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import attrs

from tests.patience import PATIENCE

_SERVICES = Path(__file__).with_name("services.py")
_START_MANAGER = (
    "import json, sys\nfrom msl.network.manager import run_forever\nrun_forever(**json.loads(sys.argv[1]))\n"
)
_START_EXAMPLE = (
    "import json, logging, sys\n"
    "import msl.examples.network as examples\n"
    "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
    "service = examples.{name}()\n"
    "if hasattr(service, 'emit'):\n"
    "    service.add_tasks(service.emit())\n"
    "service.start(**json.loads(sys.argv[1]))\n"
)
_MAKE_DATABASE = (
    "import json, sys\n"
    "from msl.network.database import ConnectionsTable, HostnamesTable, UsersTable\n"
    "for table in (ConnectionsTable, HostnamesTable, UsersTable):\n"
    "    table = table(database=sys.argv[1])\n"
    "for user in json.loads(sys.argv[2]):\n"
    "    table.insert(*user)\n"
)


def free_port() -> int:
    """Return a free port, since the reference cannot choose one.

    It is none of those that operating systems give out themselves: it must still be free when it is used.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port was found")


def _environment(home: Path) -> dict[str, str]:
    return dict(
        os.environ, MSL_NETWORK_HOME=str(home), PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore", SUDO_USER=""
    )


@attrs.define
class Process:
    """A child process; a thread reads its output, so that the process never blocks on a full pipe."""

    popen: subprocess.Popen[str]
    lines: list[str] = attrs.field(factory=list)
    _news: threading.Condition = attrs.field(factory=threading.Condition)
    _reader: threading.Thread = attrs.field(init=False)

    @classmethod
    def start(cls, arguments: list[str], home: Path, announced: str) -> Process:
        """Start Python and wait for a line that contains `announced`."""
        process = cls(
            subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environment(home),
            )
        )
        process._reader = threading.Thread(target=process._read, daemon=True)
        process._reader.start()
        try:
            process.wait_for(announced)
        except BaseException:
            process.end()
            raise
        return process

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self.lines.append("")
            self._news.notify_all()

    def wait_for(self, text: str) -> str:
        """Wait for a line of output that contains a text, and return it."""
        position = 0

        def found() -> bool:
            nonlocal position
            while position < len(self.lines):
                if text in self.lines[position] or not self.lines[position]:
                    return True
                position += 1
            return False

        with self._news:
            if not self._news.wait_for(found, PATIENCE) or not self.lines[position]:
                raise RuntimeError(f"no line with {text!r} in the output:\n{self.log()}")
            return self.lines[position]

    def log(self) -> str:
        return "".join(self.lines)

    def kill(self) -> None:
        """Kill the process, as a power cut does."""
        self.popen.kill()
        self.popen.wait(PATIENCE)

    def pause(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill the process if it is still running, and close its pipe."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(PATIENCE)
        if hasattr(self, "_reader"):
            self._reader.join(PATIENCE)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@attrs.define
class Manager:
    """A Manager of the reference, or of this package if `ours`, and the Services that were started with it."""

    process: Process
    home: Path
    port: int
    tls: bool
    service_arguments: dict[str, Any]
    services: list[Process] = attrs.field(factory=list)
    ours: bool = False
    """Whether it is the Manager of this package, which reports that a Service is gone."""

    @property
    def certificate(self) -> Path:
        return self.home / "certs" / "localhost.crt"

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of connect() of this package."""
        secure = {"cert_file": str(self.certificate)} if self.tls else {"disable_tls": True}
        return {"host": "localhost", "port": self.port, **secure, **more}

    def start_service(self, name: str = "Echo", max_clients: int = -1, *, is_wanted: bool = True) -> Process:
        """Start a Service of `services.py`, and wait until the Manager has accepted it, unless it will not."""
        arguments = {**self.service_arguments, "name": name}
        process = Process.start(
            [str(_SERVICES), json.dumps(arguments), str(max_clients)], self.home, "connected to Manager"
        )
        self.services.append(process)
        if is_wanted:  # it logs that it is connected before it has sent its identity
            network_name = process.wait_for("connected to Manager").split()[-1]
            self.process.wait_for(f"{network_name} is a new ")
        return process

    def start_example(self, name: str) -> Process:
        """Start an example Service of msl-network, by the name of its class."""
        code = _START_EXAMPLE.format(name=name)
        arguments = json.dumps({**self.service_arguments, "auto_save": True})
        process = Process.start(["-c", code, arguments], self.home, "connected to Manager")
        self.services.append(process)
        return process

    def start_example_of_ours(self, name: str, *more: str) -> Process:
        """Start an example Service of this package, by the name of its module."""
        command = ["-m", f"msl_network_trio.examples.{name}", "--port", str(self.port), *more]
        command += ["--cert-file", str(self.certificate)] if self.tls else ["--disable-tls"]
        process = Process.start(command, self.home, "is connected to Manager")
        self.services.append(process)
        return process

    def end(self) -> None:
        for process in (*self.services, self.process):
            process.end()


def start_manager(
    home: Path,
    *,
    tls: bool = False,
    users: tuple[tuple[str, str, bool], ...] = (),
    port: int | None = None,
    ours: bool = False,
    **options: Any,
) -> Manager:
    """Start a Manager.

    Args:
        home: Its home folder.
        ours: Whether to start our own Manager instead of the reference's. Its database is made by the reference, too.
        tls: Whether it uses TLS.
        users: (name, password, whether an administrator) of the users in its database.
        port: The port; None: any free one.
        options: Arguments of the reference's run_forever().
    """
    home.mkdir(exist_ok=True)
    database = home / "manager.sqlite3"
    if users:
        subprocess.run(
            [sys.executable, "-c", _MAKE_DATABASE, str(database), json.dumps(users)],
            check=True,
            env=_environment(home),
            stdout=subprocess.DEVNULL,
        )
    port = port or free_port()
    if ours:
        command = ["-m", "msl_network_trio", "manager", "--port", str(port)]
        command += [] if tls else ["--disable-tls"]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    else:
        start = {"port": port, "disable_tls": not tls, "database": str(database), **options}
        command = ["-c", _START_MANAGER, json.dumps(start)]
    process = Process.start(command, home, "Network Manager running on")
    service_arguments: dict[str, Any] = {"host": "localhost", "port": port, "disable_tls": not tls}
    if options.get("auth_password"):
        service_arguments["password_manager"] = options["auth_password"]
    if options.get("auth_login") and users:
        service_arguments |= {"username": users[0][0], "password": users[0][1]}
    return Manager(process, home, port, tls, service_arguments, ours=ours)
