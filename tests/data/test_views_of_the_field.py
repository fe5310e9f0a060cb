"""Operations do what the field's public code does, within half a grey level; their compositions are its augmentation.

Goldens: `augment` in goldens_of_the_field.json, by the public functions with scripted draws.
"""

import itertools
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from csvi.config import DataConfig
from csvi.data.batch import MEAN, STD
from csvi.data.channel_views import COPY, GREY, Blur, ExchangeChannels, Jitter, caj_erase, nearest_color
from csvi.data.records import Modality
from csvi.data.views import Erase, Flip, Grayscale, OneOf, Shift, augment, draw, standard_views
from csvi.methods.caj import caj_views
from csvi.methods.deen import deen_views
from csvi.methods.mpanet import mpanet_views
from csvi.methods.pmt import pmt_views

GOLDEN = json.loads(Path(__file__).with_name("goldens_of_the_field.json").read_text())["augment"]
CHANNELS = GOLDEN["caj_channels"]
MEANS, STDS = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
HALF_A_LEVEL = 0.5 / 255 / STDS  # after normalisation
CAJ_FILL, DEEN_FILL = (0.4914, 0.4822, 0.4465), (0.485, 0.456, 0.406)


COMPOSITIONS = caj_views, pmt_views, deen_views, mpanet_views, standard_views


class Scripted:
    """A generator whose draws are given: numbers on [0, 1], and integers."""

    def __init__(self, uniform, integers=()):
        self.waiting, self.whole = list(uniform), list(integers)

    def random(self):
        return self.waiting.pop(0)

    def uniform(self, low, high):
        return low + (high - low) * self.random()

    def integers(self, high, endpoint=False):
        value = self.whole.pop(0)
        assert 0 <= value < high + endpoint
        return value


def normalized(image):
    return (image.double() / 255 - MEANS) / STDS


def bytes_of(numbers):
    return ((numbers * STDS + MEANS) * 255).round().clamp(0, 255).to(torch.uint8)


