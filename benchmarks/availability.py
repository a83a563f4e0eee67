"""Detection of contestants that cannot be measured on this machine, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.cases import Case, Contestant
from benchmarks.peers import peer_named
from benchmarks.results import Skipped


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # of the package that contains it
        return True


def why_not(contestant: Contestant) -> str | None:
    """Return the reason why a contestant cannot be measured here; None if it can be."""
    if "reference" in (contestant.server, contestant.name) and _missing("msl.network"):
        return "msl-network is not installed"
    peer = peer_named(contestant.server)
    if peer is not None and (reason := peer.missing()):
        return reason
    return None


def available(cases: Sequence[Case]) -> tuple[list[Case], list[Skipped]]:
    """Return the cases without unavailable contestants, and descriptions of those."""
    kept: list[Case] = []
    skipped: dict[str, str] = {}
    for case in cases:
        reasons = {each.name: reason for each in case.contestants if (reason := why_not(each))}
        rest = case.without(reasons) if reasons else case
        if rest is not None:
            kept.append(rest)
        for name, reason in reasons.items():
            skipped[f"{case.full_title}, {name}" if rest is not None else case.full_title] = reason
    return kept, [Skipped(what, why) for what, why in skipped.items()]
