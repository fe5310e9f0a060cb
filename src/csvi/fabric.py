"""Devices and precision: how Lightning Fabric is set up."""

import ctypes
import functools
import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.config import Config
from csvi.data.transforms import normalize
from csvi.errors import CsviError
from csvi.model.backbone import Route


def make_fabric(config: Config, devices: int = 1, nodes: int = 1) -> Fabric:
    """Fabric on the machine's accelerator, or its CPU, in the precision that the settings ask for.

    Raises:
        CsviError: there are fewer devices.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # we say ourselves what was chosen
    try:
        return Fabric(devices=devices, num_nodes=nodes, precision=choose_precision(config.precision))  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise CsviError(f"cannot use {devices} devices on {nodes} machines: {' '.join(str(error).split())}") from error


def on_device(batch: dict[str, Tensor], fabric: Fabric) -> dict[str, Any]:
    """A batch on the device of `fabric`: images normalised, in the memory format of the networks, and their `route`.

    The route through the streams is made of the modalities while these are on the CPU, as they come from a loader.
    """
    route = Route.of(batch["modality"], fabric.device)
    batch = normalize(fabric.to_device(batch))
    return batch | {"image": batch["image"].contiguous(memory_format=torch.channels_last), "route": route}


@functools.cache
def keep_freed_memory(device: torch.device) -> bool:
    """Let the C library keep the memory that a step frees for the next step; whether it will.

    GNU's gives large tensors back to the kernel at once, which clears every page of them when the next step asks again.
    That takes up to a third of a step on a CPU (docs/performance.md). Other libraries are left as they are, and so is
    GNU's with `CSVI_KEEP_MEMORY=0` in the environment, or with anything there that says how it is to be.

    To be called when loader processes have been forked, which need not keep any. Once is enough; more do nothing.

    Args:
        device: that the steps run on; only a CPU's memory is the C library's.
    """
    decided = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if device.type != "cpu" or decided or os.environ.get("CSVI_KEEP_MEMORY") == "0":
        return False
    trim_threshold, mmap_max = -1, -4  # numbers in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not the C library of GNU
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def check_compiler(device: torch.device) -> None:
    """Compile next to nothing, to see whether a network can be compiled.

    Raises:
        CsviError: there is no compiler that torch.compile can use for this device.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # of whichever compiler it is
        reason = str(error).partition("\n")[0]
        raise CsviError(
            f"cannot compile for the {device.type} ({reason}): install a C++ compiler such as g++, and Triton "
            "for a GPU, or train without --train.compile"
        ) from error


def choose_precision(setting: str = "auto") -> str:
    """Lightning Fabric's name of the precision to use: `auto` takes bfloat16 where the hardware multiplies it.

    On CPUs that is AVX512-bf16 or AMX; elsewhere bfloat16 is emulated, and slower than float32.
    """
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
