"""Losses that keep what a network computes several of apart: maps of parts, generated features."""

from torch import Tensor

from csvi.losses.loss import full_precision


@full_precision
def separation(maps: Tensor) -> Tensor:
    """Overlap of an image's maps (B, P, h, w): of each two the sum of their product over the positions.

    The mean over the images and the P (P - 1) / 2 pairs, as the public code of MPANet (CVPR 2021) computes it; of one
    map 0.
    """
    positions = maps.flatten(2)  # (B, P, h w)
    pairs = maps.shape[1] * (maps.shape[1] - 1) // 2
    return (positions @ positions.mT).triu(1).sum() / (len(maps) * max(pairs, 1))


@full_precision
def feature_orthogonality(first: Tensor, second: Tensor) -> Tensor:
    """Size of the inner product of the two features that were generated from an image, both (B, D), not normalised.

    Summed over the B images and divided by 3B, the rows of these and the original features together, as the public
    code of DEEN (CVPR 2023) computes it. Features of its ResNet are not negative; those of other networks may be, and
    the plain inner product would then have no least value: opposite features would grow.
    """
    return (first * second).sum(1).abs().sum() / (3 * len(first))
