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
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, train.lr, weight_decay=train.weight_decay, fused=True)
    return torch.optim.SGD(groups, train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Give every group its learning rate at this step, from 0; returns the rate of a group that names none."""
    factor = learning_rate_factor(step, steps_per_epoch, config)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return config.lr * factor


def learning_rate_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Compute the share of the initial rate at this step: linear warm-up, then a tenth every few epochs or a cosine."""
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "step":
        return warmup * 0.1 ** (step // steps_per_epoch // config.decay_every)
    return warmup * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch))) / 2
