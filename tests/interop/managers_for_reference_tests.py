"""The ``conftest`` of the client tests of msl-network 1.0.0, which is missing in their distribution.

``nox -s reference-tests`` copies this module beside them. Managers and Services are those of msl-network
1.0.0, in threads of the same process; they keep their files in the folder for temporary ones.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_HOME = Path(tempfile.gettempdir(), ".msl")
os.environ["MSL_NETWORK_HOME"] = str(_HOME)  # before msl.network is imported
shutil.rmtree(_HOME, ignore_errors=True)
_HOME.mkdir()

from msl.network import connect, constants, cryptography  # noqa: E402
from msl.network.database import UsersTable  # noqa: E402
from msl.network.manager import run_forever  # noqa: E402

_START = 30.0
"""Maximum seconds for a Manager or a Service to start or to end."""


class Manager:
    """A Manager with an administrator and Services.

    Args:
        *services: Classes of Services.
        password_manager: The Manager's password; None: users log in.
        disable_tls: See `connect`.
        cert_common_name: A name for the certificate.
        add_heartbeat_task: Whether the Heartbeat Service emits.
        read_limit: The largest line that Services receive, in bytes.
        **kwargs: Arguments of the Services.
    """

    database = str(_HOME / "testing.sqlite3")
    log_file = str(_HOME / "testing.log")
    cert_file = os.path.join(constants.CERT_DIR, "localhost.crt")
    admin_username = "admin"
    admin_password = "whatever"

    def __init__(
        self,
        *services: Any,
        password_manager: str | None = None,
        disable_tls: bool = False,
        cert_common_name: Any = None,
        add_heartbeat_task: bool = False,
        read_limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.remove_files()
        self.port = self.get_available_port()
        key_file = os.path.join(constants.KEY_DIR, "testing.key")
        cryptography.generate_key(path=key_file)
        cryptography.generate_certificate(path=self.cert_file, key_path=key_file, name=cert_common_name)
        table = UsersTable(database=self.database)
        table.insert(self.admin_username, self.admin_password, True)
        table.close()
        self.kwargs: dict[str, Any] = {
            "username": self.admin_username,
            "password": self.admin_password,
            "password_manager": password_manager,
            "port": self.port,
            "cert_file": self.cert_file,
            "disable_tls": disable_tls,
        }
        auth = {"auth_password": password_manager} if password_manager else {"auth_login": True}
        files = {"cert_file": self.cert_file, "key_file": key_file, "database": self.database}
        self._threads: list[threading.Thread] = []
        self._start(
            run_forever,
            {"port": self.port, "disable_tls": disable_tls, "log_file": self.log_file, **files, **auth},
        )
        self.wait_start(self.port, "the Manager has not started")
        for make in services:
            service = make(**kwargs)
            if add_heartbeat_task and make.__name__ == "Heartbeat":
                service.add_tasks(service.emit())
            self._start(service.start, {**self.kwargs, "read_limit": read_limit})
        if services:
            self._wait_for_services(len(services))

    def _start(self, function: Any, kwargs: dict[str, Any]) -> None:
        self._threads.append(threading.Thread(target=function, kwargs=kwargs, daemon=True))
        self._threads[-1].start()

    def _wait_for_services(self, number: int) -> None:
        end = time.monotonic() + _START
        client = connect(**self.kwargs)
        while len(client.identities()["services"]) < number:
            if time.monotonic() > end:
                raise TimeoutError("the Services have not started")
            time.sleep(0.05)
        client.disconnect()

    def shutdown(self, connection: Any = None) -> None:
        """End the Manager, and with it the Services.

        Args:
            connection: The client to do it with; None: another one.
        """
        client = connect(**self.kwargs) if connection is None else connection
        client.admin_request("shutdown_manager")
        client.disconnect()
        for thread in self._threads:
            thread.join(_START)
        self.remove_files()

    @staticmethod
    def remove_files() -> None:
        """Delete the files of a Manager."""
        for name in (Manager.database, Manager.log_file, Manager.cert_file):
            Path(name).unlink(missing_ok=True)

    @staticmethod
    def get_available_port() -> int:
        """Return a free port."""
        with socket.socket() as sock:
            sock.bind(("", 0))
            port: int = sock.getsockname()[1]
            return port

    @staticmethod
    def wait_start(port: int, message: str) -> None:
        """Wait until a Manager listens on a port."""
        end = time.monotonic() + _START
        while time.monotonic() < end:
            with socket.socket() as sock:
                if sock.connect_ex(("localhost", port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(message)
