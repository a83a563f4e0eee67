"""A stream that takes as many bytes at a time as a test says."""

from __future__ import annotations

import threading

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.base import Stream, ThreadIO


class Kernel(Stream, ThreadIO):
    """Takes a given number of bytes at a time, and keeps them.

    Args:
        takes: The maximum of each `send_nowait`, or the exception that it raises; any number afterwards.
    """

    def __init__(self, *takes: int | Exception) -> None:
        super().__init__()
        self.takes = list(takes)
        self.taken = b""
        self.sizes: list[int] = []
        self.senders: list[int] = []
        self.has_room = trio.Event()
        self.is_in_thread = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    @property
    def thread_io(self) -> ThreadIO:
        return self

    def send_nowait(self, data: bytes | memoryview) -> int:
        take = self.takes.pop(0) if self.takes else len(data)
        if isinstance(take, Exception):
            raise take
        self.sizes.append(len(data))
        self.senders.append(threading.get_ident())
        self.taken += data[:take]
        return min(take, len(data))

    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        self.is_in_thread.set()
        self.gate.wait()
        try:
            sent.append(self.send_nowait(data))
        except ConnectionLost:
            pass  # `send_nowait` tells the task

    async def wait_send(self) -> None:
        await self.has_room.wait()

    async def receive(self) -> bytes:
        raise NotImplementedError

    def send_eof(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
