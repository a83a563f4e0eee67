"""Start of Managers by SSH on a real sshd, execution of commands, and the texts of errors."""

from __future__ import annotations

import io
import json
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

from msl_network_trio import ConnectTimeout, ssh
from msl_network_trio.ssh.executing import _read
from msl_network_trio.ssh.starting import _as_text, _quoted
from msl_network_trio.sync import LinkedClient, connect
from tests.interop.reference import free_port
from tests.patience import PATIENCE

from .conftest import Sshd

OURS = """
from msl_network_trio.manager.running import run_forever
from msl_network_trio.ssh import parse_console_script_kwargs
run_forever(**parse_console_script_kwargs())
"""
REFERENCE = """
import warnings
warnings.simplefilter("ignore")
from msl.network.manager import run_forever
from msl.network.ssh import parse_console_script_kwargs
run_forever(**parse_console_script_kwargs())
"""
WITH_SERVICE = """
from msl_network_trio import run_services
from msl_network_trio.examples.echo import Echo
from msl_network_trio.ssh import parse_console_script_kwargs
run_services(Echo(), **parse_console_script_kwargs())
"""


@pytest.fixture
def script(tmp_path: Path, pids: Path):
    """Create scripts, whose processes are ended after the test."""

    def make(source: str, name: str = "start manager's") -> Path:
        path = tmp_path / name
        path.write_text(
            f"#!{sys.executable}\n"
            "import os, sys\n"
            f"os.environ['MSL_NETWORK_HOME'] = {str(tmp_path / 'remote')!r}\n"
            f"open({str(pids)!r} + '/' + str(os.getpid()), 'w').close()\n" + textwrap.dedent(source)
        )
        path.chmod(0o755)
        return path

    return make


def start(sshd: Sshd, path: object, timeout: float = PATIENCE, **kwargs):
    ssh.start_manager(
        f"{sshd.user}@127.0.0.1", str(path), timeout=timeout, paramiko_kwargs=sshd.arguments, **kwargs
    )


def cannot_start(sshd: Sshd, path: object, **kwargs) -> str:
    with pytest.raises(ssh.RemoteCommandError) as caught:
        start(sshd, path, **kwargs)
    text = str(caught.value)
    assert text.startswith("Cannot start Manager on ")
    assert text.isprintable()
    return text


def test_a_manager_with_a_service_runs_when_the_function_returns(sshd, script):
    port = free_port()
    path = script(WITH_SERVICE)
    start(sshd, path, port=port, disable_tls=True)
    with LinkedClient("Echo", port=port, disable_tls=True, timeout=PATIENCE) as link:
        assert link.echo(1) == [[1], {}]
    assert "Network Manager running on" in Path(f"{path}.log").read_text()


SPY = """
import json
from pathlib import Path
def commands(pid):
    while pid > 1:
        yield Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\\0")
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
seen = [sys.argv, *(commands(os.getpid()) if sys.platform == "linux" else [])]
Path(__file__).with_name("seen").write_text(json.dumps(seen))
"""


def test_passwords_are_on_no_command_line_and_in_no_log(sshd, script, tmp_path):
    port = free_port()
    path = script(SPY + OURS)
    secret = "s3cret 'pass\"word"
    start(sshd, path, port=port, disable_tls=True, auth_password=secret)
    with connect(port=port, disable_tls=True, password_manager=secret) as client:
        assert client.is_connected()
    seen = (tmp_path / "seen").read_text()
    assert "--kwargs" in seen
    assert "s3cret" not in seen
    assert "s3cret" not in Path(f"{path}.log").read_text()


def test_what_is_no_secret_is_on_the_command_line_as_msl_network_expects_it(sshd, script, tmp_path):
    path = script(SPY + "print('Network Manager running on here')")
    start(sshd, path, name="it's", folder=tmp_path, auth_password=None)
    argv = json.loads((tmp_path / "seen").read_text())[0]
    assert argv[1] == "--kwargs"
    assert json.loads(argv[2]) == {"name": "it's", "folder": str(tmp_path), "auth_password": None}


