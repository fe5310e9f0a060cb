"""The part head against Eq. 3, written out."""

import pytest
import torch

from csvi.model.parts import PartHead


def built(parts=6, channels=5, dim=4, identities=3, **settings):
    torch.manual_seed(0)
    module = PartHead(channels, identities, parts, dim, **settings).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def literal(module, features, height, share_classifier):
    """Eq. 3 for one image at a time: strip, average, FC(gamma_p), FC(gamma_s)."""
    embedded, scores = [], []
    for image in features:
        for p in range(6):
            strip = image[:, p * height // 6 : (p + 1) * height // 6, :]
            average = torch.stack([channel.sum() / channel.numel() for channel in strip])
            part = average @ module.embed.weight[p] + module.embed.bias[p]
            classifier = 0 if share_classifier else p
            embedded.append(part)
            scores.append(part @ module.classify.weight[classifier] + module.classify.bias[classifier])
    return torch.stack(embedded).view(len(features), 6, -1), torch.stack(scores).view(len(features), 6, -1)


@pytest.mark.parametrize("share_classifier", [False, True])
def test_part_head_is_eq_3(share_classifier):
    module = built(norm=False, share_classifier=share_classifier)
    features = torch.randn(3, 5, 18, 4, dtype=torch.float64)
    embedded, scores = module(features)
    expected_embedded, expected_scores = literal(module, features, 18, share_classifier)
    torch.testing.assert_close(embedded, expected_embedded)
    torch.testing.assert_close(scores, expected_scores)


def test_batch_norm_is_one_for_each_part():
    plain, normed = built(norm=False), built(norm=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.ones_(normed.norm.weight)
    torch.nn.init.zeros_(normed.norm.bias)
    features = torch.randn(7, 5, 12, 3, dtype=torch.float64)
    embedded, scores = normed(features)
    before, _ = plain(features)
    for p in range(6):
        alone = torch.nn.BatchNorm1d(4).double()
        torch.testing.assert_close(embedded[:, p], alone(before[:, p]))
        torch.testing.assert_close(scores[:, p], embedded[:, p] @ normed.classify.weight[p] + normed.classify.bias[p])


@pytest.mark.parametrize("height", [6, 9, 17, 18, 20])
def test_any_height_has_six_parts_that_cover_it(height):
    module = built(norm=False)
    features = torch.randn(2, 5, height, 4, dtype=torch.float64, requires_grad=True)
    embedded, scores = module(features)
    assert embedded.shape == (2, 6, 4)
    assert scores.shape == (2, 6, 3)
    embedded.abs().sum().backward()
    assert (features.grad != 0).all()  # no row is left out


def test_parts_do_not_share_their_embedding():
    module = built(norm=False)
    same = torch.ones(1, 5, 12, 2, dtype=torch.float64)
    embedded, _ = module(same)
    assert len({tuple(part) for part in embedded[0].tolist()}) == 6


def test_a_shared_classifier_has_the_parameters_of_one():
    def size(module):
        return sum(p.numel() for p in module.classify.parameters())

    assert size(built()) == 6 * size(built(share_classifier=True)) == 6 * (4 * 3 + 3)


def test_initial_weights_are_xavier_for_each_part():
    module = PartHead(200, 50, parts=2, dim=100)
    bound = (6 / (200 + 100)) ** 0.5
    assert 0.95 * bound < module.embed.weight.abs().max() <= bound
    assert module.embed.weight.std().item() == pytest.approx((2 / (200 + 100)) ** 0.5, rel=0.05)
    assert (module.embed.bias == 0).all()
