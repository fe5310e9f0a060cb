"""Losses, gradients and weights that are not finite: never saved, always named, skipped where that is wanted."""

import copy
import json
import signal
from collections import deque

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from csvi.data import read_benchmark
from csvi.data.batch import Batch, normalize
from csvi.data.training_set import TrainingSet
from csvi.data.views import standard_views
from csvi.errors import CsviError, StoppedError
from csvi.methods import build_method
from csvi.train import loop
from csvi.train.loop import train, train_step
from csvi.train.nonfinite import AT_MOST, NonFinite, check_weights, gradients_are_finite
from csvi.train.optimizer import build_optimizer

GOOD, BAD = {"identity": 1.0, "center": 2.0}, {"identity": 1.0, "center": float("nan")}


@pytest.fixture
def two_epochs(config):
    """Of four steps each."""
    config.data.identities, config.train.epochs = 4, 2
    return config


def spoil(monkeypatch, steps, how):
    """Spoil the batches of some steps, counted from 1 in every run."""
    number = iter(range(1, 1000))

    def patched(fabric, method, wrapped, optimizer, batch, *rest):
        if next(number) in steps:
            batch = how(batch, method)
        return train_step(fabric, method, wrapped, optimizer, batch, *rest)

    monkeypatch.setattr(loop, "train_step", patched)


def image(batch, method):
    batch = normalize(batch)  # bytes have no such number
    batch.image[0, 0, 0, 0] = float("nan")
    return batch


def gradient(batch, method):
    """Losses are as they should be."""
    weight = method.net.head.embed.weight
    handle = weight.register_hook(lambda grad: handle.remove() or grad * float("inf"))
    return batch


def loss(batch, method):
    """Gradients are as they should be."""
    handle = method.register_forward_hook(
        lambda method, inputs, terms: handle.remove() or terms | {"center": terms["center"] + float("inf")}
    )
    return batch


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "what"), [(image, r"the identity and center.* loss of step 6"), (gradient, "the gradient of step 6")]
)
def test_the_run_stops_and_names_step_losses_and_images(two_epochs, tmp_path, monkeypatch, how, what):
    two_epochs.train.checkpoint_every = 1e-9  # at every step, were it allowed
    monkeypatch.setattr("csvi.runs.metrics_log.FLUSH_EVERY", 1)
    spoil(monkeypatch, {6}, how)
    with pytest.raises(CsviError, match=rf"{what} is not finite \(its images are in .*nonfinite\.json\): start a new"):
        train(two_epochs, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert found["step"] == 6
    assert set(found["losses"]) >= {"identity", "center"}
    assert found["losses"]["identity"] == "nan" if how is image else found["losses"]["identity"] > 0
    assert found["gradient"] == "not finite"
    benchmark = read_benchmark(two_epochs.data)
    training_set = TrainingSet(benchmark, two_epochs.data, masks=True)
    _, sampler = training_set.loader(standard_views(two_epochs.data), two_epochs.seed)
    sampler.start(1, 1)
    drawn = [benchmark.train[sample.image].path for sample in next(iter(sampler))]
    assert found["images"] == drawn
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (saved["position"]["epoch"], saved["position"]["step"]) == (1, 1)
    assert all(tensor.isfinite().all() for tensor in saved["method"].values())
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_nothing_is_saved_of_steps_that_were_not_looked_at(two_epochs, tmp_path, monkeypatch):
    """Losses are fetched every ten steps or before anything is saved; here that is the end of the epoch."""
    spoil(monkeypatch, {6}, image)
    with pytest.raises(CsviError, match="of step 6"):
        train(two_epochs, tmp_path / "run")
    for name in ("model.safetensors", "method.safetensors"):  # of the first epoch
        assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "run" / name).values())
    monkeypatch.undo()
    train(two_epochs, tmp_path / "run", resume="auto")
    train(two_epochs, tmp_path / "whole")
    some, others = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize("how", [image, gradient, loss])
def test_skipping_leaves_everything_as_it_was(config, monkeypatch, how):
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    method = build_method(config, 4)
    wrapped, optimizer = fabric.setup(method, build_optimizer(method.groups(config.train), config.train))
    batch = Batch(
        image=torch.randn(8, 3, 48, 24),
        modality=torch.arange(8) // 4,
        identity=torch.arange(8) % 4,
        mask=torch.rand(8, 1, 48, 24),
    )

    def step(skip):
        inputs = batch._replace(image=batch.image.clone())
        if skip:
            inputs = how(inputs, method)
        return train_step(fabric, method, wrapped, optimizer, inputs, 0, skip)[1]

    assert step(skip=False)
    state, momentum = copy.deepcopy((method.state_dict(), optimizer.state_dict()["state"]))
    assert step(skip=True) == (how is loss)
    assert all(torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(after[n]["momentum_buffer"], of["momentum_buffer"]) for n, of in momentum.items())


def test_a_run_that_skips_continues_and_says_where(two_epochs, tmp_path, monkeypatch, caplog):
    two_epochs.train.on_nonfinite = "skip"
    spoil(monkeypatch, {3, 6}, image)
    train(two_epochs, tmp_path / "run")
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == list(range(1, 9))
    assert [line["step"] for line in found if line.get("train/skipped")] == [3, 6]
    assert "train/identity" not in found[2]  # NaN is not JSON
    assert "of step 3 is not finite" in caplog.text
    assert json.loads((tmp_path / "run" / "nonfinite.json").read_text())["step"] == 6
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "run" / "model.safetensors").values())


