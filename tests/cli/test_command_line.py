"""Tests of the command line: help texts, start-up time, and errors without tracebacks."""

from __future__ import annotations

import functools
import inspect
import io
import os
import re
import subprocess
import sys
from operator import itemgetter

import pytest

import msl_network_trio
from msl_network_trio.__main__ import main
from msl_network_trio.cli import console
from msl_network_trio.cli.commands import COMMANDS
from msl_network_trio.cli.limit_options import _OPTIONS
from msl_network_trio.cli.main import build_parser
from msl_network_trio.exceptions import CertificateError
from msl_network_trio.gateway.server import open_gateway
from msl_network_trio.manager import logs, self_signed
from msl_network_trio.manager.settings import Limits, ManagerSettings

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "_ARGCOMPLETE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/msl-network-trio"])


@pytest.fixture
def run_forever(monkeypatch):
    """Replace the Manager's function by one that records its arguments, or raises a given error."""
    from msl_network_trio.manager import running

    calls = []

    @functools.wraps(running.run_forever)  # keeps the signature
    def run(**kwargs):
        calls.append(kwargs)
        if run.error is not None:
            raise run.error

    run.error = None
    run.calls = calls
    monkeypatch.setattr(running, "run_forever", run)
    return run


def usage_error(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def help_of(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# ---- help ----


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert alone == help_of([], capsys)
    for name, command in COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(command.HELP)}$", alone, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_can_be_copied(name, capsys):
    text = help_of([name], capsys)
    assert COMMANDS[name].HELP in text
    examples = text.partition("Examples:\n")[2].splitlines()
    assert any(line.startswith(f"  msl-network-trio {name}") for line in examples)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_examples_are_for_the_program_that_was_called(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/msl_network_trio/__main__.py"])
    assert "\n  python -m msl_network_trio manager --auth-password abc 123\n" in help_of(["manager"], capsys)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{msl_network_trio.__version__}\n"


def test_help_takes_no_time_for_imports():
    code = (
        "import sys\n"
        "from msl_network_trio.__main__ import main\n"
        "try:\n"
        "    main(['manager', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "unneeded = {'cryptography', 'rich', 'argcomplete', 'msl_network_trio.manager.opening'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment())


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    return kept | more


# ---- colours ----


def test_help_is_in_colour_on_a_terminal_and_is_the_same_text(monkeypatch, capsys):
    text = help_of(["manager"], capsys)
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    console.print_help(text, terminal)
    assert "\x1b[" in terminal.getvalue()
    assert ESCAPE.sub("", terminal.getvalue()) == text


def test_an_error_is_in_colour_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal)
    text = "[red]no markup[/red] " + "long, " * 50 + "end"
    console.print_error(text)
    assert "\x1b[" in terminal.getvalue()
    assert ESCAPE.sub("", terminal.getvalue()) == f"error: {text}\n"


@pytest.mark.parametrize(
    ("variables", "terminal", "colourful"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colours_depend_on_the_terminal_and_on_the_users_wishes(monkeypatch, variables, terminal, colourful):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = Terminal() if terminal else io.StringIO()
    assert console.is_colourful(file) is colourful
    console.print_help("usage: x\n", file)
    assert ("\x1b[" in file.getvalue()) is colourful


# ---- errors ----


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["magnet"], "magnet"),
        (["manager", "--magnet"], "--magnet"),
        (["manager", "-p", "65536"], "'65536' is no number from 0 to 65535"),
        (["manager", "-p", "-1"], "-p"),
        (["manager", "-p", "http"], "'http' is no number from 0 to 65535"),
        (["manager", "-G", "loud"], "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        (["manager", "-P"], "-P/--auth-password"),
        (["manager", "--auth-login", "--auth-hostname"], "not allowed with argument --auth-login"),
        (["manager", "--auth-login", "-P", "abc"], "not allowed with argument --auth-login"),
        (["manager", "-w", "0", "--websocket-origin", "lab"], "'lab' is no origin, like https://lab.example"),
        (["gateway", "--websocket-origin", "http://a:x"], "--websocket-origin"),
        (["status", "-p", "0"], "'0' is no number from 1 to 65535"),
        (["status", "-p", "65536"], "'65536' is no number from 1 to 65535"),
        (["demo", "-p", "65536"], "'65536' is no number from 0 to 65535"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_a_line_that_makes_no_sense_is_explained(arguments, text, capsys):
    printed = usage_error(arguments, capsys)
    assert printed.count("\n") == 1
    assert printed.startswith("error: ")
    assert text in printed
    command = arguments[0] if arguments[0] in COMMANDS else ""
    assert printed.endswith(f"(try {f'msl-network-trio {command}'.strip()} --help)\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(98, "Port 1875 is in use"), "error: Port 1875 is in use"),
        (
            FileNotFoundError(2, "No such file or directory", "my.log"),
            "error: my.log: No such file or directory",
        ),
        (CertificateError("The key does not fit"), "error: The key does not fit"),
        (OSError("something"), "error: something"),
        (TimeoutError(), "error: TimeoutError"),
    ],
)
def test_what_users_can_mend_is_one_line_and_exit_status_1(run_forever, error, line, capsys):
    run_forever.error = error
    assert main(["manager"]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"{line}\n"
    assert printed.out == ""


def test_our_own_mistakes_are_not_hidden(run_forever):
    run_forever.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["manager"])


def test_ctrl_c_before_the_manager_listens_to_it_ends_quietly(run_forever, capsys):
    run_forever.error = KeyboardInterrupt()
    assert main(["manager"]) == 130
    assert capsys.readouterr() == ("", "")


# ---- manager ----

DEFAULTS = {
    "host": None,
    "port": 1875,
    "websocket_port": None,
    "websocket_origins": [],
    "trusted_gateways": [],
    "auth_hostname": False,
    "auth_login": False,
    "auth_password": None,
    "database": None,
    "disable_tls": False,
    "cert_file": None,
    "key_file": None,
    "key_file_password": None,
    "log_level": "INFO",
    "log_file": None,
    "log_format": "text",
    "log_rotate": None,
    "log_keep": 100,
    "drain": 0.0,
}


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("", {}),
        ("-p 8326", {"port": 8326}),
        ("--port 0", {"port": 0}),
        ("-H localhost", {"host": "localhost"}),
        ("--host ::1", {"host": "::1"}),
        ("--disable-tls", {"disable_tls": True}),
        ("-c a.crt -k a.key", {"cert_file": "a.crt", "key_file": "a.key"}),
        ("--cert-file a.crt --key-file a.key", {"cert_file": "a.crt", "key_file": "a.key"}),
        ("-D abc 123", {"key_file_password": ["abc", "123"]}),
        ("--key-file-password abc", {"key_file_password": ["abc"]}),
        ("-P abc 123 --port 5", {"auth_password": ["abc", "123"], "port": 5}),
        ("--auth-password abc", {"auth_password": ["abc"]}),
        ("-w 8875", {"websocket_port": 8875}),
        (
            "--websocket-port 0 --websocket-origin https://a --websocket-origin http://b:80",
            {"websocket_port": 0, "websocket_origins": ["https://a", "http://b:80"]},
        ),
        ("--trusted-gateway 10.0.0.1 --trusted-gateway lab-3", {"trusted_gateways": ["10.0.0.1", "lab-3"]}),
        ("--auth-hostname", {"auth_hostname": True}),
        ("--auth-login", {"auth_login": True}),
        ("-d lab.sqlite3", {"database": "lab.sqlite3"}),
        ("--database lab.sqlite3", {"database": "lab.sqlite3"}),
        ("-l my.log -G debug", {"log_file": "my.log", "log_level": 10}),
        ("--log-file my.log --log-level 15", {"log_file": "my.log", "log_level": 15}),
    ],
)
def test_the_options_of_the_reference_reach_the_manager(run_forever, line, changed):
    assert main(["manager", *line.split()]) == 0
    given = run_forever.calls[0]
    if given["log_level"] == 20:
        given["log_level"] = "INFO"
    assert given == DEFAULTS | changed


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("--drain 2.5", {"drain": 2.5}),
        (
            "--log-format json --log-rotate daily --log-keep 7",
            {"log_format": "json", "log_rotate": "daily", "log_keep": 7},
        ),
        ("--log-rotate 10M", {"log_rotate": "10M"}),
        ("--read-limit 64M", {"read_limit": 64 * 1024**2}),
        ("--read-limit none --max-backlog 500000", {"read_limit": None, "max_backlog": 500_000}),
        ("--max-backlog 1g", {"max_backlog": 1024**3}),
        ("--stalled-after 5", {"stalled_after": 5.0}),
        (
            "--max-connections 10 --max-unauthenticated none",
            {"max_connections": 10, "max_unauthenticated": None},
        ),
        ("--handshake-timeout 1 --tls-timeout 0.5", {"handshake_timeout": 1.0, "tls_timeout": 0.5}),
        ("--max-links 3 --max-requests 4", {"max_links": 3, "max_requests": 4}),
        ("--notification-rate none", {"notification_rate": None}),
        (
            "--login-attempts 1 --login-memory 2 --login-delay 0",
            {"login_attempts": 1, "login_memory": 2.0, "login_delay": 0.0},
        ),
    ],
)
def test_limits_reach_the_manager_and_those_not_given_are_left_to_it(run_forever, line, changed):
    assert main(["manager", *line.split()]) == 0
    assert run_forever.calls[0] == DEFAULTS | {"log_level": 20} | changed


