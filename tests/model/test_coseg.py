"""The co-segmentation branch against Eq. 10 to 19, written out in loops."""

import pytest
import torch
from torch.nn import functional as F

from csvi.config import Config, CosegConfig, LossConfig, ModelConfig
from csvi.model.auxiliary import Features
from csvi.model.coseg import CCWG, CoSegmentation, CoSegmentationPlus, cross_modality_centers
from csvi.model.decoder import MaskDecoder
from csvi.model.losses import identity_mask_loss, mask_loss, reid_losses

# Identity 0: 2 visible, 3 infrared images; 1: 3 and 1; 2: 1 and 2; 3: one infrared image alone. In no order.
IDENTITY = torch.tensor([1, 0, 2, 0, 1, 0, 3, 1, 2, 0, 1, 2, 0])
MODALITY = torch.tensor([0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1])
CHANNELS, CLASSES = 5, 4


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(len(IDENTITY), CHANNELS, 3, 2, dtype=torch.float64)


def literal_center(features, n):
    """Eq. 10 and 11; the mean of a modality's images counts half however many they are."""
    means = []
    for m in (0, 1):
        images = [b for b in range(len(IDENTITY)) if IDENTITY[b] == n and MODALITY[b] == m]
        if images:
            center = torch.zeros(CHANNELS, dtype=torch.float64)
            for b in images:
                for c in range(CHANNELS):
                    gap = sum(float(features[b, c, y, x]) for y in range(3) for x in range(2)) / 6
                    center[c] += gap / len(images)
            means.append(center)
    return sum(means) / len(means)


def test_center_is_eq_10_and_11_with_each_modality_counting_half(features):
    center = cross_modality_centers(features, IDENTITY, MODALITY)
    for b, n in enumerate(IDENTITY.tolist()):
        torch.testing.assert_close(center[b], literal_center(features, n))


@pytest.mark.parametrize("source", ["leave-one-out", "other-modality"])
def test_center_of_other_images(features, source):
    center = cross_modality_centers(features, IDENTITY, MODALITY, source)
    pooled = features.mean((2, 3))
    for b in range(len(IDENTITY)):
        means = []
        for m in (0, 1):
            others = [
                i
                for i in range(len(IDENTITY))
                if IDENTITY[i] == IDENTITY[b]
                and MODALITY[i] == m
                and i != b
                and (source != "other-modality" or m != MODALITY[b])
            ]
            if others:
                means.append(pooled[others].mean(0))
        expected = sum(means) / len(means) if means else torch.zeros(CHANNELS, dtype=torch.float64)
        torch.testing.assert_close(center[b], expected)


@pytest.mark.parametrize("source", ["leave-one-out", "other-modality"])
def test_weights_from_others_do_not_see_the_image_itself(features, source):
    ccwg = CCWG(CHANNELS, source=source).double()
    features.requires_grad_()
    for b in range(len(IDENTITY)):
        (grad,) = torch.autograd.grad(ccwg(features, IDENTITY, MODALITY)[b].sum(), features)
        assert (grad[b] == 0).all()


