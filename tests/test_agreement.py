"""The agreement of two orders of methods, with intervals that know how uncertain ours is."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from csvi.errors import CsviError

FOLDER = Path(__file__).parents[1] / "benchmarks"
PUBLISHED = {"a": 40.0, "b": 50.0, "c": 60.0, "d": 70.0, "e": 80.0}


@pytest.fixture
def agreement(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("agreement").agreement


def evaluation(rates, fingerprint="data"):
    """An evaluation of ten queries of each identity, of which this share is answered."""
    by_identity = SimpleNamespace(
        identity=list(range(len(rates))), queries=[10] * len(rates), sums={"R1": list(10 * np.asarray(rates))}
    )
    result = SimpleNamespace(protocol="all", gallery="one", by_identity=by_identity)
    return SimpleNamespace(
        fold=1, fingerprint=fingerprint, benchmark="x", layout="sysu", synthetic=True, protocols=[result],
        result=lambda protocol: result,
    )  # fmt: skip


def runs(means, spread=0.0, seeds=3, identities=40):
    rng = np.random.default_rng(0)
    return {
        method: [evaluation(mean + rng.normal(0, spread) + np.zeros(identities)) for _ in range(seeds)]
        for method, mean in zip(PUBLISHED, means, strict=True)
    }


@pytest.mark.slow
def test_the_same_order_is_1_and_the_reverse_is_minus_1(agreement):
    for means, expected in (([0.1, 0.2, 0.3, 0.4, 0.5], 1), ([0.5, 0.4, 0.3, 0.2, 0.1], -1)):
        found = agreement(runs(means), PUBLISHED, "R1", "all")
        for correlation in (found.tau, found.rho):
            assert (correlation.value, correlation.low, correlation.high) == pytest.approx((expected,) * 3)
        assert found.ours == pytest.approx(means)
        assert found.published == list(PUBLISHED.values())


def test_one_pair_exchanged(agreement):
    found = agreement(runs([0.1, 0.3, 0.2, 0.4, 0.5]), PUBLISHED, "R1", "all")
    assert found.tau.value == pytest.approx(1 - 2 * 2 * 1 / (5 * 4))  # 1 of 10 pairs
    assert found.rho.value == pytest.approx(1 - 6 * 2 / (5 * 24))


@pytest.mark.slow
def test_seeds_that_differ_more_than_methods_leave_the_order_open(agreement):
    sure, open_ = (
        agreement(runs([0.40, 0.41, 0.42, 0.43, 0.44], spread), PUBLISHED, "R1", "all") for spread in (0, 0.05)
    )
    assert sure.tau.low == pytest.approx(1)
    assert open_.tau.high - open_.tau.low > 0.5


def test_identities_are_drawn_for_all_methods_alike(agreement):
    """What is hard for all methods moves them together, and leaves their order as it is."""
    hard = np.random.default_rng(1).uniform(0, 0.5, 40)
    found = agreement({name: [evaluation(hard + 0.01 * i)] for i, name in enumerate(PUBLISHED)}, PUBLISHED, "R1", "all")
    assert (found.tau.low, found.tau.high) == pytest.approx((1, 1))


def test_methods_without_a_published_figure_are_left_out(agreement):
    more = runs([0.1, 0.2, 0.3, 0.4, 0.5]) | {"ours": [evaluation(np.ones(40))]}
    assert agreement(more, PUBLISHED, "R1", "all").methods == list(PUBLISHED)
    with pytest.raises(CsviError, match="2 methods have both runs and a published R1"):
        agreement(more, {"a": 1, "b": 2}, "R1", "all")


def test_other_test_images_are_refused(agreement):
    other = runs([0.1, 0.2, 0.3, 0.4, 0.5]) | {"a": [evaluation(np.ones(40), "others")]}
    with pytest.raises(CsviError, match="other data"):
        agreement(other, PUBLISHED, "R1", "all")
