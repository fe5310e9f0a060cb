"""Figure 4 against a recomputation that shares nothing with it: every set of images by itself, IoU pixel by pixel."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from csvi.analysis.cosegmentation import (
    cosegmentation,
    cosegmentation_figure,
    cosegmentation_table,
    draw_pairs,
)
from csvi.data import Modality
from csvi.errors import CsviError


@pytest.fixture
def opened(born, with_statistics):
    """A network without training, but with statistics of the images, so that its features and masks differ."""

    def make(method, **settings):
        run = born(method, **settings)
        if method == "coseg":
            torch.nn.init.normal_(run.method.ccwg.fc.weight)
        if settings:
            torch.nn.init.normal_(run.method.decoder[-1].weight, std=20)  # channels that stand out
        return with_statistics(run)

    return make


def plain_ious(run, records, label=None):
    """Mask IoU of a set that is given as one identity, from files to numbers in numpy; of a class's channel or all."""
    batch = run.batch(records)
    with torch.inference_mode():
        logits = run.method.mask_logits(batch._replace(identity=batch.identity * 0))
        masks = logits.sigmoid() if label is None else logits.softmax(1)[:, 1 + label, None]
        masks = torch.nn.functional.interpolate(masks, scale_factor=4, mode="bilinear").numpy()
    height, width = run.data.height, run.data.width
    ious = []
    for record, mask in zip(records, masks, strict=True):
        predicted = mask[0, :height, :width] > 0.5
        true = np.asarray(Image.open(record.mask)) > 127
        ious.append((predicted & true).sum() / (predicted | true).sum())
    return ious


def test_means_over_pairs(opened, real_trunk):
    run = opened("coseg")
    result = cosegmentation(run, pairs=3, seed=5, many=4, few=1)
    means = []
    for pair in draw_pairs(run, 3, 5, many=4, few=1):
        mixed, n = plain_ious(run, pair.first + pair.second), len(pair.first)
        alone = plain_ious(run, pair.first), plain_ious(run, pair.second)
        means.append([np.mean(alone[0]), np.mean(mixed[:n]), np.mean(alone[1]), np.mean(mixed[n:])])
    expected = np.mean(means, 0)
    found = [result.first.alone, result.first.mixed, result.second.alone, result.second.mixed]
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    assert abs(result.second.change) > 0.01  # the network of this test does tell them apart
    for role in (result.first, result.second):
        assert role.change == pytest.approx(role.mixed - role.alone)
        assert role.low <= role.change <= role.high
        assert 0.5 < role.constant < 1
    assert (result.first.images, result.second.images) == (8, 2)


@pytest.mark.slow
def test_with_channels_of_identities_masks_are_those_of_the_identity_asked_for(opened):
    """Alone each in its own channel, mixed both in that of the first: so the second's can go, as in the paper."""
    run = opened("coseg", mask_channels="identity")
    result = cosegmentation(run, pairs=3, seed=5, many=4, few=1)
    label = {identity: identity - 1 for identity in range(1, 9)}  # the people of training
    found, wrong = [], []
    for pair in draw_pairs(run, 3, 5, many=4, few=1):
        first, second = (label[images[0].identity] for images in (pair.first, pair.second))
        mixed, n = plain_ious(run, pair.first + pair.second, first), len(pair.first)
        alone = plain_ious(run, pair.first, first), plain_ious(run, pair.second, second)
        found.append([np.mean(alone[0]), np.mean(mixed[:n]), np.mean(alone[1]), np.mean(mixed[n:])])
        wrong.append(np.mean(plain_ious(run, pair.first + pair.second, second)[n:]))
    roles = [result.first.alone, result.first.mixed, result.second.alone, result.second.mixed]
    assert roles == pytest.approx(np.mean(found, 0).tolist(), abs=1e-3)
    assert abs(result.second.mixed - np.mean(wrong)) > 0.01  # the channels differ, so that it matters which is read
    assert result.by_identity
    assert not cosegmentation(opened("decode"), pairs=1, many=4, few=1).by_identity
    note = cosegmentation_figure(run, seed=5, shown=1, many=4, few=1).texts[-1].get_text()
    assert "training person asked for (mixed: a)" in note


@pytest.mark.slow
def test_training_images_without_a_mask_are_not_drawn(opened, config):
    config.data.without_mask = "train"
    run = opened("coseg", mask_channels="identity")
    train = [dataclasses.replace(r, mask=None) if r.identity == 3 else r for r in run.benchmark.train]
    run.benchmark = dataclasses.replace(run.benchmark, train=train)
    drawn = draw_pairs(run, 30, 0, many=4, few=1)
    assert {record.identity for pair in drawn for record in pair.first + pair.second} == {1, 2, 4, 5, 6, 7, 8}


