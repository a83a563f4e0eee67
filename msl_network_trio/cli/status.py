"""The command ``status``: show the state of a running Manager."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from typing import Any, Final

from msl_network_trio.cli.admin_options import add_connection, connected
from msl_network_trio.cli.console import print_table
from msl_network_trio.cli.numbers import seconds
from msl_network_trio.cli.parser import Parser
from msl_network_trio.visible import visible_json

HELP: Final = "Show the state of a Manager: peers, rates, backlog, limits"

EPILOG: Final = """\
Examples:
  # the Manager on this computer; prompts for username and password
  %(prog)s

  # another Manager, in JSON for a program
  %(prog)s --host lab-3 --username a.smith --password password.txt --json

Only an administrator may do this; see the command user. The fields are explained in
docs/operation.md.
"""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments; see `Command`."""
    add_connection(parser)
    add = parser.add_argument
    add("-j", "--json", action="store_true", help="print JSON")
    add(
        "-i",
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time over which to measure the rates (default: 1); 0: since\nthe last status request",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; see `Command`."""
    with connected(options, "status") as client:
        status = client.admin_request("status")
        if options.interval:
            time.sleep(options.interval)
            status = client.admin_request("status")
    if options.json:
        sys.stdout.write(visible_json(json.dumps(status, indent=2, ensure_ascii=False)) + "\n")
    else:
        _show(status)
    return 0


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
            ["unauthenticated", f"{peers['unauthenticated']:,}"],
            ["peak of peers", f"{peers['most']:,}"],
            ["open requests", f"{status['open_requests']:,}"],
            ["queued", longest],
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
            ["Service", "uptime", "links", "locks", "queued bytes"],
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
        ["Limit", "value", "hits"],
        [
            [name, "none" if limit["limit"] is None else f"{limit['limit']:,}", f"{limit['hits']:,}"]
            for name, limit in status["limits"].items()
        ],
    )
