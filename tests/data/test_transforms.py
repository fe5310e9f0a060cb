"""Variations do what torchvision's transforms do, as often and as far; a mask moves with its image."""

import dataclasses

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from csvi.config import DataConfig
from csvi.data.records import Modality
from csvi.data.transforms import MEAN, MEAN_COLOR, STD, Variation, draw_variation, normalize, vary

CONFIG = DataConfig(height=40, width=20, pad=6, flip=0.3, erase=0.4, grayscale=0.2)
SAME = Variation(flip=False, down=0, right=0, grey=False, erase=None)


@pytest.fixture
def batch():
    """Eight coloured images, each with its red as its mask, and lying in memory as loaders give them."""
    torch.manual_seed(0)
    image = torch.randint(256, (8, 40, 20, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return {"image": image, "mask": image[:, :1].contiguous(), "identity": torch.arange(8)}


def draws(number, modality=Modality.VISIBLE, **settings):
    config = dataclasses.replace(CONFIG, **settings)
    return [draw_variation(seed, modality, config) for seed in range(number)]


def padded_and_cropped(pixels, variation, pad=6):
    """As torchvision would."""
    if variation.flip:
        pixels = tv.horizontal_flip(pixels)
    return tv.crop(tv.pad(pixels, [pad]), pad - variation.down, pad - variation.right, *pixels.shape[-2:])


def test_flip_and_move_are_torchvisions_flip_pad_and_crop(batch):
    for round in range(20):
        variations = [v._replace(grey=False, erase=None) for v in draws(160)[8 * round :][:8]]
        varied = vary(batch, variations)
        for i, variation in enumerate(variations):
            assert torch.equal(varied["image"][i], padded_and_cropped(batch["image"][i], variation))
            assert torch.equal(varied["mask"][i], padded_and_cropped(batch["mask"][i], variation))


@pytest.mark.parametrize("modality", Modality)
def test_a_mask_moves_with_its_image(batch, modality):
    varied = vary(batch, draws(8, modality, grayscale=0, erase=0))
    assert torch.equal(varied["image"][:, :1], varied["mask"])
    assert len({mask.numpy().tobytes() for mask in varied["mask"]}) == 8
    assert not torch.equal(varied["mask"], batch["mask"])


def test_grey_is_torchvisions(batch):
    varied = vary(batch, [SAME._replace(grey=True)] * 8)
    assert torch.equal(varied["image"], tv.rgb_to_grayscale(batch["image"], 3))
    assert torch.equal(varied["mask"], batch["mask"])


def test_erased_is_zero_when_it_is_normalised_but_for_the_rounding(batch):
    varied = vary(batch, [SAME._replace(erase=(3, 5, 20, 7))] * 8)
    expected = tv.erase(normalize(batch)["image"], 3, 5, 20, 7, torch.zeros(3, 1, 1))
    found = normalize(varied)["image"]
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    assert torch.equal(found[..., 5 + 7 :], expected[..., 5 + 7 :])
    assert torch.equal(varied["mask"], batch["mask"])


def test_each_image_is_varied_in_its_own_way_and_the_batch_given_stays(batch):
    before = {key: value.clone() for key, value in batch.items()}
    varied = vary(batch, [SAME] * 7 + [Variation(True, 40, 0, True, (0, 0, 5, 5))])
    assert torch.equal(varied["image"][:7], batch["image"][:7])
    assert (varied["image"][7, :, 5:] == 0).all()  # moved out
    assert (varied["image"][7, :, :5, :5] == MEAN_COLOR).all()
    assert torch.equal(varied["identity"], batch["identity"])
    assert all(torch.equal(batch[key], before[key]) for key in batch)


@pytest.mark.parametrize("shift", [-1000, -20, 19, 20, 41, 1000])
def test_images_may_move_out_of_sight(batch, shift):
    varied = vary(batch, [SAME._replace(right=shift)] * 8)["image"]
    if abs(shift) >= 20:
        assert (varied == 0).all()
    else:
        assert torch.equal(varied[..., shift:], batch["image"][..., :-shift])


def test_images_stay_in_the_networks_memory_format(batch):
    for varied in (vary(batch, draws(8)), normalize(batch), normalize(vary(batch, draws(8)))):
        assert varied["image"].is_contiguous(memory_format=torch.channels_last)


def test_without_masks_images_are_varied_the_same(batch):
    variations = draws(8)
    bare = {"image": batch["image"]}
    assert torch.equal(vary(bare, variations)["image"], vary(batch, variations)["image"])
    assert "mask" not in normalize(vary(bare, variations))


def test_a_variation_is_fixed_by_its_seed():
    assert draws(50) == draws(50)
    assert len(set(draws(50))) == 50
    state = torch.get_rng_state()
    draws(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_how_often_and_how_far():
    number = 5000
    drawn = draws(number)

    def share(values):
        return sum(values) / number

    for found, expected in (
        (share(v.flip for v in drawn), 0.3),
        (share(v.grey for v in drawn), 0.2),
        (share(v.erase is not None for v in drawn), 0.4),
        (share(v.flip and v.grey for v in drawn), 0.06),  # independent
        *((share(v.down == shift for v in drawn), 1 / 13) for shift in range(-6, 7)),
        *((share(v.right == shift for v in drawn), 1 / 13) for shift in range(-6, 7)),
    ):
        assert abs(found - expected) < 4 * (expected / number) ** 0.5  # standard deviations


def test_nothing_varies_that_is_off():
    assert set(draws(200, flip=0.0, pad=0, erase=0.0, grayscale=0.0)) == {SAME}
    assert all(v.flip and v.grey and v.erase for v in draws(200, flip=1.0, erase=1.0, grayscale=1.0))


def test_only_visible_images_turn_grey_and_by_default_none():
    assert not any(v.grey for v in draws(200, Modality.INFRARED, grayscale=1.0))
    assert not any(draw_variation(seed, Modality.VISIBLE, DataConfig()).grey for seed in range(200))


@pytest.mark.parametrize(("height", "width"), [(288, 144), (40, 80)])
def test_rectangles_are_torchvisions(height, width):
    torch.manual_seed(0)
    eraser, image = v2.RandomErasing(1.0), torch.zeros(3, height, width)
    theirs = [eraser.make_params([image]) for _ in range(2000)]
    ours = [v.erase for v in draws(2000, height=height, width=width, erase=1.0)]
    columns = [[box[key] for box in theirs if box["v"] is not None] for key in "ijhw"]
    for mine, other in zip(zip(*filter(None, ours), strict=True), columns, strict=True):
        assert ks_2samp(mine, other).pvalue > 0.001
    for top, left, h, w in filter(None, ours):
        assert 0 <= top <= height - h < height
        assert 0 <= left <= width - w < width


def test_normalised_as_torchvision_does(batch):
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])(batch["image"])
    found = normalize(batch)
    torch.testing.assert_close(found["image"], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["mask"], batch["mask"] / 255)
    assert (found["image"].dtype, found["mask"].dtype) == (torch.float32, torch.float32)
    assert torch.equal(found["identity"], batch["identity"])


def test_images_of_any_memory_format_are_normalised(batch):
    planar = {"image": batch["image"].contiguous()}
    assert torch.equal(normalize(planar)["image"], normalize(batch)["image"])


def test_numbers_stay_as_they_are(batch):
    numbers = normalize(batch)
    assert normalize(numbers) is numbers
