"""What is compared: contestants that do the same thing side by side, and the goals for their ratios."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

OURS: Final = "ours"
REFERENCE: Final = "reference"

TITLES: Final = {"tcp": "TCP", "tls": "TLS", "websocket": "WebSocket", "wss": "WebSocket with TLS"}
"""The transports, and what they are called in tables."""

SECURE: Final = frozenset({"tls", "wss"})
WEBSOCKET: Final = frozenset({"websocket", "wss"})


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared: a client, what is at the other end, and how much it is to do."""

    name: str
    """Unique in its case."""

    client: str
    """The module of `benchmarks.clients` or `benchmarks.peers` that does the work."""

    server: str
    """What is at the other end, as `benchmarks.servers.network` knows it; empty: nothing."""

    transport: str

    load: str
    """What it does, as the client knows it."""

    calls: int
    """How many calls a round has.

    Only the costs of one call are compared, so contestants may differ in it: it lets them be measured for a
    similar time.
    """

    size: int = 0
    """What the load takes it for: requests in flight, connections, or bytes."""


@dataclass(frozen=True)
class Goals:
    """How many times less than another one is to be needed, from the least to the greatest."""

    floor: float | None = None
    """Less is a defect."""

    target: float | None = None
    goal: float | None = None
    """What the prototypes came near to."""


@dataclass(frozen=True)
class Comparison:
    """A line of the table: the cost of `other` divided by that of `one`."""

    one: str
    other: str
    goals: Goals = Goals()
    figure: str = "seconds"
    """Which of the costs.

    ``seconds`` of a call on average, ``median`` or ``p99`` of single ones, ``cpu`` of the client or
    ``server_cpu`` of the other end, ``bytes`` held, or ``threads``.
    """

    difference: bool = False
    """Whether the cost of `one` itself is what counts; then it is to be at most that of the goals."""

    times: float = 1.0
    """How many calls of `other` are compared with one of `one`."""


@dataclass(frozen=True)
class Case:
    """A thing that contestants do, and what is compared of it."""

    suite: str
    name: str
    """Of what is done, without suite and transport."""

    title: str
    transport: str
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    pinned: bool = False
    """Whether all processes share one CPU.

    The latency of a single call depends on where the scheduler puts them, more than on their code.
    """

    background: str = ""
    """What goes on meanwhile: ``bulk``, or nothing."""

    heavy: bool = False
    """Whether it takes so long that it is measured in every third round only, and not in a quick run."""

    turns: int = 1
    """How many times each contestant does its load in a round, but in a quick run.

    They take turns, so that a machine that is slower for some tenths of a second is so for all of them.
    """

    quick: bool = True
    """Whether it is measured in a quick run."""

    curve: str = ""
    """The name of the curve of which this is a point, which has the same name in all points."""

    x: float = 0.0
    """Where on the curve."""

    @property
    def key(self) -> str:
        """The name of the case, as ``--only`` knows it."""
        return "-".join(part for part in (self.suite, self.name, self.transport) if part)

    @property
    def full_title(self) -> str:
        """The title, with the transport."""
        return f"{self.title}, {TITLES[self.transport]}" if self.transport in TITLES else self.title

    @property
    def words(self) -> set[str]:
        """What else ``--only`` may call it."""
        return {self.suite, self.name, self.transport, f"{self.name}-{self.transport}", self.curve} - {""}

    def is_named(self, words: Iterable[str]) -> bool:
        """Tell whether one of the words means this case; they may be patterns such as ``client-*-tls``."""
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
"""How many `Case.turns` a case has whose contestants do their load in some tenths of a second."""


@dataclass
class Measured:
    """A case and its costs."""

    case: Case
    costs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By contestant and figure, one for each round; seconds, bytes or numbers of threads, per call."""

    def add(self, contestant: str, figures: dict[str, float]) -> None:
        """Add the costs of a round."""
        of_contestant = self.costs.setdefault(contestant, {})
        for figure, cost in figures.items():
            of_contestant.setdefault(figure, []).append(cost)


def choose(cases: Sequence[Case], suites: Sequence[str], words: Sequence[str]) -> list[Case]:
    """Return the cases of these suites that have one of these names; nothing given means all."""
    return [
        case for case in cases if (not suites or case.suite in suites) and (not words or case.is_named(words))
    ]
