"""Traffic of a client: counters that outlive its connections.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
Other threads may read it.
"""

from __future__ import annotations

from msl_network_trio.protocol.latencies import Latencies


class Traffic:
    """Counters of what a client sends and receives, over all its connections.

    Attributes:
        bytes_sent: Bytes of lines that were written.
        bytes_received: Bytes that were received and processed.
        requests: Number of requests that were written to connections that have ended.
        late_replies: Number of replies to no open request.
        latencies: Measures latencies.
    """

    __slots__ = ("bytes_received", "bytes_sent", "late_replies", "latencies", "requests")

    def __init__(self) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.requests = 0
        self.late_replies = 0
        self.latencies = Latencies()
