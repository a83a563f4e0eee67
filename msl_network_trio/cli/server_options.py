"""The options that the commands ``manager`` and ``gateway`` share, since both are servers."""

from __future__ import annotations

from msl_network_trio.cli.parser import Parser, add_completer, read_argument


def add_origins(parser: Parser, name: str) -> None:
    """Declare from where pages may connect.

    Args:
        parser: The parser of the command.
        name: What its function calls that.
    """
    parser.add_argument(
        "--websocket-origin",
        dest=name,
        action="append",
        type=_origin,
        default=[],
        metavar="ORIGIN",
        help="an origin, like https://lab.example, whose pages may connect\n"
        "by WebSocket, besides our own one; may be repeated; *: all",
    )


def add_certificate(parser: Parser, *, tls: str, certificate: str, key: str) -> None:
    """Declare the server's certificate.

    Args:
        parser: The parser of the command.
        tls: The help of the option to do without TLS.
        certificate: The help of the option for the certificate.
        key: What to say of the private key, besides what it is.
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
        help="the password of the private key, if it has one; or the path\nof a file whose first line it is",
    )


def add_log_level(parser: Parser) -> None:
    """Declare how much to log."""
    level = parser.add_argument(
        "-G",
        "--log-level",
        type=_level,
        default="INFO",
        metavar="LEVEL",
        help="DEBUG, INFO, WARNING, ERROR, CRITICAL or a number: what is\n"
        "less important is not logged (default: %(default)s)",
    )
    add_completer(level, "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _origin(text: str) -> str:
    from msl_network_trio.web.http_server import check_origin

    read_argument(check_origin, text)
    return text


def _level(text: str) -> int:
    from msl_network_trio.manager.logs import level_number

    return read_argument(level_number, text)
