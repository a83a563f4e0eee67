"""The options that the commands ``manager`` and ``gateway`` share."""

from __future__ import annotations

from msl_network_trio.cli.parser import Parser, add_completer, read_argument


def add_origins(parser: Parser, name: str) -> None:
    """Declare the option for the origins whose pages may connect.

    Args:
        parser: The parser of the command.
        name: The argument of the command's function.
    """
    parser.add_argument(
        "--websocket-origin",
        dest=name,
        action="append",
        type=_origin,
        default=[],
        metavar="ORIGIN",
        help="an origin such as https://lab.example whose pages may connect\n"
        "by WebSocket; *: all; may be repeated (default: own page only)",
    )


def add_certificate(parser: Parser, *, tls: str, certificate: str, key: str) -> None:
    """Declare the options for the server's certificate.

    Args:
        parser: The parser of the command.
        tls: The help of ``--disable-tls``.
        certificate: The help of ``--cert-file``.
        key: The end of the help of ``--key-file``.
    """
    parser.add_argument("--disable-tls", action="store_true", help=tls)
    parser.add_argument("-c", "--cert-file", metavar="FILE", help=certificate)
    parser.add_argument(
        "-k", "--key-file", metavar="FILE", help=f"the private key of the certificate, in PEM{key}"
    )
    parser.add_argument(
        "-D",
        "--key-file-password",
        nargs="+",
        metavar=("PASSWORD", "WORD"),
        help="the password of the private key, if it has one, or the path\n"
        "of a file whose first line is the password",
    )


def add_log_level(parser: Parser) -> None:
    """Declare the option for the log level."""
    level = parser.add_argument(
        "-G",
        "--log-level",
        type=_level,
        default="INFO",
        metavar="LEVEL",
        help="the lowest level to log: DEBUG, INFO, WARNING, ERROR, CRITICAL\n"
        "or a number (default: %(default)s)",
    )
    add_completer(level, "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _origin(text: str) -> str:
    from msl_network_trio.web.http_server import check_origin

    read_argument(check_origin, text)
    return text


def _level(text: str) -> int:
    from msl_network_trio.manager.logs import level_number

    return read_argument(level_number, text)
