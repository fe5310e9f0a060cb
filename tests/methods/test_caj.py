"""CAJ and CAJ+ against their public code: views, losses on rows of two views, flipped test features."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from csvi.config import DataConfig
from csvi.data import Modality
from csvi.data.channel_views import ExchangeChannels
from csvi.data.views import Erase, Flip, Grayscale, Shift
from csvi.errors import CsviError
from csvi.losses import squared_difference_triplet, weighted_regularized_triplet
from csvi.methods import build_method
from csvi.methods.caj import views_of_visible
from csvi.model.attention import NonLocal
from csvi.model.net import EmbeddingNet
from csvi.model.two_stream import Route
from csvi.runs import load_config
from csvi.train.cost import random_batch

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_agw_and_caj.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"


@pytest.fixture
def batch(build, batch_of):
    return batch_of(build("caj").views(DataConfig()))


def views_of(file):
    """The views of a method as a file of settings trains it."""
    config = load_config(CONFIGS / f"{file}.yaml")
    return build_method(config, identities=4).views(config.data)


def scores_of(method, batch):
    """Features before the batch norm, and scores."""
    pooled = method.net.pooled(batch.image, batch.modality)
    return pooled, method.classify(method.net.neck(pooled))


@pytest.mark.parametrize("name", ["caj", "caj+"])
def test_the_network_is_agws(config_of, real_trunk, name):
    with torch.device("meta"):
        method = build_method(config_of(name, backbone="resnet50"), identities=395)
    sizes = [sum(p.numel() for p in module.parameters()) + 2048 for module in (method, method.net)]
    assert sizes == GOLDENS["parameters"]["AGW"]
    assert method.net.pool.p == 3


def test_the_network_of_agws_baseline_can_be_taken(build):
    net = build("caj", base=True).net
    assert net.pool.p == 1
    assert not any(isinstance(module, NonLocal) for module in net.modules())


@pytest.mark.parametrize(
    ("squared", "triplet"), [(True, squared_difference_triplet), (False, weighted_regularized_triplet)]
)
def test_losses_are_of_all_rows_whatever_their_view(build, batch, squared, triplet):
    method = build("caj", squared=squared, triplet_weight=0.7)
    terms, (pooled, scores) = method(batch, 0), scores_of(method, batch)
    assert len(scores) == 24  # 8 images in two views, and 8 infrared images
    torch.testing.assert_close(terms["identity"], F.cross_entropy(scores, batch.identity))
    torch.testing.assert_close(terms["triplet"], 0.7 * triplet(pooled, batch.identity))
    assert terms.keys() == {"identity", "triplet"}


def test_caj_plus_adds_the_cross_entropy_of_the_first_view_with_the_second(build, batch):
    method = build("caj+", agreement_weight=0.3)
    torch.nn.init.normal_(method.classify.weight)
    terms, (_, scores) = method(batch, 0), scores_of(method, batch)
    assert torch.equal(batch.view, torch.tensor([0] * 8 + [1] * 8 + [0] * 8))
    first, second = scores[:8], scores[8:16].softmax(1)
    expected = -sum(p * first[i].log_softmax(0)[c] for i, row in enumerate(second) for c, p in enumerate(row)) / 8
    torch.testing.assert_close(terms.pop("agreement"), 0.3 * expected)
    others = build("caj")
    others.load_state_dict(method.state_dict())
    assert terms == others(batch, 0)


def test_only_the_first_view_is_moved_by_the_agreement(build, batch):
    method = build("caj+")
    scores = torch.randn(24, 4, requires_grad=True)
    method.terms(torch.randn(24, 8), scores, batch)["agreement"].backward()
    assert (scores.grad[:8] != 0).all()
    assert (scores.grad[8:] == 0).all()


def test_views_find_each_other_wherever_infrared_rows_stand():
    rows, modality = torch.arange(9), torch.tensor([1, 0, 0, 1, 0, 1, 0, 0, 0])
    for route in (modality, Route.of(modality, 9, rows.device)):
        first, second = views_of_visible(rows, route)
        assert first.tolist() == [1, 2, 4]
        assert second.tolist() == [6, 7, 8]


def test_views_find_each_other_wherever_the_rows_of_a_view_stand():
    rows, modality = torch.arange(7), torch.tensor([0, 1, 0, 0, 0, 1, 1])
    for route in (modality, Route.of(modality, 7, rows.device)):
        first, second = views_of_visible(rows, route, view=torch.tensor([1, 0, 0, 1, 0, 0, 0]))
        assert first.tolist() == [2, 4]
        assert second.tolist() == [0, 3]


def test_the_views_are_the_public_codes():
    basic, ratio, fill = (Flip(0.5), Shift(10)), (0.3, 1 / 0.3), (152, 144, 129)
    erase = {p: Erase(p, (0.02, 0.4), ratio, fill, "uniform", 100) for p in (0.5, 0.6)}
    assert views_of("caj") == {
        Modality.VISIBLE: ((*basic, Grayscale(0), erase[0.5]), (*basic, erase[0.5], ExchangeChannels(1))),
        Modality.INFRARED: ((*basic, erase[0.5], ExchangeChannels(0.75, 0.5)),),
    }
    assert views_of("caj+") == {
        Modality.VISIBLE: ((*basic, Grayscale(0.1), erase[0.6]), (*basic, erase[0.6], ExchangeChannels(1))),
        Modality.INFRARED: ((*basic, erase[0.5], ExchangeChannels(0.75, 0.6)),),
    }
    assert views_of("caj+-regdb") == views_of("caj")


def test_a_random_batch_is_as_a_loader_makes_it(build, config_of):
    config = config_of("caj+")
    method = build("caj+")
    batch = random_batch(config, 4, method.views(config.data))
    assert len(batch.image) == 96
    assert batch.modality.tolist() == [0] * 64 + [1] * 32
    assert batch.view.tolist() == [0] * 32 + [1] * 32 + [0] * 32
    first, second, infrared = batch.identity.view(3, 32)
    assert torch.equal(first, second)
    assert torch.equal(first, infrared)
    assert all(term.isfinite() for term in method(batch, 0).values())


class Toy(EmbeddingNet):
    """The network of the golden: means of the channels over the left half and over the right half, both of all rows."""

    def __init__(self, neck):
        super().__init__("toy", 2, 4)
        self.neck = neck

    def forward(self, image, modality):
        pooled = torch.cat([half.mean((2, 3)) for half in image.chunk(2, 3)], 1)
        return F.normalize(pooled * torch.arange(1, 7) - 0.5 if self.neck else pooled)


@pytest.mark.parametrize(("feature", "neck"), [("pool", False), ("fc", True)])
def test_an_image_and_its_mirror_image_are_averaged_as_in_the_public_code(feature, neck):
    golden, net = GOLDENS["flipped"], Toy(neck)
    images = [torch.tensor(golden[f"{part}_images"], dtype=torch.float64) for part in ("query", "gallery")]
    query, gallery = (net.average([net(image, 0), net(image.flip(3), 0)]) for image in images)
    expected = torch.tensor(golden[f"similarity_{feature}"], dtype=torch.float64)
    torch.testing.assert_close(query @ gallery.T, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("setting", ["infrared_grey", "visible_erase"])
def test_chances_are_checked(build, setting):
    with pytest.raises(CsviError, match=f"{setting} is 1.5: it must be from 0 to 1"):
        build("caj+", **{setting: 1.5})
