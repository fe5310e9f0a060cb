"""Randomised samples: exact masks, one person, nothing of the benchmark's look that a segmenter could hold on to."""

import numpy as np
import pytest

from csvi.masks.scenes import People, Window, draw_sample, grey, thermal


@pytest.fixture(scope="module")
def people():
    """Three bodies of plain colour before a plain background."""
    images, masks = np.full((3, 128, 64, 3), 60, np.uint8), np.zeros((3, 128, 64), np.uint8)
    for n, colour in enumerate(((250, 0, 0), (0, 250, 0), (240, 240, 240))):
        masks[n, 10:120, 16 + n : 48] = 255
        images[n][masks[n] > 0] = colour
    return People(images, masks, [False] * len(images))


def test_a_seed_fixes_a_sample(people):
    first, second = (draw_sample(people, np.random.default_rng((1, 2))) for _ in range(2))
    other = draw_sample(people, np.random.default_rng((1, 3)))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != other[0]).any()


def test_samples_are_pictures_of_their_size_with_somebody_on_them(people):
    shares = []
    for i in range(60):
        picture, mask = draw_sample(people, np.random.default_rng(i), 96, 48)
        assert picture.shape == (96, 48, 3)
        assert mask.shape == (96, 48)
        assert picture.dtype == mask.dtype == np.uint8
        shares.append((mask > 127).mean())
    assert 0.3 < np.mean(shares) < 0.8
    assert min(shares) > 0.02


def test_the_mask_is_where_the_person_is_seen(people):
    for window in (Window(32, 65, 50, 120), Window(40, 60, 64, 100, 0.2, 0.1, True)):
        picture, alpha = people.view(0, window, 96, 48)
        red = (picture[..., 0] > 0.6) & (picture[..., 1] < 0.2)
        inside, outside = alpha > 0.95, alpha < 0.05
        assert red[inside].all()
        assert not red[outside].any()


def test_a_mirrored_window_mirrors_both(people):
    plain, mirrored = (people.view(1, Window(32, 64, 64, 128, mirror=m), 64, 32) for m in (False, True))
    np.testing.assert_allclose(plain.picture[:, ::-1], mirrored.picture, atol=1 / 255)
    np.testing.assert_allclose(plain.alpha[:, ::-1], mirrored.alpha, atol=1 / 255)


def test_grey_and_thermal_pictures_have_one_channel(people):
    picture, alpha = people.view(2, Window(32, 64, 64, 128), 64, 32)
    rng = np.random.default_rng(0)
    for seen in (grey(picture, rng), thermal(picture, alpha, np.zeros_like(alpha), rng)):
        assert (np.ptp(seen, axis=2) == 0).all()
        assert seen.min() >= 0
        assert seen.max() <= 1
