"""Cases for whole networks: Manager and Services of this package and the reference, under the same load.

Managers run at their default log level INFO. Small calls and notifications use a load generator that
is the same for all networks and costs very little: a client of either package costs more per call
than Manager and Service of this package together, and would hide their costs. The
cases in which all parts are of one package show the gain for users. Large lists, and calls during large
replies, use this package's client in all networks, whose costs are included in all times.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import OURS, REFERENCE, TITLES, TURNS, Case, Comparison, Contestant, Goals

_TRANSPORTS = ("tcp", "tls")
_LEAN = "benchmarks.clients.lean"
_KINDS = ("async", "plain")
"""Kinds of methods of this package's Service: async, and plain, which it calls in threads."""


def networks(
    load: str,
    transport: str,
    ours: int,
    reference: int,
    *,
    size: int = 0,
    client: str = "benchmarks.clients.ours",
    kinds: Sequence[str] = _KINDS,
) -> tuple[Contestant, ...]:
    """Return the same client for each network."""
    return (
        *(Contestant(kind, client, f"ours-{kind}", transport, load, ours, size) for kind in kinds),
        Contestant(REFERENCE, client, "reference", transport, load, reference, size),
    )


def _case(
    load: str,
    title: str,
    calls: tuple[int, int],
    goals: Goals,
    transport: str,
    *,
    name: str = "",
    size: int = 0,
    client: str = "benchmarks.clients.ours",
    pinned: bool = False,
    background: str = "",
    figure: str = "seconds",
) -> Case:
    comparisons = [Comparison(kind, REFERENCE, goals, figure) for kind in _KINDS]
    if figure == "median":
        comparisons += [Comparison(kind, REFERENCE, figure="p99") for kind in _KINDS]
    return Case(
        "network",
        name or load,
        title,
        transport,
        networks(load, transport, *calls, size=size, client=client),
        tuple(comparisons),
        pinned=pinned,
        background=background,
        turns=1 if background else TURNS,
        quick=not background,
    )


def _whole(
    load: str, title: str, calls: tuple[int, int, int], transport: str, *, pinned: bool = False
) -> Case:
    """Return a case that compares all of this package, including the client, with all of the reference."""
    ours, mixed, reference = calls
    figure = "median" if load == "one" else "seconds"
    client = "benchmarks.clients.ours"
    return Case(
        "network",
        f"whole-{load}",
        f"all of one's own: {title}",
        transport,
        (
            Contestant(OURS, client, "ours-async", transport, load, ours),
            Contestant("our client", client, "reference", transport, load, mixed),
            Contestant(REFERENCE, "benchmarks.clients.reference", "reference", transport, load, reference),
        ),
        (Comparison(OURS, REFERENCE, figure=figure), Comparison("our client", REFERENCE, figure=figure)),
        pinned=pinned,
    )


def _websocket(
    load: str, title: str, calls: tuple[int, int], transport: str, *, pinned: bool = False
) -> Case:
    """Return a case that compares WebSocket with the plain transport of both, with or without TLS."""
    ours, reference = calls
    below = {"websocket": "tcp", "wss": "tls"}[transport]
    figure = "median" if load == "one" else "seconds"
    client = "benchmarks.clients.ours"
    direct = f"ours, {TITLES[below]}"
    return Case(
        "network",
        f"whole-{load}",
        f"all of one's own: {title}",
        transport,
        (
            Contestant(OURS, client, "ours-async", transport, load, ours),
            Contestant(direct, client, "ours-async", below, load, ours),
            Contestant(REFERENCE, "benchmarks.clients.reference", "reference", below, load, reference),
        ),
        (Comparison(OURS, REFERENCE, figure=figure), Comparison(OURS, direct, figure=figure)),
        pinned=pinned,
    )


IDLE = 1000
"""Number of clients that are connected and linked but idle."""


def _idle(transport: str) -> Case:
    """Return the case of a Manager's memory per client, and of the time for a notification to all of them."""
    floor = {"tcp": 1 / 0.7, "tls": 10.0}[transport]
    contestants = networks(
        "fan-out", transport, 20, 20, size=IDLE, client="benchmarks.clients.bare", kinds=("async",)
    )
    return Case(
        "network",
        "idle",
        f"a notification to {IDLE:,} idle clients",
        transport,
        contestants,
        (
            Comparison("async", REFERENCE, figure="median"),
            Comparison("async", REFERENCE, Goals(floor), "bytes"),
        ),
        heavy=True,
    )


def _over(transport: str) -> list[Case]:
    return [
        _case(
            "one",
            "one call at a time",
            (3000, 1000),
            Goals(1.7, None, 2.0),
            transport,
            client=_LEAN,
            pinned=True,
            figure="median",
        ),
        _case("flight", "100 in flight", (16_000, 3000), Goals(3.0, None, 5.0), transport, client=_LEAN),
        _case(
            "connections",
            "50 connections x 2",
            (10_000, 2500),
            Goals(2.0, None, 3.0),
            transport,
            size=50,
            client=_LEAN,
        ),
        _case("floats", "100k floats, there and back", (12, 3), Goals(4.0, None, 6.0), transport),
        _case(
            "burst",
            "notifications, 1,000 at once",
            (40_000, 4000),
            Goals(8.0),
            transport,
            size=1000,
            client=_LEAN,
        ),
        _case(
            "ticks",
            "notifications, one by one",
            (3000, 1000),
            Goals(3.0),
            transport,
            pinned=True,
            client=_LEAN,
        ),
        _case(
            "fixed-times",
            "a call while 20 MB replies pass",
            (250, 250),
            Goals(10.0),
            transport,
            name="bulk",
            background="bulk",
            figure="median",
        ),
        _idle(transport),
        _whole("one", "one call at a time", (2000, 1000, 1000), transport, pinned=True),
        _whole("flight", "100 in flight", (8000, 2000, 2000), transport),
        _whole("floats", "100k floats, there and back", (8, 3, 3), transport),
    ]


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return [
        *(case for transport in _TRANSPORTS for case in _over(transport)),
        *(
            case
            for transport in ("websocket", "wss")
            for case in (
                _websocket("one", "one call at a time", (1500, 1000), transport, pinned=True),
                _websocket("flight", "100 in flight", (5000, 2000), transport),
                _websocket("floats", "100k floats, there and back", (6, 3), transport),
            )
        ),
    ]
