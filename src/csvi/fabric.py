"""Devices, processes, precision and memory: how Lightning Fabric and the C library are set up."""

import contextlib
import ctypes
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning_fabric.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import distributed
from torch._dynamo.utils import counters

from csvi.errors import CsviError, in_one_line, leave_unsaid

_PARENT = "CSVI_PARENT"
"""Variable in the environment of processes that another one starts to work with it: the number of that one."""

_SRUN = "SLURM_STEP_NUM_TASKS"
"""Variable that srun alone sets."""


def make_fabric(precision: str = "auto", devices: int = 1, nodes: int = 1, tf32: bool = False) -> Fabric:
    """Set up Fabric on the machine's accelerator or CPU.

    With `tf32` 32-bit matrix products of this process may be TF32's from now on.

    Raises:
        CsviError: there are fewer devices, SLURM or torchrun started another number of processes, in all or on a
            machine, or nobody started those of several machines.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # we say ourselves what was chosen
    starter, started, of_machines = _started_by()
    wrong = ""
    if starter and started != devices * nodes:
        wrong = f"{started} processes and csvi was asked for {devices * nodes} devices"
    elif others := [n for n in of_machines if n != devices]:
        wrong = f"{others[0]} processes on a machine and csvi was asked for {devices} devices on each of {nodes}"
    if wrong:
        raise CsviError(
            f"{starter} started {wrong}: start one process for each device (SLURM: srun --ntasks-per-node; cores are "
            "--cpus-per-task), or give --devices to csvi train or csvi evaluate"
        )
    # A job of several tasks, in a script that does not start them by srun, is one process all the same.
    plugins = [LightningEnvironment()] if not starter and "SLURM_NTASKS" in os.environ and nodes == 1 else None
    kind = choose_precision(precision)
    if tf32:
        torch.set_float32_matmul_precision("high")
    try:
        with warnings.catch_warnings():
            if devices == nodes == 1:
                warnings.filterwarnings("ignore", "The `srun` command is available")  # and not needed
            fabric = Fabric(devices=devices, num_nodes=nodes, precision=kind, plugins=plugins)  # type: ignore[arg-type]
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise CsviError(f"cannot use {devices} devices on {nodes} machines: {in_one_line(error)}") from error
    environment = getattr(fabric.strategy, "cluster_environment", None)
    by_hand = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys()
    if nodes > 1 and not (starter or by_hand) and isinstance(environment, (LightningEnvironment, SLURMEnvironment)):
        raise CsviError(
            f"--nodes {nodes} needs torchrun or srun, which start csvi on every machine, see docs/scaling.md, or "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment of each: this process would wait for the others "
            "for ever"
        )
    fabric.strategy.precision.convert_input = _as_it_is  # type: ignore[method-assign]
    return fabric


def _started_by() -> tuple[str, int, list[int]]:
    """Who started this process as one of how many, and of how many on machines; ("", 1, []) for nobody."""
    for starter, sign, processes, of_machines in (
        ("torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE", ["LOCAL_WORLD_SIZE"]),
        ("SLURM", _SRUN, _SRUN, ["SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"]),
    ):
        if sign in os.environ and os.environ.get(processes, "").isdecimal():
            # In a job of these names Lightning takes no notice of SLURM.
            if starter == "SLURM" and os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
                continue
            given = next((os.environ[name] for name in of_machines if name in os.environ), "")  # as 2(x3),1
            return starter, int(os.environ[processes]), [int(n) for n in re.findall(r"\b[0-9]+", given)]
    return "", 1, []


def launch(fabric: Fabric) -> None:
    """Start the other processes of this machine, if nobody else does, and wait until all have found each other.

    Raises:
        CsviError: they cannot be started, or do not find each other.
    """
    starts = _starts_processes(fabric)
    if starts and getattr(sys.modules["__main__"], "__spec__", None) is None and not Path(sys.argv[0]).is_file():
        raise CsviError(
            "cannot start the other processes by a command that is no file (python -c): use csvi, python -m csvi or a "
            "script in a file"
        )
    if starts:
        os.environ[_PARENT] = str(os.getpid())
    try:
        fabric.launch()
    except (RuntimeError, ValueError, OSError) as error:
        raise CsviError(f"cannot start the processes: {in_one_line(error)}") from error
    finally:
        if starts:
            del os.environ[_PARENT]


@functools.cache
def parent() -> int | None:
    """Number of the process that has started this one to work with it, by `launch`; None if nobody has."""
    number = os.environ.pop(_PARENT, None)
    return None if number is None else int(number)


def _starts_processes(fabric: Fabric) -> bool:
    """Whether `launch` starts other processes: there are several devices, and neither torchrun nor SLURM has."""
    launcher = fabric.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.num_processes == 1:
        return False
    return not launcher.cluster_environment.creates_processes_externally


@contextlib.contextmanager
def first_alone(fabric: Fabric) -> Iterator[None]:
    """Let the first process of each machine do this before the others of it, however long it takes.

    Raises:
        CsviError, OSError: one of all the processes could not do it.
    """
    if fabric.world_size == 1:
        yield
        return
    group = distributed.new_group(backend="gloo", timeout=timedelta(days=10_000))
    first, error = fabric.local_rank == 0, None
    try:
        if not first:
            _fail_together(fabric, group, None)
        try:
            yield
        except (CsviError, OSError) as caught:
            error = caught
        _fail_together(fabric, group, error)
        if first:
            _fail_together(fabric, group, None)
    finally:
        distributed.destroy_process_group(group)


def of_processes(fabric: Fabric, found: Any, group: Any = None) -> list[Any]:
    """What each of the processes has found, in the order of their ranks; all must ask at the same time."""
    every = [found] * fabric.world_size
    if fabric.world_size > 1:
        distributed.all_gather_object(every, found, group)
    return every


def _fail_together(fabric: Fabric, group: Any, error: Exception | None) -> None:
    """Raise in all processes what one of them has caught; the first one says it."""
    errors = of_processes(fabric, "" if error is None else str(error) or repr(error), group)
    if sentence := next(filter(None, errors), ""):
        error = error or CsviError(sentence)
        if not fabric.is_global_zero:
            leave_unsaid(error)
        raise error


def _as_it_is(data: Any) -> Any:
    """Leave what a network takes in 32 bits: autocast narrows it for each operation, and true masks stay exact."""
    return data


@functools.cache
def keep_freed_memory(device: torch.device) -> bool:
    """Ask glibc to keep freed memory for the next step. Returns whether it agreed.

    By default it gives large tensors back to the kernel, which clears every page of them when the next step asks again:
    up to a third of a step on a CPU (docs/performance.md). `CSVI_KEEP_MEMORY=0` in the environment, or any setting of
    glibc's own there, leaves it as it is. Call it after loader processes were forked, which need not keep any.
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
    """Compile next to nothing; raises `CsviError` if torch.compile finds no compiler for this device."""
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # of whichever compiler it is
        reason = str(error).partition("\n")[0]
        raise CsviError(
            f"cannot compile for the {device.type} ({reason}): install a C++ compiler such as g++, and Triton "
            "for a GPU, or train without --train.compile"
        ) from error


def compiled_graphs() -> int:
    """Count what torch.compile has compiled in this process, what it has compiled again included."""
    return counters["stats"]["unique_graphs"]


def choose_precision(setting: str = "auto") -> str:
    """Choose Lightning Fabric's name of the precision: `auto` takes bfloat16 where the hardware multiplies it.

    On CPUs that is AVX512-bf16 or AMX; elsewhere bfloat16 is emulated, and slower than float32.
    """
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
