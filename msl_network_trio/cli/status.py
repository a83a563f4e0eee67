"""The command ``status``: how a Manager is doing."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
import time
from typing import Any, Final

from msl_network_trio.cli import passwords
from msl_network_trio.cli.console import print_table
from msl_network_trio.cli.numbers import port_of_another, seconds
from msl_network_trio.cli.parser import CommandError, Parser
from msl_network_trio.constants import PORT
from msl_network_trio.visible import visible_json

HELP: Final = "Show how a Manager is doing: peers, rates, backlog, limits"

EPILOG: Final = """\
Examples:
  # of the Manager on this computer; you are asked for username and password
  %(prog)s

  # of another one, for a program
  %(prog)s --host lab-3 --username a.smith --password password.txt --json

It takes an administrator; see the command user. The fields are explained in
docs/operation.md.
"""


def add_arguments(parser: Parser) -> None:
    """See `Command`."""
    add = parser.add_argument
    add("-H", "--host", default="localhost", help="the host of the Manager (default: %(default)s)")
    add("-p", "--port", type=port_of_another, default=PORT, help="its port (default: %(default)s)")
    add("-u", "--username", help="who you are (default: you are asked)")
    add("-P", "--password", nargs="+", metavar=("PASSWORD", "WORD"), help=f"your password;\n{passwords.HELP}")
    add(
        "-M",
        "--password-manager",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password of the Manager, if it has one",
    )
    add("--disable-tls", action="store_true", help="if the Manager does without TLS")
    add("-c", "--cert-file", metavar="FILE", help="the certificate of the Manager")
    add("--auto-save", action="store_true", help="trust the Manager's certificate at first sight")
    add("-j", "--json", action="store_true", help="print JSON")
    add(
        "-i",
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="for how long to measure the rates (default: 1); 0: those\nsince somebody has asked last",
    )


def execute(options: argparse.Namespace) -> int:
    """See `Command`."""
    from msl_network_trio.exceptions import AuthenticationError, NetworkError
    from msl_network_trio.manager.secret import read_secret
    from msl_network_trio.sync import connect

    secrets: dict[str, Any] = {
        name: read_secret(words, f"--{name.replace('_', '-')}", AuthenticationError)
        for name in ("password", "password_manager")
        if (words := getattr(options, name)) is not None
    }
    try:
        with connect(
            name="status",
            host=options.host,
            port=options.port,
            username=options.username,
            disable_tls=options.disable_tls,
            cert_file=options.cert_file,
            auto_save=options.auto_save,
            **secrets,
        ) as client:
            status = client.admin_request("status")
            if options.interval:
                time.sleep(options.interval)
                status = client.admin_request("status")
    except NetworkError as error:
        raise CommandError(_with_options(str(error))) from error
    if options.json:
        sys.stdout.write(visible_json(json.dumps(status, indent=2, ensure_ascii=False)) + "\n")
    else:
        _show(status)
    return 0


def _with_options(text: str) -> str:
    """Name the options of the command where an error names the arguments of `connect`."""

    def options(found: re.Match[str]) -> str:
        return "Pass " + re.sub(r"([a-z_]+)=(True)?", lambda each: f"--{each[1].replace('_', '-')}", found[1])

    return re.sub(r"Pass (.+) to connect\(\), or prompts=", options, text)


def _show(status: dict[str, Any]) -> None:
    peers, totals, rates, backlog = (status[name] for name in ("peers", "totals", "rates", "backlog"))
    longest = f"{backlog['bytes']:,} bytes"
    if backlog["peer"]:
        longest += f", of which {backlog['longest']:,} are for {backlog['peer']}"
    print_table(
        ["Manager", status["manager"]],
        [
            ["running since", f"{status['started']} ({dt.timedelta(seconds=round(status['uptime']))})"],
            ["clients", f"{peers['clients']:,}"],
            ["services", f"{peers['services']:,}"],
            ["not known yet", f"{peers['unauthenticated']:,}"],
            ["peers at most", f"{peers['most']:,}"],
            ["open requests", f"{status['open_requests']:,}"],
            ["to be written", longest],
        ],
    )
    sys.stdout.write("\n")
    print_table(
        ["Traffic", f"per second (in {rates['seconds']:g} s)", "in total"],
        [[name.replace("_", " "), f"{rates[name]:,}", f"{total:,}"] for name, total in totals.items()],
    )
    sys.stdout.write("\n")
    if status["services"]:
        print_table(
            ["Service", "up", "links", "locks", "to be written"],
            [
                [
                    name,
                    str(dt.timedelta(seconds=round(service["uptime"]))),
                    f"{service['links']:,}",
                    f"{service['locks']:,}",
                    f"{service['backlog']:,}",
                ]
                for name, service in sorted(status["services"].items())
            ],
        )
        sys.stdout.write("\n")
    print_table(
        ["Limit", "is", "was met"],
        [
            [name, "none" if limit["limit"] is None else f"{limit['limit']:,}", f"{limit['hits']:,}"]
            for name, limit in status["limits"].items()
        ],
    )
