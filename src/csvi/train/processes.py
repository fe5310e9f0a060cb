"""Processes that train together: their start, batch norms of them all, and the end of all when one is lost."""

import contextlib
import functools
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from csvi.errors import CsviError, StoppedError, in_one_line, leave_unsaid
from csvi.fabric import launch, parent

log = logging.getLogger(__name__)

WATCH = 0.1
"""Seconds between two looks at whether the other processes of this machine are there."""

GRACE = 1.0
"""Seconds that a process has to end by itself when one of the others is lost."""

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
def launched(fabric: Fabric) -> Iterator[None]:
    """Start the processes of `fabric`, let the first one speak for all, and end those of this machine together.

    A lost process closes its connections, and what waits for it fails at once (gloo). Where others would wait on (NCCL,
    or before all have found each other), the process that started the others sees its end, says so and ends them all,
    and these see the end of the one that started them. torchrun and SLURM (`srun --kill-on-bad-exit`) do the same for
    processes that they have started.

    Raises:
        CsviError: the processes cannot be started, or another one is lost.
    """
    try:
        with _ending_together(fabric):
            launch(fabric)
            if not fabric.is_global_zero:
                logging.getLogger("csvi").setLevel(logging.ERROR)  # the first process says what they all do
            yield
    except (StoppedError, KeyboardInterrupt) as stop:  # in all processes
        if not fabric.is_global_zero:
            leave_unsaid(stop)
        raise


@contextlib.contextmanager
def _ending_together(fabric: Fabric) -> Iterator[None]:
    if fabric.world_size == 1:
        yield
        return
    watch = _Watch(fabric)
    watch.start()
    try:
        yield
    except StoppedError:
        raise
    except BaseException as error:
        lost = None
        if isinstance(error, RuntimeError) and _of_connection(error):
            time.sleep(WATCH)  # a process closes its connections before its end can be seen
            lost = watch.lost() or f"process {fabric.global_rank} has lost another process of this run"
        watch.end_others()
        if not fabric.is_global_zero and not isinstance(error, KeyboardInterrupt):
            time.sleep(PATIENCE)
        if lost:
            raise CsviError(f"{lost}: {LOST} [{in_one_line(error)}]") from error
        raise
    finally:
        watch.over.set()


def _of_connection(error: RuntimeError) -> bool:
    found = re.search(
        r"gloo|nccl|connection (closed|reset|refused)|broken pipe|ProcessGroup", str(error), re.IGNORECASE
    )
    return isinstance(error, distributed.DistError) or found is not None


class _Watch:
    """Ends this process, unless it ends by itself, when one that it has started has failed, or its starter is gone.

    Lightning would kill this process without a word: what it has started is taken off its list.
    """

    def __init__(self, fabric: Fabric):
        self.starting: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        self.parent = parent()
        self.over = threading.Event()

    def start(self) -> None:
        """Begin, before other processes are started."""
        threading.Thread(target=self._look, daemon=True, name="csvi-watch").start()

    def lost(self) -> str | None:
        """Say which process was lost, of those that this one has started and the one that has started it."""
        for number, process in enumerate(_children, 1):
            if process.poll():
                return f"process {number} has ended with status {process.returncode}"
        return None if self.parent in (None, os.getppid()) else "the process that started this one is gone"

    def end_others(self) -> None:
        """Kill the processes that this one has started."""
        for process in (*self.starting, *_children):
            process.kill()

    def _look(self) -> None:
        while not self.over.wait(WATCH):
            while self.starting:
                _children.append(self.starting[0])
                del self.starting[0]
            lost = self.lost()
            if lost and not self.over.wait(GRACE):
                log.error("%s: %s", lost, LOST)
                stopped = any(process.returncode == os.EX_TEMPFAIL for process in _children)  # by a signal to all, say
                self.end_others()
                os._exit(os.EX_TEMPFAIL if stopped else 1)


_children: list[subprocess.Popen[bytes]] = []
"""Processes that this one has started; those of an earlier training as well, which go on to the next."""
