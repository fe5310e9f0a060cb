"""The recipe of our own: DDAG where nothing is added, CAJ's views, and losses of the embeddings."""

from pathlib import Path

import pytest
import torch

from csvi.config import DataConfig
from csvi.data import Modality
from csvi.losses import batch_hard_triplet
from csvi.methods.caj import caj_views
from csvi.runs import load_config
from csvi.runs.settings import flatten

CONFIGS = Path(__file__).parents[2] / "configs/methods"


@pytest.fixture
def batch(batch_of, build):
    return batch_of(build("strong").views(DataConfig()))


def test_with_nothing_added_it_is_ddag(build, batch):
    without = {"channel_views": False, "center_weight": 0.0, "embedding_triplet_weight": 0.0}
    ours, ddag = build("strong", **without), build("ddag")
    assert ours.views(DataConfig()) == ddag.views(DataConfig())
    assert ours(batch, 0) == ddag(batch, 0)
    image, modality = batch.image, batch.modality
    assert torch.equal(ours.net.eval()(image, modality), ddag.net.eval()(image, modality))


def test_what_it_adds_are_losses_of_embeddings(build, batch):
    method = build("strong", center_weight=0.5, embedding_triplet_weight=0.25)
    terms = method(batch, 0)
    embedding = method.net(batch.image, batch.streams)  # with the statistics of this batch, as in training
    center = torch.stack(
        [
            (of_visible.mean(0) - of_infrared.mean(0)).norm()
            for person in batch.identity.unique()
            for of_visible, of_infrared in [
                (embedding[(batch.identity == person) & (batch.modality == modality)] for modality in (0, 1))
            ]
        ]
    ).mean()
    torch.testing.assert_close(terms.pop("parts/center"), 0.5 * center)
    torch.testing.assert_close(terms.pop("parts/triplet"), 0.25 * batch_hard_triplet(embedding, batch.identity, 0.3))
    assert terms.keys() == build("ddag")(batch, 0).keys()


def test_its_own_views_are_those_of_caj(build):
    data = DataConfig(erase=0.5, grayscale=0.25)
    assert build("strong").views(data) == caj_views(data)
    assert [len(views) for views in build("strong").views(data).values()] == [2, 1]


def test_its_settings_are_those_that_ddag_and_caj_share():
    def differing(other):
        ours, theirs = flatten(load_config(CONFIGS / "strong.yaml")), flatten(load_config(CONFIGS / other))
        shared = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
        return shared - {"method.name"}

    assert differing("caj.yaml") == set()
    assert differing("ddag.yaml") == {"data.erase", "train.epochs"}


def test_every_row_of_every_view_is_learned_from(build, batch):
    method = build("strong", dropout=0.0)
    batch.image.requires_grad_()
    sum(method(batch, 0).values()).backward()
    assert (batch.image.grad.flatten(1).abs().sum(1) > 0).all()
    of_visible = (batch.modality == Modality.VISIBLE).sum()
    assert of_visible == 2 * (batch.modality == Modality.INFRARED).sum()
