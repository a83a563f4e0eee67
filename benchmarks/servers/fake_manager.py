"""A Manager with one Service, ``Bench``, in one process, that answers at once.

Run it with ``python -m benchmarks.servers.fake_manager``; ``--help`` tells its options. It does nothing but
what it takes to keep a client busy, so that the cost of the client is what shows. It knows no other peers,
checks nothing and forwards nothing. It answers ``add(a, b)``, ``echo(value)`` and ``emit(begin, end)`` of its
Service, the last of which emits these numbers, and ``identity``, ``link`` and ``unlink`` of the Manager;
``__disconnect__`` closes the connection.

Once it listens it prints ``ready`` and a JSON object: the ports ``tcp`` and ``tls`` on 127.0.0.1, the file of
its ``certificate``, and what ``loop`` it runs on.
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
from typing import cast

import msgspec

from benchmarks import event_loop
from benchmarks.tasks import HOST, SERVICE

_HELLO = (
    b'{"args":[],"attribute":"identity","error":false,"kwargs":{},'
    b'"requester":"Manager[127.0.0.1:1]","uid":""}\r\n'
)
_BEGIN = b'{"error":false,"requester":"client[127.0.0.1:1]","result":'
_UNKNOWN = b'{"error":true,"message":"AttributeError: the fake Manager has no such attribute",'
_UNKNOWN_REST = b'"requester":"client[127.0.0.1:1]","result":null,"traceback":[],"uid":%b}\r\n'
_NOTIFICATION = (
    b'{"error":false,"result":[[%%d],{}],"service":"%b","uid":"notification"}\r\n' % SERVICE.encode()
)

_service = {
    "address": "127.0.0.1:2",
    "attributes": {"add": "(a, b)", "echo": "(value)", "emit": "(begin, end)"},
    "language": "Python",
    "os": "none",
    "max_clients": -1,
}
_SERVICE = json.dumps(_service).encode()
_MANAGER = json.dumps(
    {
        "hostname": HOST,
        "port": 1,
        "attributes": {},
        "language": "Python",
        "os": "none",
        "clients": {},
        "services": {SERVICE: _service},
    }
).encode()


class _Line(msgspec.Struct, gc=False):
    """What has to be known of a line from a client; raw parts are copied as they are."""

    attribute: str = ""
    args: msgspec.Raw = msgspec.Raw(b"[]")
    uid: msgspec.Raw = msgspec.Raw(b'""')


_decode = msgspec.json.Decoder(_Line).decode
_decode_pair = msgspec.json.Decoder(tuple[int, int]).decode


class Conversation(asyncio.Protocol):
    """The conversation with one client."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask who is there: the Manager speaks first."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are so in all but their base
        self._unfinished: list[bytes] = []
        self._transport.write(_HELLO)

    def data_received(self, data: bytes) -> None:
        """Answer every line that is complete, in a single write."""
        end = data.rfind(b"\n")
        if end < 0:
            self._unfinished.append(data)
            return
        lines = data[:end].split(b"\n")
        if self._unfinished:
            self._unfinished.append(lines[0])
            lines[0] = b"".join(self._unfinished)
            self._unfinished.clear()
        if end + 1 < len(data):
            self._unfinished.append(data[end + 1 :])
        answers: list[bytes | memoryview] = []
        for line in lines:
            if not _answer(line, answers):
                self._transport.write(b"".join(answers))
                self._transport.close()
                return
        if answers:
            self._transport.write(b"".join(answers))


def _answer(line: bytes, answers: list[bytes | memoryview]) -> bool:
    """Append the answer to a line; return False if it says goodbye."""
    request = _decode(line)
    attribute = request.attribute
    uid = memoryview(request.uid)
    if attribute == "add":
        first, second = _decode_pair(request.args)
        answers += (_BEGIN, b"%d" % (first + second), b',"uid":', uid, b"}\r\n")
    elif attribute == "echo":
        answers += (_BEGIN, memoryview(request.args)[1:-1], b',"uid":', uid, b"}\r\n")
    elif attribute == "emit":
        begin, stop = _decode_pair(request.args)
        answers.extend(_NOTIFICATION % number for number in range(begin, stop))
        answers += (_BEGIN, b"%d" % (stop - begin), b',"uid":', uid, b"}\r\n")
    elif attribute == "link":
        answers += (_BEGIN, _SERVICE, b',"uid":', uid, b"}\r\n")
    elif attribute == "unlink":
        answers += (_BEGIN, b"true", b',"uid":', uid, b"}\r\n")
    elif attribute == "identity":
        answers += (_BEGIN, _MANAGER, b',"uid":', uid, b"}\r\n")
    elif attribute == "__disconnect__":
        return False
    elif attribute:
        answers += (_UNKNOWN, _UNKNOWN_REST % bytes(uid))
    # What has no attribute is the client's answer to our question.
    return True


def make_certificate(home: Path) -> tuple[Path, Path]:
    """Make a certificate as the reference's Manager does, and return its file and that of its key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # Here, since nothing else of it is needed, and it takes its time.
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
    ready = {
        "tcp": tcp.sockets[0].getsockname()[1],
        "tls": tls.sockets[0].getsockname()[1],
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
    # As Ctrl-C does, so that the folder is removed then, too.
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
            pass  # the way to end it


if __name__ == "__main__":
    main()
