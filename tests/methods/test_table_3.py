"""What tells the rows of Table 3 apart (Eq. 20-24)."""

import pytest
import torch

from csvi.catalogue import TABLE_3
from csvi.errors import CsviError
from csvi.methods import find_method

PAPERS = (*TABLE_3, "coseg+")


@pytest.mark.parametrize("name", PAPERS)
def test_only_segment_keeps_more_than_the_baseline_for_testing(build, name):
    baseline = {key for key, _ in build("baseline").net.named_parameters()}
    kept = {key for key, _ in build(name).net.named_parameters()} - baseline
    assert {key.partition(".")[0] for key in kept} == ({"guide"} if name == "segment" else set())


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("baseline", set()),
        ("select", set()),
        ("segment", {"segment/segmentation"}),
        ("decode", {"decode/segmentation"}),
        ("coseg", {"coseg/segmentation", "coseg/identity", "coseg/center"}),
        ("coseg+", {"coseg/segmentation", "coseg/identity", "coseg/center", "contrast"}),
    ],
)
def test_what_each_adds_to_the_terms_of_eq_9(build, batch, name, own):
    assert set(build(name)(batch, 0)) == {"identity", "center"} | own


def test_predicted_masks_are_of_all_but_baseline_and_select():
    predicting = [
        name for name in PAPERS if find_method(name).predict_masks is not find_method("baseline").predict_masks
    ]
    assert predicting == ["segment", "decode", "coseg", "coseg+"]


def test_select_shows_the_parts_what_the_mask_leaves(build, batch):
    batch.mask[:] = 0
    batch.mask[:, :, :16, :16] = 1
    batch.mask[:, :, 16:32, :8] = 1
    method = build("select")
    shared, seen = method.net.features(batch.image, batch.modality), method.features(batch)
    assert shared.shape == (16, 16, 3, 3)
    torch.testing.assert_close(seen[:, :, 0, 0], shared[:, :, 0, 0])
    torch.testing.assert_close(seen[:, :, 1, 0], shared[:, :, 1, 0] / 2)
    assert (seen[:, :, 2:] == 0).all()
    assert (seen[:, :, :, 1:] == 0).all()


@pytest.fixture
def selecting(build):
    """A network that selects by masks at test too, and the same one that does not."""
    chosen, plain = (build("select", test_masks=on).net.eval() for on in (True, False))
    plain.load_state_dict(chosen.state_dict())
    return chosen, plain


def test_select_may_select_by_masks_at_test(selecting, batch):
    chosen, plain = selecting
    embedding = chosen(batch.image, batch.modality, batch.mask)
    padded = torch.nn.functional.pad(batch.mask, (0, 8))  # the third column of features reaches beyond the image
    selected = chosen.features(batch.image, batch.modality) * torch.nn.functional.avg_pool2d(padded, 16)
    parts, _ = chosen.head(selected)
    torch.testing.assert_close(embedding, torch.nn.functional.normalize(parts, dim=2).flatten(1))
    whole = plain(batch.image, batch.modality)
    assert not torch.allclose(embedding, whole)
    has_mask = torch.arange(16) % 2 == 0
    some = chosen(batch.image, batch.modality, batch.mask, has_mask)
    torch.testing.assert_close(some, torch.where(has_mask[:, None], embedding, whole))


def test_select_does_not_embed_without_the_masks_that_it_is_to_select_by(selecting, batch):
    chosen, plain = selecting
    with pytest.raises(CsviError, match=r"selects features by person masks, also at test \(method.test_masks\)"):
        chosen(batch.image, batch.modality)
    assert torch.equal(plain(batch.image, batch.modality, batch.mask), plain(batch.image, batch.modality))


def test_masks_at_test_change_nothing_in_training(build, batch):
    (first, second) = (build("select", test_masks=on)(batch, 0) for on in (False, True))
    assert first == second


def test_the_identity_loss_of_segment_reaches_the_segmentation_sub_network(build, batch):
    """The middle term of Eq. 23: from xi_ID over F_Seg."""
    method = build("segment")
    torch.nn.init.normal_(method.net.guide.project.weight)  # 0 at first
    method(batch, 0)["identity"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.net.guide.layers.parameters())


def test_segment_is_the_baseline_until_its_sub_network_has_learnt(build, batch):
    baseline, segment = build("baseline").net.eval(), build("segment").net.eval()
    segment.load_state_dict(baseline.state_dict(), strict=False)
    assert torch.equal(segment(batch.image, batch.modality), baseline(batch.image, batch.modality))
    torch.nn.init.normal_(segment.guide.project.weight)
    assert not torch.allclose(segment(batch.image, batch.modality), baseline(batch.image, batch.modality))
