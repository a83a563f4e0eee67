"""Cases: contestants that do the same work, and the goals for the ratios of their costs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

OURS: Final = "ours"
REFERENCE: Final = "reference"

TITLES: Final = {"tcp": "TCP", "tls": "TLS", "websocket": "WebSocket", "wss": "WebSocket with TLS"}
"""The transports and their names in tables."""

SECURE: Final = frozenset({"tls", "wss"})
WEBSOCKET: Final = frozenset({"websocket", "wss"})


@dataclass(frozen=True)
class Contestant:
    """A contestant: a client, a server, and the size of its work."""

    name: str
    """Name, unique within its case."""

    client: str
    """Module of `benchmarks.clients` or `benchmarks.peers` that does the work."""

    server: str
    """Kind of server, see `benchmarks.servers.network`; empty: none."""

    transport: str

    load: str
    """Name of the load, as the client knows it."""

    calls: int
    """Number of calls in a round.

    Only costs per call are compared, so contestants may have different numbers, to be measured for similar
    times.
    """

    size: int = 0
    """Size of the load: requests in flight, connections, or bytes."""


@dataclass(frozen=True)
class Goals:
    """Goals for a ratio, from the weakest to the strongest."""

    floor: float | None = None
    """A lower ratio is a defect."""

    target: float | None = None
    goal: float | None = None
    """Ratio that prototypes reached approximately."""


@dataclass(frozen=True)
class Comparison:
    """A comparison: the cost of `other` divided by that of `one`."""

    one: str
    other: str
    goals: Goals = Goals()
    figure: str = "seconds"
    """Name of the cost.

    ``seconds`` of a call on average, ``median`` or ``p99`` of single calls, ``cpu`` of the client or
    ``server_cpu`` of the server, ``bytes`` held, or ``threads``.
    """

    difference: bool = False
    """Whether the cost of `one` itself is compared with the goals, which then are maxima."""

    times: float = 1.0
    """Number of calls of `other` that correspond to one call of `one`."""


@dataclass(frozen=True)
class Case:
    """A case: one kind of work, its contestants, and their comparisons."""

    suite: str
    name: str
    """Name without suite and transport."""

    title: str
    transport: str
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    pinned: bool = False
    """Whether all processes share one CPU.

    The latency of a single call depends more on the placement by the scheduler than on the code.
    """

    background: str = ""
    """Background load: ``bulk``, or none."""

    heavy: bool = False
    """Whether the case is slow, so that it is measured in every third round only, and not in a quick run."""

    turns: int = 1
    """Number of times that each contestant does its load in a round, except in a quick run.

    The contestants alternate, so that a temporary slowdown of the machine affects all of them.
    """

    quick: bool = True
    """Whether the case is measured in a quick run."""

    curve: str = ""
    """Name of the curve of which the case is a point; the same for all its points."""

    x: float = 0.0
    """Position on the curve."""

    @property
    def key(self) -> str:
        """The name of the case for ``--only``."""
        return "-".join(part for part in (self.suite, self.name, self.transport) if part)

    @property
    def full_title(self) -> str:
        """The title with the transport."""
        return f"{self.title}, {TITLES[self.transport]}" if self.transport in TITLES else self.title

    @property
    def words(self) -> set[str]:
        """Further names for ``--only``."""
        return {self.suite, self.name, self.transport, f"{self.name}-{self.transport}", self.curve} - {""}

    def is_named(self, words: Iterable[str]) -> bool:
        """Return whether a word selects this case; words may be patterns such as ``client-*-tls``."""
        return any(word in self.words or fnmatch.fnmatchcase(self.key, word) for word in words)

    def without(self, names: Iterable[str]) -> Case | None:
        """Return the case without some contestants; None if nothing is left to compare."""
        gone = set(names)
        contestants = tuple(each for each in self.contestants if each.name not in gone)
        comparisons = tuple(each for each in self.comparisons if not gone & {each.one, each.other})
        if not contestants or (self.comparisons and not comparisons):
            return None
        return Case(**{**self.__dict__, "contestants": contestants, "comparisons": comparisons})


TURNS: Final = 4
"""Value of `Case.turns` for cases whose contestants need some tenths of a second for their load."""


@dataclass
class Measured:
    """A case with its measured costs."""

    case: Case
    costs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Costs per call by contestant and name, one per round: seconds, bytes or numbers of threads."""

    def add(self, contestant: str, figures: dict[str, float]) -> None:
        """Add the costs of a round."""
        of_contestant = self.costs.setdefault(contestant, {})
        for figure, cost in figures.items():
            of_contestant.setdefault(figure, []).append(cost)


def choose(cases: Sequence[Case], suites: Sequence[str], words: Sequence[str]) -> list[Case]:
    """Return the cases of suites that are selected by names; empty collections select all."""
    return [
        case for case in cases if (not suites or case.suite in suites) and (not words or case.is_named(words))
    ]
