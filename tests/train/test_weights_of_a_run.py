"""`--method.weights RUN`: a network that begins with what a run has learned on other people."""

import dataclasses
import logging
import re
import shutil
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from csvi.catalogue import TABLE_3
from csvi.config import MethodSettings
from csvi.errors import CsviError
from csvi.methods import METHODS, build_method, find_method
from csvi.methods.method import Method
from csvi.model.net import EmbeddingNet
from csvi.model.two_stream import TwoStream
from csvi.runs.settings import as_method
from csvi.train.loop import train


@pytest.fixture
def begun(config):
    """A method of so many people, before and after it was given the weights of a run."""

    def begin(source, name="coseg", identities=11, **settings):
        config.method = dataclasses.replace(as_method(config.method, name), weights=str(source), **settings)
        method = build_method(config, identities)
        before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
        method.load_pretrained(method.pretrained(config.method))
        return before, method.state_dict()

    return begin


def trained_by(run):
    added = load_file(run / "method.safetensors")
    return added | {f"net.{name}": tensor for name, tensor in load_file(run / "model.safetensors").items()}


@pytest.mark.parametrize("name", [*TABLE_3, "coseg+"])
@pytest.mark.parametrize("identities", [11, 8], ids=["other number of people", "by chance the same number"])
def test_all_is_taken_that_fits_but_classifiers(begun, coseg_run, name, identities, caplog):
    caplog.set_level(logging.INFO, "csvi")
    before, after = begun(coseg_run, name, identities)
    trained = trained_by(coseg_run)
    for key, tensor in after.items():
        fits = key in trained and trained[key].shape == tensor.shape and ".classify." not in f".{key}"
        assert torch.equal(tensor, trained[key] if fits else before[key]), key
    assert all(
        torch.equal(after[key], trained[key]) for key in after if key.startswith(("net.backbone.", "net.head.e"))
    )
    assert re.search(rf"^loaded \d+ of {len(after)} tensors from {coseg_run}; left as they were: ", caplog.messages[-1])
    assert "head.classify" in caplog.messages[-1]


def test_a_decoder_is_taken_where_it_is_of_any_person(begun, coseg_run):
    trained = trained_by(coseg_run)
    _, after = begun(coseg_run, "coseg")
    assert torch.equal(after["decoder.2.weight"], trained["decoder.2.weight"])
    before, after = begun(coseg_run, "coseg", mask_channels="identity")
    assert torch.equal(after["decoder.2.weight"], before["decoder.2.weight"])


@pytest.mark.parametrize("file", ["model.safetensors", "last.ckpt"])
def test_files_of_a_run(begun, coseg_run, tmp_path, file):
    shutil.copy(coseg_run / file, tmp_path / f"passed-on-{file}")
    before, after = begun(tmp_path / f"passed-on-{file}")
    trained = trained_by(coseg_run)
    assert torch.equal(after["net.head.embed.weight"], trained["net.head.embed.weight"])
    assert torch.equal(after["ccwg.fc.weight"], (trained if file == "last.ckpt" else before)["ccwg.fc.weight"])


def test_a_run_of_another_backbone_is_one_sentence(begun, coseg_run, real_trunk):
    with pytest.raises(
        CsviError, match=r"has trained does not fit this network: net\.backbone\..* a run of the same back"
    ):
        begun(coseg_run, "baseline", backbone="resnet18")


def test_a_folder_without_a_network_is_one_sentence(begun, tmp_path):
    with pytest.raises(CsviError, match=r"holds no trained model \(model\.safetensors\)"):
        begun(tmp_path)
    with pytest.raises(CsviError, match="no such file of weights"):
        begun(tmp_path / "nowhere")


def test_a_run_begins_with_another(config, coseg_run, tmp_path):
    config.method = as_method(dataclasses.replace(config.method, weights=str(coseg_run)), "baseline")
    config.train.lr, config.seed = 1e-9, 5
    train(config, tmp_path / "run")
    kept, trained = load_file(tmp_path / "run" / "model.safetensors"), load_file(coseg_run / "model.safetensors")
    for name in ("head.embed.weight", "backbone.shared.block4.0.weight"):
        assert torch.allclose(kept[name], trained[name], atol=1e-6)
    assert not torch.allclose(kept["head.classify.weight"], trained["head.classify.weight"], atol=1e-3)


@dataclass
class OwnSettings(MethodSettings):
    weights: str = "none"


class OwnNet(EmbeddingNet):
    def __init__(self, method, height, width):
        super().__init__(method, height, width)
        self.backbone = TwoStream("mobilenet_v2", cut=3)


class Own(Method):
    Settings, Net = OwnSettings, OwnNet

    def __init__(self, settings, identities, height, width):
        super().__init__(settings, identities, height, width)
        self.net, self.classify = OwnNet("own", height, width), nn.Linear(3, identities)


def test_a_method_of_somebody_else_needs_no_line_for_it(coseg_run):
    method = Own(OwnSettings(weights=str(coseg_run)), 5, 48, 24)
    method.load_pretrained(method.pretrained(method.settings))
    trained = load_file(coseg_run / "model.safetensors")
    for name, tensor in method.net.state_dict().items():
        assert torch.equal(tensor, trained[name])
    assert Own.pretrained(OwnSettings()) is None
    assert Own.pretrained(MethodSettings()) is None


def test_weights_are_named_in_the_help_of_every_method():
    for name in METHODS:
        assert find_method(name).Settings().weights == "imagenet"