def test_there_is_an_option_for_every_limit(run_forever):
    assert sorted(name for name, *_ in _OPTIONS) == sorted(Limits.__annotations__)


@pytest.mark.parametrize("option", _OPTIONS, ids=itemgetter(0))
def test_the_help_tells_the_defaults_of_the_limits(option):
    name, kind, _, text = option
    told = re.search(r"default:\s*([\w.]+)", text)
    assert told
    assert kind(told[1]) == getattr(ManagerSettings(), name)


def test_the_defaults_of_options_are_those_of_the_functions():
    parse = build_parser().parse_args
    assert parse(["manager"]).log_keep == logs.KEEP
    read_limit = inspect.signature(open_gateway).parameters["read_limit"].default
    assert parse(["gateway"]).read_limit == read_limit
    key, certificate = parse(["keygen"]), parse(["certgen"])
    assert (key.size, key.curve) == (self_signed.KEY_SIZE, self_signed.CURVE)
    assert certificate.years_valid == self_signed.YEARS_VALID


@pytest.mark.parametrize(
    "line",
    [
        "--read-limit 0",
        "--read-limit 5X",
        "--read-limit -1",
        "--read-limit M",
        "--max-links 0",
        "--max-links x",
        "--tls-timeout 0",
        "--tls-timeout none",
        "--log-rotate sometimes",
        "--log-rotate 0M",
        "--log-keep 0",
        "--log-format xml",
        "--drain inf",
        "--drain nan",
        "--drain soon",
    ],
)
def test_limits_that_make_no_sense_are_errors(run_forever, line, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["manager", *line.split()])
    assert caught.value.code == 2
    assert line.split()[0] in capsys.readouterr().err
    assert run_forever.calls == []


