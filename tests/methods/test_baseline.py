"""The losses of Eq. 9 as the settings weigh them, and what the Baseline says about them."""

import math
import re

import pytest
import torch

from csvi.config import TrainConfig
from csvi.losses import hetero_center_loss, identity_loss

TO_THE_LETTER = {"center_weight": 1.0, "center_squared": False, "center_normalize": False}  # Eq. 7


def outputs(method, batch):
    """Part features and scores of the head, in training mode."""
    return method.net.head(method.net.features(batch.image, batch.modality))


def test_terms_are_those_of_eq_9_weighted(build, batch):
    method = build("baseline", **TO_THE_LETTER | {"identity_weight": 0.7, "center_weight": 0.3})
    terms, (parts, scores) = method(batch, 0), outputs(method, batch)
    assert list(terms) == ["identity", "center"]
    torch.testing.assert_close(terms["identity"], 0.7 * identity_loss(scores, batch.identity, batch.modality))
    torch.testing.assert_close(terms["center"], 0.3 * hetero_center_loss(parts, batch.identity, batch.modality))


@pytest.mark.parametrize(
    "reading", [{"center_squared": True}, {"center_normalize": True}, {"center_reduction": "mean"}], ids=str
)
def test_each_reading_of_the_center_loss_can_be_set(build, batch, reading):
    method = build("baseline", **TO_THE_LETTER | reading)
    parts, _ = outputs(method, batch)
    settings = {name.removeprefix("center_"): value for name, value in reading.items()}
    expected = hetero_center_loss(parts, batch.identity, batch.modality, **settings)
    torch.testing.assert_close(method(batch, 0)["center"], expected)
    assert expected != hetero_center_loss(parts, batch.identity, batch.modality)


@pytest.mark.parametrize("name", ["baseline", "coseg"])
def test_the_weight_of_the_center_loss_grows(build, batch, name):
    method = build(name, center_ramp=100)
    found = [method(batch, step) for step in (0, 1, 50, 99, 100, 1000)]
    for term in ("center", "coseg/center") if name == "coseg" else ("center",):
        shares = [float((terms[term] / found[-1][term]).detach()) for terms in found]
        assert shares == pytest.approx([0, 0.01, 0.5, 0.99, 1, 1], rel=1e-5)
    assert len({float(terms["identity"].detach()) for terms in found}) == 1


def test_without_a_ramp_the_weight_is_whole_from_the_first_step(build, batch):
    method = build("baseline")
    assert method(batch, 0) == method(batch, 1000)


def test_settings_reach_the_network(build):
    method = build("coseg", parts=4, part_dim=8, part_norm=False, share_classifier=True)
    for head in (method.net.head, method.head):
        assert head.embed.weight.shape == (4, 16, 8)
        assert head.classify.weight.shape == (1, 8, 4)
        assert isinstance(head.norm, torch.nn.Identity)
    assert (method.net.height, method.net.width) == (48, 40)


@pytest.mark.parametrize(("weights", "factor"), [("imagenet", 0.2), ("none", 1)])
def test_a_pretrained_backbone_learns_slower(build, weights, factor):
    method = build("coseg", weights=weights)
    backbone, rest = method.groups(TrainConfig(lr=0.5, lr_pretrained=0.2))
    assert {id(p) for p in backbone["params"]} == {id(p) for p in method.net.backbone.parameters()}
    assert backbone["lr"] == 0.5 * factor
    assert "lr" not in rest  # that of the run


CHANCE = 12 * math.log(4)  # six parts, two modalities, four people
COLLAPSED = {"identity": CHANCE, "center": 0.1}


@pytest.mark.parametrize(
    ("change", "step", "advice"),
    [
        ({}, 200, r"features have collapsed to one point \(identity loss 16\.6 at chance 16\.6, center loss 0\.100\)"),
        ({"center": 40.0}, 200, "the center loss leaves nothing to the identity loss"),
        ({}, 190, None),  # seldom enough to be read
        ({"identity": 13.0}, 200, None),  # learns
        ({"identity": 13.0, "center": 40.0}, 200, None),
        ({"center": 5.0}, 200, None),  # features of the two spectra differ still
        ({"center": 0.0}, 200, None),  # without a center loss nothing is pulled together
        ({}, 100, None),  # its weight is growing still
    ],
)
def test_a_center_loss_that_rules_is_told(build, change, step, advice):
    found = build("baseline", parts=6, center_ramp=100).advise(COLLAPSED | change, step)
    assert found is None if advice is None else re.match(f"{advice}.*: lower --method.center_weight", found)


def test_chance_is_that_of_eq_5_where_losses_are_divided_by_the_classes(build):
    method = build("baseline", parts=6, class_mean=True)
    assert "at chance 4.2, center loss 0.010" in method.advise({"identity": CHANCE / 4, "center": 0.01}, 200)
    assert method.advise({"identity": CHANCE / 8, "center": 0.01}, 200) is None


@pytest.mark.parametrize(("name", "divided"), [("coseg", ["identity", "coseg/identity"]), ("decode", ["identity"])])
def test_the_1_over_l_of_eq_5(build, batch, name, divided):
    for channels, masks in (("one", []), ("identity", [f"{name}/segmentation"])):
        plain, mean = (build(name, mask_channels=channels, class_mean=on)(batch, 0) for on in (False, True))
        for term in plain:
            torch.testing.assert_close(mean[term], plain[term] / (4 if term in [*divided, *masks] else 1))
