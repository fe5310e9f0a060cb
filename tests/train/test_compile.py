"""Compiled training: the same figures, the same files, and what is said where there is no compiler."""

import copy
import dataclasses
import json
import shutil
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from csvi.errors import CsviError
from csvi.model import build_network
from csvi.model.backbone import Route
from csvi.train.cost import random_batch
from csvi.train.loop import train

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def tiny_backbone(name):
    """Two layers: compiling takes minutes for a network that is of any use."""

    def layer(channels, width, stride):
        convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))

    return layer(3, 8, 8), layer(8, 16, 2), 8, 16


@pytest.fixture
def config(config, monkeypatch):
    monkeypatch.setattr("csvi.model.backbone._split", tiny_backbone)
    config.train = dataclasses.replace(config.train, epochs=2)
    return config


def compiled(config, yes=True, epochs=2):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, compile=yes, epochs=epochs))


def losses(run):
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@needs_compiler
def test_a_compiled_run_is_the_same_run(config, tmp_path, caplog):
    caplog.set_level("INFO", "csvi")
    train(config, tmp_path / "eager")
    assert "compiled" not in caplog.text
    train(compiled(config, epochs=1), tmp_path / "run")
    assert "compiled in the first step, which took" in caplog.text
    train(compiled(config, False), tmp_path / "run", resume="auto")  # and goes on without a compiler
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)

    eager, other = (torch.load(tmp_path / run / "last.ckpt", weights_only=True)["network"] for run in ("eager", "run"))
    assert list(eager) == list(other)
    for file in ("model.safetensors", "auxiliary.safetensors"):
        assert load_file(tmp_path / "run" / file).keys() == load_file(tmp_path / "eager" / file).keys()


@needs_compiler
def test_compiled_losses_and_gradients_are_those_of_float64(config):
    torch.manual_seed(0)
    network, batch = build_network(config, 8).to(memory_format=torch.channels_last), random_batch(config, 8)
    batch |= {"route": Route.of(batch["modality"])}
    double = copy.deepcopy(network).double()
    network.compile()
    expected = double.losses(double(as_double(batch)), as_double(batch), config.loss)
    found = network.losses(network(batch), batch, config.loss)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0, check_dtype=False)
    gradients = [
        torch.autograd.grad(sum(terms.values()), list(some.parameters()))
        for some, terms in ((network, found), (double, expected))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, check_dtype=False)


def as_double(batch):
    return {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in batch.items()
    }


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_without_a_compiler_nothing_is_begun(config, tmp_path):
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(CsviError, match=r"cannot compile for the cpu \(.*no-such-compiler.*train without --train\.comp"),
    ):
        train(compiled(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
