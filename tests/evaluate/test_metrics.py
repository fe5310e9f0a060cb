"""The kernel against rankings worked out by hand, and against the definitions, one query at a time."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from csvi.data import LAYOUTS, find_layout
from csvi.errors import CsviError
from csvi.evaluate import METRICS, Rules, score
from csvi.evaluate import metrics as m
from csvi.evaluate.definition import chance, rank_k, ranking_of
from csvi.evaluate.metrics import score_embeddings
from csvi.evaluate.protocols import DISTRACTOR

RULES = {name: find_layout(name).rules for name in LAYOUTS}


def slow_score(distance, query_identity, gallery_identity, query_camera, gallery_camera, rules):
    """The definitions, one query and one image at a time; None where no query counts, and a distractor never does."""
    rankings = []
    for q, row in enumerate(distance):
        if query_identity[q] == DISTRACTOR:
            continue
        seen = []
        for g in range(len(row)):
            same = gallery_identity[g] == query_identity[q]
            if (query_camera[q], gallery_camera[g]) in rules.same_place:
                continue
            if rules.same_camera and same and query_camera[q] == gallery_camera[g]:
                continue
            seen.append(g)
        distances, identities = [row[g] for g in seen], [gallery_identity[g] for g in seen]
        ranking = ranking_of(query_identity[q], distances, identities, rules.unique_identities)
        if ranking.positions:
            rankings.append(ranking)
    if not rankings:
        return None
    length = len(set(gallery_identity)) if rules.unique_identities else len(gallery_identity)
    cmc = [fmean(map(rank_k(k), rankings)) for k in range(1, length + 1)]
    metrics = {name: fmean(map(metric, rankings)) for name, metric in METRICS.items()}
    return cmc, metrics, fmean(map(chance, rankings)), len(rankings)


def assert_equals_slow(protocol, distance, *labels):
    rules = RULES[protocol]
    expected = slow_score(*(np.asarray(values).tolist() for values in (distance, *labels)), rules)
    if expected is None:
        with pytest.raises(CsviError, match="nothing to score"):
            score(distance, *labels, rules=rules)
        return
    assert_is(score(distance, *labels, rules=rules), expected)


def assert_is(result, expected):
    assert result.cmc.tolist() == pytest.approx(expected[0], abs=1e-6)
    assert result.metrics == pytest.approx(expected[1], abs=1e-6)
    assert result.chance == pytest.approx(expected[2], abs=1e-6)
    assert result.valid == expected[3]


@st.composite
def rankings(draw):
    """Few values each, so that ties, removals and queries without a match are the rule."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    distances = st.integers(0, 4).map(lambda n: n / 4) | st.floats(0, 4, width=32)
    people, cameras = st.integers(-1, 3), st.integers(1, 4)
    return (
        draw(arrays(np.float32, (queries, gallery), elements=distances)),
        draw(arrays(np.int64, queries, elements=people)),
        draw(arrays(np.int64, gallery, elements=people)),
        draw(arrays(np.int64, queries, elements=cameras)),
        draw(arrays(np.int64, gallery, elements=cameras)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("protocol", RULES)
@settings(deadline=None)
@given(rankings())
def test_equals_the_definition(protocol, ranking):
    assert_equals_slow(protocol, *ranking)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", RULES)
@settings(deadline=None)
@given(rankings())
def test_removed_hidden_and_the_ranking_agree(protocol, ranking):
    """What `removed` names is what the ranking leaves out: without these images there is nothing left to remove."""
    distance, *labels = map(torch.from_numpy, ranking)
    query_identity, gallery_identity, query_camera, gallery_camera = labels
    rules, no_rules = RULES[protocol], replace(RULES[protocol], same_place=(), same_camera=False)
    gone = m.removed(query_identity, query_camera, gallery_identity, gallery_camera, rules)
    assert (m.hidden(query_camera, gallery_camera, rules) >= gone).all()
    gallery = m.index_gallery(gallery_identity, gallery_camera)
    for q in range(len(distance)):
        query, left = slice(q, q + 1), ~gone[q]
        found = m.rank(distance[query], query_identity[query], query_camera[query], gallery, rules)
        if not (gallery_identity[left] == query_identity[q]).any():
            assert found.first.tolist() == [0]
            continue
        seen = m.index_gallery(gallery_identity[left], gallery_camera[left])
        expected = m.rank(distance[query, left], query_identity[query], query_camera[query], seen, no_rules)
        torch.testing.assert_close(found.first, expected.first)
        torch.testing.assert_close(found.chance, expected.chance)
        torch.testing.assert_close(found.metrics, expected.metrics)


def test_hidden_knows_nobody():
    """Of the query's camera every image is hidden, whoever is in it: more than is removed once people are known."""
    camera, identity = torch.tensor([1, 2]), torch.tensor([7, 5])
    for name in ("llcm", "folder"):
        assert m.removed(identity[:1], camera[:1], identity, camera, RULES[name]).tolist() == [[True, False]]
        assert m.hidden(camera[:1], camera, RULES[name]).tolist() == [[True, False]]
        assert m.removed(identity[1:], camera[:1], identity, camera, RULES[name]).tolist() == [[False, False]]


def crowd():
    """100 queries and 70 gallery images: identities and cameras, as `score` takes them."""
    r = np.random.default_rng(0)
    identity, camera = r.integers(0, 9, 170), r.integers(1, 7, 170)
    return identity[:100], identity[100:], camera[:100], camera[100:]


@pytest.fixture
def threads(monkeypatch):
    """Several threads, however few distances there are."""
    monkeypatch.setattr(m, "WORTH_THREADS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


BLOCKS = pytest.mark.parametrize(("block", "parts"), [(m.BLOCK, m.PARTS), (500, 3), (1, 1)])
"""All queries in one block; 7 a block, a third of a share at a time; one by one."""


@BLOCKS
@pytest.mark.parametrize("protocol", RULES)
def test_equals_the_definition_across_blocks(protocol, block, parts, threads, monkeypatch):
    monkeypatch.setattr(m, "BLOCK", block)
    monkeypatch.setattr(m, "PARTS", parts)
    assert_equals_slow(protocol, np.random.default_rng(1).random((100, 70)).round(2), *crowd())


@BLOCKS
@pytest.mark.parametrize("protocol", RULES)
def test_embeddings_score_as_their_distances(protocol, block, parts, threads, monkeypatch):
    monkeypatch.setattr(m, "BLOCK", block)
    monkeypatch.setattr(m, "PARTS", parts)
    ranked = []
    monkeypatch.setattr(
        m, "rank", lambda distance, *rest, rank=m.rank: ranked.append(distance) or rank(distance, *rest)
    )
    r = np.random.default_rng(1)
    query, gallery = r.normal(size=(100, 5)), r.normal(size=(70, 5))
    labels = crowd()
    distance = np.linalg.norm(query[:, None] - gallery, axis=2)
    result = score_embeddings(query, gallery, *labels, rules=RULES[protocol])
    assert_is(result, slow_score(*(values.tolist() for values in (distance, *labels)), RULES[protocol]))
    assert sum(map(len, ranked)) == 100
    assert max(distances.numel() for distances in ranked) <= max(block, 70)  # never all distances at once


# One query of person 7 in camera 3 (rules of sysu) and a gallery in this order. Cameras 1, 2, 4, 5 are visible.
# `without` leaves one rule out of the metrics: each of these cases is decided by that rule alone.
SAME_PLACE, UNIQUE = {"same_place": ()}, {"unique_identities": False}


@pytest.mark.parametrize(
    ("gallery_identity", "gallery_camera", "expected", "without", "wrong"),
    [
        # a wrong image of camera 2 in front goes: the match stands at 1 instead of 2
        ([5, 7], [2, 1], ([1, 1], 1, 1), SAME_PLACE, ([0, 1], 1 / 2, 1 / 2)),
        # so does the query's own person: the match left stands at 2 instead of 1
        ([7, 5, 7], [2, 1, 1], ([0, 1], 1 / 2, 1 / 2), SAME_PLACE, ([1, 1], (1 + 2 / 3) / 2, 2 / 3)),
        # 5 counts once in CMC: rank 2 of identities, position 3 of images; AP and INP are over images either way
        ([5, 5, 7], [1, 4, 1], ([0, 1], 1 / 3, 1 / 3), UNIQUE, ([0, 0, 1], 1 / 3, 1 / 3)),
        # matches at 1, 3, 6: AP = (1/1 + 2/3 + 3/6) / 3, INP = 3/6
        ([7, 5, 7, 4, 5, 7], [1, 1, 4, 1, 4, 5], ([1, 1, 1], 13 / 18, 1 / 2), UNIQUE, ([1] * 6, 13 / 18, 1 / 2)),
    ],
)
def test_rankings_worked_out_by_hand(gallery_identity, gallery_camera, expected, without, wrong):
    rules = RULES["sysu"]
    inputs = [list(range(len(gallery_identity)))], [7], gallery_identity, [3], gallery_camera
    for these, (cmc, mean_precision, mean_penalty) in ((rules, expected), (replace(rules, **without), wrong)):
        result = score(*inputs, rules=these)
        assert result.cmc.tolist() == pytest.approx(cmc)
        assert (result.metrics["mAP"], result.metrics["mINP"]) == pytest.approx((mean_precision, mean_penalty))


def test_only_camera_3_is_blind_to_camera_2():
    assert score([[1, 2]], [7], [5, 7], [6], [2, 1], rules=RULES["sysu"]).cmc.tolist() == [0, 1]
    assert score([[1, 2]], [7], [5, 7], [3], [3, 1], rules=RULES["sysu"]).cmc.tolist() == [0, 1]


def test_query_without_a_match_does_not_count():
    # person 8 is not there; person 5 is, but only in camera 2, which its camera 3 does not see; person 7 is right
    result = score([[1, 2]] * 3, [7, 8, 5], [7, 5], [3, 6, 3], [1, 2], rules=RULES["sysu"])
    assert (result.valid, result.cmc.tolist(), set(result.metrics.values())) == (1, [1, 1], {1})


def test_regdb_counts_images():
    # matches at 2 and 4 of 4
    result = score([[1, 2, 3, 4]], [7], [5, 7, 5, 7], rules=RULES["regdb"])
    assert (result.cmc.tolist(), result.valid) == ([0, 1, 1, 1], 1)
    assert result.metrics == {"R1": 0, "R10": 1, "R20": 1, "mAP": 1 / 2, "mINP": 1 / 2}


def test_llcm_removes_the_same_person_in_the_same_camera_only():
    # 7 in camera 1 goes, 5 in camera 1 and 7 in camera 2 stay; 5 comes first
    result = score([[1, 2, 3]], [7], [7, 5, 7], [1], [1, 1, 2], rules=RULES["llcm"])
    assert result.cmc.tolist() == [0, 1]
    assert (result.metrics["mAP"], result.metrics["mINP"]) == (1 / 2, 1 / 2)


@pytest.mark.parametrize("order", [[7, 5, 4], [4, 5, 7]])
def test_ties_do_not_favour_the_match(order):
    result = score([[0.5, 0.5, 0.5]], [7], order, [6], [1, 1, 1], rules=RULES["sysu"])
    assert (result.cmc.tolist(), result.metrics["mINP"]) == ([0, 0, 1], pytest.approx(1 / 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_takes_any_real_type_and_leaves_it_alone(dtype):
    distance = torch.tensor([[3, 1, 2]], dtype=dtype).requires_grad_(dtype.is_floating_point)
    before = distance.clone()
    identity, camera = torch.tensor([7, 5, 4], dtype=torch.int16), (1, 2, 1)
    result = score(distance, np.array([7], np.uint8), identity, [3], camera, rules=RULES["sysu"])
    assert result.cmc.tolist() == [0, 1, 1]
    assert torch.equal(distance, before)


def test_numpy_views_and_torch_agree():
    r = np.random.default_rng(0)
    distance, identity, camera = r.random((30, 20)), r.integers(0, 5, 30), r.integers(1, 7, 30)
    distance.flags.writeable = False
    labels = identity[:20], identity, camera[:20], camera
    from_numpy = score(distance.T, *labels, rules=RULES["sysu"])
    from_torch = score(torch.tensor(distance.T), *map(torch.tensor, labels), rules=RULES["sysu"])
    assert (from_numpy.metrics, from_numpy.cmc.tolist()) == (from_torch.metrics, from_torch.cmc.tolist())


GOOD = {
    "distance": [[0.1, 0.2], [0.3, 0.4]],
    "query_identity": [1, 2],
    "gallery_identity": [1, 2],
    "query_camera": [3, 6],
    "gallery_camera": [1, 1],
}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"distance": [0.1, 0.2]}, r"shape \(2,\)"),
        ({"distance": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"distance": [[0.1, float("nan")], [0.3, 0.4]]}, "NaN or infinity"),
        ({"distance": [[0.1, float("inf")], [0.3, 0.4]]}, "NaN or infinity"),
        ({"distance": [[1j, 0], [0, 0]]}, "real numbers"),
        ({"distance": [["a", "b"], ["c", "d"]]}, "not an array of numbers"),
        ({"distance": [[1.0], [1.0, 2.0]]}, "not an array of numbers"),
        ({"query_identity": [1, 2, 3]}, r"query_identity has shape \(3,\).*each query, \(2,\)"),
        ({"gallery_identity": [[1, 2]]}, r"gallery_identity has shape \(1, 2\).*each gallery image"),
        ({"gallery_identity": [1.0, 2.0]}, "must hold integers"),
        ({"query_camera": None}, "give query_camera and gallery_camera"),
        ({"gallery_camera": [1]}, r"gallery_camera has shape \(1,\)"),
        ({"query_identity": [8, 9]}, "none of 2 queries"),
    ],
)
def test_bad_input(bad, message):
    with pytest.raises(CsviError, match=message):
        score(**(GOOD | bad), rules=RULES["sysu"])


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ([1.0, 2.0], [[1.0]], r"query has shape \(2,\): it must be \(queries, dimensions\)"),
        ([[1.0], [2.0]], np.zeros((0, 1)), r"gallery has shape \(0, 1\): it must be \(gallery, dimensions\)"),
        ([[1.0], [2.0]], [[1.0, 2.0], [3.0, 4.0]], "query embeddings have 1 dimensions, gallery embeddings 2"),
        ([[1.0], [float("nan")]], [[1.0], [2.0]], "query holds NaN or infinity"),
        ([[1.0], [2.0]], [[1.0], [float("inf")]], "gallery holds NaN or infinity"),
        ([[1.0], [1j]], [[1.0], [2.0]], "query holds torch.complex128: it must hold real numbers"),
        ([[1.0], [2.0]], [["a"], ["b"]], "gallery is not an array of numbers"),
        ([[1.0], [2.0], [3.0]], [[1.0], [2.0]], r"query_identity has shape \(2,\).*each query, \(3,\)"),
        (torch.tensor([[1e19], [-1e19]]), torch.zeros(2, 1), "overflow torch.float32: scale them down"),
    ],
)
def test_bad_embeddings(query, gallery, message):
    labels = {name: labels for name, labels in GOOD.items() if name != "distance"}
    with pytest.raises(CsviError, match=message):
        score_embeddings(query, gallery, **labels, rules=RULES["sysu"])


