"""Cases for the costs of connections and imports."""

from __future__ import annotations

from benchmarks.cases import OURS, REFERENCE, Case, Comparison, Contestant, Goals
from benchmarks.suites.client import TRANSPORTS, pair


def _connection(transport: str) -> Case:
    target = {"tcp": 5.0, "tls": 10.0}[transport]
    return Case(
        "resources",
        "connection",
        "a further connection of a client",
        transport,
        pair("idle", transport, 200, 200),
        (
            Comparison(OURS, REFERENCE, Goals(3.0, target), "bytes"),
            Comparison(OURS, OURS, Goals(0), "threads", difference=True),
        ),
    )


def _import() -> Case:
    contestants = tuple(
        Contestant(name, "benchmarks.clients.importing", "", "", f"import-{name}", 7)
        for name in (OURS, REFERENCE, "trio")
    )
    return Case(
        "resources",
        "import",
        "import",
        "",
        contestants,
        (
            # At most 1.5 and 1.25 times the reference's.
            Comparison(OURS, REFERENCE, Goals(1 / 1.5, 1 / 1.25)),
            Comparison(OURS, "trio"),
        ),
    )


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return [*(_connection(transport) for transport in TRANSPORTS), _import()]
