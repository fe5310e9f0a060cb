"""Processes that train together: batch norms of them all, and the end of all when one is lost."""

import contextlib
import functools
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from csvi.errors import CsviError, StoppedError, in_one_line

log = logging.getLogger(__name__)

WATCH = 0.1
"""Seconds between two looks at whether the other processes of this machine are there."""

PATIENCE = 5.0
"""Seconds in which the first process, where it fails alike, says so and ends the others before they say it again."""

LOST = "the same command resumes the run (csvi train with --resume auto) from its last checkpoint"


class SyncBatchNormOnCPUs(_BatchNorm):
    """A batch norm over the rows of all processes, of which PyTorch's takes GPUs alone; all have equally many rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise rows, (B, C, …): by the batch of all processes in training, by the running statistics otherwise."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        rows = input if input.itemsize >= 4 else input.float()
        others = [0, *range(2, rows.ndim)]  # all dimensions but that of the channels
        count = rows.numel() // rows.shape[1] * distributed.get_world_size()
        mean = _Sum.apply(rows.sum(others, keepdim=True)) / count
        centered = rows - mean
        variance = _Sum.apply(centered.square().sum(others, keepdim=True)) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            unbiased = variance.flatten() * count / max(count - 1, 1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        normalized = centered * (variance + self.eps).rsqrt()
        for parameter, apply in ((self.weight, torch.mul), (self.bias, torch.add)):
            if parameter is not None:
                normalized = apply(normalized, parameter.view_as(mean))
        return normalized.to(input.dtype)


class _Sum(torch.autograd.Function):
    """Sum over all processes, and in the other direction that of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _summed(gradients[0])


def _summed(value: Tensor) -> Tensor:
    value = value.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(value)
    return value


def synchronize_norms(module: nn.Module, device: torch.device) -> None:
    """Turn all batch norms of a module, in place, into those of all processes; names and weights stay.

    A subclass keeps what it adds, which `nn.SyncBatchNorm.convert_sync_batchnorm` would drop: the classes here let go
    of the bias, or view the parts of an image as channels.

    Raises:
        CsviError: a batch norm is one of timm's, which do more than normalise.
    """
    synchronized = SyncBatchNormOnCPUs if device.type == "cpu" else nn.SyncBatchNorm
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and not isinstance(norm, synchronized):
            if type(norm).__module__.startswith("timm."):
                kind = type(norm).__name__
                raise CsviError(f"{kind} of timm is no batch norm of all processes: leave out --train.sync_batchnorm")
            norm.__class__ = _joined(type(norm), synchronized)  # type: ignore[arg-type]
            norm.process_group = None  # type: ignore[assignment]


@functools.cache
def _joined(kind: type[_BatchNorm], synchronized: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(kind.__name__, (kind, synchronized), {})


@contextlib.contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """Raise `CsviError` inside if another process is lost, and end the others of this machine where this one fails.

    A lost process closes its connections, and what waits for it fails at once (gloo); where it would wait on (NCCL),
    the process that started the others sees its end, says so, and Lightning ends them all within seconds. torchrun and
    SLURM (`srun --kill-on-bad-exit`) do the same for processes that they have started.
    """
    launcher: Any = fabric.strategy.launcher
    children: list[subprocess.Popen[bytes]] = getattr(launcher, "procs", [])
    child = launcher is not None and not children and not _started_from_outside(fabric) and fabric.local_rank > 0
    if children or child:
        parent = os.getppid() if child else None
        threading.Thread(target=_watch, args=(children, parent), daemon=True, name="csvi-watch").start()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, StoppedError):
            for process in children:
                process.kill()
            if child and isinstance(error, CsviError):
                time.sleep(PATIENCE)
        if fabric.world_size > 1 and isinstance(error, RuntimeError) and _of_connection(error):
            raise CsviError(
                f"process {fabric.global_rank} has lost another process of this run: {LOST} [{in_one_line(error)}]"
            ) from error
        raise


def _of_connection(error: RuntimeError) -> bool:
    found = re.search(
        r"gloo|nccl|connection (closed|reset|refused)|broken pipe|ProcessGroup", str(error), re.IGNORECASE
    )
    return isinstance(error, distributed.DistError) or found is not None


def _started_from_outside(fabric: Fabric) -> bool:
    environment = getattr(fabric.strategy, "cluster_environment", None)
    return environment is None or bool(environment.creates_processes_externally)


def _watch(children: Sequence[subprocess.Popen[bytes]], parent: int | None) -> None:
    """Wait until one of the processes that this one has started has failed, or the one that has started it is gone."""
    while True:
        time.sleep(WATCH)
        if parent is not None and os.getppid() != parent:
            os._exit(1)
        for number, process in enumerate(children, 1):
            if process.poll():
                log.error("process %d has ended with status %d: %s", number, process.returncode, LOST)
                return
