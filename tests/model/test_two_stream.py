"""The two-stream backbone (Eq. 1 and 2): strides, shapes, and that each image goes through its own stream."""

import math

import numpy as np
import pytest
import torch
import torchvision

from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.model.two_stream import Route, TwoStream
from csvi.model.weights import initial_weights

NAMES = ["resnet18", "resnet34", "resnet50", "mobilenet_v2"]


@pytest.fixture(scope="module")
def small():
    """MobileNetV2 with streams that differ, in evaluation mode."""
    torch.manual_seed(0)
    backbone = TwoStream("mobilenet_v2").eval()
    backbone.load_pretrained(initial_weights("mobilenet_v2", "packaged"))
    with torch.no_grad():
        for parameter in backbone.infrared.parameters():
            parameter *= torch.empty_like(parameter).uniform_(0.5, 1.5)
    return backbone


@pytest.mark.parametrize(("name", "channels"), [*zip(NAMES, [512, 512, 2048, 320], strict=True)])
def test_stride_is_8_in_the_streams_and_16_at_the_end(name, channels):
    with torch.device("meta"):
        backbone = TwoStream(name)
        image = torch.empty(2, 3, 288, 144)
        for stream in (backbone.visible, backbone.infrared):
            features = stream(image)
            assert features.shape[2:] == (36, 18)
        assert backbone.shared(features).shape == (2, channels, 18, 9)
    assert (backbone.channels, backbone.stride, backbone.specific_stride) == (channels, 16, 8)


def test_resnet50_features_are_2048_x_18_x_9():
    backbone = TwoStream("resnet50").eval()
    with torch.inference_mode():
        assert backbone(torch.randn(2, 3, 288, 144), torch.tensor([0, 1])).shape == (2, 2048, 18, 9)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_layers_are_torchvisions_and_the_streams_share_none(name):
    with torch.device("meta"):
        backbone = TwoStream(name)
        network = torchvision.models.get_model(name)
    expected = (network.features if name == "mobilenet_v2" else network).state_dict()
    found = {key.partition(".")[2]: tensor.shape for key, tensor in backbone.state_dict().items()}
    dropped = ("18.",) if name == "mobilenet_v2" else ("fc.",)
    assert found == {key: tensor.shape for key, tensor in expected.items() if not key.startswith(dropped)}
    streams = [{id(p) for p in stream.parameters()} for stream in (backbone.visible, backbone.infrared)]
    assert not streams[0] & streams[1]


