"""Scores of a mask that nobody knows the truth of."""

import numpy as np
import pytest

from csvi.errors import CsviError
from csvi.masks.quality import GOOD, predict
from csvi.masks.segmenter import Segmenter, Several


class Says(Segmenter):
    """Answers with the red channel, whoever is on the crop."""

    name = "says"

    def __init__(self, sureness=0.0):
        self.sureness = sureness

    def probabilities(self, images):
        return [image[..., 0].astype(np.float32) / 255 for image in images]


class SaysLeft(Says):
    """Marks the left half alone, also of mirror images."""

    def probabilities(self, images):
        return [np.where(np.arange(image.shape[1]) < image.shape[1] // 2, p, 0) for image, p in
                zip(images, super().probabilities(images), strict=True)]  # fmt: skip


def crop(*boxes, value=255):
    """An image of 100 x 50 whose boxes (top, bottom, left, right) are marked."""
    image = np.zeros((100, 50, 3), np.uint8)
    for top, bottom, left, right in boxes:
        image[top:bottom, left:right] = value
    return image


@pytest.mark.parametrize(
    ("image", "verdict"),
    [
        (crop((5, 95, 10, 40)), GOOD),
        (crop(), "nobody"),
        (crop((5, 95, 24, 27)), "small"),
        (crop((0, 100, 0, 50)), "large"),
        (crop((50, 95, 5, 45)), "short"),
        (crop((0, 90, 5, 20), (0, 90, 30, 45)), "in pieces"),
        (crop((5, 95, 10, 40), value=150), "unsure"),
    ],
)
def test_each_fault_has_its_word(image, verdict):
    (prediction,) = predict(Says(sureness=0.9), [image])
    assert prediction.verdict == verdict


def test_scores_by_hand():
    image = crop((10, 90, 10, 30), (0, 2, 0, 2))
    image[10:20, 10:30] = 153  # .6
    (prediction,) = predict(Says(), [image])
    scores = prediction.scores
    assert scores.area == pytest.approx(1600 / 5000)
    assert scores.height == pytest.approx(0.8)
    assert scores.whole == pytest.approx(1600 / 1604)
    assert scores.sureness == pytest.approx((1400 + 200 * 0.6) / 1600)
    assert scores.unsure == pytest.approx(200 / 1600)
    assert scores.mirror == scores.agreement == 1


def test_only_the_largest_piece_is_kept_with_its_soft_edge():
    image = crop((10, 90, 10, 30), (0, 5, 40, 50))
    image[10:90, 30:32] = 100
    (prediction,) = predict(Says(), [image])
    assert prediction.probability[0:5, 40:50].max() == 0
    assert prediction.probability[50, 31] == pytest.approx(100 / 255)
    assert prediction.probability.dtype == np.float32


def test_a_segmenter_that_takes_sides_is_found_by_the_mirror_image():
    (prediction,) = predict(SaysLeft(), [crop((5, 95, 5, 45))])
    assert prediction.scores.mirror == 0


def test_how_sure_a_mixture_usually_is_is_not_known():
    first, second = Says(sureness=0.8), Says(sureness=0.6)
    first.usual = second.usual = 0.97
    assert (Several([first, second]).sureness, Several([first, second]).usual) == (0.8, 0)


def test_the_agreement_of_several_decides():
    several = Several([Says(), SaysLeft()])
    assert several.name == "says,says"
    image = crop((5, 95, 5, 45))
    (prediction,) = predict(several, [image])
    assert prediction.scores.agreement < 0.65
    assert prediction.verdict == "disputed"
    (alone,) = predict(Several([Says(), Says()]), [image])
    assert alone.verdict == GOOD
    np.testing.assert_allclose(several.probabilities([image])[0][50, 30], 0.5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: [image[..., 0] for image in images], "says gives numbers from 0 to 255: probabilities are"),
        (lambda images: [image[..., 0] * np.float32(np.nan) for image in images], "numbers from nan to nan"),
        (lambda images: [np.zeros((50, 100)) for _ in images], r"gives \(50, 100\) numbers for \(100, 50\) pixels"),
        (lambda images: [], "gives 0 answers to 1 images"),
    ],
)
def test_a_segmenter_that_gives_no_probabilities_is_named(answer, message):
    segmenter = Says()
    segmenter.probabilities = answer
    with pytest.raises(CsviError, match=message):
        predict(segmenter, [crop((10, 90, 10, 40))])