# ---- completion ----


def complete(line: str, tmp_path) -> list[str]:
    """Return the completions of the shell for Tab at the end of a line."""
    answer = tmp_path / "answer"
    subprocess.run(
        [sys.executable, "-m", "msl_network_trio"],
        check=True,
        env=environment(
            _ARGCOMPLETE="1",
            _ARGCOMPLETE_SHELL="fish",
            _ARGCOMPLETE_IFS="\n",
            _ARGCOMPLETE_DFS="\t",
            _ARGCOMPLETE_SUPPRESS_SPACE="1",
            _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
            COMP_LINE=line,
            COMP_POINT=str(len(line)),
        ),
    )
    return [completion.partition("\t")[0] for completion in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("msl-network-trio ma", ["manager"]),
        ("msl-network-trio ", list(COMMANDS)),
        ("msl-network-trio manager --log-", ["--log-file", "--log-level"]),
        ("msl-network-trio manager -G ", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        ("msl-network-trio completion p", ["powershell"]),
    ],
)
def test_tab_completes_commands_options_and_values(line, expected, tmp_path):
    assert set(expected) <= set(complete(line, tmp_path))


def test_how_to_turn_completion_on_is_told_for_every_shell(capsys):
    assert main(["completion"]) == 0
    text = capsys.readouterr().out
    for shell in ("bash", "zsh", "fish", "powershell"):
        assert f"msl-network-trio completion {shell}" in text


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        ("bash", "complete -o"),
        ("zsh", "compdef"),
        ("fish", "complete --command"),
        ("powershell", "Register-Arg"),
    ],
)
def test_the_code_for_a_shell_is_printed(shell, text, capsys):
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert text in code
    assert "msl-network-trio" in code


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("", {}),
        ("--manager lab-3 --listen :443", {"manager": "lab-3", "port": 443}),
        ("-m lab-3:1 -L [::1]:0", {"manager": "lab-3:1", "host": "::1", "port": 0}),
        ("-L localhost --disable-tls", {"host": "localhost", "disable_tls": True}),
        ("-c a -k b -D c d", {"cert_file": "a", "key_file": "b", "key_file_password": ["c", "d"]}),
        ("--manager-disable-tls", {"manager_disable_tls": True}),
        ("--manager-cert-file a", {"manager_cert_file": "a"}),
        ("--manager-auto-save", {"manager_auto_save": True}),
        ("--manager-disable-hostname-check", {"manager_assert_hostname": False}),
        ("--websocket-origin https://a --websocket-origin *", {"origins": ["https://a", "*"]}),
        ("--trusted-proxy 10.0.0.1 --trusted-proxy lab-3", {"trusted_proxies": ["10.0.0.1", "lab-3"]}),
        ("--read-limit 1000 -G debug", {"read_limit": 1000, "log_level": 10}),
    ],
)
def test_the_options_of_the_gateway_reach_it(monkeypatch, line, changed):
    calls = []
    monkeypatch.setattr("msl_network_trio.gateway.running.run_forever", lambda **kwargs: calls.append(kwargs))
    assert main(["gateway", *line.split()]) == 0
    assert calls == [
        {
            "manager": "localhost:1875",
            "host": None,
            "port": 8875,
            "origins": [],
            "trusted_proxies": [],
            "disable_tls": False,
            "cert_file": None,
            "key_file": None,
            "key_file_password": None,
            "manager_disable_tls": False,
            "manager_cert_file": None,
            "manager_auto_save": False,
            "manager_assert_hostname": True,
            "read_limit": 268435456,
            "log_level": 20,
            **changed,
        }
    ]