def coloured(height=24, width=16, seed=0):
    """A coloured image, lying in memory as the cache gives it."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("golden", "exchange", "uniform", "integers"),
    [
        *((f"channel_exchange_draw_{n}", ExchangeChannels(), [0.99], [n]) for n in range(3)),
        *((f"infrared_channel_op_draw_{n}", ExchangeChannels(0.75, 0.5), [0.74], [n]) for n in range(3)),
        ("infrared_channel_op_draw_3_u_0.3", ExchangeChannels(0.75, 0.5), [0.75, 0.3], []),
        ("infrared_channel_op_draw_3_u_0.7", ExchangeChannels(0.75, 0.5), [0.75, 0.7], []),
    ],
)
def test_channels_are_exchanged_as_the_public_code_does_but_for_the_rounding(golden, exchange, uniform, integers):
    image = bytes_of(torch.tensor(CHANNELS["input_normalised"], dtype=torch.float64))  # each off by half a level
    rng = Scripted(uniform, integers)
    weights = exchange.draw(rng, 2, 2)
    assert not rng.waiting
    assert not rng.whole
    found, _ = exchange.apply(image, None, weights)
    expected = torch.tensor(CHANNELS[golden], dtype=torch.float64)
    expected = expected.maximum((0 - MEANS) / STDS).minimum((1 - MEANS) / STDS)  # a byte holds no more
    bound = HALF_A_LEVEL
    if weights:
        bound = bound + (torch.tensor(weights, dtype=torch.float64).view(3, 1, 1) * HALF_A_LEVEL).sum()
    assert ((normalized(found) - expected).abs() <= bound + 1e-6).all()


@pytest.mark.parametrize("weights", [*COPY, GREY])
def test_an_exchanged_byte_is_the_nearest_and_is_clipped_by_no_more_than_23_levels(weights):
    image = torch.stack([torch.arange(256)] * 3).view(3, 16, 16).to(torch.uint8)
    image[1:] = image[1:].flip(2)
    one = (torch.tensor(weights, dtype=torch.float64).view(3, 1, 1) * normalized(image)).sum(0)
    expected = (one * STDS + MEANS) * 255
    found = ExchangeChannels().apply(image, None, weights)[0].double()
    rounding = (found - expected.clamp(0, 255)).abs()
    assert 0.4 < rounding.max() < 0.5 + 1e-4
    assert (found - expected).abs().max() < 23
    assert (normalized(found.to(torch.uint8)) - one).abs().max() < 0.4
    for source, weight in enumerate(weights):
        if weight == 1:
            assert torch.equal(found[source], image[source].double())


def test_clipping_reaches_the_bound_that_is_stated():
    image = torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1)
    one = normalized(image)[2]  # bright blue
    found, _ = ExchangeChannels().apply(image, None, COPY[2])
    assert found.flatten()[0] == 255
    assert 22 < (one * STDS[0] + MEANS[0]) * 255 - 255 < 23
    assert 0.38 < one - normalized(found)[0] < 0.4


@pytest.mark.parametrize(
    ("exchange", "shares"),
    [
        (ExchangeChannels(), (1 / 3, 1 / 3, 1 / 3, 0, 0)),
        (ExchangeChannels(0.75, 0.5), (1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8)),
        (ExchangeChannels(0.75, 0.6), (1 / 4, 1 / 4, 1 / 4, 0.15, 0.1)),
    ],
)
def test_how_often_which_channel(exchange, shares):
    number, rng = 4000, np.random.default_rng(0)
    counts = Counter(exchange.draw(rng, 2, 2) for _ in range(number))
    for drawn, share in zip((*COPY, GREY, None), shares, strict=True):
        assert abs(counts[drawn] / number - share) <= 4 * (share / number) ** 0.5


@pytest.mark.parametrize("fill", [CAJ_FILL, DEEN_FILL, (0.0, 0.0, 0.0)])
def test_a_colour_in_normalised_units_is_the_nearest_byte(fill):
    found = normalized(torch.tensor(nearest_color(fill)).view(3, 1, 1))
    assert ((found.flatten() - torch.tensor(fill)).abs() <= HALF_A_LEVEL.flatten() + 1e-7).all()
    assert HALF_A_LEVEL.max() < 0.009


def test_a_colour_that_no_byte_holds_is_clipped():
    assert nearest_color((-9, 0, 9)) == (0, 116, 255)


SIZES = {"random_erasing_288x144_p_0.5_area_0.02_0.4_ratio_0.3_to_1/0.3": (288, (0.02, 0.4), CAJ_FILL)}
SIZES["random_erasing_deen_sysu_384x144_area_0.2_0.8"] = 384, (0.2, 0.8), DEEN_FILL


@pytest.mark.parametrize(
    ("height", "area", "fill", "golden"),
    [(*size, golden) for name, size in SIZES.items() for golden in GOLDEN[name]],
)
def test_rectangles_are_those_of_the_public_code(height, area, fill, golden):
    coin, *uniform = golden["uniform_draws_on_0_1_in_order"]
    erase, erased = caj_erase(0.5, area, fill), golden["top_left_height_width"]
    if coin != 0.5:  # where p itself is drawn, which happens to floats once in 2^53 draws, theirs erases
        assert erase.happens(Scripted([coin]), epoch=0) == bool(erased)
    if erased:
        rng = Scripted(uniform, golden["integer_draws_top_left"])
        assert list(erase.draw(rng, height, 144)) == erased
        assert len(rng.waiting) == golden["draws_left"]
        assert golden["fill"] == list(fill)


@pytest.mark.parametrize("tries", [10, 100])
def test_so_many_rectangles_are_tried(tries):
    rng = Scripted([0.5] * 300)
    assert Erase(1, (0.9, 0.9), (3, 3), tries=tries).draw(rng, 40, 80) is None
    assert len(rng.waiting) == 300 - 2 * tries


def test_what_is_erased_takes_the_colour_of_the_channel_that_is_copied_afterwards():
    view = caj_erase(1), ExchangeChannels()
    for seed in range(6):
        (_, (top, left, _, _)), (_, weights) = draw(view, seed, 24, 16)
        found, _ = augment(view, coloured(), None, seed)
        one = CAJ_FILL[weights.index(1)]
        assert ((normalized(found)[:, top, left] - one).abs() < 2 * HALF_A_LEVEL.flatten()).all()


def test_the_padding_has_its_own_colour_and_is_no_part_of_the_mask():
    image, mask = coloured(), torch.full((1, 24, 16), 255, dtype=torch.uint8)
    found, moved = Shift(10, fill=127).apply(image, mask, (3, -5))
    assert torch.equal(found, tv.crop(tv.pad(image, [10], fill=127), 10 - 3, 10 + 5, 24, 16))
    assert torch.equal(moved, tv.crop(tv.pad(mask, [10]), 10 - 3, 10 + 5, 24, 16))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_blur_is_torchvisions_but_for_ties(sigma):
    image = coloured(30, 22)
    expected = tv.gaussian_blur(image, [21, 21], [sigma, sigma])
    found, _ = Blur().apply(image.clone(), None, sigma)
    different = (found.int() - expected.int()).abs()
    assert different.max() <= 1
    assert (different > 0).sum() <= 2


@pytest.mark.parametrize("factors", [(1.3, 0.7), (0.7, 1.3), (1.3, 1.3), (0.7, 0.7)])
def test_jitter_is_that_of_torchvision_on_images_of_pillow_within_one_level_a_change(factors):
    changes = list(zip(("brightness", "contrast"), factors, strict=True))
    for drawn in (changes[:1], changes[1:], changes, changes[::-1]):
        pillow = transforms.functional.to_pil_image(coloured())
        for name, factor in drawn:
            pillow = getattr(transforms.functional, f"adjust_{name}")(pillow, factor)
        expected = transforms.functional.pil_to_tensor(pillow)
        found, _ = Jitter().apply(coloured(), None, drawn)
        assert (found.int() - expected.int()).abs().max() <= len(drawn)
        assert (found.int() - coloured().int()).abs().max() > 20


def test_exactly_one_of_jitter_and_blur_happens_each_as_often_and_over_its_range():
    view, number = (OneOf((Jitter(), Blur())),), 2000
    drawn = [values for seed in range(number) for _, values in draw(view, seed, 24, 16)]
    sigmas = [values for operation, values in drawn if isinstance(operation, Blur)]
    jitters = [values for operation, values in drawn if isinstance(operation, Jitter)]
    assert len(sigmas) + len(jitters) == number
    assert abs(len(sigmas) - number / 2) < 4 * (number / 4) ** 0.5
    assert 0.1 <= min(sigmas) < 0.12 < 2.98 < max(sigmas) <= 3
    for name in ("brightness", "contrast"):
        factors = [dict(values)[name] for values in jitters]
        assert 0.7 <= min(factors) < 0.71 < 1.29 < max(factors) <= 1.3
    assert abs(sum(values[0][0] == "contrast" for values in jitters) / len(jitters) - 0.5) < 0.07


def rows(views, image, seed, epoch=0):
    """The image in all views of each modality."""
    return {m: [augment(v, image.clone(), None, seed, epoch)[0] for v in of] for m, of in views.items()}


def grey_when_normalized(image):
    """Whether all channels are the same, but for rounding, where none of them is clipped."""
    inside = ((image > 0) & (image < 255)).all(0)
    numbers = normalized(image)[:, inside]
    return bool((numbers - numbers[0]).abs().max() < 2 * HALF_A_LEVEL.max())


def test_the_second_visible_view_of_caj_has_one_channel_and_the_first_has_its_colours():
    views = caj_views(DataConfig())
    assert {modality: len(of) for modality, of in views.items()} == {Modality.VISIBLE: 2, Modality.INFRARED: 1}
    for seed in range(8):
        first, second = rows(views, coloured(), seed)[Modality.VISIBLE]
        assert not grey_when_normalized(first)
        assert grey_when_normalized(second)


def test_visible_images_of_pmt_are_grey_in_six_epochs_and_infrared_ones_change_in_all():
    views, image = pmt_views(DataConfig(flip=0, erase=0)), coloured()
    for epoch in (0, 5, 6, 20):
        ((visible,), (infrared,)) = rows(views, image, 1, epoch).values()
        assert torch.equal(visible, tv.rgb_to_grayscale(image, 3) if epoch < 6 else image)
        assert not torch.equal(infrared, image)


def test_half_of_the_images_of_deen_are_grey_in_both_modalities():
    for (view,) in deen_views(DataConfig(grayscale=0.5)).values():
        grey = sum(any(isinstance(o, Grayscale) for o, _ in draw(view, seed, 24, 16)) for seed in range(1000))
        assert abs(grey / 1000 - 0.5) < 4 * (0.25 / 1000) ** 0.5


def test_around_images_of_mpanet_it_is_grey_and_around_those_of_others_black():
    for views, outside in ((mpanet_views(DataConfig(erase=0)), 127), (standard_views(DataConfig(erase=0)), 0)):
        (view,) = views[Modality.INFRARED]
        for seed in range(5):
            found, _ = augment(view, torch.full((3, 24, 16), 200, dtype=torch.uint8), None, seed)
            assert set(found.unique().tolist()) <= {outside, 200}
            assert (found == outside).any()


@pytest.mark.parametrize("views_of", COMPOSITIONS)
def test_a_composition_repeats_in_another_process_and_moves_the_mask_and_keeps_the_memory_format(views_of):
    views = views_of(DataConfig())
    again = pickle.loads(pickle.dumps(views))
    for modality, of in views.items():
        for (number, view), seed in itertools.product(enumerate(of), range(4)):
            mask = coloured()[:1].contiguous()
            image, moved = augment(view, coloured(), mask.clone(), seed)
            assert image.dtype == torch.uint8
            assert image.permute(1, 2, 0).is_contiguous()
            other, other_mask = augment(again[modality][number], coloured(), mask.clone(), seed)
            assert torch.equal(image, other)
            assert torch.equal(moved, other_mask)
            for operation, values in draw(view, seed, 24, 16):
                if isinstance(operation, Flip | Shift):
                    _, mask = operation.apply(image, mask, values)
            assert torch.equal(moved, mask)