def test_numbers_of_numpy_and_paths_are_sent_and_other_objects_are_not(sshd):
    numpy = pytest.importorskip("numpy")
    assert [_as_text(numpy.int64(5)), _as_text(Path("a"))] == [5, "a"]
    with pytest.raises(TypeError, match="cannot be sent, since it is object"):
        start(sshd, "script", auth_password=object())


@pytest.mark.interop
def test_a_manager_of_msl_network_is_started(sshd, script):
    port = free_port()
    start(sshd, script(REFERENCE), port=port, disable_tls=True)
    with connect(port=port, disable_tls=True) as client:
        assert client.is_connected()


@pytest.mark.interop
def test_a_script_of_msl_network_that_cannot_get_a_password_says_so(sshd, script):
    text = cannot_start(sshd, script(REFERENCE), auth_password="secret")
    assert "msl-network's own parse_console_script_kwargs does not read" in text
    assert "secret" not in text


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_msl_network_starts_a_manager_of_ours(sshd, script):
    from msl.network import ssh as reference

    port = free_port()
    reference.start_manager(
        f"{sshd.user}@127.0.0.1",
        str(script(OURS, name="plain")),
        ssh_password="none",
        timeout=PATIENCE,
        paramiko_kwargs=sshd.arguments,
        port=port,
        disable_tls=True,
    )
    with connect(port=port, disable_tls=True) as client:
        assert client.is_connected()


def test_as_sudo_the_script_is_run_by_sudo_without_a_question(sshd, script, tmp_path):
    sudo = sshd.folder / "bin" / "sudo"
    sudo.write_text(f'#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\ntouch {str(tmp_path)!r}/sudone\nexec "$@"\n')
    sudo.chmod(0o755)
    try:
        start(sshd, script("print('Network Manager running on here')"), as_sudo=True)
        assert (tmp_path / "sudone").exists()
        sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
        assert "sudo: a password is required" in cannot_start(
            sshd, tmp_path / "start manager's", as_sudo=True
        )
    finally:
        sudo.unlink()


def test_what_the_script_says_last_is_in_the_error_and_the_rest_with_it(sshd, script):
    path = script("print('fine\\x1b[2J so far')\nraise OSError('the port is in use')")
    with pytest.raises(ssh.RemoteCommandError) as caught:
        start(sshd, path)
    assert "OSError: the port is in use (exit status 1 of " in str(caught.value)
    assert caught.value.output[0] == "fine\x1b[2J so far"
    assert "bad\\x1b[2J (exit status 3 of" in cannot_start(sshd, script("print('bad\\x1b[2J'); sys.exit(3)"))


def test_a_port_that_is_in_use_is_an_error(sshd, script, silent):
    text = cannot_start(sshd, script(OURS), port=silent, disable_tls=True)
    assert "in use" in text


def test_a_script_that_is_not_there_or_cannot_be_run_is_an_error(sshd, tmp_path):
    assert "not found" in cannot_start(sshd, tmp_path / "nothing")
    (tmp_path / "text").write_text("")
    assert "ermission denied" in cannot_start(sshd, tmp_path / "text")
    assert "nowhere" in cannot_start(sshd, tmp_path / "nowhere" / "script")


def test_the_log_of_an_earlier_start_does_not_count(sshd, script):
    path = script("raise ValueError('now')")
    Path(f"{path}.log").write_text("Network Manager running on here\n")
    assert "ValueError: now" in cannot_start(sshd, path)


def test_a_manager_that_does_not_run_in_time_is_an_error(sshd, script):
    path = script("print('starting', flush=True)\nimport signal\nsignal.pause()")
    with pytest.raises(ConnectTimeout, match="does not run within 0.5 s, but may do so later") as caught:
        start(sshd, path, timeout=0.5)
    assert str(caught.value).endswith(f"its log, {path}.log on that computer, ends with: starting")


