"""Figure 6: shares of activation worked out by hand and image by image, and pictures in their places."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from csvi.analysis.heatmaps import (
    activation_energy,
    heatmap,
    heatmaps_figure,
    heatmaps_table,
    inside,
    overlay,
    person_shares,
    share_inside,
)
from csvi.analysis.images import same_test_images
from csvi.data import Modality
from csvi.errors import CsviError


@pytest.fixture
def runs(born, with_statistics):
    """Two networks as they were born, the second with co-segmentation."""
    return [with_statistics(born(name)) for name in ("baseline", "coseg")]


def test_share_of_energy_by_hand():
    energy = torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]])
    person = torch.tensor([[[0.5, 1.0]], [[1.0, 1.0]]])
    assert share_inside(energy, person).tolist() == [(1.5 + 1) / 4, 0]


def test_activation_that_follows_the_person_is_told_from_activation_in_the_middle():
    left, right, middle = torch.tensor([[[1.0, 0, 0]], [[0, 0, 1.0]], [[0, 1.0, 0]]])
    people = torch.stack([left + middle, right + middle])
    follows = inside(torch.stack([3 * left + middle, 3 * right + middle]), people)
    assert (follows.person, follows.other, follows.images) == (1, 0.25, 2)
    assert follows.area == pytest.approx(2 / 3)
    stays = inside(torch.stack([middle, middle]), people)
    assert (stays.person, stays.other) == (1, 1)


@pytest.mark.slow
def test_shares_over_all_test_images(runs):
    for run, share in zip(runs, person_shares(runs, images=500), strict=True):
        for modality in Modality:
            shares, areas = [], []
            for record in run.benchmark.test:
                if record.modality != modality:
                    continue
                batch = run.batch([record])
                with torch.inference_mode():
                    features = run.net.backbone(batch.image, batch.modality)[0].numpy()  # (C1, 3, 2)
                padded = np.zeros((48, 32))
                padded[:, :24] = np.asarray(Image.open(record.mask)) / 255
                person = padded.reshape(3, 16, 2, 16).mean((1, 3))
                energy = (features**2).sum(0)
                shares.append((energy * person).sum() / energy.sum())
                areas.append(person.mean())
            found = share.visible if modality == Modality.VISIBLE else share.infrared
            assert found.images == len(shares)
            assert found.person == pytest.approx(np.mean(shares), abs=1e-3)
            assert found.area == pytest.approx(np.mean(areas), abs=1e-4)
    assert json.loads(json.dumps(dataclasses.asdict(share)))["visible"]["person"] == share.visible.person


def test_shares_are_of_images_that_show_a_person(runs, with_nobody):
    """Nothing is inside nobody, which would lower the share."""
    whole, *_ = person_shares(runs[:1], images=500)
    infrared = [i for i, r in enumerate(runs[0].benchmark.test) if r.modality == Modality.INFRARED]
    some, *_ = person_shares([with_nobody(runs[0], infrared[:8])], images=500)
    assert (some.infrared.images, some.visible.images) == (whole.infrared.images - 8, whole.visible.images)
    assert some.infrared.area == pytest.approx(whole.infrared.area, rel=0.05)


@pytest.mark.slow
def test_some_images_drawn_by_seed(runs):
    some = person_shares(runs[:1], images=12, seed=1)
    assert some[0].visible.images == some[0].infrared.images == 6
    assert person_shares(runs[:1], images=12, seed=1) == some
    assert person_shares(runs[:1], images=12, seed=2) != some
    assert heatmaps_table(some * 3).row_count == 3


def test_a_heatmap_goes_from_0_to_1_in_each_image():
    energy = torch.tensor([[[1.0, 4.0], [9.0, 25.0]], [[0.0, 0.0], [0.0, 0.01]], [[2.0, 2.0], [2.0, 2.0]]])
    drawn = heatmap(energy, 32, 24, 16)
    assert drawn.shape == (3, 32, 24)
    assert drawn[0, 0, 0] == 0
    assert drawn[0, 31, 0] == pytest.approx(0.5)  # (3 - 1) / (5 - 1)
    assert drawn[0, 0, 23] == pytest.approx(0.25 * 15.5 / 16, abs=0.01)
    assert heatmap(energy, 32, 32, 16)[:, 31, 31].tolist() == pytest.approx([1, 1, 0])


def pictures(figure, columns):
    flat = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    return [flat[i : i + columns] for i in range(0, len(flat), columns)]


@pytest.mark.slow
def test_columns_of_the_figure(runs):
    shares = person_shares(runs, images=8)
    figure = heatmaps_figure(runs, shares, seed=3, rows=2)
    rows = pictures(figure, 5)
    assert len(rows) == 4
    test = {runs[0].image(record).tobytes(): record for record in runs[0].benchmark.test}
    found = [test[row[0].tobytes()] for row in rows]
    assert [record.modality for record in found] == [Modality.VISIBLE] * 2 + [Modality.INFRARED] * 2
    assert len({record.identity for record in found}) == 4
    for record, (_, first, second, predicted, true) in zip(found, rows, strict=True):
        assert first.shape == second.shape == (48, 24, 3)
        assert ((predicted >= 0) & (predicted <= 1)).all()
        assert (true == (np.asarray(Image.open(record.mask)) > 127)).all()
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    for share in shares:
        assert any(text.startswith(f"activation {100 * share.visible.person:.0f} (") for text in texts)
    again = pictures(heatmaps_figure(runs, shares, seed=3, rows=2), 5)
    assert all(
        np.array_equal(a, b) for row, other in zip(rows, again, strict=True) for a, b in zip(row, other, strict=True)
    )


def test_the_heatmap_of_a_run_on_larger_images_is_whole(runs):
    small, large = runs[0], copy.copy(runs[0])
    large.data = dataclasses.replace(small.data, height=96, width=48)
    test = {small.image(record).tobytes(): record for record in small.benchmark.test}
    for image, _, drawn, _ in pictures(heatmaps_figure([small, large], rows=1), 4):
        energy = activation_energy(large, large.batch([test[image.tobytes()]]))
        whole = F.interpolate(heatmap(energy, 96, 48, 16)[:, None], (48, 24), mode="bilinear")[0, 0]
        np.testing.assert_allclose(drawn, overlay(image, whole.numpy()), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "by", "said"),
    [
        (["decode", "coseg"], "coseg", "the paper's model"),
        (["coseg", "coseg+"], "coseg", "the paper's model"),
        (["baseline", "segment", "decode"], "segment", "coseg not being shown"),
    ],
)
def test_the_mask_is_that_of_the_papers_model_if_it_is_shown(born, with_statistics, names, by, said):
    opened = {name: with_statistics(born(name)) for name in names}
    figure = heatmaps_figure(list(opened.values()), seed=3, rows=1)
    alone = [row[2] for row in pictures(heatmaps_figure([opened[by]], seed=3, rows=1), 4)]
    masks = [row[-2] for row in pictures(figure, len(names) + 3)]
    assert all(np.array_equal(mask, other) for mask, other in zip(masks, alone, strict=True))
    assert f"mask by {opened[by].name}, {said}" in figure.texts[-1].get_text().splitlines()


def test_a_mask_is_predicted_with_so_many_images_of_each_modality(runs, monkeypatch):
    given = []

    def predicted(run, records, sets):
        given.append([record.modality for record in records])
        return [torch.zeros(len(records), 48, 24)]

    monkeypatch.setattr("csvi.analysis.heatmaps.TOGETHER", 2)
    monkeypatch.setattr("csvi.analysis.heatmaps.predict_sets", predicted)
    heatmaps_figure(runs[1:], rows=1)
    assert [sorted(modalities) for modalities in given] == [[0, 0, 1, 1]] * 2


def test_the_figure_without_masks(runs, with_test):
    bare = with_test(runs[0], [dataclasses.replace(record, mask=None) for record in runs[0].benchmark.test])
    assert len(heatmaps_figure([bare], rows=1).axes) == 2 * 2  # image and heatmap
    assert len(heatmaps_figure(runs[:1], rows=1).axes) == 2 * 3  # and the true mask
    with pytest.raises(CsviError, match=r"not all test images of .* have a mask"):
        person_shares([bare])


@pytest.mark.slow
def test_one_identity_in_both_modalities_is_enough_to_draw(runs, with_test):
    one = with_test(runs[0], [record for record in runs[0].benchmark.test if record.identity == 13])
    texts = [text.get_text() for text in heatmaps_figure([one], rows=1).texts]
    assert any(text.startswith("visible\nid 13\n") for text in texts)
    assert any(text.startswith("infrared\nid 13\n") for text in texts)


def test_runs_are_compared_on_the_same_images(runs, with_test):
    fewer = with_test(runs[1], runs[1].benchmark.test[1:])
    for figure in (heatmaps_figure, person_shares, same_test_images):
        with pytest.raises(CsviError, match="different test images"):
            figure([runs[0], fewer])
    assert same_test_images(runs) == runs[0].benchmark.test


def test_too_few_images(runs, with_test):
    visible = with_test(runs[0], [r for r in runs[0].benchmark.test if r.modality == Modality.VISIBLE])
    with pytest.raises(CsviError, match="two test images of each modality"):
        person_shares([visible])
    with pytest.raises(
        CsviError, match=r"no test identity of .* has visible and infrared images: give another --data\.root"
    ):
        heatmaps_figure([visible])
