"""Made-up results of a run, for tests of reports."""

from __future__ import annotations

import pytest

from benchmarks.cases import Case, Comparison, Contestant, Goals, Measured
from benchmarks.results import Results, Skipped


def contestant(name, **changes):
    values = {"client": f"clients.{name}", "server": "fake", "transport": "tcp", "load": "one", "calls": 10}
    return Contestant(name, **{**values, **changes})


def case(**changes):
    values = {
        "suite": "client",
        "name": "one",
        "title": "one call at a time",
        "transport": "tcp",
        "contestants": (contestant("ours"), contestant("reference")),
        "comparisons": (Comparison("ours", "reference", Goals(2.0, 2.5)),),
        "pinned": True,
    }
    return Case(**{**values, **changes})


def measured(of, costs):
    found = Measured(of)
    for name, figures in costs.items():
        for each in figures:
            found.add(name, each)
    return found


@pytest.fixture
def run():
    one = measured(
        case(),
        {
            "ours": [
                {"seconds": 1e-5, "cpu": 1e-5},
                {"seconds": 2e-5, "cpu": 1e-5},
                {"seconds": 1e-5, "cpu": 1e-5},
            ],
            "reference": [
                {"seconds": 3e-5, "cpu": 2e-5},
                {"seconds": 4e-5, "cpu": 2e-5},
                {"seconds": 2.2e-5, "cpu": 2e-5},
            ],
        },
    )
    threads = measured(
        case(
            suite="resources",
            name="connection",
            title="a further connection",
            comparisons=(Comparison("ours", "ours", Goals(0), "threads", difference=True),),
            pinned=False,
        ),
        {"ours": [{"threads": 0.0}] * 3, "reference": [{"threads": 1.0}] * 3},
    )
    return Results(
        {"machine": "a machine", "python": "CPython"},
        rounds=3,
        quick=False,
        pin="latency",
        command="python -m benchmarks",
        cases=[one, threads],
        skipped=[Skipped("a peer", "it is not installed")],
    )
