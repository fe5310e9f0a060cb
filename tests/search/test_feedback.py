"""Rocchio's formula, by hand."""

import numpy as np
import pytest

from csvi.search.feedback import rocchio

NONE = np.empty((0, 2))


def test_a_query_moves_to_what_is_right_and_away_from_what_is_wrong():
    query = np.array([1.0, 0.0])
    right, wrong = np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[-1.0, 0.0]])
    moved = np.array([1 + 0.15, 0.75])
    np.testing.assert_allclose(rocchio(query, right, wrong), moved / np.linalg.norm(moved))
    np.testing.assert_allclose(rocchio(query, np.array([[0.0, 1.0]]), NONE), [0.8, 0.6])


def test_the_length_of_a_query_stays():
    query = np.array([3.0, 4.0])
    assert np.linalg.norm(rocchio(query, np.array([[1.0, 9.0]]), np.array([[5.0, 5.0]]))) == pytest.approx(5)


def test_embeddings_weigh_alike_whatever_their_lengths():
    """A gallery that compares by cosine keeps length 1, and six parts of length 1 are a probe of length √6."""
    rng = np.random.default_rng(0)
    query, right, wrong = rng.normal(size=4), rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    moved = rocchio(query, right, wrong)
    np.testing.assert_allclose(rocchio(query * 6**0.5, right, wrong), moved * 6**0.5)
    np.testing.assert_allclose(rocchio(query, right * [[9], [1], [2]], wrong / 5), moved)


def test_a_query_of_which_nothing_is_said_is_itself():
    query = np.array([3.0, 0.0])
    assert (rocchio(query, NONE, NONE) == query).all()


def test_a_query_of_length_0_stays():
    assert (rocchio(np.zeros(2), np.zeros((1, 2)), np.ones((1, 2))) == 0).all()
