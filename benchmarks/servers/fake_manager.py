"""Fake Manager with one Service, ``Bench``, in one process, that answers immediately.

Run it with ``python -m benchmarks.servers.fake_manager``; ``--help`` shows its options. It does the minimum
that keeps a client busy, to measure the costs of the client. It has no other peers,
checks nothing and forwards nothing. It answers ``add(a, b)``, ``echo(value)`` and ``emit(begin, end)`` of its
Service, the last of which emits these numbers, and ``identity``, ``link`` and ``unlink`` of the Manager;
``__disconnect__`` closes the connection.

When it listens, it prints ``ready`` and a JSON object: the ports ``tcp``, ``tls`` and ``websocket`` (without
TLS) on 127.0.0.1, the file of its ``certificate``, and the name of its event ``loop``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
import tempfile
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

from benchmarks import event_loop
from benchmarks.servers.fake_conversation import Conversation
from benchmarks.servers.fake_websocket import WebSocketConversation
from benchmarks.tasks import HOST


def make_certificate(home: Path) -> tuple[Path, Path]:
    """Create a certificate as the reference's Manager does, and return the files of certificate and key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # A late import: it is slow, and only this function needs it.
        from msl.network.cryptography import generate_certificate, generate_key

        certificate, key = home / "certs" / "localhost.crt", home / "keys" / "localhost.key"
        generate_key(path=str(key))
        generate_certificate(path=str(certificate), key_path=str(key))
    return certificate, key


async def _serve(certificate: Path, key: Path, loop_name: str, *, until_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    tcp = await loop.create_server(Conversation, HOST, 0)
    tls = await loop.create_server(Conversation, HOST, 0, ssl=context)
    websocket = await loop.create_server(WebSocketConversation, HOST, 0)
    ready = {
        "tcp": tcp.sockets[0].getsockname()[1],
        "tls": tls.sockets[0].getsockname()[1],
        "websocket": websocket.sockets[0].getsockname()[1],
        "certificate": str(certificate),
        "loop": loop_name,
    }
    print("ready", json.dumps(ready), flush=True)
    if until_eof:

        def wait_for_eof() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            loop.call_soon_threadsafe(ended.set)

        # A thread, since not every event loop on every platform can read from a pipe.
        threading.Thread(target=wait_for_eof, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Serve until Ctrl-C, or until the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.fake_manager", description=__doc__)
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="default: a new one is made")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key of the certificate")
    parser.add_argument("--home", type=Path, metavar="FOLDER", help="where to make a new certificate")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key belong together")
    # Treat SIGTERM like Ctrl-C, so that the folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loop_name, run = event_loop.fastest()
    with ExitStack() as stack:
        if options.certificate is not None:
            files = options.certificate, options.key
        else:
            home = options.home or stack.enter_context(tempfile.TemporaryDirectory(prefix="fake-manager-"))
            files = make_certificate(Path(home))
        try:
            run(_serve(*files, loop_name, until_eof=options.until_eof))
        except KeyboardInterrupt:
            pass  # Ctrl-C is the way to end it


if __name__ == "__main__":
    main()
