"""Medians and pairs: a pair that straddles a change of memory's speed does not count."""

from __future__ import annotations

import math

import pytest

from benchmarks.rounds import Reading, all_ratios, median, ratios, shares, steady, summary


def test_readings_within_fifteen_percent_are_one_phase():
    assert steady([30.0, 34.4, 33.0])
    assert not steady([30.0, 34.6])


def test_pairs_across_a_change_are_left_out():
    ours = [Reading(20, 33, 33), Reading(30, 33, 50), Reading(24, 50, 50)]
    peer = [Reading(10, 33, 33), Reading(10, 50, 50), Reading(12, 50, 50)]
    assert ratios(ours, peer) == [2.0, 2.0]
    assert all_ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_a_share_is_of_the_bandwidth_around_the_figure():
    assert shares([Reading(15, 32, 34), Reading(15, 20, 40)], 2.0) == [pytest.approx(30 / 33)]


def test_summary_and_median_of_nothing_say_so():
    assert math.isnan(median([]))
    assert summary([]) == {"median": None, "min": None, "max": None, "all": []}
    assert summary([3.0, 1.0, 2.123456789]) == {"median": 2.1235, "min": 1.0, "max": 3.0, "all": [3.0, 1.0, 2.1235]}
