"""Figure 5: distances in the embedding space, worked out again image by image, and what the plane shows."""

import dataclasses
import json
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.manifold import TSNE

from csvi.analysis.images import both_modalities
from csvi.analysis.tsne import center_distances, tsne, tsne_figure, tsne_table
from csvi.data import ImageRecord, Modality
from csvi.data.records import DISTRACTOR
from csvi.errors import CsviError


@pytest.fixture
def runs(born, with_statistics):
    """Two networks as they were born."""
    return [with_statistics(born("baseline", f"run{seed}", seed)) for seed in (0, 1)]


def test_distances_of_centers_by_hand():
    # Of one identity: 1 and 3. Of different ones: from 0 to 8 and from 5 to 1.
    assert center_distances(torch.tensor([[[0.0], [1.0]], [[5.0], [8.0]]])) == (2, 6)
    # In the plane: a visible center at the origin of a 3-4-5 triangle.
    assert center_distances(torch.tensor([[[0.0, 0], [3, 4]], [[3, 4], [0, 0]]])) == (5, 0)


def test_distractors_are_nobody_with_both_modalities():
    records = [ImageRecord("a.jpg", identity, 1, modality) for identity in (DISTRACTOR, 7) for modality in Modality]
    assert both_modalities(records) == {7: ([2], [3])}


@pytest.mark.slow
def test_distances_over_all_test_identities(runs):
    planes = tsne(runs, identities=2)
    assert (planes.all_identities, planes.all_images) == (8, len(runs[0].benchmark.test))
    for run, plane in zip(runs, planes.runs, strict=True):
        of = {}
        for record in run.benchmark.test:
            batch = run.batch([record])
            with torch.inference_mode():
                embedding = run.net(batch.image, batch.modality)[0].double().numpy()
            of.setdefault((record.identity, record.modality), []).append(embedding)
        centers = {key: sum(embeddings) / len(embeddings) for key, embeddings in of.items()}
        people = sorted({identity for identity, _ in centers})
        distance = {
            (a, b): np.sqrt(((centers[a, Modality.VISIBLE] - centers[b, Modality.INFRARED]) ** 2).sum())
            for a, b in product(people, people)
        }
        same = np.mean([d for (a, b), d in distance.items() if a == b])
        different = np.mean([d for (a, b), d in distance.items() if a != b])
        assert (plane.same, plane.different) == pytest.approx((same, different), rel=1e-3)
        assert plane.ratio == plane.same / plane.different
    assert planes.runs[0].same != planes.runs[1].same


@pytest.mark.slow
def test_the_plane_holds_the_same_images_for_every_run(runs):
    planes = tsne(runs, identities=3, seed=4)
    assert len(planes.identities) == len(set(planes.identities)) == 3
    for identity in planes.identities:  # 8 visible and 4 infrared images each
        assert [m for i, m in zip(planes.identity, planes.modality, strict=True) if i == identity] == [0] * 8 + [1] * 4
    for plane in planes.runs:
        assert len(plane.points) == 36
        assert len(plane.centers) == 3
    assert planes.runs[0].points != planes.runs[1].points


def test_the_plane_holds_so_many_images_of_each_modality_of_an_identity(runs, monkeypatch):
    monkeypatch.setattr("csvi.analysis.tsne.IMAGES", 3)
    planes = tsne(runs[:1], identities=4)
    assert planes.modality == ([0] * 3 + [1] * 3) * 4


@pytest.mark.slow
def test_a_seed_gives_the_same_plane_again(runs):
    planes = tsne(runs[:1], identities=3, seed=4)
    assert tsne(runs[:1], identities=3, seed=4) == planes
    assert tsne(runs[:1], identities=3, seed=5).identities != planes.identities
    assert json.loads(json.dumps(dataclasses.asdict(planes)))["runs"][0]["same"] == planes.runs[0].same