def test_a_path_may_begin_with_the_home_folder():
    assert _quoted("~/a b") == "~/'a b'"
    assert _quoted("~pi/run") == "~pi/run"
    assert _quoted("/opt/~/$x;y") == "'/opt/~/$x;y'"


# ---- on the remote computer ----


@pytest.mark.parametrize(
    ("argv", "stdin", "kwargs"),
    [
        ([], "", {}),
        (["other"], '{"a": 1}', {}),
        (["--kwargs", '{"a": [1, null]}'], "", {"a": [1, None]}),
        (["x", "--kwargs", "{}", "y"], "", {}),
        (["--kwargs", "-"], '{"auth_password": "a b"}\nmore', {"auth_password": "a b"}),
    ],
)
def test_a_script_gets_its_arguments(argv, stdin, kwargs, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script", *argv])
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert ssh.parse_console_script_kwargs() == kwargs


@pytest.mark.parametrize(
    "argv", [["--kwargs"], ["--kwargs", "secret"], ["--kwargs", "[]"], ["--kwargs", "-"]]
)
def test_arguments_that_are_no_json_object_are_an_error_that_does_not_show_them(argv, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script", *argv])
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ValueError, match="--kwargs must be followed by a JSON object") as caught:
        ssh.parse_console_script_kwargs()
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


# ---- commands ----


@pytest.fixture
def client(sshd: Sshd):
    with ssh.connect(f"{sshd.user}@127.0.0.1", **sshd.arguments) as client:
        yield client


def test_the_lines_of_the_output_are_returned_also_if_the_exit_status_is_not_0(client):
    assert ssh.exec_command(client, "printf 'a\\nb b\\n\\nc'; exit 3") == ["a", "b b", "", "c"]
    assert ssh.exec_command(client, "printf 'a\\377'") == ["a\ufffd"]
    assert ssh.exec_command(client, "true") == []
    assert ssh.exec_command(client, "cat") == []  # its standard input is at its end


def test_much_output_on_both_streams_is_read(client):
    bulk = "head -c 3000000 /dev/zero | tr '\\0' x"
    with pytest.raises(ssh.RemoteCommandError) as caught:
        ssh.exec_command(client, f"{bulk}; ({bulk}) >&2", timeout=PATIENCE)
    assert len(caught.value.output[0]) == 3_000_000
    assert client.get_transport() is None


def test_a_command_that_complains_is_an_error_and_the_connection_is_closed(client):
    with pytest.raises(ssh.RemoteCommandError, match="The remote command 'echo' failed: oh no") as caught:
        ssh.exec_command(client, "echo secret; echo 'oh no' >&2; echo more >&2")
    assert caught.value.output == ("oh no", "more")
    assert "secret" not in str(caught.value)
    with pytest.raises(ssh.SSHError, match="The SSH connection is closed"):
        ssh.exec_command(client, "true")


def test_a_command_that_does_not_end_is_an_error(client):
    with pytest.raises(ssh.RemoteCommandError, match="'sleep' has not ended within 0.2 s"):
        ssh.exec_command(client, "sleep 30", timeout=0.2)
    assert client.get_transport() is None


def test_a_command_whose_output_never_pauses_does_not_outlast_the_timeout():
    class Flood:
        eof_received = closed = False
        pieces = iter(range(1000))

        def __init__(self, sock):
            self.fileno = sock.fileno

        def recv_ready(self):
            return True

        def recv(self, size):
            assert next(self.pieces, None) is not None, "it reads on"
            return b"y"

    one, other = socket.socketpair()
    with one, other, pytest.raises(TimeoutError):
        _read(Flood(one), time.monotonic())


def test_a_connection_that_is_lost_is_an_error(client):
    with pytest.raises(ssh.SSHError, match="was lost while the remote command 'kill' ran"):
        ssh.exec_command(client, "kill -9 $PPID", timeout=PATIENCE)
