"""Operations do what torchvision's transforms do, as often and as far; a mask moves with its image."""

import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from csvi.config import DataConfig
from csvi.data.batch import MEAN, Batch, normalize
from csvi.data.records import Modality
from csvi.data.views import (
    MEAN_COLOR,
    Erase,
    Flip,
    Grayscale,
    Operation,
    Shift,
    augment,
    draw,
    standard_views,
)

CONFIG = DataConfig(height=40, width=20, pad=6, flip=0.3, erase=0.4, grayscale=0.2)


@pytest.fixture
def images():
    """Eight coloured images, lying in memory as the cache gives them."""
    torch.manual_seed(0)
    return torch.randint(256, (8, 40, 20, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


@pytest.fixture
def masks(images):
    """The red of each image."""
    return images[:, :1].contiguous()


def view_of(modality=Modality.VISIBLE, **settings):
    (view,) = standard_views(replace(CONFIG, **settings))[modality]
    return view


def draws(number, modality=Modality.VISIBLE, **settings):
    """What the standard view draws: type of each operation that happens -> its values."""
    config = replace(CONFIG, **settings)
    drawn = (draw(view_of(modality, **settings), seed, config.height, config.width) for seed in range(number))
    return [{type(operation): values for operation, values in one} for one in drawn]


def augmented(view, images, masks=None, seeds=None):
    """Copies of images and masks in a view, with the seeds 0, 1, ..."""
    masks = masks if masks is not None else [None] * len(images)
    found = [
        augment(view, image.clone(), mask if mask is None else mask.clone(), seed)
        for image, mask, seed in zip(images, masks, seeds or range(len(images)), strict=True)
    ]
    images, masks = zip(*found, strict=True)
    return torch.stack(images), masks[0] if masks[0] is None else torch.stack(masks)


def padded_and_cropped(pixels, flip, down, right, pad=6):
    """As torchvision would."""
    if flip:
        pixels = tv.horizontal_flip(pixels)
    return tv.crop(tv.pad(pixels, [pad]), pad - down, pad - right, *pixels.shape[-2:])


def test_flip_and_move_are_torchvisions_flip_pad_and_crop(images, masks):
    view = (Flip(0.3), Shift(6))
    for round in range(20):
        seeds = range(8 * round, 8 * round + 8)
        found, moved = augmented(view, images, masks, seeds)
        for i, seed in enumerate(seeds):
            drawn = {type(operation): values for operation, values in draw(view, seed, 40, 20)}
            assert torch.equal(found[i], padded_and_cropped(images[i], Flip in drawn, *drawn[Shift]))
            assert torch.equal(moved[i], padded_and_cropped(masks[i], Flip in drawn, *drawn[Shift]))


@pytest.mark.parametrize("modality", Modality)
def test_a_mask_moves_with_its_image(images, masks, modality):
    found, moved = augmented(view_of(modality, grayscale=0, erase=0), images, masks)
    assert torch.equal(found[:, :1], moved)
    assert len({mask.numpy().tobytes() for mask in moved}) == 8
    assert not torch.equal(moved, masks)


def test_grey_is_torchvisions(images, masks):
    found, kept = augmented((Grayscale(1),), images, masks)
    assert torch.equal(found, tv.rgb_to_grayscale(images, 3))
    assert torch.equal(kept, masks)


def numbers(image):
    return normalize(Batch(image, torch.zeros(8), torch.zeros(8))).image


@pytest.mark.parametrize("fill", [MEAN_COLOR, (10, 20, 30)])
def test_erased_is_the_colour_that_is_given_and_the_mask_stays(images, masks, fill):
    found = [Erase(1, fill=fill).apply(images[i].clone(), masks[i].clone(), (3, 5, 20, 7)) for i in range(8)]
    found, kept = (torch.stack(tensors) for tensors in zip(*found, strict=True))
    assert torch.equal(kept, masks)
    assert (found[:, :, 3:23, 5:12] == torch.tensor(fill).view(3, 1, 1)).all()
    assert torch.equal(found, tv.erase(images, 3, 5, 20, 7, torch.tensor(fill, dtype=torch.uint8).view(3, 1, 1)))


def test_erased_is_zero_when_it_is_normalised_but_for_the_rounding(images):
    assert tuple(round(255 * mean) for mean in MEAN) == MEAN_COLOR
    found = torch.stack([Erase(1).apply(image.clone(), None, (3, 5, 20, 7))[0] for image in images])
    expected = tv.erase(numbers(images), 3, 5, 20, 7, torch.zeros(3, 1, 1))
    torch.testing.assert_close(numbers(found), expected, atol=0.01, rtol=0)
    assert torch.equal(numbers(found)[..., 5 + 7 :], expected[..., 5 + 7 :])


@pytest.mark.parametrize("shift", [-1000, -20, 19, 20, 41, 1000])
def test_images_may_move_out_of_sight(images, shift):
    moved = torch.stack([Shift(1000).apply(image, None, (0, shift))[0] for image in images])
    if abs(shift) >= 20:
        assert (moved == 0).all()
    else:
        assert torch.equal(moved[..., shift:], images[..., :-shift])


def test_what_is_moved_in_is_black_and_operations_follow_in_their_order(images):
    image, _ = Shift(40).apply(images[7].clone(), None, (40 - 5, 0))
    assert (image[:, :35] == 0).all()
    image, _ = Erase(1).apply(image, None, (0, 0, 5, 5))
    assert (image[:, :5, :5] == torch.tensor(MEAN_COLOR).view(3, 1, 1)).all()
    erased_last, _ = augmented((Grayscale(1), Erase(1)), images)
    grey_last, _ = augmented((Erase(1), Grayscale(1)), images)
    assert (grey_last[:, :1] == grey_last).all()
    assert not (erased_last[:, :1] == erased_last).all()


def test_images_stay_in_the_memory_format_of_the_cache(images):
    for seed, image in enumerate(images):
        found, _ = augment(view_of(), image, None, seed)
        assert found.permute(1, 2, 0).is_contiguous()


def test_without_masks_images_are_augmented_the_same(images, masks):
    found, none = augmented(view_of(), images)
    assert torch.equal(found, augmented(view_of(), images, masks)[0])
    assert none is None


def test_what_is_drawn_is_fixed_by_the_seed():
    assert draws(50) == draws(50)
    assert len({repr(one) for one in draws(50)}) == 50
    state = torch.get_rng_state()
    draws(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_how_often_and_how_far():
    number = 5000
    drawn = draws(number)

    def share(values):
        return sum(values) / number

    for found, expected in (
        (share(Flip in d for d in drawn), 0.3),
        (share(Grayscale in d for d in drawn), 0.2),
        (share(d.get(Erase) is not None for d in drawn), 0.4),
        (share(Flip in d and Grayscale in d for d in drawn), 0.06),  # independent
        *((share(d[Shift][0] == shift for d in drawn), 1 / 13) for shift in range(-6, 7)),
        *((share(d[Shift][1] == shift for d in drawn), 1 / 13) for shift in range(-6, 7)),
    ):
        assert abs(found - expected) < 4 * (expected / number) ** 0.5  # standard deviations


def test_nothing_changes_that_is_off(images, masks):
    off = {"flip": 0.0, "pad": 0, "erase": 0.0, "grayscale": 0.0}
    assert all(one == {Shift: (0, 0)} for one in draws(200, **off))
    assert torch.equal(augmented(view_of(**off), images, masks)[0], images)
    assert all({Flip, Grayscale, Erase} <= set(one) for one in draws(200, flip=1.0, erase=1.0, grayscale=1.0))


def test_only_visible_images_turn_grey_and_by_default_none():
    assert not any(Grayscale in one for one in draws(200, Modality.INFRARED, grayscale=1.0))
    (view,) = standard_views(DataConfig())[Modality.VISIBLE]
    assert not any(isinstance(o, Grayscale) for seed in range(200) for o, _ in draw(view, seed, 288, 144))


def test_both_modalities_draw_alike():
    def rest(drawn):
        return [{kind: values for kind, values in one.items() if kind is not Grayscale} for one in drawn]

    assert rest(draws(100, Modality.VISIBLE)) == rest(draws(100, Modality.INFRARED))


@pytest.mark.parametrize(("height", "width"), [(288, 144), (40, 80)])
def test_rectangles_are_torchvisions(height, width):
    torch.manual_seed(0)
    eraser, image = v2.RandomErasing(1.0), torch.zeros(3, height, width)
    theirs = [eraser.make_params([image]) for _ in range(2000)]
    ours = [one[Erase] for one in draws(2000, height=height, width=width, erase=1.0)]
    columns = [[box[key] for box in theirs if box["v"] is not None] for key in "ijhw"]
    for mine, other in zip(zip(*filter(None, ours), strict=True), columns, strict=True):
        assert ks_2samp(mine, other).pvalue > 0.001
    for top, left, h, w in filter(None, ours):
        assert 0 <= top <= height - h < height
        assert 0 <= left <= width - w < width


def test_rectangles_of_another_size_and_shape():
    erase = Erase(1, area=(0.2, 0.21), ratio=(0.5, 0.51))
    for seed in range(200):
        ((_, (_, _, h, w)),) = draw((erase,), seed, 100, 200)
        assert abs(h * w / 20_000 - 0.205) < 0.01
        assert abs(h / w - 0.505) < 0.02
    impossible = Erase(1, area=(0.9, 0.9), ratio=(3, 3))
    assert draw((impossible,), 0, 40, 80) == [(impossible, None)]
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    assert augment((impossible,), image, None, 0)[0] is image


@dataclass(frozen=True)
class ExchangeChannels(Operation):
    """An operation of somebody else, which always happens and draws."""

    def draw(self, rng, height, width):
        return int(rng.integers(3))

    def apply(self, image, mask, drawn):
        return image[[drawn] * 3], mask


@dataclass(frozen=True)
class GreyAtFirst(Grayscale):
    """Another, which only the first epochs have."""

    epochs: int = 6

    def happens(self, rng, epoch):
        return epoch < self.epochs


def test_an_operation_of_ones_own_after_erasing(images, masks):
    view = pickle.loads(pickle.dumps((Flip(0.5), Shift(6), Erase(1), ExchangeChannels())))
    found, moved = augmented(view, images, masks)
    before, moved_before = augmented(view[:3], images, masks)
    for i in range(8):
        *_, (_, channel) = draw(view, i, 40, 20)
        assert torch.equal(found[i], before[i, channel].expand(3, 40, 20))
    assert torch.equal(moved, moved_before)


def test_an_operation_of_some_epochs(images):
    view = (GreyAtFirst(1), Erase(1))
    for epoch, grey in ((0, True), (5, True), (6, False)):
        drawn = draw(view, 0, 40, 20, epoch)
        assert [type(operation) for operation, _ in drawn] == [GreyAtFirst, Erase][not grey :]
        assert drawn[-1] == draw(view[1:], 0, 40, 20)[0]  # no coin is tossed
    assert torch.equal(augment(view[:1], images[0].clone(), None, 0, 6)[0], images[0])


def test_coins_come_before_what_operations_draw():
    flip, shift, erase = Flip(0.5), Shift(6), Erase(0.5)
    for seed in range(50):
        one, other = (dict(draw(view, seed, 40, 20)) for view in ((flip, shift, erase), (shift, flip, erase)))
        assert one == other
