"""The contrast across modalities against a literal loop, in float64."""

import pytest
import torch

from csvi.losses import center_contrast

# Identity 1 has 2 visible and 2 infrared images, 0 has 3 and 1, 2 has 1 and 1, 3 has 1 and none.
IDENTITY = torch.tensor([1, 0, 2, 1, 0, 1, 2, 3, 0, 1])
MODALITY = torch.tensor([0, 1, 1, 0, 0, 1, 0, 0, 0, 1])
TEMPERATURE = 0.5


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(len(IDENTITY), 5, dtype=torch.float64, requires_grad=True)


def unit(vector):
    return vector / vector.norm()


def literal(features):
    total = 0.0
    for modality in (0, 1):
        asked = {}
        for n in range(4):
            images = [b for b in range(len(IDENTITY)) if (IDENTITY[b], MODALITY[b]) == (n, 1 - modality)]
            if images:
                asked[n] = unit(sum(features[b] for b in images) / len(images))
        entropies = []
        for b in range(len(IDENTITY)):
            if MODALITY[b] == modality and int(IDENTITY[b]) in asked:
                scores = {n: torch.exp(unit(features[b]) @ center / TEMPERATURE) for n, center in asked.items()}
                entropies.append(-torch.log(scores[int(IDENTITY[b])] / sum(scores.values())))
        total += sum(entropies) / len(entropies)
    return total


def test_each_image_is_named_by_the_centers_of_the_other_modality(features):
    both = center_contrast(features, IDENTITY, MODALITY, TEMPERATURE), literal(features)
    torch.testing.assert_close(*both, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, features)[0] for loss in both))


def test_it_does_not_depend_on_the_order_of_images(features):
    order = torch.randperm(len(IDENTITY))
    expected = center_contrast(features, IDENTITY, MODALITY)
    torch.testing.assert_close(center_contrast(features[order], IDENTITY[order], MODALITY[order]), expected)


def test_a_batch_of_one_modality_has_no_loss_and_a_gradient(features):
    loss = center_contrast(features, IDENTITY, torch.zeros_like(MODALITY))
    assert loss == 0
    assert (torch.autograd.grad(loss, features)[0] == 0).all()
