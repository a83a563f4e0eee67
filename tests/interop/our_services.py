"""A Service of this package with the methods of all tests, plain and asynchronous.

Run as ``our_services.py START_ARGUMENTS [SERVICE_ARGUMENTS]``, both as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

import trio

from msl_network_trio import Service


class Temperature:
    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin

    def to_json(self) -> dict[str, float]:
        return {"kelvin": self.kelvin}


class Ours(Service):
    const = 42

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_tasks(self._tick)
        self._wanted = threading.Semaphore(0)
        self._begin, self._ticks = trio.open_memory_channel[int](100)

    @property
    def prop(self) -> str:
        return "p"

    def add(self, x, y):
        return x + y

    async def async_add(self, x, y):
        return x + y

    def same(self, value):
        return value

    async def async_same(self, value):
        await trio.lowlevel.checkpoint()
        return value

    def echo(self, *args, **kwargs):
        return [args, kwargs]

    def fail(self, message):
        raise ValueError(message)

    async def async_fail(self, message):
        raise ValueError(message)

    def exit(self):
        raise SystemExit

    def unserializable(self):
        return {1, 2}

    def temperature(self):
        return Temperature(273.15)

    def text(self, size):
        return "x" * size

    async def async_text(self, size):
        return "x" * size

    def size(self, text):
        return len(text)

    def slow(self, seconds):
        time.sleep(seconds)
        return seconds

    def hang(self):
        print("hanging", flush=True)
        threading.Event().wait()

    async def async_hang(self):
        await trio.sleep_forever()

    def who(self):
        return self.request.requester

    async def async_who(self):
        return self.request.requester

    def notify(self, *args, **kwargs):
        self.emit_notification(*args, **kwargs)

    def notify_threadsafe(self, *args, **kwargs):
        self.emit_notification_threadsafe(*args, **kwargs)

    async def async_notify(self, *args, **kwargs):
        self.emit_notification(*args, **kwargs)

    async def tick(self, count):
        """Emit notifications from a background task."""
        await self._begin.send(count)

    async def _tick(self):
        async for count in self._ticks:
            for number in range(count):
                self.emit_notification(number)
                await trio.sleep(0.01)

    def shutdown_service(self, *args):
        return ["bye", *args]

    def shutdown_handler(self):
        print("shutdown_handler was called", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    service = Ours(**(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
    service.start(**json.loads(sys.argv[1]))
    print("start has returned", flush=True)
