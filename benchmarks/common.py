"""What every benchmark does: say on which machine it ran and whether a target is met, and time by turns."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

Seconds = dict[str, list[float]]
"""Of each contestant, turn by turn."""


def machine() -> str:
    """Processor or accelerator, cores, versions, and how busy it is now."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name()]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, numpy {np.__version__}, load {load}"
    )


def met(condition: bool) -> str:
    """Whether a target is reached, for a table of rich."""
    return "met" if condition else "[red]not met[/red]"


def take_turns(contestants: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 2) -> Seconds:
    """Seconds of every call, each contestant once a turn, so that what else the machine does hits them all alike."""
    seconds: Seconds = {name: [] for name in contestants}
    for turn in range(warm_up + turns):
        for name, call in contestants.items():
            taken = time_call(call)
            if turn >= warm_up:
                seconds[name].append(taken)
    return seconds


def time_call(call: Callable[[], object]) -> float:
    """Seconds until the device has done all of it."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(seconds: Seconds, name: str, other: str) -> float:
    """How many times as long as another a contestant takes: the median over the turns."""
    return statistics.median(one / two for one, two in zip(seconds[name], seconds[other], strict=True))
