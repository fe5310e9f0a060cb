"""Re-ranking against the definition, with Python sets; query expansion against numbers worked out by hand."""

import subprocess
import sys
from math import exp, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csvi.data.folder import Folder
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate import Refinement, evaluate_protocols, refine, score
from csvi.evaluate.metrics import euclidean
from csvi.evaluate.refine import (
    NO_REFINEMENT,
    expanded_queries,
    refined_distances,
    reranked_distances,
    reranking_bytes,
)


def slow_rerank(query, gallery, k1, k2, lambda_):
    """One pair of images at a time."""
    images = np.concatenate([query, gallery])
    everyone = range(len(images))
    d = [[float(((images[p] - images[i]) ** 2).sum()) for i in everyone] for p in everyone]
    ranking = [sorted(everyone, key=lambda i, p=p: (i != p, d[p][i])) for p in everyone]
    d = [[value / max(row) for value in row] for row in d]

    def n(p, k):
        return set(ranking[p][: k + 1])

    def r(p, k):
        return {i for i in n(p, k) if p in n(i, k)}

    encoded = []
    for p in everyone:
        expanded = r(p, k1)
        for q in r(p, k1):
            half = r(q, round(k1 / 2))
            if len(r(p, k1) & half) > 2 / 3 * len(half):
                expanded = expanded | half
        weight = {i: exp(-d[p][i]) for i in expanded}
        encoded.append([weight.get(i, 0) / sum(weight.values()) for i in everyone])
    encoded = [np.mean([encoded[i] for i in ranking[p][:k2]], axis=0) for p in everyone]
    return [
        [
            (1 - lambda_) * (1 - np.minimum(encoded[p], encoded[g]).sum() / np.maximum(encoded[p], encoded[g]).sum())
            + lambda_ * d[p][g]
            for g in everyone[len(query) :]
        ]
        for p in everyone[: len(query)]
    ]


def some(queries, gallery, people=5, seed=0, dtype=torch.float64):
    """Embeddings of a few people, two parts of length 1 each: (queries, 8) and (gallery, 8)."""
    random = torch.Generator().manual_seed(seed)
    identity = torch.arange(queries + gallery) % people
    images = torch.randn(people, 8, generator=random)[identity] + 0.7 * torch.randn(len(identity), 8, generator=random)
    images = F.normalize(images.to(dtype).unflatten(1, (2, 4)), dim=2).flatten(1)
    return images[:queries], images[queries:]


@pytest.mark.parametrize(
    ("queries", "gallery", "k1", "k2", "lambda_"),
    [
        (15, 30, 20, 6, 0.3),
        (15, 30, 6, 3, 0.3),
        (12, 25, 5, 1, 0.0),
        (12, 25, 7, 4, 0.5),
        (9, 20, 1, 2, 0.1),
        (9, 20, 3, 8, 0.3),  # k2 beyond k1
        (4, 5, 20, 6, 0.3),  # fewer images than k1
        (3, 2, 20, 20, 0.3),  # and than k2
        (1, 1, 20, 6, 0.3),
    ],
)
def test_reranking_equals_the_definition(queries, gallery, k1, k2, lambda_):
    for seed in range(3):
        query, images = some(queries, gallery, seed=seed)
        expected = torch.tensor(slow_rerank(query.numpy(), images.numpy(), k1, k2, lambda_))
        torch.testing.assert_close(reranked_distances(query, images, k1, k2, lambda_), expected, atol=1e-9, rtol=0)


def test_reranking_of_single_precision():
    query, gallery = some(15, 30, dtype=torch.float32)
    found = reranked_distances(query, gallery, 20, 6, 0.3)
    assert found.dtype == torch.float32
    expected = reranked_distances(query.double(), gallery.double(), 20, 6, 0.3)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_reranking_does_not_depend_on_order_scale_or_direction():
    query, gallery = some(20, 40)
    expected = reranked_distances(query, gallery, 8, 4, 0.3)
    q, g = torch.randperm(20), torch.randperm(40)
    torch.testing.assert_close(reranked_distances(query[q], gallery[g], 8, 4, 0.3), expected[q][:, g])
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    torch.testing.assert_close(reranked_distances(7 * query @ rotation, 7 * gallery @ rotation, 8, 4, 0.3), expected)


def test_lambda_1_leaves_the_ranking_as_it_was():
    query, gallery = some(20, 40)
    original = torch.cat(list(euclidean(query, gallery, 20)))
    assert torch.equal(reranked_distances(query, gallery, 20, 6, 1.0).argsort(1), original.argsort(1))