def test_embeddings_of_several_types():
    """Distances 2, 1 and 0, all of them exact."""
    query, gallery = torch.ones(1, 4, dtype=torch.bfloat16).requires_grad_(), np.array([[0], [0.5], [1]], np.float16)
    result = score_embeddings(query, gallery.repeat(4, 1), np.array([7], np.uint8), [5, 7, 4])
    assert result.cmc.tolist() == [0, 1, 1]
    assert score_embeddings([[3]], np.array([[1.0], [3.0]]), [7], [5, 7]).metrics["mAP"] == 1


def test_cameras_are_not_needed_where_no_rule_names_them():
    assert score(GOOD["distance"], [1, 2], [1, 2], rules=Rules(unique_identities=True)).valid == 2


def test_distances_of_one_point_are_equal():
    """A collapsed model is scored as the worst there is, however the matrix product rounds."""
    point = torch.randn(1, 3072, generator=torch.Generator().manual_seed(0))
    assert (torch.cat(list(m.euclidean(point.expand(50, -1), point.expand(333, -1), rows=7))) == 0).all()


def test_euclidean():
    r = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(5, 8, generator=r), torch.randn(7, 8, generator=r)
    expected = (query[:, None] - gallery).norm(dim=2)
    torch.testing.assert_close(torch.cat(list(m.euclidean(query, gallery, rows=2))), expected)
