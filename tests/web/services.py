"""A Service whose names, values and errors look like markup, wherever a page shows them.

Run as ``services.py PORT NAME``: it connects to a Manager without TLS on this computer.
"""

# Without "from __future__ import annotations", as in most Services, since it changes signatures.
import logging
import os
import sys
import threading
from typing import Any

from msl_network_trio import Service

MARKUP = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>\'"'
NAME = f"Lab {MARKUP}"


class Lab(Service):
    unit = "volt"
    markup = MARKUP

    def add(self, x: float, y: float = 2) -> float:
        return x + y

    def same(self, value: Any) -> Any:
        return value

    def echo(self, *args, **kwargs):
        return [args, kwargs]

    def fail(self, message: str):
        raise ValueError(message)

    def text(self, size: int) -> str:
        return "x" * size

    def hang(self):
        threading.Event().wait()

    def die(self):
        os._exit(1)

    def notify(self, count: int, *args, **kwargs):
        for number in range(count):
            self.emit_notification(number, *args, **kwargs)


setattr(Lab, MARKUP, Lab.same)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    Lab(name=sys.argv[2]).start(host="localhost", port=int(sys.argv[1]), disable_tls=True)
