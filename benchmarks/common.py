"""What every benchmark says of itself: on which machine it ran, and whether a target is met."""

import os
import platform
from pathlib import Path

import numpy as np
import torch


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