def test_the_layout_follows_the_seed_too(runs, monkeypatch):
    """Of many long embeddings it does not begin alike with every seed."""
    seeds = []
    monkeypatch.setattr(
        "csvi.analysis.tsne.TSNE", lambda **options: seeds.append(options["random_state"]) or TSNE(**options)
    )
    tsne(runs[:1], identities=2, seed=4)
    assert seeds == [4]


def test_a_center_lies_among_its_images(runs, with_test, monkeypatch):
    """Two identities, and their modalities, far apart: each center is nearest to images that it is the mean of."""
    two = with_test(runs[0], [record for record in runs[0].benchmark.test if record.identity in (13, 14)])

    def clusters(net, batches, fabric, flip):
        place = torch.tensor(
            [10.0 * (record.identity - 13) + 5 * int(record.modality) for record in two.benchmark.test]
        )
        noise = torch.randn(len(place), 4, generator=torch.Generator().manual_seed(0)) / 10
        return place[:, None] + noise

    monkeypatch.setattr("csvi.runs.embeddings.embed", clusters)
    planes = tsne([two])
    points = np.array(planes.runs[0].points)
    assert planes.identities == [13, 14]
    for identity, pair in zip(planes.identities, planes.runs[0].centers, strict=True):
        for modality in Modality:
            nearest = np.linalg.norm(points - pair[modality], axis=1).argmin()
            assert (planes.identity[nearest], planes.modality[nearest]) == (identity, modality)
    assert planes.runs[0].same == pytest.approx(10, abs=0.2)  # 5 in each of 4 dimensions
    assert planes.runs[0].different == pytest.approx(20, abs=0.2)  # 15 and 5, in each of 4 dimensions


def test_centers_are_those_of_the_identities_that_are_drawn(runs):
    run = runs[0]
    place = torch.tensor([10.0 * record.identity + 5 * int(record.modality) for record in run.benchmark.test])
    run.embeddings = place[:, None] + torch.randn(len(place), 4, generator=torch.Generator().manual_seed(0)) / 10
    planes = tsne([run], identities=2, seed=4)
    assert planes.identities != [13, 14]
    points = np.array(planes.runs[0].points)
    for identity, pair in zip(planes.identities, planes.runs[0].centers, strict=True):
        for modality in Modality:
            nearest = np.linalg.norm(points - pair[modality], axis=1).argmin()
            assert (planes.identity[nearest], planes.modality[nearest]) == (identity, modality)


@pytest.mark.slow
def test_an_identity_of_one_modality_has_no_distance(runs, with_test):
    test = runs[0].benchmark.test
    fewer = with_test(runs[0], [r for r in test if r.identity != 13 or r.modality == Modality.VISIBLE])
    planes = tsne([fewer], identities=20)
    assert planes.all_identities == 7
    assert planes.identities == list(range(14, 21))
    only_visible = with_test(runs[0], [record for record in test if record.modality == Modality.VISIBLE])
    with pytest.raises(CsviError, match="fewer than two identities of both modalities"):
        tsne([only_visible])


def test_a_run_that_tells_nobody_from_anybody_has_no_ratio(born):
    run = born("baseline")
    run.embeddings = torch.ones(len(run.benchmark.test), 4)
    with pytest.raises(CsviError, match="baseline gives all test identities the same embedding"):
        tsne([run])


@pytest.mark.slow
def test_figure_and_table_say_the_numbers(runs):
    planes = tsne(runs, identities=3)
    figure = tsne_figure(planes)
    assert [axes.get_title().replace("\n", "") for axes in figure.axes] == [run.name for run in runs]
    for axes, plane in zip(figure.axes, planes.runs, strict=True):
        assert f"{plane.same:.2f}" in axes.get_xlabel()
        assert f"{plane.ratio:.2f}" in axes.get_xlabel()
        assert sum(len(drawn.get_offsets()) for drawn in axes.collections) == 36 + 6
        for line, pair in zip(axes.lines, plane.centers, strict=True):
            assert np.array_equal(line.get_xydata(), pair)
    assert tsne_table(planes).row_count == 2
    many = dataclasses.replace(planes, runs=planes.runs * 2)
    assert len(tsne_figure(many).axes) == 4
