"""Notification batches: notifications of one Service that arrived together become one event.

The functions are pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import EmittedLine, Notification, NotificationBatch, ReceivedLine

logger = get_logger(__name__)

_LONG = 4096
"""Bytes per line, on average, above which each notification becomes a batch, so that its size is known."""

_service_of = attrgetter("service")


def batches(lines: Sequence[EmittedLine], block: bytes, size: int) -> Iterator[NotificationBatch]:
    """Iterate over the batches of notifications that arrived without other lines between them.

    Args:
        lines: The notifications.
        block: Their lines, and perhaps other lines behind them.
        size: Bytes of their lines.
    """
    received = time.time()
    lengths: list[int] = []
    end = 0
    for _, run in groupby(lines, id if size > _LONG * len(lines) else _service_of):
        batch = NotificationBatch(
            [Notification(line.service, line.result.args, line.result.kwargs, received) for line in run]
        )
        batch.last = 0
        if len(batch) == len(lines):
            batch.size = size  # the usual case, in which no line has to be measured
        else:
            lengths = lengths or [len(line) + 1 for line in block.split(b"\n")]
            begin, end = end, end + len(batch)
            batch.size = sum(lengths[begin:end])
        yield batch


def notification_of(message: ReceivedLine) -> Notification | None:
    """Return the notification that a line is; None, with a warning in the log, if it is malformed."""
    emitted, service = message.result, message.service
    if (
        service is not None
        and type(emitted) is list
        and len(emitted) == 2
        and type(emitted[0]) is list
        and type(emitted[1]) is dict
    ):
        return Notification(service, emitted[0], emitted[1])
    logger.warning("dropped a malformed notification from %r", service)
    return None


def line_sizes(messages: Sequence[ReceivedLine], block: bytes) -> dict[int, int]:
    """Return the bytes of each line of a block, by the `id` of its message."""
    lines = block.removesuffix(b"\n").split(b"\n")
    return {id(message): len(line) + 1 for message, line in zip(messages, lines, strict=True)}