@pytest.mark.parametrize("line", ["-m lab:x", "-L wss://lab", "-L a@b:1"])
def test_what_is_no_address_is_an_error(line, capsys):
    with pytest.raises(SystemExit):
        main(["gateway", *line.split()])
    assert "no address of the form host:port" in capsys.readouterr().err


# ---- where it prints to ----


def run_command(*arguments: str, **kwargs) -> subprocess.Popen:
    environment = {**os.environ, **kwargs.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "msl_network_trio", *arguments],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **kwargs,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["manager", "--help"], ["completion"], ["user", "list"]])
def test_who_stops_reading_ends_it_without_a_word(arguments, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = run_command(*arguments, stdout=writing, env={"MSL_NETWORK_HOME": str(tmp_path)})
    os.close(writing)
    assert process.communicate() == (None, "")
    assert process.returncode == 141


def test_without_standard_output_nothing_is_printed(monkeypatch, tmp_path):
    monkeypatch.setenv("MSL_NETWORK_HOME", str(tmp_path))
    assert main(["user", "add", "j.doe", "--password", "secret"]) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["user", "list"]) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["user", "remove", "nobody"]) == 1


def test_names_are_whole_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    console.print_table(["Username", "Administrator"], [["abcdefghijklmnop", "False"]])
    printed = ESCAPE.sub("", capsys.readouterr().out)
    assert "…" not in printed
    columns = [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")]
    assert "".join(columns) == "abcdefghijklmnop"


@pytest.mark.parametrize("variable", ["NO_COLOR", "FORCE_COLOR"])
def test_a_name_that_a_peer_has_chosen_is_shown_on_one_line_as_it_is(monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("COLUMNS", "200")
    console.print_table(["Service", "up"], [["Evil\x1b]0;x\x07\nGood", "1"]])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Evil" in line]
    assert r"Evil\x1b]0;x\x07\nGood" in line


def test_a_gateway_reads_its_options_as_a_manager_does(monkeypatch, capsys):
    from msl_network_trio.gateway import running

    calls = []
    monkeypatch.setattr(running, "run_forever", lambda **kwargs: calls.append(kwargs))
    assert main(["gateway", "--read-limit", "64M", "--log-level", "debug"]) == 0
    assert main(["gateway", "--read-limit", "none", "--websocket-origin", "*"]) == 0
    assert calls[0]["read_limit"] == 64 * 1024**2
    assert calls[0]["log_level"] == 10
    assert calls[1]["read_limit"] is None
    assert calls[1]["origins"] == ["*"]
    assert "is no number of bytes" in usage_error(["gateway", "--read-limit", "-1"], capsys)
