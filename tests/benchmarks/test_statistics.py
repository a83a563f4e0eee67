from __future__ import annotations

import pytest

from benchmarks import statistics
from benchmarks.cases import Comparison, Goals
from benchmarks.statistics import Spread, paired_ratios, percentile, spread, verdicts
from tests.benchmarks.conftest import case, contestant, measured


def test_a_ratio_is_of_costs_of_the_same_round():
    assert paired_ratios([1.0, 2.0, 4.0], [3.0, 4.0, 4.0]) == [3.0, 2.0, 1.0]


def test_rounds_that_only_one_has_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1.0], [1.0, 2.0])


def test_the_spread_is_least_middle_and_greatest():
    assert spread([3.0, 1.0, 2.0, 9.0]) == Spread(1.0, 2.5, 9.0)


@pytest.mark.parametrize(
    ("values", "hundredths", "expected"),
    [([5.0], 99, 5.0), (range(100), 50, 50), (range(100), 99, 99), (range(1000), 99, 990), ([2, 1], 0, 1)],
)
def test_a_percentile_is_a_value_that_occurred(values, hundredths, expected):
    assert percentile(values, hundredths) == expected


def test_goals_are_met_from_their_value_on_and_missed_by_a_part_of_it():
    assert verdicts(Goals(2.0, 2.5, 5.0), 2.5) == [
        ("floor", 2.0, True, 0.25),
        ("target", 2.5, True, 0.0),
        ("goal", 5.0, False, -0.5),
    ]


def test_a_cost_meets_a_goal_down_from_it():
    assert verdicts(Goals(0), 0.0, at_most=True) == [("floor", 0, True, 0.0)]
    assert verdicts(Goals(0), 1.0, at_most=True) == [("floor", 0, False, 1.0)]


def test_a_row_is_the_other_one_divided_by_the_one():
    (row,) = statistics.rows(
        measured(case(), {"ours": [{"seconds": 1.0}, {"seconds": 2.0}], "reference": [{"seconds": 3.0}] * 2})
    )
    assert row.values == [3.0, 1.5]
    assert row.spread == Spread(1.5, 2.25, 3.0)
    assert [name for name, _, met, _ in row.verdicts if met] == ["floor"]


def test_several_calls_of_the_other_may_be_compared_with_one():
    of = case(comparisons=(Comparison("ours", "reference", times=10),))
    (row,) = statistics.rows(measured(of, {"ours": [{"seconds": 5.0}], "reference": [{"seconds": 0.4}]}))
    assert row.values == [0.8]


def test_of_what_was_not_measured_there_is_no_row():
    of = case(
        contestants=(contestant("ours"), contestant("reference"), contestant("third")),
        comparisons=(Comparison("ours", "third"), Comparison("ours", "reference", figure="p99")),
    )
    assert statistics.rows(measured(of, {"ours": [{"seconds": 1.0}], "reference": [{"seconds": 1.0}]})) == []
