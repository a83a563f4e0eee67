"""Cases for the client alone: this package's and the reference's, with a fake Manager."""

from __future__ import annotations

from benchmarks.cases import OURS, REFERENCE, TURNS, Case, Comparison, Contestant, Goals

FAKE = "fake"
TRANSPORTS = ("tcp", "tls")


def pair(
    load: str, transport: str, ours: int, reference: int, *, size: int = 0, server: str = FAKE
) -> tuple[Contestant, Contestant]:
    """Return both clients as contestants, with the number of calls of each."""
    return (
        Contestant(OURS, "benchmarks.clients.ours", server, transport, load, ours, size),
        Contestant(REFERENCE, "benchmarks.clients.reference", server, transport, load, reference, size),
    )


def _case(
    load: str,
    title: str,
    calls: tuple[int, int],
    goals: dict[str, Goals],
    transport: str,
    *,
    name: str = "",
    size: int = 0,
    pinned: bool = False,
    figure: str = "seconds",
) -> Case:
    comparisons = [Comparison(OURS, REFERENCE, goals.get(transport, Goals()), figure)]
    if figure == "median":
        comparisons.append(Comparison(OURS, REFERENCE, figure="p99"))
    return Case(
        "client",
        name or load,
        title,
        transport,
        pair(load, transport, *calls, size=size),
        tuple(comparisons),
        pinned=pinned,
        turns=TURNS,
    )


def _both(goals: Goals) -> dict[str, Goals]:
    return dict.fromkeys(TRANSPORTS, goals)


def _cancelled(transport: str) -> Case:
    """Return the case of cancelled calls, which the reference does not support."""
    ours = pair("cancelled", transport, 12_000, 1)[0]
    plain = pair("bursts", transport, 12_000, 1)[0]
    return Case(
        "client",
        "cancelled",
        "tasks, bursts of 100, half of them cancelled",
        transport,
        (ours, Contestant(**{**plain.__dict__, "name": "none cancelled"})),
        (Comparison(OURS, "none cancelled"),),
    )


def _line(transport: str) -> Case:
    """Return the case of a long line, compared with the same bytes in shorter lines."""
    parts, size = 10, 10_000_000
    ours, reference = pair("line", transport, 4, 2, size=size)
    short = Contestant(
        f"{parts} of 1 MB", ours.client, FAKE, transport, "line", ours.calls * parts, size // parts
    )
    return Case(
        "client",
        "line",
        "a line of 10 MB, there and back",
        transport,
        (ours, reference, short),
        (
            Comparison(OURS, REFERENCE),
            # Equal costs mean linear growth; processor caches make the ratio slightly lower.
            Comparison(OURS, short.name, Goals(0.5), times=parts),
        ),
    )


def _over(transport: str) -> list[Case]:
    return [
        _case(
            "one",
            "one call at a time",
            (4000, 2000),
            {"tcp": Goals(2.0, 2.5), "tls": Goals(1.5, 2.0)},
            transport,
            pinned=True,
            figure="median",
        ),
        _case("flight", "100 tasks in flight", (12_000, 3000), _both(Goals(4.0, 6.0)), transport),
        _case(
            "flight", "1,000 tasks in flight", (20_000, 4000), {}, transport, name="flight-1000", size=1000
        ),
        _case("handles", "handles, 100 in flight", (12_000, 3000), _both(Goals(6.0, 9.0)), transport),
        _case("handle-bursts", "handles, bursts of 100", (12_000, 3000), {}, transport),
        _case("bursts", "a task per call, bursts of 100", (8000, 3000), _both(Goals(2.0, 2.5)), transport),
        _cancelled(transport),
        _case(
            "blocking",
            "one blocking call at a time",
            (4000, 2000),
            _both(Goals(1.5, 2.0)),
            transport,
            pinned=True,
            figure="median",
        ),
        _case(
            "blocking-handler",
            "one blocking call at a time, a handler is set",
            (4000, 2000),
            {},
            transport,
            pinned=True,
            figure="median",
        ),
        _case("futures", "Futures, 100 in flight", (12_000, 3000), _both(Goals(3.0, 4.0)), transport),
        _case("floats", "100k floats, there and back", (12, 3), _both(Goals(4.0, 5.0)), transport),
        _line(transport),
        _case(
            "burst",
            "notifications, 1,000 at once",
            (40_000, 10_000),
            _both(Goals(3.0, 5.0)),
            transport,
            name="notifications",
            size=1000,
        ),
        _case(
            "burst-stream",
            "notifications, 1,000 at once, our stream",
            (40_000, 10_000),
            {},
            transport,
            name="notifications-stream",
            size=1000,
        ),
        _case("connect", "connect and disconnect", (40, 40), {}, transport),
    ]


def _websocket(load: str, title: str, calls: int, *, size: int = 0, pinned: bool = False) -> Case:
    """Return a case that compares WebSocket with TCP, since the reference has no WebSocket."""
    ours = pair(load, "websocket", calls, 1, size=size)[0]
    below = pair(load, "tcp", calls, 1, size=size)[0]
    return Case(
        "client",
        load,
        title,
        "websocket",
        (ours, Contestant(**{**below.__dict__, "name": "ours, TCP"})),
        (Comparison(OURS, "ours, TCP", figure="median" if pinned else "seconds"),),
        pinned=pinned,
    )


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return [
        *(case for transport in TRANSPORTS for case in _over(transport)),
        _websocket("one", "one call at a time", 1500, pinned=True),
        _websocket("flight", "100 tasks in flight", 4000),
        _websocket("floats", "100k floats, there and back", 6),
        _websocket("line", "a line of 10 MB, there and back", 3, size=10_000_000),
    ]
