"""The recipe of our own: DDAG where its views are left out, and CAJ's views otherwise."""

from pathlib import Path

import pytest
import torch

from csvi.config import DataConfig
from csvi.data import Modality
from csvi.methods.caj import caj_views
from csvi.runs import load_config
from csvi.runs.settings import flatten

CONFIGS = Path(__file__).parents[2] / "configs/methods"


@pytest.fixture
def batch(batch_of, build):
    return batch_of(build("strong").views(DataConfig()))


def test_on_the_same_views_it_is_ddag(build, batch):
    ours, ddag = build("strong", channel_views=False), build("ddag")
    assert ours.views(DataConfig()) == ddag.views(DataConfig())
    assert ours(batch, 0) == ddag(batch, 0)
    image, modality = batch.image, batch.modality
    assert torch.equal(ours.net.eval()(image, modality), ddag.net.eval()(image, modality))


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
