"""Each metric by hand, and what a query without a match is."""

import doctest

import pytest

from csvi.evaluate import definition
from csvi.evaluate.definition import (
    METRICS,
    Ranking,
    average_precision,
    chance,
    inverse_negative_penalty,
    rank_k,
    ranking_of,
)


def test_examples_in_the_docstrings_are_right():
    assert doctest.testmod(definition) == (0, 6)


@pytest.mark.parametrize(
    ("distance", "identity", "images", "people"),
    [
        ([3, 1, 2], [7, 5, 4], Ranking([3], 3, 3), Ranking([3], 3, 3)),
        ([1, 2, 3, 4], [5, 5, 7, 7], Ranking([3, 4], 3, 4), Ranking([3, 4], 2, 4)),  # 5 counts once
        ([1, 1, 1], [7, 5, 4], Ranking([3], 3, 3), Ranking([3], 3, 3)),  # behind all that it ties with
        ([1, 1, 1], [7, 7, 4], Ranking([2, 3], 2, 3), Ranking([2, 3], 2, 3)),
        ([1, 2], [5, 4], Ranking([], 0, 2), Ranking([], 0, 2)),
        ([], [], Ranking([], 0, 0), Ranking([], 0, 0)),
    ],
)
def test_rankings_of_person_7(distance, identity, images, people):
    assert ranking_of(7, distance, identity) == images
    assert ranking_of(7, distance, identity, unique_identities=True) == people


@pytest.mark.parametrize(
    ("ranking", "precision", "penalty", "random"),
    [
        (Ranking([1], 1, 1), 1, 1, 1),
        (Ranking([1, 2], 1, 10), 1, 1, 2 / 10),
        (Ranking([10], 10, 10), 1 / 10, 1 / 10, 1 / 10),
        (Ranking([1, 3, 6], 1, 6), (1 / 1 + 2 / 3 + 3 / 6) / 3, 3 / 6, 3 / 6),
    ],
)
def test_metrics_of_one_query(ranking, precision, penalty, random):
    assert average_precision(ranking) == pytest.approx(precision)
    assert inverse_negative_penalty(ranking) == pytest.approx(penalty)
    assert chance(ranking) == random
    for k in (1, 5, 9, 10):
        assert rank_k(k)(ranking) == (ranking.first <= k)


def test_reported_metrics():
    assert list(METRICS) == ["R1", "R10", "R20", "mAP", "mINP"]
    ranking = Ranking([12, 13], 11, 40)
    values = {name: metric(ranking) for name, metric in METRICS.items()}
    assert values == {"R1": 0, "R10": 0, "R20": 1, "mAP": pytest.approx((1 / 12 + 2 / 13) / 2), "mINP": 2 / 13}
