"""The command line of a Service: its parser, and the program around `Service.start`."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from msl_network_trio.constants import PORT
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.service.service import Service
from msl_network_trio.visible import log_to_console, visible_lines

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def parser_for(service_class: type[Service], module: str) -> argparse.ArgumentParser:
    """Return a parser for the options of every Service; more can be added to it.

    Args:
        service_class: The class of the Service; its docstring is the description.
        module: The name of the module that is run.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=inspect.getdoc(service_class),
        epilog="It runs until Ctrl-C, SIGTERM or SIGHUP, and connects again if the Manager is restarted. "
        "With --no-reconnect the exit status is 1 if the Manager disconnects.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="localhost", help="the host of the Manager (default: %(default)s)")
    add("--port", type=int, default=PORT, help="the port of the Manager (default: %(default)s)")
    add("--name", help=f"the name of the Service (default: {service_class.__name__})")
    add("--timeout", type=float, default=10, metavar="SECONDS", help="time to connect (default: %(default)s)")
    add("--disable-tls", action="store_true", help="the Manager does not use TLS")
    add("--cert-file", metavar="FILE", help="the certificate of the Manager")
    add("--auto-save", action="store_true", help="trust and save a new certificate without asking")
    add("--disable-hostname-check", action="store_true", help="the certificate may be for another host")
    add("--username", help="the name of a user, if the Manager requires one")
    add("--password", help="the password of that user")
    add("--password-manager", metavar="PASSWORD", help="the password of the Manager, if it requires one")
    add(
        "--no-reconnect",
        action="store_true",
        help="end if the Manager is not there or disconnects, instead of connecting again",
    )
    add(
        "--log-level",
        type=str.upper,
        choices=_LEVELS,
        default="INFO",
        help="the lowest level to log (default: %(default)s)",
    )
    return parser


def start_from_command_line(service: Service, options: argparse.Namespace) -> None:
    """Run a Service until it ends; exit the program with status 1 if it cannot connect.

    Args:
        service: The Service.
        options: The options, as a parser of `parser_for` returns them.
    """
    log_to_console(options.log_level, "%(asctime)s [%(levelname)s] %(message)s")
    try:
        service.start(
            name=options.name,
            host=options.host,
            port=options.port,
            timeout=options.timeout,
            username=options.username,
            password=options.password,
            password_manager=options.password_manager,
            disable_tls=options.disable_tls,
            cert_file=options.cert_file,
            assert_hostname=not options.disable_hostname_check,
            auto_save=options.auto_save,
            reconnect=False if options.no_reconnect else None,
        )
    except (NetworkError, ValueError) as error:
        sys.exit(visible_lines(f"{type(error).__name__}: {error}"))


def main(
    service_class: type[Service], module: str, arguments: Sequence[str] | None = None, **kwargs: Any
) -> None:
    """Create a Service and run it.

    Args:
        service_class: The class of the Service.
        module: The name of the module that is run.
        arguments: The command-line arguments; None: those of the program.
        kwargs: Arguments of the class.
    """
    options = parser_for(service_class, module).parse_args(arguments)
    start_from_command_line(service_class(**kwargs), options)
