"""Bootstrap over identities, where the answer is known."""

import numpy as np
import pytest

from csvi.evaluate.intervals import bootstrap, mean_and_std, paired_difference


def people(identities, queries=10, seed=0, low=0.2, high=0.8):
    """Identities that differ in how easily they are found: (identities, 1) hits, (identities,) queries."""
    random = np.random.default_rng(seed)
    count = np.full(identities, queries)
    return random.binomial(count, random.uniform(low, high, identities)).astype(float)[:, None], count


def test_mean_and_standard_deviation_of_a_sample():
    assert mean_and_std([1.0, 2.0, 6.0]) == (3, pytest.approx(7**0.5))
    assert mean_and_std([0.25]) == (0.25, 0)


def test_bootstrap_agrees_with_the_normal_interval_of_many_identities():
    sums, queries = people(800)
    share = sums[:, 0] / queries
    reach = 1.96 * share.std() / np.sqrt(len(share))
    low, high = bootstrap(sums, queries)
    assert [low[0], high[0]] == pytest.approx([share.mean() - reach, share.mean() + reach], abs=0.1 * reach)


def test_an_identity_counts_by_its_queries():
    """As a ratio of sums, whose large-sample variance is that of the residuals."""
    random = np.random.default_rng(0)
    queries = random.integers(1, 40, 800)
    sums = random.binomial(queries, random.uniform(0, 1, 800)).astype(float)
    mean = sums.sum() / queries.sum()
    reach = 1.96 * np.sqrt(((sums - mean * queries) ** 2).sum()) / queries.sum()
    low, high = bootstrap(sums[:, None], queries)
    assert [low[0], high[0]] == pytest.approx([mean - reach, mean + reach], abs=0.1 * reach)


def test_queries_of_an_identity_are_drawn_together():
    """Ten alike queries of each of 50 people say no more than one of each."""
    found = (np.arange(50) < 20).astype(float)[:, None]
    one = bootstrap(found, np.ones(50, int))
    ten = bootstrap(10 * found, np.full(50, 10))
    assert np.allclose(one, ten)
    assert one[0][0] < 0.28  # 500 independent queries would reach from 0.36 to 0.44
    assert one[1][0] > 0.52


@pytest.mark.slow
def test_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for repetition in range(200):
        low, high = bootstrap(*people(60, seed=repetition))
        covered += low[0] <= 0.5 <= high[0]
    assert 0.88 <= covered / 200 <= 0.99


def test_metrics_are_resampled_together_and_the_seed_alone_decides():
    sums, queries = people(40)
    both = np.hstack([sums, 2 * sums])
    low, high = bootstrap(both, queries)
    assert np.allclose([low[1], high[1]], [2 * low[0], 2 * high[0]])
    assert np.array_equal(bootstrap(both, queries), (low, high))
    assert not np.array_equal(bootstrap(both, queries, seed=1), (low, high))


def test_ends_hardly_depend_on_the_seed():
    sums, queries = people(96)
    ends = np.array([bootstrap(sums, queries, seed) for seed in range(20)])[:, :, 0]
    assert ends.std(0).max() < 0.03 * (ends[:, 1] - ends[:, 0]).mean()


def test_one_identity_leaves_nothing_to_resample():
    low, high = bootstrap(np.array([[3.0, 1.0]]), np.array([4]))
    assert low.tolist() == high.tolist() == [0.75, 0.25]


def test_identities_nobody_asked_for_change_nothing():
    sums, queries = people(5)
    padded = np.vstack([sums, np.zeros((20, 1))]), np.hstack([queries, np.zeros(20, int)])
    assert np.array_equal(bootstrap(*padded), bootstrap(sums, queries))
    assert np.array_equal(
        paired_difference((padded[0], padded[0] / 2), (padded[1], padded[1])),
        paired_difference((sums, sums / 2), (queries, queries)),
    )
    lopsided = paired_difference((sums, sums), (queries, np.array([10, 10, 10, 10, 0])))
    assert np.array_equal(lopsided, np.zeros((3, 1)))


def test_paired_difference_of_a_model_with_itself_is_exactly_zero():
    sums, queries = people(40)
    assert np.array_equal(paired_difference((sums, sums), (queries, queries)), np.zeros((3, 1)))


def test_what_is_hard_for_both_cancels():
    """Half a query more of everybody: the difference is certain, however uncertain each metric is."""
    sums, queries = people(40)
    difference, low, high = paired_difference((sums, sums + 0.5), (queries, queries))
    assert [difference[0], low[0], high[0]] == pytest.approx([0.05] * 3)
    alone = bootstrap(sums, queries)
    assert alone[1][0] - alone[0][0] > 0.1


def test_paired_difference_is_second_minus_first_and_agrees_with_the_normal_interval():
    first, queries = people(800)
    second, _ = people(800, seed=1, low=0.3, high=0.9)
    each = ((second - first) / 10)[:, 0]
    reach = 1.96 * each.std() / np.sqrt(800)
    difference, low, high = paired_difference((first, second), (queries, queries))
    assert difference[0] == pytest.approx(each.mean())
    assert [low[0], high[0]] == pytest.approx([each.mean() - reach, each.mean() + reach], abs=0.1 * reach)
    turned = paired_difference((second, first), (queries, queries))
    assert np.allclose([turned[0], turned[2], turned[1]], [-difference, -low, -high])


def test_paired_metrics_may_have_been_asked_for_unequally_often():
    """As of a group of three runs and a group of one."""
    sums, queries = people(40)
    assert np.allclose(paired_difference((3 * sums, sums), (3 * queries, queries)), 0)