def test_each_image_goes_through_the_stream_of_its_modality_in_any_order(small):
    image, modality = torch.randn(7, 3, 64, 32), torch.tensor([1, 0, 0, 1, 0, 1, 1])
    with torch.inference_mode():
        features = small(image, modality)
        for b in range(7):
            stream = small.infrared if modality[b] else small.visible
            torch.testing.assert_close(features[b], small.shared(stream(image[b : b + 1]))[0], rtol=1e-3, atol=1e-4)
        order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
        torch.testing.assert_close(small(image[order], modality[order]), features[order], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(small(image, 1 - modality), features, rtol=1e-2)


class Scaled(torch.nn.Module):
    """A new layer after a block."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, features):
        return self.scale * features


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", ["5", "6"]), ("resnet18", ["layer2.0", "layer2.1"])])
def test_new_layers_follow_the_last_blocks_of_a_stage(name, expected):
    torch.manual_seed(0)
    weights = torchvision.models.get_model(name).state_dict()
    plain, followed = TwoStream(name, cut=1).eval(), TwoStream(name, cut=1).eval()
    followed.follow(2, 2, Scaled)
    new = [key for key in followed.state_dict() if key not in plain.state_dict() and ".block." not in key]
    assert new == [f"shared.{block}.after.scale" for block in expected]
    image, modality = torch.randn(2, 3, 64, 32), [0, 1]
    with torch.no_grad():
        for backbone in (plain, followed):
            backbone.load_pretrained(weights)
        assert torch.equal(followed(image, modality), plain(image, modality))
        followed.get_parameter(new[1]).fill_(2)
        inside = followed.specific(image, modality)
        for number in range(1, 5):
            inside = followed.stage(number, inside)
        assert torch.equal(inside, followed(image, modality))
        assert not torch.allclose(inside, plain(image, modality), atol=0)


def test_a_trunk_of_fewer_stages():
    with torch.device("meta"):
        backbone = TwoStream("resnet50", cut=1, stages=4)
        assert backbone(torch.empty(2, 3, 288, 144), Route(1, 1, None)).shape == (2, 1024, 18, 9)
    assert (backbone.channels, backbone.stride) == (1024, 16)


@pytest.mark.parametrize("modality", [0, 1])
def test_batches_of_one_modality(small, modality):
    image = torch.randn(3, 3, 64, 32)
    stream = (small.visible, small.infrared)[modality]
    with torch.inference_mode():
        torch.testing.assert_close(small(image, torch.full((3,), modality)), small.shared(stream(image)))


@pytest.mark.parametrize("modality", [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_a_route_is_the_modalities_counted_beforehand(small, modality):
    image, modality = torch.randn(4, 3, 64, 32), torch.tensor(modality)
    route = Route.of(modality, 4, image.device)
    assert (route.visible, route.infrared) == ((modality == 0).sum(), modality.sum())
    assert (route.order is None) == modality.equal(modality.sort().values)
    with torch.inference_mode():
        assert torch.equal(small(image, route), small(image, modality))


@pytest.mark.parametrize(
    "given",
    [
        [1, 0, 0],
        (1, 0, 0),
        [Modality.INFRARED, Modality.VISIBLE, Modality.VISIBLE],
        np.array([1, 0, 0], np.uint8),
        torch.tensor([True, False, False]),
        torch.tensor([1.0, 0.0, 0.0]),
    ],
    ids=repr,
)
def test_modalities_in_whatever_holds_numbers(small, given):
    image = torch.randn(3, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(small(image, given), small(image, torch.tensor([1, 0, 0])))


@pytest.mark.parametrize("given", [0, 1, True, Modality.INFRARED, np.int64(1), torch.tensor(0)], ids=repr)
def test_one_modality_for_all_images(small, given):
    image = torch.randn(3, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(small(image, given), small(image, torch.full((3,), int(given))))


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ([1, 2, 1], r"holds 2: it must be 0 for visible and 1 for infrared \(public code often writes 1 and 2\)$"),
        (torch.tensor([0, 1, -1]), "holds -1: it must be 0"),
        (torch.tensor([0, 1, 255], dtype=torch.uint8), "holds 255: it must be 0"),
        (torch.tensor([0, 0.5, 1]), r"holds 0\.5: it must be 0"),
        (torch.tensor([0, math.nan, 1]), "holds nan: it must be 0"),
        (2, "holds 2: it must be 0"),
        ([0, 1], "^there are 3 images and modality has 2: it must be one number for each$"),
        ([0, 1, 0, 1], "^there are 3 images and modality has 4"),
        ([], "^there are 3 images and modality has 0"),
        (torch.tensor([[0], [1], [1]]), r"modality is of shape \(3, 1\): it must be one number for each$"),
        ("visible", "^modality is 'visible': it must be 0 for visible and 1 for infrared, for each image$"),
        (["visible", "infrared", "visible"], "it must be 0 for visible"),
        (None, "^modality is 'None': it must be 0"),
        (Route(1, 1, None), "^there are 3 images and the route is of 2: make one of these$"),
    ],
    ids=str,
)
def test_what_is_no_modality_of_these_images_is_one_sentence(modality, message):
    with torch.device("meta"):
        backbone, image = TwoStream("resnet18"), torch.empty(3, 3, 64, 32)
    with pytest.raises(CsviError, match=message):
        backbone(image, modality)


@pytest.mark.parametrize(
    "image", [torch.zeros(2, 3, 64, 32, dtype=torch.uint8), torch.zeros(3, 64, 32), torch.zeros(2, 1, 64, 32)]
)
@pytest.mark.parametrize("cut", [0, 3])
def test_images_that_are_not_prepared_are_one_sentence(image, cut):
    with pytest.raises(
        CsviError, match=r"they must be \(B, 3, H, W\) and normalised, as csvi\.data\.batch\.prepare makes"
    ):
        TwoStream("resnet18", cut)(image, 0)


@pytest.mark.parametrize("cut", range(6))
def test_a_trunk_can_be_cut_anywhere(cut):
    torch.manual_seed(0)
    backbone = TwoStream("resnet18", cut).eval()
    image, modality = torch.randn(3, 3, 64, 32), torch.tensor([1, 0, 1])
    with torch.inference_mode():
        specific, shared = backbone.specific(image, modality), backbone(image, modality)
    for features, channels, stride in (
        (specific, backbone.specific_channels, backbone.specific_stride),
        (shared, backbone.channels, backbone.stride),
    ):
        assert features.shape == (3, channels, 64 // stride, 32 // stride)
    assert torch.equal(specific, image) if cut == 0 else specific.shape != image.shape
    assert (shared.shape == specific.shape and torch.equal(shared, specific)) == (cut == 5)
    backbone.load_pretrained(torchvision.models.get_model("resnet18").state_dict())


@pytest.mark.parametrize("cut", [-1, 6])
def test_a_cut_beyond_the_trunk(cut):
    with pytest.raises(ValueError, match=f"a trunk of 5 stages cannot be cut after {cut}"):
        TwoStream("resnet18", cut)


def test_infrared_images_do_not_touch_the_visible_stream():
    torch.manual_seed(0)
    backbone = TwoStream("resnet18")
    backbone(torch.randn(2, 3, 64, 32), torch.tensor([1, 1])).sum().backward()
    assert all(parameter.grad is None for parameter in backbone.visible.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in backbone.infrared.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in backbone.shared.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_pretrained_tensors_fill_both_streams_and_the_shared_layers(name):
    state = torchvision.models.get_model(name).state_dict()
    state = {key: torch.randn(tensor.shape).to(tensor.dtype) for key, tensor in state.items()}
    backbone = TwoStream(name)
    backbone.load_pretrained(state)
    for key, tensor in backbone.state_dict().items():
        prefix = "features." if name == "mobilenet_v2" else ""
        assert torch.equal(tensor, state[prefix + key.partition(".")[2]]), key


def test_older_weights_lack_batch_counters():
    state = torchvision.models.get_model("resnet18").state_dict()
    backbone = TwoStream("resnet18")
    backbone.load_pretrained({key: t for key, t in state.items() if not key.endswith("num_batches_tracked")})
    assert torch.equal(backbone.infrared.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer4.1.conv2.weight"), r"layer4\.1\.conv2\.weight is missing"),
        (lambda state: state.update({"conv1.weight": torch.ones(64, 1, 7, 7)}), r"conv1\.weight is of shape \(64, 1, "),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message):
    state = torchvision.models.get_model("resnet18").state_dict()
    change(state)
    with pytest.raises(CsviError, match=message):
        TwoStream("resnet18").load_pretrained(state)


def test_no_images_are_no_features():
    backbone = TwoStream("resnet18").eval()
    assert backbone(torch.zeros(0, 3, 64, 32), []).shape == (0, 512, 4, 2)
