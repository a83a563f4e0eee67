"""Units of a connection: lines of TCP, or messages of WebSocket, which a proxy forwards, drops or duplicates.

Pure: bytes in, units out.
"""

from __future__ import annotations

import re
from typing import Protocol

import attrs

TOKEN = re.compile(rb"t(\d+)#")
"""The token of a request, in the request and in its reply."""

NUMBER = re.compile(rb"n:([A-Za-z]+):(\d+):(\d+)#")
"""The Service, the start of the Service and the number, in a notification."""

NOISE = b"\xff\xfe noise \xff\x00"
"""Bytes that are neither UTF-8 nor JSON, so that no line that contains them is valid."""


@attrs.frozen
class Unit:
    """A line or a message."""

    data: bytes
    """The bytes on the wire."""

    text: bytes = b""
    """The line; empty if the unit is none, as the head of HTTP or a control frame."""

    @property
    def tokens(self) -> list[int]:
        """The tokens of requests in the line."""
        return [int(each) for each in TOKEN.findall(self.text)]

    @property
    def is_request(self) -> bool:
        """Whether the line is a request."""
        return b'"attribute"' in self.text

    @property
    def numbers(self) -> list[tuple[str, int, int]]:
        """The notifications in the line: Service, start of the Service, number."""
        return [(name.decode(), int(start), int(number)) for name, start, number in NUMBER.findall(self.text)]


class Splitter(Protocol):
    """Splits the bytes of one direction into units."""

    def feed(self, data: bytes) -> list[Unit]:
        """Return the units that are complete with these bytes."""

    def rest(self) -> bytes:
        """Remove and return the bytes that are no complete unit."""

    def noise(self) -> bytes:
        """Return an invalid unit."""


class Lines:
    """Splits a stream of lines."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Unit]:
        *complete, self._buffer = (self._buffer + data).split(b"\n")
        return [Unit(each + b"\n", each) for each in complete]

    def rest(self) -> bytes:
        rest, self._buffer = self._buffer, b""
        return rest

    def noise(self) -> bytes:
        return NOISE + b"\r\n"


class Frames:
    """Splits one direction of a WebSocket: the head of HTTP, then frames.

    Args:
        is_masked: Whether the frames are masked: those of a client are.
    """

    def __init__(self, *, is_masked: bool) -> None:
        self._buffer = b""
        self._is_open = False
        self._is_masked = is_masked

    def feed(self, data: bytes) -> list[Unit]:
        self._buffer += data
        units = []
        if not self._is_open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return []
            self._is_open = True
            self._buffer = rest
            units.append(Unit(head + end))
        while (size := self._size()) is not None:
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            units.append(Unit(frame, self._text(frame)))
        return units

    def _layout(self, frame: bytes) -> tuple[int, int] | None:
        """Return where the mask or payload begins, and the size of the payload; None: not complete."""
        if len(frame) < 2:
            return None
        size, begin = frame[1] & 0x7F, 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            if len(frame) < begin:
                return None
            size = int.from_bytes(frame[2:begin], "big")
        return begin, size

    def _size(self) -> int | None:
        layout = self._layout(self._buffer)
        if layout is None:
            return None
        total = layout[0] + layout[1] + (4 if self._buffer[1] & 0x80 else 0)
        return total if len(self._buffer) >= total else None

    def _text(self, frame: bytes) -> bytes:
        """Return the payload of a text message in one frame; else nothing."""
        layout = self._layout(frame)
        if layout is None or frame[0] != 0x81:
            return b""
        payload = frame[layout[0] :]
        if frame[1] & 0x80:
            mask, payload = payload[:4], payload[4:]
            repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
            value = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
            payload = value.to_bytes(len(payload), "big")
        return payload

    def rest(self) -> bytes:
        rest, self._buffer = self._buffer, b""
        return rest

    def noise(self) -> bytes:
        mask = b"\x00" * 4 if self._is_masked else b""
        return bytes([0x81, len(NOISE) | (0x80 if mask else 0)]) + mask + NOISE
