"""SSH connections to a real sshd: logins, trust of host keys, and the texts of errors."""

from __future__ import annotations

import getpass
import io
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path

import paramiko
import pytest
import trio

from msl_network_trio import AuthenticationError, CertificateError, ConnectError, ConnectTimeout, ssh
from msl_network_trio.ssh.connecting import visible
from tests.patience import PATIENCE

from .conftest import Sshd, Terminal, make_key


def connect(sshd: Sshd, **kwargs):
    return ssh.connect(f"{sshd.user}@127.0.0.1", **{**sshd.arguments, **kwargs})


def fails(error, function, *args, **kwargs) -> str:
    """Return the text of an error, which must be one line."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_key_logs_in_and_the_user_may_be_given_either_way(sshd):
    with connect(sshd) as client:
        assert ssh.exec_command(client, "echo hello") == ["hello"]
    with ssh.connect("127.0.0.1", username=sshd.user, **sshd.arguments) as client:
        assert ssh.exec_command(client, "id -un") == [sshd.user]


def test_a_host_key_that_is_not_known_is_refused(sshd, home, monkeypatch):
    (home / ".ssh" / "known_hosts").unlink()
    for stdin in (None, io.StringIO("y\n")):
        monkeypatch.setattr("sys.stdin", stdin)
        text = fails(ssh.HostKeyError, connect, sshd)
        assert "SHA256:" in text
        assert f"(ssh -p {sshd.port} {sshd.user}@127.0.0.1)" in text
        assert "missing_host_key_policy=paramiko.AutoAddPolicy()" in text
    with connect(sshd, missing_host_key_policy=paramiko.AutoAddPolicy()):
        pass
    assert not (home / ".ssh" / "known_hosts").exists()
    with pytest.raises(ssh.SSHError, match="not found in known_hosts"):
        connect(sshd, missing_host_key_policy=paramiko.RejectPolicy)


@pytest.mark.parametrize("before", [None, "", "other.example ssh-ed25519 AAAA", "# comment\n"])
def test_at_a_terminal_a_new_host_key_is_shown_and_saved(sshd, home, monkeypatch, capsys, before):
    known = home / ".ssh" / "known_hosts"
    known.unlink()
    if before is None:
        known.parent.rmdir()
    else:
        known.write_text(before)
    monkeypatch.setattr("sys.stdin", Terminal("what?\n", "Yes\n"))
    with connect(sshd):
        pass
    asked = capsys.readouterr().err
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(sshd.folder / "host_key.pub")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]
    assert fingerprint in asked
    assert asked.count("y/n") == 2
    saved = known.read_text()
    start = "" if before is None else before
    start += "" if start.endswith("\n") or not start else "\n"
    assert saved == start + sshd.known_host.removesuffix(" test\n") + "\n"
    monkeypatch.setattr("sys.stdin", None)
    with connect(sshd):
        pass


@pytest.mark.parametrize("answer", ["no\n", ""])
def test_a_host_key_that_the_user_does_not_know_is_not_trusted(sshd, home, monkeypatch, answer):
    (home / ".ssh" / "known_hosts").unlink()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert "was not trusted" in fails(ssh.HostKeyError, connect, sshd)
    assert not (home / ".ssh" / "known_hosts").exists()


def test_a_host_key_that_cannot_be_saved_is_trusted_once(sshd, home, monkeypatch, caplog):
    (home / ".ssh" / "known_hosts").unlink()
    (home / ".ssh" / "known_hosts").mkdir()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    with connect(sshd):
        pass
    assert "could not be saved" in caplog.text


@pytest.mark.parametrize("policy", [None, paramiko.AutoAddPolicy()])
def test_a_host_key_that_has_changed_is_refused_whatever_the_policy(
    sshd, home, tmp_path, monkeypatch, policy
):
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    text = fails(ssh.HostKeyError, connect, sshd, missing_host_key_policy=policy)
    assert "is not the one that is known" in text
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in text


def test_a_user_whose_key_is_not_accepted_is_refused(sshd, tmp_path, monkeypatch):
    make_key(tmp_path / "other")
    monkeypatch.setattr("sys.stdin", None)
    for kwargs in ({"key_filename": str(tmp_path / "other")}, {"key_filename": None}):
        text = fails(ssh.SSHAuthenticationError, connect, sshd, **kwargs)
        assert "None of the SSH keys" in text
        assert "ssh_password=" in text
    text = fails(ssh.SSHAuthenticationError, connect, sshd, key_filename=None, password="secret")
    assert f"{sshd.user}@127.0.0.1:{sshd.port} does not accept the login" in text
    assert "secret" not in text


def test_without_a_terminal_there_is_no_question_for_a_user(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "pass username= to connect()" in fails(ssh.SSHAuthenticationError, ssh.connect, "127.0.0.1")


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"username": ""}, "You must specify the SSH username"),
        ({"username": "a", "password": ""}, "You must specify the SSH password"),
        ({"username": "a", "timeout": 0}, "timeout must be a positive number of seconds, not 0"),
        ({"username": "a", "timeout": float("nan")}, "timeout must be a positive number"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kwargs, text):
    with pytest.raises(ValueError, match=text):
        ssh.connect("127.0.0.1", **kwargs)
    for value in (None, "5", b"5", True):
        with pytest.raises(TypeError, match=f"timeout must be a number of seconds, not {value!r}"):
            ssh.connect("127.0.0.1", timeout=value)
    with pytest.raises(TypeError, match="as_sudo must be True or False, not 'no'"):
        ssh.start_manager("127.0.0.1", "script", as_sudo="no")


def test_a_server_that_does_not_answer_is_named(home, silent):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    assert f"Cannot connect with me@127.0.0.1:{closed} by SSH" in fails(
        ssh.SSHError, ssh.connect, "me@127.0.0.1", port=closed
    )
    text = fails(ConnectTimeout, ssh.connect, "me@127.0.0.1", port=silent, timeout=0.1)
    assert text == f"me@127.0.0.1:{silent} does not speak SSH within 0.1 s"


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.0 400 Bad\x1b[2J Request\r\n\r\n", b"SSH-2.0-x\r\n\0\0\0\0\0\0\0"]
)
def test_what_is_no_ssh_server_is_named(home, greeting):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        text = fails(ssh.SSHError, ssh.connect, "me@127.0.0.1", port=listener.getsockname()[1])
        thread.join()
    assert "by SSH: " in text
    assert text.isprintable()


def test_the_errors_are_those_of_this_package_and_of_paramiko():
    assert issubclass(ssh.SSHError, ConnectError)
    assert issubclass(ssh.SSHError, paramiko.SSHException)
    assert issubclass(ssh.HostKeyError, CertificateError)
    assert issubclass(ssh.HostKeyError, paramiko.SSHException)
    assert issubclass(ssh.SSHAuthenticationError, AuthenticationError)
    assert issubclass(ssh.SSHAuthenticationError, paramiko.AuthenticationException)
    assert issubclass(ssh.RemoteCommandError, RuntimeError)
    for error in (ssh.SSHError("a"), ssh.RemoteCommandError("a")):
        assert str(pickle.loads(pickle.dumps(error))) == "a"


async def test_in_the_thread_of_a_trio_program_nothing_blocks():
    for function, args in (
        (ssh.connect, ("host",)),
        (ssh.start_manager, ("host", "path")),
        (ssh.exec_command, (None, "command")),
    ):
        with pytest.raises(RuntimeError, match="in a Trio program use: await trio.to_thread.run_sync"):
            function(*args)
    await trio.lowlevel.checkpoint()


def test_without_paramiko_the_error_names_the_extra():
    code = (
        "import sys\n"
        "sys.modules['paramiko'] = None\n"
        "from msl_network_trio import ssh\n"
        "assert ssh.parse_console_script_kwargs() == {}\n"
        "for name in set(ssh.__all__) - {'parse_console_script_kwargs'}:\n"
        "    try:\n"
        "        getattr(ssh, name)\n"
        "    except ImportError as error:\n"
        "        assert 'pip install msl-network-trio[ssh]' in str(error), error\n"
        "        assert error.name == 'paramiko'\n"
        "    else:\n"
        "        raise AssertionError(name)\n"
        "try:\n"
        "    from msl_network_trio.ssh import start_manager\n"
        "except ImportError as error:\n"
        "    assert 'pip install msl-network-trio[ssh]' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_module_has_what_it_says_and_nothing_else():
    assert set(ssh.__all__) <= set(dir(ssh))
    for name in ssh.__all__:
        assert getattr(ssh, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ssh.nothing


def test_texts_of_others_are_shown_in_one_line():
    assert visible("a\x1b[2J\nb\u202e°") == "a\\x1b[2J\\nb\\u202e°"


# ---- passwords, with a server in this process ----


class Server(paramiko.ServerInterface):
    """Accepts the user with the right password."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.answers = threading.Event()
        self.answers.set()

    def get_allowed_auths(self, username: str) -> str:
        return "password,publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.answers.wait()
        return paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self.answers.wait()
        self.tried.append(password)
        right = (username, password) == ("pi", "right")
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED


class Serving:
    """An SSH server that serves each connection in a thread."""

    def __init__(self, version: str | None = None) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.server = Server()
        self.transports: list[paramiko.Transport] = []
        self._version = version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            if self._version:
                transport.local_version = self._version
            transport.add_server_key(self.key)
            self.transports.append(transport)
            transport.start_server(event=threading.Event(), server=self.server)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for transport in self.transports:
            transport.close()


@pytest.fixture
def serving(home: Path):
    serving = Serving()
    line = f"[127.0.0.1]:{serving.port} {serving.key.get_name()} {serving.key.get_base64()}\n"
    (home / ".ssh" / "known_hosts").write_text(line)
    yield serving
    serving.close()


def test_a_password_logs_in(serving):
    ssh.connect("pi@127.0.0.1", password="right", port=serving.port).close()
    with pytest.raises(ssh.SSHAuthenticationError, match="does not accept the login") as caught:
        ssh.connect("pi@127.0.0.1", password="wrong", port=serving.port)
    assert "wrong" not in str(caught.value)
    assert serving.server.tried == ["right", "wrong"]


@pytest.mark.parametrize("by", ["key", "password"])
def test_a_server_that_does_not_say_whether_it_accepts_the_login_is_named(serving, tmp_path, by):
    make_key(tmp_path / "key")
    kwargs = {"password": "right"} if by == "password" else {"key_filename": str(tmp_path / "key")}
    serving.server.answers.clear()
    try:
        text = fails(
            ConnectTimeout, ssh.connect, "pi@127.0.0.1", port=serving.port, auth_timeout=0.1, **kwargs
        )
    finally:
        serving.server.answers.set()
    assert "does not speak SSH within" in text


