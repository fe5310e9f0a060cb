"""The loss of cells against a literal loop, in float64."""

import pytest
import torch

from csvi.losses import cell_identity_loss

# Identity 1 has 2 visible and 2 infrared images, 0 has 2 and 1, 2 has 1 and 1, 3 has 1 and none.
IDENTITY = torch.tensor([1, 0, 2, 1, 0, 1, 2, 3, 0, 1])
MODALITY = torch.tensor([0, 1, 1, 0, 0, 1, 0, 0, 0, 1])
HAS_MASK = torch.tensor([True, True, True, True, True, False, True, True, False, True])
TEMPERATURE = 0.5


@pytest.fixture
def seen():
    """Features, the share of each cell that is person, and what the background looks like."""
    torch.manual_seed(0)
    count = len(IDENTITY)
    features = torch.randn(count, 5, 3, 2, dtype=torch.float64)
    return features, torch.rand(count, 1, 3, 2, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)


def found(seen, has_mask=None, order=slice(None)):
    features, person, background = seen
    has_mask = None if has_mask is None else has_mask[order]
    labels = IDENTITY[order], MODALITY[order]
    return cell_identity_loss(features[order], *labels, person[order], background, TEMPERATURE, has_mask)


def literal(seen, has_mask):
    features, person, background = seen

    def unit(vector):
        return vector / vector.norm()

    def center(identity, modality):
        images = [b for b in range(len(IDENTITY)) if (IDENTITY[b], MODALITY[b], has_mask[b]) == (identity, modality, 1)]
        if not images:
            return None
        means = [sum(person[b, 0, y, x] * features[b, :, y, x] for y in range(3) for x in range(2)) for b in images]
        return unit(sum(mean / person[b].sum() for mean, b in zip(means, images, strict=True)) / len(images))

    total = 0.0
    for modality in (0, 1):
        asked = {n: c for n in range(4) if (c := center(n, 1 - modality)) is not None}
        entropies = []
        for b in range(len(IDENTITY)):
            own = int(IDENTITY[b])
            if MODALITY[b] != modality or own not in asked or not has_mask[b]:
                continue
            for y in range(3):
                for x in range(2):
                    cell = unit(features[b, :, y, x])
                    scores = {n: torch.exp(cell @ c / TEMPERATURE) for n, c in asked.items()}
                    beside = torch.exp(cell @ unit(background[0]) / TEMPERATURE)
                    whole, share = sum(scores.values()) + beside, person[b, 0, y, x]
                    entropies.append(-share * torch.log(scores[own] / whole) - (1 - share) * torch.log(beside / whole))
        total += sum(entropies) / len(entropies)
    return total


@pytest.mark.parametrize("has_mask", [None, HAS_MASK], ids=["all masks", "some masks"])
def test_each_cell_is_its_identity_by_the_centers_of_the_other_modality_or_background(seen, has_mask):
    for tensor in seen:
        tensor.requires_grad_()
    both = found(seen, has_mask), literal(seen, torch.ones(10) if has_mask is None else has_mask)
    torch.testing.assert_close(*both, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, seen) for loss in both]
    torch.testing.assert_close(*gradients)


def test_it_does_not_depend_on_the_order_of_images(seen):
    torch.testing.assert_close(found(seen, HAS_MASK, torch.randperm(10)), found(seen, HAS_MASK))


def test_a_batch_of_one_modality_has_no_loss_and_a_gradient(seen):
    features, person, background = seen
    visible = torch.zeros_like(MODALITY)
    loss = cell_identity_loss(features.requires_grad_(), IDENTITY, visible, person, background)
    assert loss == 0
    assert (torch.autograd.grad(loss, features)[0] == 0).all()
