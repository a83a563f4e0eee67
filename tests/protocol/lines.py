"""Lines as a Manager sends them, for the tests of its peers."""

from __future__ import annotations

import json

MANAGER = "Manager[vm:1875]"


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\r\n"


def ask(attribute: str, *args: object) -> bytes:
    return line(args=args, attribute=attribute, error=False, kwargs={}, requester=MANAGER, uid="")
