"""A real sshd on a loopback address, with keys of its own, and the home folder of the connecting user."""

from __future__ import annotations

import getpass
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.interop.reference import free_port
from tests.patience import PATIENCE

SSHD = shutil.which(
    "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
)

CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={folder}/bin:/usr/local/bin:/usr/bin:/bin
"""


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


@attrs.define
class Sshd:
    """An SSH server, and the user that may log in."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    user: str

    @property
    def key(self) -> str:
        return str(self.folder / "user_key")

    @property
    def known_host(self) -> str:
        """The line of known_hosts for this server."""
        return f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}"

    @property
    def arguments(self) -> dict[str, object]:
        """Further arguments of connect()."""
        return {"port": self.port, "key_filename": self.key}


@pytest.fixture(scope="session")
def the_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if sys.platform == "win32":
        pytest.skip("the sshd of Windows cannot be run as an ordinary process")
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("openssh-server is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "user_key"):
        make_key(folder / name)
    (folder / "bin").mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # as the system service does; sshd needs this folder as root
    port = free_port()
    (folder / "config").write_text(CONFIGURATION.format(port=port, folder=folder))
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "config")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stderr:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        seen = []
        while not seen or "Server listening on" not in seen[-1]:
            line = lines.get(timeout=PATIENCE)
            assert line is not None, f"sshd has ended: {seen}"
            seen.append(line)
        yield Sshd(process, folder, port, getpass.getuser())
    finally:
        process.terminate()
        process.wait(PATIENCE)
        reader.join(PATIENCE)
        process.stderr.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the connecting user, without SSH keys and without an agent."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("MSL_NETWORK_HOME", str(home / "msl"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def sshd(the_sshd: Sshd, home: Path) -> Sshd:
    """The server, with its host key in the known hosts."""
    (home / ".ssh" / "known_hosts").write_text(the_sshd.known_host)
    return the_sshd


class Terminal:
    """Standard input that pretends to be a terminal."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.lines.pop(0) if self.lines else ""


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder of files whose names are the ids of processes to end."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        try:
            os.kill(int(path.name), signal.SIGKILL)
        except ProcessLookupError:
            pass


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
