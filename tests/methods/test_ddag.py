"""DDAG: what its public code counts and how it learns, and the weight of its graph, through a stopped run too."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from csvi.errors import CsviError, StoppedError
from csvi.methods.ddag import DDAG, DDAGSettings
from csvi.runs import load_config, load_net
from csvi.train import loop
from csvi.train.loop import train, train_step

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_ddag.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"
OTHERS = "identity", "triplet", "parts/identity"


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def method(build):
    return build("ddag")


@pytest.mark.usefixtures("real_trunk")
def test_parameters_are_those_that_the_public_code_uses():
    golden = GOLDENS["parameters"]["ddag"]
    with torch.device("meta"):
        method = DDAG(DDAGSettings(weights="none"), golden["classes"], 288, 144)
    assert size(method) + golden["frozen"] == golden["used_in_training"]
    assert size(method.net) + golden["frozen"] == golden["used_at_test"]


def test_it_is_trained_as_the_public_code_trains_it(rates_of):
    epochs, *expected = zip(*GOLDENS["rates"], strict=True)
    np.testing.assert_allclose(rates_of("ddag", epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIGS / "ddag.yaml")
    assert config.train.epochs == GOLDENS["epochs"]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.identities, config.data.images, config.data.replacement) == (8, 4, True)
    assert config.method == DDAGSettings()
    slow, _ = DDAG(config.method, 4, 48, 40).groups(config.train)
    assert len(slow["params"]) == 18  # the tiny trunk's, and all else learns faster


def test_losses_are_the_three_and_the_weighted_graph(build, batch):
    method = build("ddag", dropout=0.0)
    method.graph_weight.fill_(0.25)
    found = method(batch, 0)
    features = method.net.backbone(batch.image, batch.modality)
    pooled = features.mean((2, 3))
    behind = method.net.neck(pooled)
    same = batch.identity[:, None] == batch.identity
    distance = torch.cdist(pooled, pooled)
    hardest = (distance - 1e6 * ~same).amax(1) - (distance + 1e6 * same).amin(1)
    scores = behind, method.net.attend(features, behind)
    with_parts = [F.cross_entropy(of @ method.classify.weight.T, batch.identity) for of in scores]
    graph = F.nll_loss(method.relate(pooled, batch.identity).log_softmax(1), batch.identity)
    expected = {
        "identity": with_parts[0],
        "triplet": (hardest + 0.3).relu().mean(),
        "parts/identity": with_parts[1],
        "graph/identity": graph / 4,
    }
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        method.eval().net(batch.image, batch.modality), F.normalize(method.net.described(*batch[:2])[2], dim=1)
    )


def test_the_graph_learns_nothing_in_the_first_epoch_and_then_the_more_the_lower_the_other_losses_were(method, batch):
    sums = {}
    for epoch in range(3):
        method.begin_epoch(epoch)
        if epoch:
            mean = sum(sums[epoch - 1]) / 2
            assert method.graph_weight.item() == pytest.approx(1 / (1 + mean), rel=1e-6)
        else:
            assert method.graph_weight == 0
        sums[epoch] = []
        for step in range(2):
            terms = method(batch._replace(image=batch.image * (1 + step + epoch)), step)
            sums[epoch].append(sum(terms[name].item() for name in OTHERS))
            method.begin_epoch(epoch)  # as where a run is resumed
        method.zero_grad()
        terms["graph/identity"].backward()
        gradient = method.relate.heads[0].project.weight.grad
        assert (gradient.abs().sum() > 0) == (epoch > 0)
    assert sums[0] != sums[1] != sums[2]


def test_what_is_computed_in_evaluation_does_not_count(method, batch):
    method.begin_epoch(0)
    method.eval()(batch, 0)
    assert method.steps == method.others == 0


def test_the_weight_is_that_of_no_other_run(build, method, batch):
    method.begin_epoch(0)
    method(batch, 0)
    other = build("ddag", seed=1)
    other.load_pretrained(method.state_dict())
    assert torch.equal(other.relate.heads[0].attention, method.relate.heads[0].attention)
    other.begin_epoch(0)
    assert other.steps == other.others == 0


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_of_all_is_refused(dropout):
    with pytest.raises(CsviError, match="dropout is"):
        DDAGSettings(dropout=dropout)


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/images_per_second"} for line in lines]


@pytest.mark.parametrize("stop", [5, 7])
def test_a_run_that_is_stopped_within_its_second_epoch_is_resumed_as_if_never_stopped(
    config, tmp_path, monkeypatch, stop
):
    config.method = DDAGSettings(backbone="mobilenet_v2", weights="none")
    config.data.identities = 4
    config.train = dataclasses.replace(config.train, epochs=3)
    train(config, tmp_path / "whole")
    steps = []

    def stopping(*arguments):
        steps.append(train_step(*arguments))
        if len(steps) == stop:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopping)
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume="auto")
    whole, resumed = metrics(tmp_path / "whole"), metrics(tmp_path / "run")
    assert whole == resumed
    assert len(whole) == 12
    graph = [line["train/graph/identity"] for line in whole]
    assert [value > 0 for value in graph] == [False] * 4 + [True] * 8
    for name in ("model.safetensors", "method.safetensors"):
        found, expected = (load_file(tmp_path / run / name) for run in ("run", "whole"))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert type(load_net(tmp_path / "run")) is DDAG.Net