def test_at_a_terminal_user_and_password_are_asked_for(serving, monkeypatch):
    asked = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "pi")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or "right")
    ssh.connect("127.0.0.1", port=serving.port).close()
    assert asked == ["User name for SSH: ", f"pi@127.0.0.1:{serving.port}'s password: "]
    assert serving.server.tried == ["right"]


def test_a_terminal_that_is_closed_or_silent_is_an_error(serving, monkeypatch):
    def end(_):
        raise EOFError

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", end)
    monkeypatch.setattr(getpass, "getpass", lambda _: "")
    with pytest.raises(ssh.SSHAuthenticationError, match="The terminal was closed"):
        ssh.connect("127.0.0.1", port=serving.port)
    with pytest.raises(ValueError, match="You must specify the SSH password"):
        ssh.connect("pi@127.0.0.1", port=serving.port)


def test_a_manager_is_not_started_on_windows(home):
    serving = Serving("SSH-2.0-OpenSSH_for_Windows_9.5")
    try:
        with pytest.raises(ssh.RemoteCommandError, match="it runs Windows"):
            ssh.start_manager(
                "pi@127.0.0.1",
                "script",
                ssh_password="right",
                missing_host_key_policy=paramiko.AutoAddPolicy(),
                paramiko_kwargs={"port": serving.port},
            )
    finally:
        serving.close()
