"""Metrics of masks, worked out by hand."""

from math import nan

import pytest
import torch

from csvi.evaluate.mask_iou import best_constant_mask, mask_iou


def masks(*rows):
    """Each a row of 0 and 1: `masks("0110", "1100")`."""
    return torch.tensor([[[pixel == "1" for pixel in row]] for row in rows])


@pytest.mark.parametrize(
    ("predicted", "true", "iou"),
    [
        ("0110", "0110", 1),
        ("0110", "0011", 1 / 3),
        ("1111", "0100", 1 / 4),
        ("0100", "1111", 1 / 4),
        ("1100", "0011", 0),
        ("0000", "0110", 0),
        ("0000", "0000", nan),
        ("0110", "0000", nan),
    ],
)
def test_intersection_over_union(predicted, true, iou):
    assert mask_iou(masks(predicted), masks(true)).tolist() == pytest.approx([iou], nan_ok=True)


def test_one_mask_against_many():
    iou = mask_iou(masks("0110"), masks("0110", "0011", "1111", "0000"))
    assert iou.tolist() == pytest.approx([1, 1 / 3, 1 / 2, nan], nan_ok=True)


def test_best_constant_mask():
    # Mean 1, 2/3, 1/3, 0. Cut above 1/3: 1100 with IoU 1/2, 1, 2/3; above 2/3: 1000 with 1, 1/2, 1/3; 1110 with
    # 1/3, 2/3, 1. The first and the last are worse than the middle one.
    mask, iou = best_constant_mask(masks("1000", "1100", "1110"))
    assert mask.tolist() == [[True, True, False, False]]
    assert iou == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)


def test_best_constant_mask_leaves_out_masks_of_nobody():
    mask, iou = best_constant_mask(masks("0110", "0000", "0110", "0000", "0000"))
    assert (mask.tolist(), iou) == ([[False, True, True, False]], 1)


def test_best_constant_mask_of_equal_masks_is_that_mask():
    mask, iou = best_constant_mask(masks("0110", "0110"))
    assert mask.tolist() == [[False, True, True, False]]
    assert iou == 1


def test_best_constant_mask_may_hold_what_most_masks_do_not():
    # Half of the masks empty but for one pixel: keeping a pixel that one of three has beats dropping it.
    mask, iou = best_constant_mask(masks("1111", "1000", "1111", "1110"))
    assert mask.tolist() == [[True, True, True, True]]
    assert iou == pytest.approx((1 + 1 / 4 + 1 + 3 / 4) / 4)
