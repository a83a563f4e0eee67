"""Answers of the fake Manager to the lines of a client."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import msgspec

from benchmarks.tasks import HOST, SERVICE

HELLO = (
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
    """The used fields of a client's line; raw parts are copied unchanged."""

    attribute: str = ""
    args: msgspec.Raw = msgspec.Raw(b"[]")
    uid: msgspec.Raw = msgspec.Raw(b'""')


_decode = msgspec.json.Decoder(_Line).decode
_decode_pair = msgspec.json.Decoder(tuple[int, int]).decode


class Conversation(asyncio.Protocol):
    """Connection to one client."""

    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the identity of the client: the Manager sends the first line."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._unfinished: list[bytes] = []
        self._transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        """Answer every complete line, in a single write."""
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
            if not answer(line, answers):
                self._transport.write(b"".join(answers))
                self._transport.close()
                return
        if answers:
            self._transport.write(b"".join(answers))


def answer(line: bytes, answers: list[bytes | memoryview]) -> bool:
    """Append the answer to a line; return False if the client disconnects."""
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
    # A line without attribute is the identity of the client.
    return True
