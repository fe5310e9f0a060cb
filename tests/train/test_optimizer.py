"""The optimiser and the learning rate of every step."""

import copy
import dataclasses
import math
import re

import pytest
import torch

from csvi.config import TrainConfig
from csvi.errors import CsviError
from csvi.methods import build_method
from csvi.train.optimizer import build_optimizer, learning_rate_factor, set_learning_rate


@pytest.fixture
def method(config):
    return build_method(config, identities=4)


def rates(config, steps_per_epoch):
    return [learning_rate_factor(step, steps_per_epoch, config) for step in range(config.epochs * steps_per_epoch)]


def test_the_paper_divides_by_ten_every_eight_epochs():
    expected = [1.0] * 8 * 5 + [0.1] * 8 * 5 + [0.01] * 8 * 5
    assert rates(TrainConfig(), steps_per_epoch=5) == pytest.approx(expected)


def test_the_number_of_epochs_between_decays():
    assert rates(TrainConfig(epochs=5, decay_every=2), 1) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_warm_up_is_linear_and_reaches_the_whole_rate():
    assert rates(TrainConfig(epochs=2, warmup=4), 3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_warm_up_multiplies_the_schedule():
    assert rates(TrainConfig(epochs=2, decay_every=1, warmup=4), 2) == pytest.approx([0.25, 0.5, 0.075, 0.1])


@pytest.mark.parametrize(
    "settings", [{"schedule": "table", "factors": {1: 0.1}}, {"schedule": "cosine"}, {"schedule": "epoch-cosine"}]
)
def test_warm_up_multiplies_every_schedule(settings):
    config = TrainConfig(epochs=2, **settings)
    alone = rates(config, 2)
    warmed = rates(dataclasses.replace(config, warmup=4), 2)
    assert warmed == pytest.approx([0.25 * alone[0], 0.5 * alone[1], 0.75 * alone[2], alone[3]])


def test_cosine_falls_from_the_whole_rate_to_zero():
    found = rates(TrainConfig(epochs=10, schedule="cosine"), 10)
    assert found == pytest.approx([(1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)])
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[-1] < 0.001
    assert found == sorted(found, reverse=True)


SCHEDULES = {  # rates of the public code of each method, epoch from 0 → (pretrained layers, heads)
    "AGW": (
        {"epochs": 81, "lr": 0.1, "schedule": "table", "factors": {20: 0.1, 50: 0.01}, "warmup_epochs": 10},
        {0: (0.001, 0.01), 1: (0.002, 0.02), 4: (0.005, 0.05), 9: (0.01, 0.1), 10: (0.01, 0.1), 19: (0.01, 0.1),
         20: (0.001, 0.01), 49: (0.001, 0.01), 50: (0.0001, 0.001), 80: (0.0001, 0.001)},
    ),
    "MTL": (
        {"epochs": 29, "lr": 0.01, "schedule": "table", "factors": {5: 0.75, 10: 0.5, 15: 0.25, 20: 0.125, 25: 0.1}},
        {0: (0.001, 0.01), 4: (0.001, 0.01), 5: (0.00075, 0.0075), 10: (0.0005, 0.005), 28: (0.0001, 0.001)},
    ),
    "PMT": (
        {"epochs": 24, "lr": 3e-4, "lr_pretrained": 0.5, "lr_min": 3e-6, "schedule": "epoch-cosine", "warmup_epochs": 3,
             "optimizer": "adamw"},
        {0: (5.2e-5, 0.000102), 1: (0.000101, 0.000201), 2: (0.00014440514564, 0.000288696110578),
         23: (3e-6, 3e-6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_rates_of_published_schedules(settings, expected):
    config = TrainConfig(**{"lr_pretrained": 0.1} | settings)
    pretrained, heads = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    groups = [{"params": pretrained.parameters(), "lr": config.lr * config.lr_pretrained}]
    optimizer = build_optimizer([*groups, {"params": heads.parameters()}], config)
    for epoch, rates in expected.items():
        for step in (10 * epoch, 10 * epoch + 9):  # the same in the whole epoch
            set_learning_rate(optimizer, step, 10, config)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates, rel=1e-11)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schedule": "table", "factors": {-1: 0.1}}, "factors are {-1: 0.1}"),
        ({"schedule": "table", "factors": {3: math.nan}}, "at least 0"),
        ({"factors": {3: 0.1}}, "the schedule is step"),
        ({"lr": 0.1, "lr_min": 0.2}, "rates fall to lr_min"),
        ({"epochs": 3, "warmup_epochs": 4}, "nothing follows it"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov is set"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov is set"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(CsviError, match=re.escape(says)):
        TrainConfig(**settings)


@pytest.mark.parametrize(("factor", "expected"), [(0.01, [0.001] * 3), (0, [0] * 3), (1, [0.1, 0.055, 0.01])])
def test_no_rate_rises_to_the_least(factor, expected):
    config = TrainConfig(epochs=2, lr=0.1, lr_pretrained=factor, lr_min=0.01, schedule="cosine")
    group = {"params": torch.nn.Linear(2, 2).parameters(), "lr": config.lr * config.lr_pretrained}
    optimizer = build_optimizer([group], config)
    for step, rate in enumerate(expected):
        assert set_learning_rate(optimizer, step, 1, config) == pytest.approx([0.1, 0.055, 0.01][step])
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_the_rate_of_every_group_follows_the_schedule():
    config = TrainConfig(lr=0.5, decay_every=1)
    of_their_own, others = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    groups = [{"params": of_their_own.parameters(), "lr": 0.1}, {"params": others.parameters()}]
    optimizer = build_optimizer(groups, config)
    assert set_learning_rate(optimizer, 0, 10, config) == 0.5
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.5])
    assert set_learning_rate(optimizer, 10, 10, config) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.05])


def test_a_group_may_have_a_weight_decay_of_its_own():
    groups = [{"params": torch.nn.Linear(2, 2).parameters(), "weight_decay": 0.0}, {"params": [torch.ones(2)]}]
    assert [group["weight_decay"] for group in build_optimizer(groups, TrainConfig()).param_groups] == [0, 5e-4]


def test_the_groups_of_a_method_stay_as_they_were(method):
    """What the optimiser adds to a group does not reach the method that made it."""
    groups = method.groups(TrainConfig())
    build_optimizer(groups, TrainConfig())
    assert [set(group) for group in groups] == [{"params", "lr"}, {"params"}]


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_papers_optimiser_is_sgd_with_the_momentum_that_is_set(method, momentum):
    train = TrainConfig(momentum=momentum)
    optimizer = build_optimizer(method.groups(train), train)
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["momentum"], group["weight_decay"], group["initial_lr"]) == (momentum, 5e-4, 0.01)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimizers_of_adam(method, name, kind):
    train = TrainConfig(optimizer=name, weight_decay=0.1)
    optimizer = build_optimizer(method.groups(train), train)
    assert type(optimizer) is kind
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize("nesterov", [False, True])
def test_nesterovs_momentum(method, nesterov):
    train = TrainConfig(nesterov=nesterov)
    assert {group["nesterov"] for group in build_optimizer(method.groups(train), train).param_groups} == {nesterov}


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam"])
def test_fused_steps_are_the_equations(method, name):
    """In channels_last, as training has it, where gradients could lie in memory otherwise than their parameters."""
    method.to(memory_format=torch.channels_last)
    config, other = TrainConfig(optimizer=name, lr=0.1), copy.deepcopy(method)
    fused, plain = (build_optimizer(some.groups(config), config) for some in (method, other))
    for group in plain.param_groups:
        assert group["fused"]
        group["fused"], group["foreach"] = False, False
    for seed in range(3):
        torch.manual_seed(seed)
        gradients = [torch.randn(parameter.shape) for parameter in method.parameters()]
        for some, optimizer in ((method, fused), (other, plain)):
            for parameter, gradient in zip(some.parameters(), gradients, strict=True):
                parameter.grad = gradient.contiguous(memory_format=memory_format_of(parameter))
            optimizer.step()
    torch.testing.assert_close(list(method.parameters()), list(other.parameters()))


def memory_format_of(tensor):
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
