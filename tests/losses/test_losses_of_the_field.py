"""The losses of the field's methods: as their public code computes them, and by label in batches of any make-up."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from csvi.losses import (
    batch_hard_triplet,
    center_cluster,
    center_pair_margin,
    cross_entropy,
    cross_modal_center_contrastive,
    discriminative_center,
    feature_orthogonality,
    hetero_center_loss,
    hetero_center_triplet,
    identity_loss,
    modality_shared_enhancement,
    mutual_learning,
    separation,
    soft_cross_entropy,
    squared_difference_triplet,
    weighted_regularized_triplet,
)

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_the_field.json").read_text())
FEATURES = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in GOLDENS["features"].items()}

PUBLIC = {
    "AGW batch hard": lambda x, y, m: batch_hard_triplet(x, y, 0.3),
    "AGW batch hard, 10 times": lambda x, y, m: batch_hard_triplet(10 * x, y, 0.3),
    "AGW weighted": lambda x, y, m: weighted_regularized_triplet(x, y),
    "AGW weighted, 10 times": lambda x, y, m: weighted_regularized_triplet(10 * x, y),
    "CAJ squared": lambda x, y, m: squared_difference_triplet(x, y),
    "CAJ not squared": lambda x, y, m: squared_difference_triplet(x, y, squared=False),
    "CAJ squared, 60 times": lambda x, y, m: squared_difference_triplet(60 * x, y),
    "CAJ+ soft": lambda x, y, m: soft_cross_entropy(x, FEATURES["4 target scores"]),
    "HC squared": lambda x, y, m: hetero_center_loss(x, y, m, squared=True),
    "HC squared, normalised": lambda x, y, m: hetero_center_loss(x, y, m, squared=True, normalize=True),
    "HC l1": lambda x, y, m: hetero_center_loss(x, y, m, distance="l1"),
    "HC cosine": lambda x, y, m: hetero_center_loss(x, y, m, distance="cosine"),
    "HcTri": lambda x, y, m: hetero_center_triplet(x, y, m, 0.3),
    "HcTri, other labels": lambda x, y, m: hetero_center_triplet(x, y, m, 0.3),
    "MTL, norm 5": lambda x, y, m: cross_modal_center_contrastive(5 * F.normalize(x), y, m, 0.5),
    "MTL one root, norm 0.2": lambda x, y, m: cross_modal_center_contrastive(
        0.2 * F.normalize(x), y, m, 0.5, second_root=False
    ),
    "DEEN pairs": lambda x, y, m: center_pair_margin(*x.chunk(2), y, m, 0.2),
    "DEEN pairs, other labels": lambda x, y, m: center_pair_margin(*x.chunk(2), y, m, 0.2),
    "DEEN orthogonality": lambda x, y, m: feature_orthogonality(*x.chunk(3)[1:]),
    "PMT shared enhancement": lambda x, y, m: modality_shared_enhancement(x, y, m),
    "PMT discriminative center": lambda x, y, m: discriminative_center(x, y),
    "PMT batch hard": lambda x, y, m: batch_hard_triplet(x, y, 0.1),
    "PMT batch hard within modalities": lambda x, y, m: batch_hard_triplet(x, y, 0.1, m),
    "MPANet center cluster": lambda x, y, m: center_cluster(x, y, 0.7),
}
"""What gives each golden, of features, identity and modality."""

# Four identities, in no order: 0 has 2 visible and 3 infrared images, 1 has 3 and 1, 2 has 1 and 2, 3 one visible only.
IDENTITY = torch.tensor([1, 0, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 3])
MODALITY = torch.tensor([0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0])
B, DIM = len(IDENTITY), 4

BY_LABEL = {
    "batch hard": lambda x, y, m: batch_hard_triplet(x, y, 0.3),
    "batch hard within modalities": lambda x, y, m: batch_hard_triplet(x, y, 0.3, m),
    "weighted": lambda x, y, m: weighted_regularized_triplet(x, y),
    "squared difference": lambda x, y, m: squared_difference_triplet(x, y),
    "hetero center": lambda x, y, m: hetero_center_loss(x, y, m, margin=0.1),
    "hetero center l1": lambda x, y, m: hetero_center_loss(x, y, m, distance="l1"),
    "hetero center cosine": lambda x, y, m: hetero_center_loss(x, y, m, distance="cosine"),
    "hetero center triplet": lambda x, y, m: hetero_center_triplet(x, y, m, 0.3),
    "center contrastive": lambda x, y, m: cross_modal_center_contrastive(x, y, m, 1.5),
    "center pairs": lambda x, y, m: center_pair_margin(x, x.roll(1, 1) * 0.5, y, m, 0.2),
    "center cluster": lambda x, y, m: center_cluster(x, y, 0.7),
    "shared enhancement": lambda x, y, m: modality_shared_enhancement(x, y, m),
    "discriminative center": lambda x, y, m: discriminative_center(x, y),
}
LOSSES = BY_LABEL | {
    "cross-entropy": lambda x, y, m: cross_entropy(x, y % DIM, 0.1),
    "soft cross-entropy": lambda x, y, m: soft_cross_entropy(x, x.roll(1, 1)),
    "mutual learning": lambda x, y, m: mutual_learning(x, x.roll(1, 1)),
    "orthogonality": lambda x, y, m: feature_orthogonality(x, x.roll(1, 1)),
    "separation": lambda x, y, m: separation(x.view(-1, 2, 2, 1)),
}


def features():
    return torch.randn(B, DIM, dtype=torch.float64, generator=torch.manual_seed(0))


def value_and_gradient(loss, x, *labels):
    x = x.detach().requires_grad_()
    value = loss(x, *labels)
    return value.detach(), torch.autograd.grad(value, x)[0]


def near(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)


# What the public code computes


@pytest.mark.parametrize("name", PUBLIC)
def test_value_and_gradient_are_those_of_the_public_code(name):
    golden = GOLDENS["cases"][name]
    labels = (torch.tensor(golden.get(key, [])) for key in ("identity", "modality"))
    value, gradient = value_and_gradient(PUBLIC[name], FEATURES[golden["features"]], *labels)
    near(value, golden["value"])
    near(gradient, golden["grad"])


def test_every_golden_is_tested():
    assert GOLDENS["cases"].keys() == PUBLIC.keys()


def test_weighted_triplet_of_normalised_features_is_that_of_the_public_code():
    identity = torch.tensor(GOLDENS["cases"]["AGW weighted"]["identity"])
    near(weighted_regularized_triplet(F.normalize(FEATURES["12 rows"]), identity), GOLDENS["weighted, normalised"])


def test_the_losses_of_mpanet_are_those_of_a_step_of_its_public_code():
    step = GOLDENS["mpanet step"]
    number = {
        name: torch.tensor(step[name], dtype=torch.float64) for name in step if name not in ("identity", "modality")
    }
    identity, modality = torch.tensor(step["identity"]), torch.tensor(step["modality"])
    maps_in, visible = number["input"].requires_grad_(), number["visible"].requires_grad_()

    maps = F.conv2d(maps_in, number["maps.weight"], number["maps.bias"]).sigmoid()
    parts = (maps[:, :, None] * maps_in[:, None]).mean((3, 4)).flatten(1)
    pooled = torch.cat([parts, maps_in.mean((2, 3))], 1)
    neck = F.batch_norm(pooled, None, None, number["neck.weight"], number["neck.bias"], training=True)

    def by_modality(of_visible, of_infrared):
        return torch.where(modality[:, None] == 0, neck @ of_visible.mT, neck @ of_infrared.mT)

    own = by_modality(visible, number["infrared"])
    terms = {
        "separation": separation(maps),
        "center cluster": center_cluster(pooled, identity, 0.7),
        "joint entropy": cross_entropy(neck @ number["joint"].mT, identity),
        "own entropies": identity_loss(own, identity, modality),
        "mutual learning": mutual_learning(own, by_modality(number["infrared teacher"], number["visible teacher"])),
    }
    for name, term in terms.items():
        near(term, step[name])
    weights = {"separation": 0.5, "mutual learning": 2.5}
    loss = sum(weights.get(name, 1) * term for name, term in terms.items())
    near(loss, step["loss"])
    for gradient, name in zip(
        torch.autograd.grad(loss, (maps_in, visible)), ("input grad", "visible grad"), strict=True
    ):
        near(gradient, step[name])


# By label


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_images_does_not_matter(name):
    x, order = features(), torch.randperm(B, generator=torch.manual_seed(1))
    value, gradient = value_and_gradient(LOSSES[name], x, IDENTITY, MODALITY)
    of_order = value_and_gradient(LOSSES[name], x[order], IDENTITY[order], MODALITY[order])
    assert gradient.any()
    near(of_order[0], value)
    near(of_order[1], gradient[order])


@pytest.mark.parametrize("name", BY_LABEL)
def test_only_which_labels_are_equal_matters(name):
    renamed, x = torch.tensor([40, 7, 13, 0]), features()
    near(BY_LABEL[name](x, renamed[IDENTITY], MODALITY), BY_LABEL[name](x, IDENTITY, MODALITY))
    near(BY_LABEL[name](x, IDENTITY, 1 - MODALITY), BY_LABEL[name](x, IDENTITY, MODALITY))


def members(x, identity, modality=None):
    """The rows of an identity, or of it in a modality."""
    of = IDENTITY.eq(identity)
    return x[of if modality is None else of & MODALITY.eq(modality)]


def centers(x):
    """Of the identities that have both modalities, in each."""
    return [[members(x, n, m).mean(0) for m in (0, 1)] for n in range(3)]


def apart(a, b):
    return (a - b).norm().clamp(min=1e-6)


def literal_hetero_center_triplet(x):
    own = [(n, c) for n, pair in enumerate(centers(x)) for c in pair] + [(3, members(x, 3).mean(0))]
    return [
        max(apart(a, c) for k, c in own if k == n) - min(apart(a, c) for k, c in own if k != n) + 0.3 for n, a in own
    ]


def literal_center_contrastive(x):
    terms = []
    for k, pair in enumerate(centers(x)):
        for n, (v, t) in enumerate(centers(x)):
            far = [apart(c, (v + t) / 2) for c in pair]
            terms.append(sum(e**2 if k == n else (1.5 - e.sqrt()).clamp(min=0) ** 2 for e in far))
    return terms


def literal_center_pairs(x):
    both, terms = [centers(x), centers(x.roll(1, 1) * 0.5)], []
    for n in range(3):
        for m in (0, 1):
            across = apart(both[0][n][1 - m], both[1][n][m])
            others = [min(apart(of[n][m], of[k][m]) for k in range(3) if k != n) for of in reversed(both)]
            bounds = zip((1, 0.5, 0.5), [apart(both[0][n][m], both[1][n][m]).detach(), *others], strict=True)
            terms.append(sum(weight * (across - bound + 0.2).clamp(min=0) for weight, bound in bounds))
    return terms  # half of the sum of two modalities is their mean


def literal_center_cluster(x):
    center = [members(x, n).mean(0) for n in range(4)]
    pull = [(row - center[n]).norm() for n in range(3) for row in members(x, n)]  # 3 lies on its center
    push = [(0.7 - apart(center[n], center[k])).clamp(min=0) for n in range(4) for k in range(4) if k != n]
    return [sum(pull) / B + sum(push) / len(push)]


def literal_shared_enhancement(x):
    terms = [[], []]
    for i in range(B):
        of = [[], []]
        for j in range(B):
            if j != i and IDENTITY[j] == IDENTITY[i]:
                of[int(MODALITY[j] != MODALITY[i])].append(apart(x[i], x[j]))
        if all(of):
            terms[MODALITY[i]].append((sum(of[1]) / len(of[1]) - sum(of[0]) / len(of[0])) ** 2)
    return [sum(term) / len(term) for term in terms]


def literal_discriminative_center(x):
    own, others = [], []
    for n in range(4):
        distance = torch.stack([apart(members(x, n).mean(0), row) for row in x])
        own += list(members(distance, n)) if n != 3 else []  # 3 lies on its center
        other = distance[IDENTITY.ne(n)]
        others.append(other[other < other.mean()].mean())
    return [sum(own) / len(own) / (sum(others) / 4)]


@pytest.mark.parametrize(
    ("name", "literal", "scale"),
    [
        ("hetero center triplet", literal_hetero_center_triplet, 1),
        ("center contrastive", literal_center_contrastive, 1),
        ("center pairs", literal_center_pairs, 1),
        ("center cluster", literal_center_cluster, 0.3),  # so that centers are within the margin
        ("shared enhancement", literal_shared_enhancement, 1),
        ("discriminative center", literal_discriminative_center, 1),
    ],
)
def test_identities_with_unequal_numbers_of_images_are_as_a_literal_loop_has_them(name, literal, scale):
    def mean(x):
        terms = literal(x)
        return torch.stack([term.clamp(min=0) for term in terms]).mean()

    x = features() * scale
    for found, expected in zip(
        value_and_gradient(BY_LABEL[name], x, IDENTITY, MODALITY), value_and_gradient(mean, x), strict=True
    ):
        near(found, expected)


@pytest.mark.parametrize(
    "name",
    [
        "hetero center",
        "hetero center l1",
        "hetero center cosine",
        "center contrastive",
        "center pairs",
        "shared enhancement",
    ],
)
def test_an_identity_with_one_modality_does_not_count(name):
    x, known = features(), IDENTITY != 3
    near(BY_LABEL[name](x, IDENTITY, MODALITY), BY_LABEL[name](x[known], IDENTITY[known], MODALITY[known]))


def test_batch_hard_within_modalities_is_the_sum_of_both_modalities_alone():
    x = features()
    alone = [batch_hard_triplet(x[m], IDENTITY[m], 0.3) for m in (MODALITY == 0, MODALITY == 1)]
    near(batch_hard_triplet(x, IDENTITY, 0.3, MODALITY), sum(alone))


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_the_hetero_center_loss_is_a_sum_over_identities_and_parts_of_what_exceeds_the_margin(distance):
    parts, margin = features().view(B, 2, DIM // 2), 0.2
    total = 0.0
    for pair in centers(parts):
        for v, t in zip(*pair, strict=True):
            apart = {"l2": (v - t).norm(), "l1": (v - t).abs().mean(), "cosine": 1 - v @ t / v.norm() / t.norm()}
            total += (apart[distance] - margin).clamp(min=0)
    near(hetero_center_loss(parts, IDENTITY, MODALITY, margin=margin, distance=distance), total)


# Batches of any make-up

BATCHES = {
    "one modality": (IDENTITY, torch.zeros_like(MODALITY)),
    "one identity": (torch.zeros_like(IDENTITY), MODALITY),
    "an image an identity": (torch.arange(B), MODALITY),
    "each modality its own identities": (2 * IDENTITY + MODALITY, MODALITY),
}


@pytest.mark.parametrize("coincide", [False, True])
@pytest.mark.parametrize("name", BY_LABEL)
def test_value_and_gradient_are_finite_whatever_a_batch_holds(name, coincide):
    x = torch.ones(B, DIM, dtype=torch.float64) if coincide else features()
    for batch, labels in BATCHES.items():
        for value in value_and_gradient(BY_LABEL[name], x, *labels):
            assert value.isfinite().all(), batch
    for value in value_and_gradient(BY_LABEL[name], x[:1], IDENTITY[:1], MODALITY[:1]):
        assert value.isfinite().all()


@pytest.mark.parametrize(
    "name", ["batch hard", "batch hard within modalities", "hetero center triplet", "discriminative center"]
)
def test_one_identity_alone_has_nothing_to_be_told_from(name):
    value, gradient = value_and_gradient(BY_LABEL[name], features(), *BATCHES["one identity"])
    assert value == 0
    assert not gradient.any()


def test_an_image_on_its_center_gets_no_gradient_from_the_center_cluster_loss():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [9.0, 5.0], [9.0, 7.0]], dtype=torch.float64)
    value, gradient = value_and_gradient(lambda x: center_cluster(x, torch.tensor([0, 0, 1, 1]), 0.7), x)
    near(value, 0.5)
    near(gradient, [[0, 0], [0, 0], [0, -0.25], [0, 0.25]])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_computed_in_32_bits(name):
    x = features().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](x, IDENTITY, MODALITY)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, LOSSES[name](x.float(), IDENTITY, MODALITY), rtol=1e-6, atol=1e-6)


def test_the_floor_of_distances_is_not_counted_in_32_bits_either():
    x = features()
    found = discriminative_center(x.float(), IDENTITY)
    torch.testing.assert_close(found.double(), discriminative_center(x, IDENTITY), rtol=1e-5, atol=0)


class NoWait(TorchDispatchMode):
    """Fails where a program would wait for a device to know a number: to read it, or how many rows a mask has."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket._qualified_op_name not in ("aten::_local_scalar_dense", "aten::nonzero")
        assert func.overloadpacket != torch.ops.aten.index or all(i is None or i.dtype != torch.bool for i in args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits_for_the_device(name):
    x = features()
    with NoWait():
        value_and_gradient(LOSSES[name], x, IDENTITY, MODALITY)
    for waiting in (lambda: x[x > 0], lambda: x.sum().item(), lambda: bool(x.any())):
        with pytest.raises(AssertionError), NoWait():
            waiting()


# Identity


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_mean_over_all_images_summed_over_the_parts(smoothing):
    scores = torch.randn(B, 2, DIM, dtype=torch.float64, generator=torch.manual_seed(2))
    target = (1 - smoothing) * F.one_hot(IDENTITY, DIM).double() + smoothing / DIM
    expected = -(target[:, None] * scores.log_softmax(2)).sum() / B
    near(cross_entropy(scores, IDENTITY, smoothing), expected)
    near(sum(cross_entropy(part, IDENTITY, smoothing) for part in scores.unbind(1)), expected)


def test_cross_entropy_is_half_of_the_identity_loss_where_modalities_are_equally_many():
    scores, identity, modality = features()[:12], IDENTITY[:12], torch.tensor([0, 1] * 6)
    near(2 * cross_entropy(scores, identity), identity_loss(scores, identity, modality))


@pytest.mark.parametrize("loss", [soft_cross_entropy, mutual_learning])
def test_a_target_gets_no_gradient(loss):
    scores, target = (features().roll(n, 1).requires_grad_() for n in (0, 1))
    loss(scores, target).backward()
    assert scores.grad.any()
    assert target.grad is None


def test_mutual_learning_of_equal_scores_is_zero_and_otherwise_the_divergence_from_the_student():
    scores = features()
    assert mutual_learning(scores, scores + 1) == pytest.approx(0, abs=1e-12)
    student, teacher = scores.softmax(1), scores.flip(1).softmax(1)
    near(mutual_learning(scores, scores.flip(1)), F.kl_div(teacher.log(), student, reduction="batchmean"))


def test_separation_by_hand():
    maps = torch.tensor([[[1.0, 0.5]], [[0.0, 1.0]], [[1.0, 1.0]]], dtype=torch.float64)[None]  # (1, 3, 1, 2)
    near(separation(maps), (0.5 + 1.5 + 1) / 3)
    assert separation(maps[:, :1]) == 0
