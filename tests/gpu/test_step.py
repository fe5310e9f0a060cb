"""A step on a GPU: that of a CPU, without waiting; float16's scaler; a run that is resumed."""

import contextlib
import copy
import json

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from csvi.config import TrainConfig
from csvi.data.batch import Batch
from csvi.errors import StoppedError
from csvi.methods import METHODS
from csvi.runs.embeddings import embed
from csvi.train import loop
from csvi.train.loop import train, train_step
from csvi.train.optimizer import build_optimizer

TRAIN = TrainConfig(lr=0.01)


def fabric_of(device, precision="64-true", plugins=()):
    return Fabric(accelerator=device, devices=1, precision=None if plugins else precision, plugins=list(plugins))


def set_up(fabric, method):
    """A function that trains a method one step on a batch, and returns the loss terms."""
    wrapped, optimizer = fabric.setup(method, build_optimizer(method.groups(TRAIN), TRAIN))
    return lambda batch, step: train_step(fabric, method, wrapped, optimizer, batch, step)[0]


def in_64_bits(method, batch):
    return method.double(), batch._replace(image=batch.image.double(), mask=batch.mask.double())


def state_of(method):
    return {name: tensor.detach().cpu() for name, tensor in method.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_steps_of_every_method_are_those_of_a_cpu(name, build, device):
    assert_same_steps(*build(name), device)


@pytest.mark.usefixtures("real_trunk")
@pytest.mark.parametrize(("name", "backbone"), [("coseg", "resnet18"), ("pmt", "vit_tiny")])
def test_steps_of_whole_trunks_are_those_of_a_cpu(name, backbone, build, device):
    assert_same_steps(*build(name, backbone), device)


def assert_same_steps(method, batch, device):
    method, batch = in_64_bits(method, batch)
    results = []
    for where in ("cpu", device):
        copied = copy.deepcopy(method)
        step = set_up(fabric_of(where), copied)
        terms = [{term: value.detach().cpu() for term, value in step(batch, number).items()} for number in range(2)]
        results.append((terms, state_of(copied)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-9)
    assert any((results[0][1][key] - value).abs().max() > 1e-4 for key, value in state_of(method).items())


@pytest.mark.parametrize("name", ["baseline", "agw", "deen", "pmt"])
def test_embeddings_are_those_of_a_cpu(name, build, device):
    method, batch = in_64_bits(*build(name))
    expected = embed(copy.deepcopy(method.net), [batch], fabric_of("cpu"), flip=True)
    fabric = fabric_of(device)
    torch.testing.assert_close(embed(method.net.to(fabric.device), [batch], fabric, flip=True), expected)


@contextlib.contextmanager
def waiting_is_an_error(device):
    """Inside, whatever waits for a GPU raises."""
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_device(name, build, device):
    method, batch = build(name)
    batch = batch._replace(image=(255 * batch.image.sigmoid()).byte(), mask=(255 * batch.mask).byte())
    if device == "cuda":  # as loaders leave it
        batch = Batch(*(rows if rows is None else rows.pin_memory() for rows in batch[:-1]))
    step = set_up(fabric_of(device, "bf16-mixed"), method)
    step(batch, 0)  # makes constants, and whatever libraries set up
    with waiting_is_an_error(device):
        terms = step(batch, 1)
    assert all(term.isfinite() for term in terms.values())


def test_losses_in_bfloat16_and_float16_are_close_to_those_in_32_bits(build, device):
    method, batch = build("coseg")
    found = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        step = set_up(fabric_of(device, precision), copy.deepcopy(method))
        found[precision] = {term: value.detach().cpu() for term, value in step(batch, 0).items()}
    for terms in found.values():
        torch.testing.assert_close(terms, found["32-true"], rtol=0.05, atol=0.01)


def scaled(device, method, scale):
    """What trains a method in float16 one step, and the scaler of its losses, which begins with this scale."""
    scaler = torch.amp.GradScaler(device, init_scale=scale)
    return set_up(fabric_of(device, plugins=[MixedPrecision("16-mixed", device, scaler)]), method), scaler


OVERFLOWS = 2.0**40
"""A scale by which gradients are too large for float16."""


def test_a_step_that_overflows_float16_is_left_out_and_losses_are_scaled_by_less(build, device):
    method, batch = build("coseg")
    step, scaler = scaled(device, method, 1.0)
    step(batch, 0)
    before = [parameter.detach().clone() for parameter in method.parameters()]

    def changed():
        return any(not torch.equal(*pair) for pair in zip(before, method.parameters(), strict=True))

    scaler.update(OVERFLOWS)
    step(batch, 1)
    assert not changed()
    assert scaler.get_scale() == OVERFLOWS / 2
    for number in range(2, 40):
        step(batch, number)
    assert changed()
    assert all(parameter.isfinite().all() for parameter in method.parameters())


def test_a_first_step_that_overflows_float16_leaves_no_momentum(build, device):
    method, batch = build("coseg")
    step, scaler = scaled(device, method, OVERFLOWS)
    for number in range(40):
        step(batch, number)
    assert scaler.get_scale() < OVERFLOWS / 2**20
    assert all(parameter.isfinite().all() for parameter in method.parameters())


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/images_per_second"} for line in lines]


@pytest.mark.usefixtures("device")
def test_a_resumed_run_has_the_losses_of_one_that_was_never_stopped(config, tmp_path, monkeypatch):
    config.data.identities, config.train.epochs, config.train.lr = 4, 2, 0.01
    train(config, tmp_path / "whole")
    fits = iter([True] * 6)
    with monkeypatch.context() as patch:
        patch.setattr(loop.TimeLimit, "fits", lambda *_: next(fits, False))
        with pytest.raises(StoppedError, match="of 8 steps, all of it saved"):
            train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped", resume="auto")
    expected, found = losses(tmp_path / "whole"), losses(tmp_path / "stopped")
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-3)  # a GPU adds in any order


@pytest.mark.usefixtures("device", "real_trunk")
def test_training_with_loaders_an_average_and_micro_batches(config, tmp_path):
    config.data.workers, config.precision = 2, "auto"
    config.train.ema, config.train.accumulate, config.train.validate_every = 0.9, 2, 1
    train(config, tmp_path / "run")
    assert all(value == value for line in losses(tmp_path / "run") for value in line.values())
    assert losses(tmp_path / "run")[-1]["val/R1"] > 0
