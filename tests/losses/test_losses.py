"""Every loss against a literal loop over the sums of its equation, in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from csvi.errors import CsviError
from csvi.losses import hetero_center_loss, identity_loss, identity_mask_loss, mask_loss, mask_target

# Three identities, in no order: 0 has 2 visible and 3 infrared images, 1 has 3 and 1, 2 has 1 and 2.
IDENTITY = torch.tensor([1, 0, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0])
MODALITY = torch.tensor([0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1])
PARTS, DIM, CLASSES = 6, 4, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def features():
    return torch.randn(len(IDENTITY), PARTS, DIM, dtype=torch.float64)


def members(identity, modality):
    return [b for b in range(len(IDENTITY)) if IDENTITY[b] == identity and MODALITY[b] == modality]


def literal_center_loss(features, squared=False, normalize=False, reduction="sum"):
    total = 0.0
    for p in range(PARTS):  # Eq. 6
        for n in (0, 1, 2):  # Eq. 7
            center = []
            for m in (0, 1):  # Eq. 8
                images = members(n, m)
                parts = [features[b, p] / features[b, p].norm() if normalize else features[b, p] for b in images]
                center.append(sum(parts) / len(images))
            distance = (center[0] - center[1]).pow(2).sum()
            total += distance if squared else distance.sqrt()
    return total / (3 if reduction == "mean" else 1)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_hetero_center_loss_is_eq_6_to_8(squared, normalize, reduction):
    x = features().requires_grad_()
    found = hetero_center_loss(x, IDENTITY, MODALITY, squared, normalize, reduction)
    expected = literal_center_loss(x, squared, normalize, reduction)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (found, expected)))


@pytest.mark.parametrize("choice", [{"reduction": "Mean"}, {"distance": "L1"}])
def test_hetero_center_loss_refuses_what_it_does_not_know(choice):
    ((name, value),) = choice.items()
    with pytest.raises(CsviError, match=f"^{name} is '{value}': it must be one of "):
        hetero_center_loss(torch.ones(4, 3), torch.arange(4) // 2, torch.arange(4) % 2, **choice)


def test_hetero_center_loss_does_not_depend_on_the_order_of_images():
    x, order = features(), torch.randperm(len(IDENTITY))
    expected = hetero_center_loss(x, IDENTITY, MODALITY)
    torch.testing.assert_close(hetero_center_loss(x[order], IDENTITY[order], MODALITY[order]), expected)


def test_hetero_center_loss_does_not_depend_on_which_labels_identities_have():
    x, renamed = features(), torch.tensor([40, 7, 13])
    torch.testing.assert_close(
        hetero_center_loss(x, renamed[IDENTITY], MODALITY), hetero_center_loss(x, IDENTITY, MODALITY)
    )


def test_hetero_center_loss_does_not_depend_on_which_modality_is_which():
    x = features()
    torch.testing.assert_close(hetero_center_loss(x, IDENTITY, 1 - MODALITY), hetero_center_loss(x, IDENTITY, MODALITY))


def test_an_identity_with_one_modality_does_not_count_towards_the_center_loss():
    x = features()
    alone = torch.where(IDENTITY == 1, 3 + MODALITY, IDENTITY)  # identity 1 falls into two of one modality each
    without = IDENTITY != 1
    torch.testing.assert_close(
        hetero_center_loss(x, alone, MODALITY, reduction="mean"),
        hetero_center_loss(x[without], IDENTITY[without], MODALITY[without], reduction="mean"),
    )


def test_center_loss_of_one_modality_is_zero_with_a_gradient():
    x = features().requires_grad_()
    loss = hetero_center_loss(x, IDENTITY, torch.zeros_like(MODALITY), reduction="mean")
    loss.backward()
    assert loss == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_center_loss_has_a_finite_gradient_where_centers_coincide(squared, normalize):
    x = torch.ones(4, PARTS, DIM, dtype=torch.float64, requires_grad=True)
    loss = hetero_center_loss(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), squared, normalize)
    loss.backward()
    assert loss == 0
    assert x.grad.isfinite().all()


def literal_identity_loss(scores):
    total = 0.0
    for m in (0, 1):
        images = [b for b in range(len(IDENTITY)) if MODALITY[b] == m]
        for p in range(PARTS):  # Eq. 4, 15
            for b in images:  # Eq. 5, a mean over the images; 1/L is a constant of the weight
                probability = scores[b, p].exp() / scores[b, p].exp().sum()
                for c in range(CLASSES):
                    target = float(IDENTITY[b] == c)
                    total -= target * float(probability[c].log()) / len(images)
    return total


def test_identity_loss_is_eq_4_and_5():
    scores = torch.randn(len(IDENTITY), PARTS, CLASSES, dtype=torch.float64)
    found = identity_loss(scores, IDENTITY, MODALITY)
    assert float(found) == pytest.approx(literal_identity_loss(scores), rel=1e-12)


def test_identity_loss_of_uniform_scores_is_chance():
    scores = torch.zeros(len(IDENTITY), PARTS, CLASSES, dtype=torch.float64)
    chance = 2 * PARTS * torch.tensor(CLASSES, dtype=torch.float64).log()
    torch.testing.assert_close(identity_loss(scores, IDENTITY, MODALITY), chance)


def test_identity_loss_of_a_missing_modality_is_nothing():
    scores = torch.randn(len(IDENTITY), PARTS, CLASSES, dtype=torch.float64)
    visible = MODALITY == 0
    both = identity_loss(scores, IDENTITY, MODALITY)
    alone = [identity_loss(scores[m], IDENTITY[m], MODALITY[m]) for m in (visible, ~visible)]
    torch.testing.assert_close(sum(alone), both)


def test_mask_loss_is_eq_17_with_soft_targets():
    logits = torch.randn(len(IDENTITY), 1, 3, 2, dtype=torch.float64)
    mask = torch.rand_like(logits)
    total = 0.0
    for m in (0, 1):
        images = [b for b in range(len(IDENTITY)) if MODALITY[b] == m]
        for b in images:
            for y in range(3):
                for x in range(2):
                    person, true = 1 / (1 + float((-logits[b, 0, y, x]).exp())), float(mask[b, 0, y, x])
                    entropy = -true * torch.tensor(person).log() - (1 - true) * torch.tensor(1 - person).log()
                    total += float(entropy) / (len(images) * 6)
    assert float(mask_loss(logits, mask, MODALITY)) == pytest.approx(total, rel=1e-6)


def test_identity_mask_loss_puts_each_person_in_the_channel_of_its_identity():
    logits = torch.randn(len(IDENTITY), 1 + CLASSES, 3, 2, dtype=torch.float64)
    mask = torch.rand(len(IDENTITY), 1, 3, 2, dtype=torch.float64)
    total = 0.0
    for m in (0, 1):
        images = [b for b in range(len(IDENTITY)) if MODALITY[b] == m]
        for b in images:
            for y in range(3):
                for x in range(2):
                    probability = logits[b, :, y, x].exp() / logits[b, :, y, x].exp().sum()
                    target = torch.zeros(1 + CLASSES, dtype=torch.float64)
                    target[0], target[1 + IDENTITY[b]] = 1 - mask[b, 0, y, x], mask[b, 0, y, x]
                    for c in range(1 + CLASSES):
                        total -= float(target[c] * probability[c].log()) / (len(images) * 6)
    assert float(identity_mask_loss(logits, mask, IDENTITY, MODALITY)) == pytest.approx(total, rel=1e-12)


def of_a_batch():
    """Each loss with what it takes, floating numbers in 32 bits."""
    mask, logits = torch.rand(len(IDENTITY), 1, 3, 2), torch.randn(len(IDENTITY), 1 + CLASSES, 3, 2)
    return {
        "identity": (identity_loss, torch.randn(len(IDENTITY), PARTS, CLASSES), IDENTITY, MODALITY),
        "center": (hetero_center_loss, features().float(), IDENTITY, MODALITY),
        "mask": (mask_loss, logits[:, :1], mask, MODALITY),
        "identity mask": (identity_mask_loss, logits, mask, IDENTITY, MODALITY),
        "mask target": (mask_target, mask, 2, 1, 2),
    }


LOSSES = ("identity", "center", "mask", "identity mask", "mask target")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_computed_in_32_bits(name, dtype):
    loss, *arguments = of_a_batch()[name]
    short = [value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value for value in arguments]
    exact = [value.float() if torch.is_tensor(value) and value.is_floating_point() else value for value in short]
    found = loss(*short)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(*exact))  # rounded once, where it came in
    torch.testing.assert_close(found, loss(*arguments), rtol=0.02, atol=0.005)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_does_not_reach_a_loss(name):
    """A matrix product, as in the center loss, would otherwise be computed in 16 bits."""
    loss, *arguments = of_a_batch()[name]
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*arguments)
    assert torch.equal(found, loss(*arguments))


def test_cross_entropy_agrees_with_torch_for_one_part_and_modality():
    scores = torch.randn(4, 1, CLASSES, dtype=torch.float64)
    labels = torch.tensor([0, 3, 2, 4])
    torch.testing.assert_close(
        identity_loss(scores, labels, torch.zeros(4, dtype=torch.int64)), F.cross_entropy(scores[:, 0], labels)
    )


def test_mask_targets_are_areas_on_the_grid_of_the_decoder():
    mask = torch.zeros(1, 1, 8, 12)
    mask[0, 0, :4, 4:6] = 1
    expected = torch.tensor([[0, 0.5, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(mask_target(mask, 2, 4, cell=4)[0, 0], expected)  # the fourth column lies beyond the image


def test_mask_targets_of_whole_cells_are_plain_area_averages():
    mask = torch.rand(2, 1, 32, 16)
    assert torch.equal(mask_target(mask, 8, 4, cell=4), F.interpolate(mask, (8, 4), mode="area"))


def with_some_masks(name):
    """A mask loss of a batch, its gradient, and which images have a mask: no infrared image of identity 0 has one."""
    loss, logits, *rest = of_a_batch()[name]
    has_mask = (IDENTITY != 0) | (MODALITY == 0)
    return loss, logits.double(), [x.double() if x.is_floating_point() else x for x in rest], has_mask


@pytest.mark.parametrize("name", ["mask", "identity mask"])
def test_mask_losses_are_means_over_the_images_that_have_a_mask(name):
    loss, logits, rest, has_mask = with_some_masks(name)
    logits.requires_grad_()
    found = loss(logits, *rest, has_mask)
    expected = loss(logits[has_mask], *(values[has_mask] for values in rest))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradient, of_expected = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    torch.testing.assert_close(gradient, of_expected)
    assert (gradient[~has_mask] == 0).all()


@pytest.mark.parametrize("name", ["mask", "identity mask"])
def test_a_modality_without_masks_adds_nothing_to_a_mask_loss(name):
    loss, logits, rest, _ = with_some_masks(name)
    visible = MODALITY == 0
    expected = loss(logits[visible], *(values[visible] for values in rest))
    torch.testing.assert_close(loss(logits, *rest, visible), expected, rtol=1e-12, atol=0)
    logits.requires_grad_()
    nobody = loss(logits, *rest, torch.zeros_like(visible))
    nobody.backward()
    assert nobody == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", ["mask", "identity mask"])
def test_where_all_have_a_mask_nothing_is_changed_bit_for_bit(name):
    loss, logits, *rest = of_a_batch()[name]
    assert torch.equal(loss(logits, *rest, torch.ones(len(logits), dtype=torch.bool)), loss(logits, *rest))


def test_a_mask_loss_by_hand_where_half_of_the_masks_are_missing():
    logits = torch.tensor([0.0, 9.0, 0.0, -9.0]).view(4, 1, 1, 1)
    has_mask = torch.tensor([True, False, True, False])
    found = mask_loss(logits, torch.zeros(4, 1, 1, 1), torch.tensor([0, 0, 1, 1]), has_mask)
    torch.testing.assert_close(found, torch.tensor(2 * math.log(2)))
