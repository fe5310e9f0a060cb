"""Optimiser and schedule (Section 4.3). The learning rate is a function of the step, so that nothing of it is saved."""

import math

import torch
from torch.optim import Optimizer

from csvi.config import TrainConfig
from csvi.model import TrainingNetwork


def build_optimizer(network: TrainingNetwork, config: TrainConfig, pretrained: bool) -> Optimizer:
    """One group for the backbone, whose rate is scaled by `lr_pretrained` if it is pretrained, and one for the rest.

    Fused: a step reads and writes every parameter once, which PyTorch can do on CPUs, NVIDIA's and Apple's GPUs.
    """
    backbone = list(network.net.backbone.parameters())
    in_backbone = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in in_backbone]
    groups = [
        {"params": backbone, "initial_lr": config.lr * (config.lr_pretrained if pretrained else 1)},
        {"params": rest, "initial_lr": config.lr},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(groups, config.lr, momentum=0.9, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Give every group its rate at this step, from 0; returns that of new layers."""
    factor = learning_rate_factor(step, steps_per_epoch, config)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return config.lr * factor


def learning_rate_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Share of the initial rate at this step: linear warm-up, then a tenth every few epochs or half a cosine."""
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "step":
        return warmup * 0.1 ** (step // steps_per_epoch // config.decay_every)
    return warmup * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch))) / 2
