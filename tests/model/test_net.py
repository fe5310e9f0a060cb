"""The network that is kept: what an embedding is, and how two of an image are averaged."""

import pytest
import torch
from torch.nn import functional as F

from csvi.model.net import EmbeddingNet, PartNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return PartNet("baseline", 48, 24, 4, "mobilenet_v2", parts=3, part_dim=16).eval()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.randn(8, 3, 48, 24), torch.tensor([0, 1, 0, 0, 1, 1, 0, 1])


def test_embeddings_are_normalised_parts_side_by_side(net, images):
    embeddings = net(*images)
    parts, _ = net.head(net.backbone(*images))
    assert embeddings.shape == (8, 3 * 16)
    for p in range(3):
        expected = parts[:, p] / parts[:, p].square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(embeddings[:, 16 * p : 16 * (p + 1)], expected)


def test_embedding_of_an_image_does_not_depend_on_the_others(net, images):
    image, modality = images
    together = net(image, modality)
    alone = torch.cat([net(image[b : b + 1], modality[b : b + 1]) for b in range(8)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_an_average_is_taken_part_by_part(net):
    """A part in which two embeddings agree does not outweigh one in which they do not."""
    one, other = (F.normalize(torch.randn(5, 3, 16), dim=2) for _ in range(2))
    other[:, 0] = one[:, 0]
    found = net.average([one.flatten(1), other.flatten(1)])
    torch.testing.assert_close(found.view(5, 3, 16), F.normalize(one + other, dim=2))


def test_by_default_an_average_is_taken_as_a_whole():
    one, other = F.normalize(torch.randn(2, 5, 8), dim=2)
    found = EmbeddingNet("its name", 48, 24).average([one, other])
    torch.testing.assert_close(found, F.normalize(one + other, dim=1))


def test_what_it_is_built_with_is_saved_beside_its_weights(net, images, tmp_path):
    net.save_pretrained(tmp_path)
    again = PartNet.from_pretrained(str(tmp_path)).eval()
    assert (again.method, again.height, again.width) == ("baseline", 48, 24)
    assert torch.equal(again(*images), net(*images))
