"""The quality of a predicted mask, told from the prediction alone: scores, and the verdict on its use.

What each score is worth was measured on 402 photographs of pedestrians (docs/masks.md): sureness tells best which masks
are wrong, then the share of unsure pixels, then the agreement with the mirror image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from csvi.errors import CsviError
from csvi.masks.segmenter import Segmenter

GOOD = "good"
"""Verdict on a mask that is used."""
AREA = (0.1, 0.85)
"""Least and greatest share of a crop that a person covers."""
HEIGHT = 0.6
"""Least height of a mask, in parts of the crop's."""
WHOLE = 0.8
"""Least share of the largest piece in all that is marked."""
AGREEMENT = 0.65
"""Least intersection over union of the masks of two segmenters."""
UNSURE = (0.2, 0.8)
"""Probabilities between which a pixel is unsure."""


@dataclass(frozen=True)
class Scores:
    """What is known of a mask without the truth; all are fractions."""

    area: float
    """Share of the crop that the largest piece covers."""
    height: float
    """Height of the largest piece, in parts of the crop's."""
    whole: float
    """Share of the largest piece in all that is marked."""
    sureness: float
    """Mean probability of the marked pixels; 0 if there is none."""
    unsure: float
    """Pixels of a probability between .2 and .8, in parts of the marked ones."""
    mirror: float
    """Intersection over union with the mask of the mirror image."""
    agreement: float
    """Least intersection over union of two of several segmenters; 1 for a single one."""


@dataclass(frozen=True)
class Prediction:
    """A mask, its scores, and the verdict."""

    probability: np.ndarray
    """(h, w) float32 in [0, 1]; 0 outside of the largest piece."""
    scores: Scores
    verdict: str
    """`good`, or what is wrong: nobody, small, large, short, in pieces, unsure, disputed."""


def predict(segmenter: Segmenter, images: Sequence[np.ndarray]) -> list[Prediction]:
    """Predict the masks of crops, (h, w, 3) uint8 each; probabilities are means with the mirror image.

    Raises:
        CsviError: the segmenter, which may be somebody's own, gives something else than probabilities of the pixels.
    """
    images = list(images)
    plain = _opinions(segmenter, images)
    mirrored = _opinions(segmenter, [image[:, ::-1] for image in images])
    return [
        _judged([(one + other[:, ::-1]) / 2 for one, other in zip(*both, strict=True)], both, segmenter.sureness)
        for both in zip(plain, mirrored, strict=True)
    ]


def _opinions(segmenter: Segmenter, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Ask a segmenter for its opinions; raises `CsviError` if they are not one probability a pixel of each image."""
    opinions = segmenter.opinions(images)
    if len(opinions) != len(images):
        raise CsviError(f"the segmenter {segmenter.name} gives {len(opinions)} answers to {len(images)} images")
    for image, answers in zip(images, opinions, strict=True):
        for answer in answers:
            found, wanted = np.shape(answer), image.shape[:2]
            if found != wanted:
                raise CsviError(f"the segmenter {segmenter.name} gives {found} numbers for {wanted} pixels of an image")
            if not (np.min(answer) >= 0 and np.max(answer) <= 1):  # nor NaN
                raise CsviError(
                    f"the segmenter {segmenter.name} gives numbers from {np.min(answer):.3g} to {np.max(answer):.3g}: "
                    "probabilities are from 0 to 1"
                )
    return opinions


def _judged(means: list[np.ndarray], both: tuple[list[np.ndarray], list[np.ndarray]], sureness: float) -> Prediction:
    """Judge the mask of one crop; `means` and `both` hold an entry a segmenter."""
    probability = np.stack(means).mean(axis=0)
    plain, mirrored = (np.stack(answers).mean(axis=0) > 0.5 for answers in (both[0], [m[:, ::-1] for m in both[1]]))
    marked = probability > 0.5
    largest, whole = _largest_piece(probability, marked)
    inside = marked & largest
    count = int(inside.sum())
    rows = np.flatnonzero(inside.any(1))
    between = (probability > UNSURE[0]) & (probability < UNSURE[1])
    scores = Scores(
        area=count / marked.size,
        height=(int(rows[-1]) - int(rows[0]) + 1) / len(marked) if count else 0.0,
        whole=whole,
        sureness=float(probability[inside].mean()) if count else 0.0,
        unsure=float(between.sum() / count) if count else 1.0,
        mirror=iou(plain, mirrored),
        agreement=min((iou(a > 0.5, b > 0.5) for i, a in enumerate(means) for b in means[:i]), default=1.0),
    )
    return Prediction(np.where(largest, probability, np.float32(0)), scores, _verdict(scores, sureness))


def _verdict(scores: Scores, sureness: float) -> str:
    faults = {
        "nobody": scores.area == 0,
        "small": scores.area < AREA[0],
        "large": scores.area > AREA[1],
        "short": scores.height < HEIGHT,
        "in pieces": scores.whole < WHOLE,
        "unsure": scores.sureness < sureness,
        "disputed": scores.agreement < AGREEMENT,
    }
    return next((fault for fault, found in faults.items() if found), GOOD)


def _largest_piece(probability: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, float]:
    """Find the piece with most marked pixels, soft edges included, and its share of all marked pixels."""
    pieces, count = ndimage.label(probability > 0.1)
    if not marked.any():
        return np.zeros_like(marked), 0.0
    sizes = np.bincount(pieces[marked], minlength=count + 1)
    return pieces == sizes.argmax(), float(sizes.max() / sizes.sum())


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks, (h, w) bool; 1 if both are empty."""
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0