@pytest.mark.slow
def test_a_stopped_run_is_resumed_by_skipping(two_epochs, tmp_path, monkeypatch):
    spoil(monkeypatch, {6}, gradient)
    with pytest.raises(CsviError, match=r"--resume auto with --train\.on_nonfinite skip"):
        train(two_epochs, tmp_path / "run")
    two_epochs.train.on_nonfinite = "skip"
    spoil(monkeypatch, {2}, gradient)  # the second step from the checkpoint of the first epoch
    train(two_epochs, tmp_path / "run", resume="auto")
    assert [line["step"] for line in lines(tmp_path / "run") if line.get("train/skipped")] == [6]


def test_many_skipped_steps_stop_the_run():
    nonfinite = NonFinite(skip=True)
    for step in range(1, 51):
        assert nonfinite.check(step, BAD if step % 5 == 0 else GOOD, True) == (step % 5 == 0)
    assert sum(nonfinite.skipped) == AT_MOST
    with pytest.raises(
        CsviError, match=r"the center loss of step 51 .*, nor were 10 of the 50 steps before: .*32-true"
    ):
        nonfinite.check(51, BAD, True)


def test_a_loss_of_another_process_counts_as_ones_own():
    with pytest.raises(CsviError, match=r"process 1's and process 3's loss of step 2 is not finite: .*on_nonfinite"):
        NonFinite(scaled=True).check(2, GOOD, False, [1, 3])
    nonfinite = NonFinite(skip=True)
    assert nonfinite.check(2, GOOD, True, [1])
    assert nonfinite.skipped == deque([True])


def test_seldom_skipped_steps_never_do():
    nonfinite = NonFinite(skip=True)
    for step in range(1, 1001):
        nonfinite.check(step, BAD if step % 10 == 0 else GOOD, True)


def test_the_scaler_of_float16_looks_for_its_scale():
    nonfinite = NonFinite(scaled=True)
    assert [nonfinite.check(step, GOOD, step > 3) for step in range(1, 6)] == [True, True, True, False, False]
    with pytest.raises(CsviError, match="the center loss of step 6 is not finite"):
        nonfinite.check(6, BAD, False)
    nonfinite = NonFinite(scaled=True)
    assert all(nonfinite.check(step, GOOD, False) for step in range(1, 11))
    with pytest.raises(CsviError, match="the gradient of step 11 is not finite, nor were 10 of the 10 steps before"):
        nonfinite.check(11, GOOD, False)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_number_of_a_gradient(value):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.Linear(5, 6))
    network[:2](torch.randn(2, 3)).sum().backward()  # one layer has no gradient
    assert gradients_are_finite(network)
    network[1].bias.grad *= 1e30  # large is not infinite
    assert gradients_are_finite(network)
    network[0].weight.grad[2, 1] = float(value)
    assert not gradients_are_finite(network)


def test_weights_that_are_not_finite_are_not_saved():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3)).square().sum().backward()
    optimizer.step()
    check_weights(network, optimizer, 3)
    moment = optimizer.state[network[0].weight]["exp_avg_sq"]
    moment[0, 0] = float("inf")  # this weight would never move again
    with pytest.raises(CsviError, match=r"after step 3 exp_avg_sq of 0 is not finite"):
        check_weights(network, optimizer, 3)
    moment[0, 0] = 1
    network[1].running_var[2] = float("inf")
    with pytest.raises(CsviError, match=r"after step 3 1\.running_var is not finite: start a new run"):
        check_weights(network, optimizer, 3)


def test_a_run_whose_weights_became_infinite_saves_nothing(two_epochs, tmp_path, monkeypatch):
    number = iter(range(1, 9))

    def patched(fabric, method, *rest):
        outcome = train_step(fabric, method, *rest)
        if next(number) == 8:
            method.net.head.embed.weight.data[0] = float("inf")
        return outcome

    monkeypatch.setattr(loop, "train_step", patched)
    with pytest.raises(CsviError, match=r"after step 8 .*embed\.weight is not finite"):
        train(two_epochs, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["position"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in saved["method"].values())


@pytest.mark.slow
def test_the_bound_on_skipped_steps_counts_across_stops(two_epochs, tmp_path, monkeypatch):
    """Every second step is bad, and the fourth of these is too many."""
    two_epochs.train.on_nonfinite = "skip"
    monkeypatch.setattr("csvi.train.nonfinite.AT_MOST", 3)

    def stop(batch, method):
        if len(lines(tmp_path / "run")) == 3:
            signal.raise_signal(signal.SIGTERM)
        return image(batch, method)

    monkeypatch.setattr("csvi.runs.metrics_log.FLUSH_EVERY", 1)
    spoil(monkeypatch, {2, 4}, stop)
    with pytest.raises(StoppedError, match="stopped after 4 of 8 steps"):
        train(two_epochs, tmp_path / "run")
    spoil(monkeypatch, {2, 4}, image)
    with pytest.raises(CsviError, match=r"of step 8 .*, nor were 3 of the 7 steps before"):
        train(two_epochs, tmp_path / "run", resume="auto")


def test_step_and_losses_are_named_where_their_file_cannot_be_written(tmp_path):
    with pytest.raises(
        CsviError, match=r"the center loss of step 3 is not finite \(cannot write .*none/nonfinite\.json"
    ):
        NonFinite(tmp_path / "none").check(3, BAD, True)
