"""What a segmenter is: crops of people in, probabilities of a person at each pixel out."""

from collections.abc import Sequence

import numpy as np


class Segmenter:
    """The base of every segmenter; `name` and `probabilities` are all that one must have.

    One outside of the package is named `module:Class` and built without arguments, or `module:Class=FILE` and built
    with the path of that file.
    """

    name: str
    """Name in files and tables."""
    spec = ""
    """What `find_segmenter` builds it from again in a worker of Ray, whose current folder is another."""
    sureness: float = 0.0
    """Least sureness of a mask that is used, see `csvi.masks.quality`; it belongs to the weights."""
    usual: float = 0.0
    """Median sureness on images that the segmenter was made for; 0 if that is not known."""

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute the probability of the person in the middle at each pixel.

        Args:
            images: crops of one person each, (h, w, 3) uint8 RGB, of any sizes.

        Returns:
            (h, w) float32 in [0, 1] for each.
        """
        raise NotImplementedError

    def opinions(self, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Compute the probabilities of each segmenter that this one is made of, for each image."""
        return [[probability] for probability in self.probabilities(images)]


class Several(Segmenter):
    """The mean of several segmenters; how far they agree says most about a mask (docs/masks.md)."""

    def __init__(self, segmenters: Sequence[Segmenter]):
        self.segmenters = list(segmenters)
        self.name = ",".join(segmenter.name for segmenter in segmenters)
        self.spec = ",".join(segmenter.spec for segmenter in segmenters)
        self.sureness = max(segmenter.sureness for segmenter in segmenters)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Average the probabilities of all."""
        return [np.stack(opinions).mean(axis=0) for opinions in self.opinions(images)]

    def opinions(self, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Compute what each of them says of each image."""
        answers = [segmenter.probabilities(images) for segmenter in self.segmenters]
        return [list(of_one) for of_one in zip(*answers, strict=True)]
