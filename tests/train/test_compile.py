"""Compiled training: the same metrics, the same files, and what is said where there is no compiler."""

import copy
import dataclasses
import json
import shutil
from functools import partialmethod

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from csvi.data.batch import prepare
from csvi.errors import CsviError
from csvi.fabric import check_compiler
from csvi.methods import build_method
from csvi.model.trunk import Stage, Trunk
from csvi.train.cost import random_batch
from csvi.train.loop import train

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def tiny_trunk(name):
    """Two layers: compiling takes minutes for a network that is of any use."""

    def stage(number, channels, width, stride, total):
        convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        layers = {"conv": convolution, "norm": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)}
        return Stage({f"{key}{number}": layer for key, layer in layers.items()}, width, total)

    nothing = Stage({}, 8, 8)
    return Trunk([stage(0, 3, 8, 8, 8), nothing, nothing, stage(1, 8, 16, 2, 16), Stage({}, 16, 16)])


@pytest.fixture
def config(config, monkeypatch):
    monkeypatch.setattr("csvi.model.two_stream.build_trunk", tiny_trunk)
    config.train = dataclasses.replace(config.train, epochs=2)
    return config


def compiled(config, yes=True, epochs=2):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, compile=yes, epochs=epochs))


def losses(run):
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def without_code(monkeypatch):
    """Trace networks as for compiling, and write no machine code for them, which takes most of the time."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr("csvi.train.loop.check_compiler", lambda device: None)


@pytest.mark.long
@pytest.mark.usefixtures("without_code")
def test_a_compiled_run_is_the_same_run(config, tmp_path, caplog):
    assert_same_run(config, tmp_path, caplog)


@pytest.mark.long
@needs_compiler
def test_a_run_of_machine_code_is_the_same_run(config, tmp_path, caplog):
    assert_same_run(config, tmp_path, caplog)


def assert_same_run(config, tmp_path, caplog):
    torch._dynamo.reset()
    config.data.identities = 4  # an epoch of four steps: all but the first find the network compiled
    caplog.set_level("INFO", "csvi")
    train(config, tmp_path / "eager")
    assert "compiled" not in caplog.text
    with torch._dynamo.config.patch(error_on_recompile=True):
        train(compiled(config, epochs=1), tmp_path / "run")
    assert "compiled in step 1, which took" in caplog.text
    train(compiled(config, False), tmp_path / "run", resume="auto")  # without a compiler
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)

    eager, other = (torch.load(tmp_path / run / "last.ckpt", weights_only=True)["method"] for run in ("eager", "run"))
    assert list(eager) == list(other)
    for file in ("model.safetensors", "method.safetensors"):
        assert load_file(tmp_path / "run" / file).keys() == load_file(tmp_path / "eager" / file).keys()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.long, needs_compiler])])
def test_compiled_losses_and_gradients_are_those_of_float64(config, backend):
    torch._dynamo.reset()
    torch.manual_seed(0)
    method = build_method(config, 8).to(memory_format=torch.channels_last)
    batch = prepare(random_batch(config, 8)._replace(has_mask=torch.arange(64) % 3 > 0), torch.device("cpu"))
    double = copy.deepcopy(method).double()
    method.compile(backend=backend)
    expected = double(batch._replace(image=batch.image.double(), mask=batch.mask.double()), 0)
    found = method(batch, 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0, check_dtype=False)
    gradients = [
        torch.autograd.grad(sum(terms.values()), list(some.parameters()))
        for some, terms in ((method, found), (double, expected))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, check_dtype=False)


@needs_compiler
@pytest.mark.long
def test_a_compiler_that_is_there_is_found():
    check_compiler(torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_without_a_compiler_nothing_is_begun(config, tmp_path):
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(CsviError, match=r"cannot compile for the cpu \(.*no-such-compiler.*train without --train\.comp"),
    ):
        train(compiled(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
