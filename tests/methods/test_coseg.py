"""The co-segmentation branch against Eq. 10 to 19, written out in loops."""

import pytest
import torch
from torch.nn import functional as F

from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.losses import identity_mask_loss, mask_loss
from csvi.methods.coseg import CCWG, CoSeg, cross_modality_centers
from csvi.methods.coseg_plus import CoSegPlus
from csvi.model.mask_decoder import full_size

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


@pytest.mark.parametrize("settings", [{}, {"bias": 0.25}])
def test_ccwg_begins_with_its_bias_and_xaviers_weights(settings):
    fc = CCWG(64, **settings).fc
    assert (fc.bias == settings.get("bias", 1)).all()  # nearly all channels pass as they are
    bound = (6 / (64 + 64)) ** 0.5  # Glorot and Bengio 2010, Eq. 16
    assert 0.99 * bound < fc.weight.abs().max() <= bound
    assert float(fc.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.fixture
def built(build):
    """The method in float64; decoder and heads give the same whenever they are asked, as in a step."""
    return lambda name="coseg", **settings: build(name, **settings).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(
        image=torch.randn(len(IDENTITY), 3, 48, 40, dtype=torch.float64),
        modality=MODALITY,
        identity=IDENTITY,
        mask=torch.rand(len(IDENTITY), 1, 48, 40, dtype=torch.float64),
    )


def area(mask):
    """Average masks over the cells of the decoder, 4 pixels wide; 16 does not divide the width: two lie beyond it."""
    return F.avg_pool2d(F.pad(mask, (0, 8)), 4)


def features_and_weights(method, batch):
    features = method.net.features(batch.image, batch.modality)
    return features, method.ccwg(features, batch.identity, batch.modality)


def expected_terms(method, batch, of_decoder, of_head):
    """The terms of Eq. 18 that the branch adds, from what its decoder and its head read."""
    parts, scores = method.head(of_head)
    terms = {f"coseg/{name}": term for name, term in method.reid_losses(parts, scores, batch, 0).items()}
    segmentation = mask_loss(method.decoder(of_decoder), area(batch.mask), batch.modality)
    return terms | {"coseg/segmentation": method.settings.segmentation_weight * segmentation}


def assert_terms(found, expected):
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term)


def test_decoder_and_head_see_the_selected_features_of_eq_13(built, batch):
    method = built(segmentation_weight=2.0, identity_weight=0.5, center_weight=0.25)
    features, weights = features_and_weights(method, batch)
    selected = torch.empty_like(features)
    for b in range(len(IDENTITY)):
        for c in range(features.shape[1]):
            selected[b, c] = weights[b, c, 0, 0] * features[b, c]
    terms = method(batch, 0)
    assert list(terms) == ["identity", "center", "coseg/segmentation", "coseg/identity", "coseg/center"]
    assert_terms(terms, expected_terms(method, batch, selected, selected))
    assert_terms(terms, method.reid_losses(*method.net.head(features), batch, 0))  # of Eq. 9 as without the branch


def test_mask_channels_by_identity(built, batch):
    method = built(mask_channels="identity")
    logits = method.mask_logits(batch)
    assert logits.shape == (len(IDENTITY), 1 + CLASSES, 12, 12)
    expected = identity_mask_loss(logits, area(batch.mask), IDENTITY, MODALITY)
    torch.testing.assert_close(method(batch, 0)["coseg/segmentation"], expected)


def test_the_bias_of_the_ccwg_can_be_set(built):
    assert (built().ccwg.fc.bias == 1).all()
    assert (built(ccwg_bias=-0.5).ccwg.fc.bias == -0.5).all()


def test_without_a_head_there_is_segmentation_alone(built, batch):
    method = built(head=False)
    assert set(method(batch, 0)) == {"identity", "center", "coseg/segmentation"}
    assert not any(name.startswith("head.") for name, _ in method.named_parameters())


