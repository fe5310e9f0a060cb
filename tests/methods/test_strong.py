"""The recipe of our own: each ingredient adds its terms and can be left out, and what is left is `coseg+`."""

import pytest
import torch
from torch.nn import functional as F

from csvi.config import DataConfig
from csvi.data import Modality
from csvi.losses import cross_entropy, hetero_center_triplet, weighted_regularized_triplet

WITHOUT = {"channel_views": False, "whole": 0.0, "center_triplet_weight": 0.0}


@pytest.fixture
def batch(batch_of, build):
    return batch_of(build("strong", channel_views=False).views(DataConfig()))


def test_with_nothing_added_it_is_coseg_plus(build, batch):
    terms, expected = build("strong", **WITHOUT)(batch, 0), build("coseg+")(batch, 0)
    assert terms == expected
    net = build("strong", **WITHOUT).net.eval()
    assert torch.equal(net(batch.image, batch.modality), build("coseg+").net.eval()(batch.image, batch.modality))


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({"whole": 1.0}, {"whole/identity", "whole/triplet"}),
        ({"center_triplet_weight": 1.0}, {"triplet", "coseg/triplet"}),
    ],
)
def test_what_each_ingredient_adds(build, batch, settings, added):
    assert set(build("strong", **WITHOUT | settings)(batch, 0)) == set(build("coseg+")(batch, 0)) | added


def test_the_terms_are_the_losses_of_their_features(build, batch):
    method = build("strong", channel_views=False, triplet_weight=0.5, center_triplet_weight=0.25)
    terms = method(batch, 0)
    features = method.features(batch)
    pooled = method.net.pool(features)
    scores = method.classify(method.net.neck(pooled))
    parts, _ = method.net.head(features)
    joined = F.normalize(parts, dim=2).flatten(1)
    expected = {
        "whole/identity": cross_entropy(scores, batch.identity),
        "whole/triplet": 0.5 * weighted_regularized_triplet(pooled, batch.identity),
        "triplet": 0.25 * hetero_center_triplet(joined, batch.identity, batch.modality, 0.3),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_an_embedding_is_the_parts_and_the_whole_body(build, batch):
    net = build("strong", whole=0.5).net.eval()
    embedding = net(batch.image, batch.modality)
    assert embedding.shape[1] == 3 * 8 + net.backbone.channels
    parts, body = embedding[:, :24].unflatten(1, (3, 8)), embedding[:, 24:]
    torch.testing.assert_close(parts.norm(dim=2), torch.ones(len(parts), 3))
    torch.testing.assert_close(body.norm(dim=1), torch.full((len(body),), 0.5))
    other = net(batch.image.flip(3), batch.modality)
    expected = 0.5 * F.normalize(embedding[:, 24:] + other[:, 24:], dim=1)
    torch.testing.assert_close(net.average([embedding, other])[:, 24:], expected)


def test_channel_views_double_the_visible_rows(build):
    views = build("strong").views(DataConfig())
    assert [len(views[modality]) for modality in Modality] == [2, 1]
    assert [len(of) for of in build("strong", channel_views=False).views(DataConfig()).values()] == [1, 1]
