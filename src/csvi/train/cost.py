"""The cost of training: parameters, time and memory of a step, on random images."""

import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from csvi.config import Config
from csvi.data.batch import Batch
from csvi.data.views import Views, standard_views
from csvi.fabric import keep_freed_memory, make_fabric
from csvi.methods import Method, build_method
from csvi.train.loop import set_up, train_step

WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """The cost of one configuration on one machine."""

    parameters_training: int
    parameters_testing: int
    seconds_a_step: float
    """Median over the steps, without loading images."""
    bytes: int
    """Most memory allocated on the accelerator or, on a CPU, resident in the process, PyTorch itself included."""
    device: str


def training_cost(config: Config, identities: int, steps: int = 10) -> Cost:
    """Train a few steps on random images, in a process of its own so that memory is this configuration's alone.

    Args:
        config: as a run's; its data are not read.
        identities: classes.
        steps: measured, after a warm-up.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        return pool.submit(_measure, config, identities, steps).result()


def _measure(config: Config, identities: int, steps: int) -> Cost:
    method, step = random_training(config, identities)
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        float(torch.stack(list(step().values())).sum().detach())  # waits for the device
        seconds.append(time.perf_counter() - start)
    on_gpu = torch.cuda.is_available()
    return Cost(
        sum(parameter.numel() for parameter in method.parameters()),
        sum(parameter.numel() for parameter in method.net.parameters()),
        statistics.median(seconds[WARM_UP:]),
        torch.cuda.max_memory_allocated() if on_gpu else _peak_resident(),
        torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()}",
    )


def random_training(config: Config, identities: int) -> tuple[Method, Callable[[], dict[str, Tensor]]]:
    """Build a method, and its training step on one batch of random images, to be called again and again."""
    method, step = training(config, identities)
    batch = random_batch(config, identities, method.views(config.data))
    return method, lambda: step(batch)


def training(config: Config, identities: int) -> tuple[Method, Callable[[Batch], dict[str, Tensor]]]:
    """Build a method, and its training step on a batch, which gives the loss terms without waiting for the device."""
    torch.manual_seed(0)
    fabric = make_fabric(config.precision, tf32=config.tf32)
    method = build_method(config, identities).to(memory_format=torch.channels_last)
    wrapped, optimizer = set_up(fabric, method, config.train)
    keep_freed_memory(fabric.device)
    parts = config.train.accumulate
    return method, lambda batch: train_step(fabric, method, wrapped, optimizer, batch, 0, parts=parts)[0]


def random_batch(config: Config, identities: int, views: Views | None = None) -> Batch:
    """Make a batch of noise, as a loader makes them of images, with a row for each view of an image."""
    data = config.data
    rows = [(int(m), v) for m, of in (views or standard_views(data)).items() for v in range(len(of))]
    drawn = torch.arange(data.identities).repeat_interleave(data.images) % identities
    modality, view = torch.tensor(rows).repeat_interleave(len(drawn), 0).unbind(1)
    return Batch(
        image=torch.randn(len(view), 3, data.height, data.width).contiguous(memory_format=torch.channels_last),
        modality=modality,
        identity=drawn.repeat(len(rows)),
        mask=torch.rand(len(view), 1, data.height, data.width).round(),
        view=view,
    )


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # the other counts what the process was forked from, too
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
