"""A Service of msl-network 1.0.0 with the methods of all tests.

Run as ``services.py START_ARGUMENTS MAX_CLIENTS``, the first as JSON.
"""

import json
import logging
import os
import sys
import time

from msl.network import Service


class Temperature:
    def __init__(self, kelvin):
        self.kelvin = kelvin

    def to_json(self):
        return {"kelvin": self.kelvin}


class Everything(Service):
    const = 42

    @property
    def prop(self):
        return "p"

    def add(self, x, y):
        return x + y

    def echo(self, *args, **kwargs):
        return [args, kwargs]

    def same(self, value):
        return value

    def fail(self, message="boom"):
        raise ValueError(message)

    def fail_in_two_lines(self):
        raise RuntimeError("outer\nsecond line")

    def slow(self, seconds, value=None):
        time.sleep(seconds)
        return value

    def nan(self):
        return [float("nan"), float("inf"), float("-inf")]

    def big_integer(self):
        return 2**200

    def temperature(self):
        return Temperature(273.15)

    def unserializable(self):
        return {1, 2}

    def size(self, text):
        return len(text)

    def big(self, size):
        return "x" * size

    def notify(self, *args, **kwargs):
        self.emit_notification_threadsafe(*args, **kwargs)
        return "notified"

    def notify_many(self, n):
        for number in range(n):
            self.emit_notification_threadsafe(number)
        return "notified"

    def timeout(self, timeout, asynchronous):
        return [timeout, asynchronous]

    def sysexit(self):
        raise SystemExit

    def die(self):
        os._exit(1)

    def shutdown_service(self, *args):
        return ["bye", *args]


def main():
    arguments, max_clients = json.loads(sys.argv[1]), int(sys.argv[2])
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    logging.getLogger("msl.network").setLevel(logging.INFO)
    Everything(max_clients=max_clients).start(auto_save=True, **arguments)


if __name__ == "__main__":
    main()