def test_center_with_k_and_k_images_is_the_mean_of_all(features):
    center = cross_modality_centers(features[:6], torch.zeros(6, dtype=int), torch.tensor([0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(center[0], features[:6].mean((0, 2, 3)))


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_weights_are_eq_12_and_the_same_for_all_images_of_an_identity(features, activation):
    ccwg = CCWG(CHANNELS, activation).double()
    torch.nn.init.normal_(ccwg.fc.bias)
    weights = ccwg(features, IDENTITY, MODALITY)
    assert weights.shape == (len(IDENTITY), CHANNELS, 1, 1)
    for b in range(len(IDENTITY)):
        center = literal_center(features, int(IDENTITY[b]))
        for c in range(CHANNELS):
            expected = ccwg.fc.bias[c] + sum(ccwg.fc.weight[c, d] * center[d] for d in range(CHANNELS))
            if activation == "sigmoid":
                expected = 1 / (1 + (-expected).exp())
            torch.testing.assert_close(weights[b, c, 0, 0], expected)


def test_weights_go_by_label_whatever_the_order_and_the_labels(features):
    ccwg, order = CCWG(CHANNELS).double(), torch.randperm(len(IDENTITY))
    expected = ccwg(features, IDENTITY, MODALITY)
    renamed = torch.tensor([31, 2, 77, 5])[IDENTITY]
    torch.testing.assert_close(ccwg(features[order], renamed[order], MODALITY[order]), expected[order])


def test_weights_of_an_identity_do_not_see_the_others(features):
    ccwg = CCWG(CHANNELS).double()
    features.requires_grad_()
    ccwg(features, IDENTITY, MODALITY)[IDENTITY == 0].sum().backward()
    assert (features.grad[IDENTITY == 0] != 0).all()
    assert (features.grad[IDENTITY != 0] == 0).all()


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_gradient_of_the_ccwg_and_the_selection(features, activation):
    ccwg = CCWG(CHANNELS, activation).double()
    few = [0, 1, 3, 4, 6]

    def select(x, weight, bias):
        ccwg_state = {"fc.weight": weight, "fc.bias": bias}
        return torch.func.functional_call(ccwg, ccwg_state, (x, IDENTITY[few], MODALITY[few])) * x

    inputs = (features[few].requires_grad_(), ccwg.fc.weight, ccwg.fc.bias)
    assert torch.autograd.gradcheck(select, inputs)


def test_decoder_gives_a_quarter_of_the_image_size():
    decoder = MaskDecoder(32, (8, 4))
    # A 288 x 144 image has 18 x 9 features (stride 16); Eq. 14 has masks of W/4 x H/4.
    assert decoder(torch.randn(2, 32, 18, 9)).shape == (2, 1, 72, 36)


def test_each_decoder_block_is_a_deconvolution_and_two_convolutions():
    decoder = MaskDecoder(32, (8, 4), identities=2)
    for block, (channels, width) in zip(decoder, [(32, 8), (8, 4)], strict=False):
        deconvolutions = [layer for layer in block if isinstance(layer, torch.nn.ConvTranspose2d)]
        convolutions = [layer for layer in block if isinstance(layer, torch.nn.Conv2d)]
        assert [(d.in_channels, d.out_channels, d.stride) for d in deconvolutions] == [(channels, width, (2, 2))]
        assert [(c.out_channels, c.kernel_size) for c in convolutions] == [(width, (3, 3))] * 2


def built(loss=None, **coseg):
    torch.manual_seed(0)
    config = Config(model=ModelConfig(part_dim=3), coseg=CosegConfig(widths=(6, 4), **coseg), loss=loss or LossConfig())
    return CoSegmentation(CHANNELS, CLASSES, config).double()


def batch():
    torch.manual_seed(1)
    mask = torch.rand(len(IDENTITY), 1, 48, 32, dtype=torch.float64)
    return {"identity": IDENTITY, "modality": MODALITY, "mask": mask}


def test_decoder_and_part_module_see_the_selected_features_of_eq_13(features):
    branch = built()
    outputs = branch(Features(features), IDENTITY, MODALITY)
    weights = branch.ccwg(features, IDENTITY, MODALITY)
    selected = torch.empty_like(features)
    for b in range(len(IDENTITY)):
        for c in range(CHANNELS):
            selected[b, c] = weights[b, c, 0, 0] * features[b, c]
    torch.testing.assert_close(outputs["mask_logits"], branch.decoder(selected))
    parts, scores = branch.part_module(selected)
    torch.testing.assert_close(outputs["selected_parts"], parts)
    torch.testing.assert_close(outputs["selected_scores"], scores)


def test_losses_are_the_three_terms_of_eq_18(features):
    settings = LossConfig(identity=0.5, center=0.25, segmentation=2.0)
    branch, data = built(), batch()
    outputs = branch(Features(features), IDENTITY, MODALITY)
    terms = branch.losses(outputs, data, settings)
    target = F.avg_pool2d(data["mask"], 4)  # area averaging to W/4 x H/4
    segmentation = 2.0 * mask_loss(outputs["mask_logits"], target, MODALITY)
    reid = reid_losses(outputs["selected_parts"], outputs["selected_scores"], IDENTITY, MODALITY, settings)
    assert set(terms) == {"coseg/segmentation", "coseg/identity", "coseg/center"}
    torch.testing.assert_close(terms["coseg/segmentation"], segmentation)
    torch.testing.assert_close(terms["coseg/identity"], reid["identity"])
    torch.testing.assert_close(terms["coseg/center"], reid["center"])


def test_mask_channels_by_identity(features):
    branch, data = built(mask_channels="identity"), batch()
    outputs = branch(Features(features), IDENTITY, MODALITY)
    assert outputs["mask_logits"].shape == (len(IDENTITY), 1 + CLASSES, 12, 8)
    expected = identity_mask_loss(outputs["mask_logits"], F.avg_pool2d(data["mask"], 4), IDENTITY, MODALITY)
    torch.testing.assert_close(branch.losses(outputs, data, LossConfig())["coseg/segmentation"], expected)


def test_without_a_head_there_is_segmentation_alone(features):
    branch = built(head=False)
    outputs = branch(Features(features), IDENTITY, MODALITY)
    assert set(outputs) == {"mask_logits"}
    assert set(branch.losses(outputs, batch(), LossConfig())) == {"coseg/segmentation"}
    assert branch.part_module is None


@pytest.mark.parametrize("channels", ["one", "identity"])
def test_predicted_masks_are_probabilities_of_person_for_unknown_identities(features, channels):
    branch = built(mask_channels=channels).eval()
    masks = branch.predict_masks(Features(features), IDENTITY + 1000, MODALITY)
    logits = branch(Features(features), IDENTITY, MODALITY)["mask_logits"]
    if channels == "one":
        expected = 1 / (1 + (-logits).exp())
    else:
        expected = (logits[:, 1:].exp().sum(1) / logits.exp().sum(1)).unsqueeze(1)
    torch.testing.assert_close(masks, expected)


@pytest.mark.parametrize("reader", ["decoder", "head"])
def test_weights_go_to_one_reader(features, reader):
    branch = built(weights_to=reader)
    weights = branch.ccwg(features, IDENTITY, MODALITY)
    outputs = branch(Features(features), IDENTITY, MODALITY)
    of_decoder, of_head = (weights * features, features) if reader == "decoder" else (features, weights * features)
    torch.testing.assert_close(outputs["mask_logits"], branch.decoder(of_decoder))
    torch.testing.assert_close(outputs["selected_parts"], branch.part_module(of_head)[0])


@pytest.mark.parametrize("detach", [False, True])
def test_the_heads_losses_reach_the_weights_unless_detached(features, detach):
    branch = built(detach=detach)
    outputs = branch(Features(features.requires_grad_()), IDENTITY, MODALITY)
    grad, to_features = torch.autograd.grad(
        outputs["selected_parts"].square().sum(), (branch.ccwg.fc.weight, features), allow_unused=True
    )
    assert (grad is None) == detach
    assert (to_features != 0).any()


def test_weight_of_the_head(features):
    outputs = built()(Features(features), IDENTITY, MODALITY)
    whole, part = (built(head_weight=weight).losses(outputs, batch(), LossConfig()) for weight in (1.0, 0.25))
    for name in ("identity", "center"):
        torch.testing.assert_close(part[f"coseg/{name}"], 0.25 * whole[f"coseg/{name}"])
    torch.testing.assert_close(part["coseg/segmentation"], whole["coseg/segmentation"])


def test_default_widths_follow_the_backbone():
    branch = CoSegmentation(320, CLASSES, Config(model=ModelConfig(part_dim=3)))
    assert [block[0].out_channels for block in list(branch.decoder)[:2]] == [80, 20]


def test_coseg_plus_is_coseg_whose_weights_are_of_the_other_modality(features):
    literal = built(weights_from="other-modality")
    config = Config(model=ModelConfig(part_dim=3), coseg=CosegConfig(widths=(6, 4), weights_from="own"))
    plus = CoSegmentationPlus(CHANNELS, CLASSES, config).double()
    plus.load_state_dict(literal.state_dict())
    for name, output in plus(Features(features), IDENTITY, MODALITY).items():
        torch.testing.assert_close(output, literal(Features(features), IDENTITY, MODALITY)[name])
    assert config.coseg.weights_from == "own"  # of whoever asked