def test_masks_from_each_image_by_itself_are_the_same_alone_and_mixed(opened):
    for method in ("decode", "segment"):
        result = cosegmentation(opened(method), pairs=2, many=3, few=2)
        assert result.method == method
        assert result.first.mixed == pytest.approx(result.first.alone, abs=1e-3)
        assert result.second.mixed == pytest.approx(result.second.alone, abs=1e-3)


def test_pairs_are_two_identities_of_both_modalities(opened):
    run = opened("decode")
    drawn = draw_pairs(run, 20, 0, many=4, few=1)
    assert draw_pairs(run, 5, 0, many=4, few=1) == drawn[:5] != draw_pairs(run, 5, 1, many=4, few=1)
    for pair in drawn:
        of = [{record.identity for record in images} for images in (pair.first, pair.second)]
        assert [len(one) for one in of] == [1, 1]
        assert of[0] != of[1]
        assert [record.modality for record in pair.first] == [Modality.VISIBLE] * 4 + [Modality.INFRARED] * 4
        assert [record.modality for record in pair.second] == [Modality.VISIBLE, Modality.INFRARED]
        assert len(set(pair.first)) == 8
    assert len({pair.first[0].identity for pair in drawn}) > 3


def test_the_figure_is_the_first_pair(opened):
    run = opened("coseg")
    figure = cosegmentation_figure(run, seed=5, shown=1, many=4, few=1)
    (pair,) = draw_pairs(run, 1, 5, many=4, few=1)
    shown = [pair.first[0], pair.first[4], *pair.second]
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(pictures) == 16
    for n, record in enumerate(shown):
        image, true, alone, mixed = pictures[4 * n : 4 * n + 4]
        assert (image == run.image(record)).all()
        assert (true == (np.asarray(Image.open(record.mask)) > 127)).all()
        assert alone.shape == mixed.shape == true.shape
    texts = [text.get_text() for text in figure.texts]
    both = plain_ious(run, pair.first + pair.second)
    alone = np.mean(plain_ious(run, pair.second))
    assert f"mean IoU: alone {alone:.2f}, mixed {np.mean(both[8:]):.2f}" in texts
    assert f"(b) 1 + 1 images of identity {pair.second[0].identity}" in texts
    assert f"{both[4]:.2f}" in texts


def test_results_are_numbers_in_json_and_a_table(opened):
    result = cosegmentation(opened("coseg"), pairs=2, many=3, few=1)
    assert json.loads(json.dumps(dataclasses.asdict(result)))["first"]["alone"] == result.first.alone
    assert cosegmentation_table([result, result]).row_count == 4


@pytest.mark.parametrize("method", ["baseline", "select"])
def test_a_run_that_predicts_no_masks(opened, method):
    run = opened(method)
    for figure in (cosegmentation, cosegmentation_figure):
        with pytest.raises(CsviError, match=rf"predicts no masks, as its method predicts none .*with {method}\)"):
            figure(run)


def test_a_run_of_which_only_the_network_was_passed_on(opened, tmp_path):
    run = opened("coseg")
    (tmp_path / "coseg" / "method.safetensors").unlink()
    with pytest.raises(CsviError, match=r"as its method\.safetensors is gone"):
        cosegmentation(run)


def test_images_whose_true_mask_shows_nobody_are_left_out(opened, with_nobody):
    run = opened("decode")
    nobody = {run.benchmark.test[i].path for i in range(0, len(run.benchmark.test), 3)}
    other = with_nobody(run, range(0, len(run.benchmark.test), 3))
    drawn = {record.path for pair in draw_pairs(other, 20, 0) for record in (*pair.first, *pair.second)}
    assert drawn
    assert not drawn & nobody
    result = cosegmentation(other, pairs=2, many=4, few=1)
    assert np.isfinite([*dataclasses.astuple(result.first), *dataclasses.astuple(result.second)]).all()


def test_what_cannot_be_measured_is_said(opened, with_test):
    run = opened("decode")
    with pytest.raises(CsviError, match=r"no pair of identities .* one of them with more than 4 images of each"):
        cosegmentation(run, many=20, few=4)  # of whom there are 8 visible and 4 infrared images

    test = run.benchmark.test
    with pytest.raises(CsviError, match="no pair of identities"):
        cosegmentation(with_test(run, [record for record in test if record.modality == Modality.VISIBLE]))
    with pytest.raises(CsviError, match=r"not all test images of .* have a mask"):
        cosegmentation(with_test(run, [dataclasses.replace(test[0], mask=None), *test[1:]]))