@pytest.mark.parametrize("channels", ["one", "identity"])
def test_predicted_masks_are_probabilities_of_person_for_unknown_identities(built, batch, channels):
    method = built(mask_channels=channels).eval()
    logits = method.mask_logits(batch)
    if channels == "one":
        expected = 1 / (1 + (-logits).exp())
    else:
        expected = (logits[:, 1:].exp().sum(1) / logits.exp().sum(1)).unsqueeze(1)
    masks = method.predict_masks(batch._replace(identity=IDENTITY + 1000, mask=None))
    torch.testing.assert_close(masks, full_size(expected, 48, 40, 4))


@pytest.mark.parametrize("reader", ["decoder", "head"])
def test_weights_go_to_one_reader(built, batch, reader):
    method = built(weights_to=reader)
    features, weights = features_and_weights(method, batch)
    selected = weights * features
    both = (selected, features) if reader == "decoder" else (features, selected)
    assert_terms(method(batch, 0), expected_terms(method, batch, *both))


@pytest.mark.parametrize("detach", [False, True])
def test_the_heads_losses_reach_the_weights_unless_detached(built, batch, detach):
    method = built(detach=detach)
    terms = method(batch, 0)
    grad, to_features = torch.autograd.grad(
        terms["coseg/identity"] + terms["coseg/center"],
        (method.ccwg.fc.weight, next(method.net.backbone.shared.parameters())),
        allow_unused=True,
    )
    assert (grad is None) == detach
    assert (to_features != 0).any()


def test_segmentation_reaches_the_backbone_and_the_weights(built, batch):
    method = built()
    method(batch, 0)["coseg/segmentation"].backward()
    for parameters in (method.net.backbone.visible, method.net.backbone.infrared, method.ccwg):
        assert all(parameter.grad.abs().sum() > 0 for parameter in parameters.parameters())
    assert all(parameter.grad is None for parameter in method.net.head.parameters())


def test_weight_of_the_head(built, batch):
    whole, part = (built(head_weight=weight)(batch, 0) for weight in (1.0, 0.25))
    for name in ("identity", "center"):
        torch.testing.assert_close(part[f"coseg/{name}"], 0.25 * whole[f"coseg/{name}"])
    torch.testing.assert_close(part["coseg/segmentation"], whole["coseg/segmentation"])


def test_no_other_images_have_a_center(features):
    labels = torch.zeros(len(features), dtype=torch.long)
    with pytest.raises(CsviError, match="must be one of own, leave-one-out, other-modality"):
        cross_modality_centers(features, labels, labels, "Own")


def test_the_extra_head_has_parameters_of_its_own(built):
    method = built()
    own = {id(p) for p in method.head.parameters()}
    assert own
    assert not own & {id(p) for p in method.net.parameters()}


def test_coseg_plus_without_what_is_ours_but_the_weights_is_coseg_with_those_of_the_other_modality(built, batch):
    literal, plus = built(weights_from="other-modality"), built("coseg+", contrast_weight=0.0, decoder="paper")
    plus.load_state_dict(literal.state_dict())
    assert_terms(plus(batch, 0), literal(batch, 0))
    assert CoSegPlus.Settings().weights_from == "other-modality"
    assert any(term != built()(batch, 0)[name] for name, term in literal(batch, 0).items())


def millions(*modules):
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def test_parameters_are_those_of_table_4(real_trunk):
    """ResNet-50, 395 identities: 32.1 M at test, classifiers included, and 52.6 M in training."""
    with torch.device("meta"):
        method = CoSeg(CoSeg.Settings(), 395, 288, 144)
    assert (millions(method), millions(method.net)) == pytest.approx(CoSeg.published.parameters, rel=0.03)
    assert millions(method.net) == pytest.approx(32.1, rel=0.02)
    assert [block[0].out_channels for block in list(method.decoder)[:2]] == [512, 128]  # widths follow the backbone