def test_reranking_leaves_its_input_alone_and_is_repeatable():
    query, gallery = some(20, 40)
    before = query.clone(), gallery.clone()
    first, second = (reranked_distances(query, gallery, 20, 6, 0.3) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(query, before[0])
    assert torch.equal(gallery, before[1])


def test_reranking_joins_who_share_neighbours():
    """A chain from the query to a far image of the same person, and a stranger who is nearer but alone."""
    chain = torch.tensor([[0.0, 0], [0.3, 0], [0.6, 0], [0.9, 0], [1.2, 0]], dtype=torch.float64)
    stranger = torch.tensor([[-1.0, 0], [-3, 0], [-3.1, 0], [-3.2, 0]], dtype=torch.float64)
    gallery = torch.cat([chain[1:], stranger])
    assert next(euclidean(chain[:1], gallery, 1))[0].argsort().tolist()[3] == 4
    found = reranked_distances(chain[:1], gallery, 4, 2, 0.1)[0]
    assert set(found.argsort().tolist()[:4]) == {0, 1, 2, 3}


def test_embeddings_of_one_point_are_reranked_without_nan():
    point = torch.randn(1, 32).expand(50, -1)
    assert reranked_distances(point[:20], point[20:], 5, 3, 0.3).isfinite().all()


def test_reranking_that_memory_does_not_suffice_for_is_refused_beforehand(monkeypatch):
    query, gallery = some(15, 30)
    need = reranking_bytes(15, 30, 8, 8, 21)
    monkeypatch.setattr(refine, "available_memory", lambda: need)
    expected = reranked_distances(query, gallery, 20, 6, 0.3)
    monkeypatch.setattr(refine, "available_memory", lambda: need - 1)
    monkeypatch.setattr(refine, "_squared_distances", None)  # nothing is computed
    with pytest.raises(CsviError, match=r"^re-ranking 15 queries and 30 gallery images compares all of these 45 "):
        refined_distances(query, gallery, NONE, Refinement(rerank=True))
    refined_distances(query, gallery, NONE, NO_REFINEMENT)  # which holds no such thing
    monkeypatch.undo()
    monkeypatch.setattr(refine, "available_memory", lambda: None)  # nobody knows
    assert torch.equal(reranked_distances(query, gallery, 20, 6, 0.3), expected)


def test_a_million_images_are_named_with_what_they_need():
    """More than any machine has; of no memory themselves."""
    image = torch.zeros(1, 4)
    with pytest.raises(
        CsviError,
        match=r"500,000 queries and 500,000 gallery images .* these 1,000,000 .* about 5,00\d\.\d GB of memory where ",
    ):
        reranked_distances(image.expand(500_000, -1), image.expand(500_000, -1), 20, 6, 0.3)


PEAK = """
import re, sys, torch
from pathlib import Path
from csvi.evaluate.refine import reranked_distances
def run(queries, gallery):
    reranked_distances(torch.rand(queries, 64, dtype=DTYPE), torch.rand(gallery, 64, dtype=DTYPE), 20, 6, 0.3)
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
DTYPE = getattr(torch, sys.argv[3])
before = run(10, 10)
print(run(int(sys.argv[1]), int(sys.argv[2])) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("queries", "gallery", "dtype"),
    [(2500, 2500, "float32"), pytest.param(300, 3500, "float64", marks=pytest.mark.long)],
)
def test_memory_that_reranking_needs(queries, gallery, dtype):
    command = [sys.executable, "-c", PEAK, str(queries), str(gallery), dtype]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = getattr(torch, dtype).itemsize
    assert 0.85 < reranking_bytes(queries, gallery, 64, size, 21) / peak < 2.2


def test_embeddings_of_length_0():
    nothing = torch.zeros(2, 3), torch.zeros(4, 3)
    assert torch.equal(expanded_queries(*nothing, torch.zeros(2, 4, dtype=torch.bool), 2, 3.0), nothing[0])


NONE = torch.zeros(1, 3, dtype=torch.bool)


def test_query_expansion_by_hand():
    # similarities 0.8, 0.6, 0: two neighbours, alpha 2: (1, 0) + 0.64 (0.8, 0.6) + 0.36 (0.6, 0.8)
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    x, y = 1 + 0.64 * 0.8 + 0.36 * 0.6, 0.64 * 0.6 + 0.36 * 0.8
    found = expanded_queries(query, gallery, NONE, 2, 2.0)[0].tolist()
    assert found == pytest.approx([x / sqrt(x * x + y * y), y / sqrt(x * x + y * y)], abs=1e-6)


def test_query_expansion_keeps_the_length_of_the_query():
    query, gallery = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.6, 1.2], [-2.0, 0.0]])
    found = expanded_queries(query, gallery, NONE, 1, 0.0)  # alpha 0: as much as the query
    assert found[0].tolist() == pytest.approx([2 * 3.6 / sqrt(3.6**2 + 1.2**2), 2 * 1.2 / sqrt(3.6**2 + 1.2**2)])
    assert expanded_queries(*some(20, 40), torch.zeros(20, 40, dtype=torch.bool), 5, 3.0).norm(dim=1).tolist() == (
        pytest.approx([sqrt(2)] * 20)
    )


def test_neighbours_that_point_elsewhere_have_no_weight():
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [-0.6, 0.8], [-1.0, 0.0]])
    assert torch.equal(expanded_queries(query, gallery, NONE, 3, 3.0), query)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_queries_are_not_expanded_with_what_they_may_not_see(alpha):
    query, gallery = some(10, 30)
    unseen = torch.zeros(10, 30, dtype=torch.bool)
    unseen[:5, ::2] = True
    unseen[9] = True
    found = expanded_queries(query, gallery, unseen, 8, alpha)
    without = torch.zeros(10, 15, dtype=torch.bool)
    torch.testing.assert_close(found[:5], expanded_queries(query, gallery[1::2], without, 8, alpha)[:5])
    elsewhere = gallery.clone()
    elsewhere[::2] = torch.randn(15, 8, dtype=torch.float64)  # whatever they look like
    torch.testing.assert_close(expanded_queries(query, elsewhere, unseen, 8, alpha)[:5], found[:5])
    torch.testing.assert_close(found[9], query[9])
    # more neighbours than it may see
    every = expanded_queries(query, gallery, unseen, 30, alpha)
    torch.testing.assert_close(every[:5], expanded_queries(query, gallery[1::2], without, 15, alpha)[:5])


def test_more_neighbours_than_gallery_images():
    query, gallery = some(3, 4)
    unseen = torch.zeros(3, 4, dtype=torch.bool)
    found, every = (expanded_queries(query, gallery, unseen, n, 3.0) for n in (99, 4))
    assert torch.equal(found, every)


def test_refined_distances_expand_first_and_rerank_then():
    query, gallery = some(10, 30)
    unseen = torch.rand(10, 30) < 0.3
    expanded = expanded_queries(query, gallery, unseen, 4, 2.0)
    plain = torch.cat(list(euclidean(query, gallery, 10)))
    torch.testing.assert_close(refined_distances(query, gallery, unseen, NO_REFINEMENT), plain)
    found = refined_distances(query, gallery, unseen, Refinement(expand=4, alpha=2.0))
    torch.testing.assert_close(found, torch.cat(list(euclidean(expanded, gallery, 10))))
    both = Refinement(rerank=True, expand=4, alpha=2.0, k1=7, k2=3, lambda_=0.2)
    found = refined_distances(query, gallery, unseen, both)
    torch.testing.assert_close(found, reranked_distances(expanded, gallery, 7, 3, 0.2))


def test_names():
    assert NO_REFINEMENT.names() == []
    assert Refinement(rerank=True, expand=10).names() == [
        "query expansion (10 neighbours, alpha 3)",
        "k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expand": -1}, "expand of a refinement is -1: it must be at least 0"),
        ({"alpha": -0.5}, "alpha of a refinement is -0.5"),
        ({"alpha": float("nan")}, "alpha of a refinement is nan"),
        ({"k1": 0}, "k1 of a refinement is 0: it must be at least 1"),
        ({"k2": 0}, "k2 of a refinement is 0"),
        ({"lambda_": -0.1}, "lambda_ of a refinement is -0.1"),
        ({"lambda_": 1.1}, "at most 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(CsviError, match=message):
        Refinement(**settings)


@pytest.mark.parametrize("refinement", [Refinement(expand=2), Refinement(rerank=True, expand=3, k1=4, k2=2)])
def test_results_name_their_refinements_and_hide_the_querys_camera(refinement):
    """A folder with two cameras that take both spectra, each person in its own light in each of them."""
    records = [
        ImageRecord(f"{modality}/{camera}/{identity}/{n}", identity, camera, modality)
        for modality in Modality
        for camera in (1, 2)
        for identity in range(12)
        for n in range(2)
    ]
    identity, camera = (torch.tensor([getattr(r, name) for r in records]) for name in ("identity", "camera"))
    light, noise = torch.randn(12, 2, 16), torch.randn(96, 16)
    embeddings = torch.randn(12, 16)[identity] + light[identity, camera - 1] + noise
    query, gallery = slice(48, 96), slice(0, 48)  # infrared, visible
    unseen = camera[query, None] == camera[gallery]
    distance = refined_distances(embeddings[query], embeddings[gallery], unseen, refinement)
    people = identity[query], identity[gallery], camera[query], camera[gallery]
    protocols = Folder().protocols(records, "all", Path())
    expected = score(distance, *people, rules=Folder.rules)
    plain, _ = evaluate_protocols(protocols, embeddings, records)
    found, _ = evaluate_protocols(protocols, embeddings, records, refinement)
    assert (plain.refinements, found.refinements) == ([], refinement.names())
    assert plain.valid == found.valid == expected.valid == 48
    assert found.metrics["mAP"].mean == pytest.approx(expected.metrics["mAP"])
    assert found.metrics["mAP"].mean != plain.metrics["mAP"].mean
