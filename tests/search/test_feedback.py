"""Rocchio's formula, by hand."""

import numpy as np
import pytest

from csvi.search.feedback import rocchio

NONE = np.empty((0, 2))


def test_a_query_moves_to_what_is_right_and_away_from_what_is_wrong():
    query = np.array([1.0, 0.0])
    right, wrong = np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[-1.0, 0.0]])
    moved = np.array([1 + 0.15, 0.75 * 2])
    np.testing.assert_allclose(rocchio(query, right, wrong), moved / np.linalg.norm(moved))
    np.testing.assert_allclose(rocchio(query, np.array([[0.0, 1.0]]), NONE), [0.8, 0.6])


def test_the_length_of_a_query_stays():
    query = np.array([3.0, 4.0])
    assert np.linalg.norm(rocchio(query, np.array([[1.0, 9.0]]), np.array([[5.0, 5.0]]))) == pytest.approx(5)


def test_a_query_of_which_nothing_is_said_or_left_is_itself():
    query = np.array([3.0, 0.0])
    assert (rocchio(query, NONE, NONE) == query).all()
    assert (rocchio(query, NONE, np.array([[20.0, 0.0]])) == query).all()
