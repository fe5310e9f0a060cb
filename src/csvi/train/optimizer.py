"""Optimiser and schedule (Section 4.3). The learning rate is a function of the step; nothing of it is saved."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from csvi.config import TrainConfig


def build_optimizer(groups: Sequence[dict[str, Any]], train: TrainConfig) -> Optimizer:
    """Build the optimiser of a method's parameter groups (`Method.groups`).

    Fused: a step reads and writes every parameter once, which PyTorch can do on CPUs, NVIDIA's and Apple's GPUs.
    """
    groups = [{**group, "initial_lr": group.get("lr", train.lr)} for group in groups]
    arguments: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay, "fused": True}
    if train.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, momentum=train.momentum, nesterov=train.nesterov, **arguments)
        if train.momentum:
            sgd.register_step_pre_hook(_begin_at_zero)
        return sgd
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[train.optimizer](groups, **arguments)


def _begin_at_zero(optimizer: Optimizer, *_: object) -> None:
    """Give a momentum of 0 to what has none: the same first step, also where float16's scaler skips it.

    PyTorch's fused kernel would leave the new momentum of a skipped step as the memory was.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def set_learning_rate(optimizer: Optimizer, step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Give every group its learning rate at this step, from 0; returns the rate of a group that names none."""
    factor = learning_rate_factor(step, steps_per_epoch, config)

    def rate(initial: float) -> float:
        least = min(config.lr_min, initial)
        return least + (initial - least) * factor

    for group in optimizer.param_groups:
        group["lr"] = rate(group["initial_lr"])
    return rate(config.lr)


def learning_rate_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Compute the share of the initial rate at this step, from 0: the schedule, after and under the linear warm-up."""
    epoch = step // steps_per_epoch
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if epoch + 1 < config.warmup_epochs:
        return warmup * (epoch + 1) / config.warmup_epochs
    if config.schedule == "step":
        return warmup * 0.1 ** (epoch // config.decay_every)
    if config.schedule == "table":
        return warmup * config.factors.get(max((e for e in config.factors if e <= epoch), default=-1), 1.0)
    done = epoch + 1 if config.schedule == "epoch-cosine" else step / steps_per_epoch
    return warmup * (1 + math.cos(math.pi * done / config.epochs)) / 2
