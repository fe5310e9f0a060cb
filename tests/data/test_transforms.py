"""Geometry moves an image and its mask together; colour and erasing touch the image alone."""

import dataclasses

import pytest
import torch

from csvi.config import DataConfig
from csvi.data.records import Modality
from csvi.data.transforms import MEAN, STD, TrainingTransform, evaluation_transform

PLAIN = DataConfig(height=40, width=20, pad=6, flip=0.5, erase=0.0, grayscale=0.0)


@pytest.fixture
def image():
    """Grey and equal to its mask."""
    torch.manual_seed(0)
    return torch.randint(256, (1, 40, 20), dtype=torch.uint8).expand(3, -1, -1).contiguous()


@pytest.fixture
def coloured():
    torch.manual_seed(0)
    return torch.randint(256, (3, 40, 20), dtype=torch.uint8)


def pixels(image):
    """Normalisation undone: [0, 1]."""
    return image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.mark.parametrize("modality", Modality)
def test_geometry_is_the_same_for_image_and_mask(image, modality):
    transform, seen = TrainingTransform(PLAIN), set()
    for seed in range(30):
        torch.manual_seed(seed)
        moved, mask = transform(image, image[:1], modality)
        assert moved.shape == (3, 40, 20)
        assert mask.shape == (1, 40, 20)
        torch.testing.assert_close(pixels(moved), mask.expand(3, -1, -1), atol=1e-5, rtol=0)
        seen.add(mask.numpy().tobytes())
    assert len(seen) == 30  # every time elsewhere


def test_flip_without_crop_mirrors_both(image):
    transform = TrainingTransform(dataclasses.replace(PLAIN, flip=1.0, pad=0))
    moved, mask = transform(image, image[:1], Modality.VISIBLE)
    torch.testing.assert_close(mask, image[:1].flip(2).float() / 255)
    torch.testing.assert_close(pixels(moved), image.flip(2).float() / 255)


def test_crop_moves_by_no_more_than_the_padding(image):
    transform = TrainingTransform(dataclasses.replace(PLAIN, flip=0.0, pad=3))
    padded = torch.nn.functional.pad(image[:1].float() / 255, (3, 3, 3, 3))
    offsets = set()
    for seed in range(60):
        torch.manual_seed(seed)
        _, mask = transform(image, image[:1], Modality.VISIBLE)
        offsets.update((y, x) for y in range(7) for x in range(7) if torch.equal(padded[:, y:, x:][:, :40, :20], mask))
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(7))


def test_erasing_leaves_the_mask_alone(image):
    transform = TrainingTransform(dataclasses.replace(PLAIN, flip=0.0, pad=0, erase=1.0))
    moved, mask = transform(image, image[:1], Modality.VISIBLE)
    torch.testing.assert_close(mask, image[:1].float() / 255)
    erased = (moved == 0).all(0)
    assert 0.01 < erased.float().mean() < 0.4
    torch.testing.assert_close(pixels(moved)[:, ~erased], (image.float() / 255)[:, ~erased])


def test_only_visible_images_turn_grey(coloured):
    transform = TrainingTransform(dataclasses.replace(PLAIN, flip=0.0, pad=0, grayscale=1.0))
    visible, infrared = (pixels(transform(coloured, None, modality)[0]) for modality in Modality)
    torch.testing.assert_close(visible[0], visible[1])
    torch.testing.assert_close(visible[0], visible[2])
    torch.testing.assert_close(infrared, coloured.float() / 255)


def test_by_default_no_image_turns_grey(coloured):
    transform = TrainingTransform(DataConfig(height=40, width=20, erase=0))
    for _ in range(20):
        visible = pixels(transform(coloured, None, Modality.VISIBLE)[0])
        assert not torch.allclose(visible[0], visible[1])


@pytest.mark.parametrize("masked", [True, False])
def test_an_image_is_moved_the_same_with_and_without_a_mask(coloured, masked):
    transform = TrainingTransform(dataclasses.replace(PLAIN, erase=0.5, grayscale=0.5))
    torch.manual_seed(3)
    moved, mask = transform(coloured, coloured[:1] if masked else None, Modality.VISIBLE)
    torch.manual_seed(3)
    expected, _ = transform(coloured, coloured[:1], Modality.VISIBLE)
    assert torch.equal(moved, expected)
    assert (mask is not None) == masked


def test_evaluation_normalises_and_has_no_randomness(coloured):
    image, mask = evaluation_transform(coloured, coloured[:1], Modality.VISIBLE)
    for c in range(3):
        torch.testing.assert_close(image[c], (coloured[c] / 255 - MEAN[c]) / STD[c])
    torch.testing.assert_close(mask, coloured[:1] / 255)
    assert (image.dtype, mask.dtype) == (torch.float32, torch.float32)
    state = torch.get_rng_state()
    assert torch.equal(evaluation_transform(coloured, None, Modality.INFRARED)[0], image)
    assert torch.equal(torch.get_rng_state(), state)
