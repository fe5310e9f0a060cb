"""Devices, precision, and the memory of a step."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from csvi.errors import CsviError
from csvi.fabric import choose_precision, keep_freed_memory, make_fabric


@pytest.mark.parametrize("name", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_precision_that_is_named_is_taken(name):
    assert choose_precision(name) == name


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"avx2": True}, "32-true"),
    ],
)
def test_auto_takes_bfloat16_where_a_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision() == choose_precision("auto") == expected


def test_one_device_where_slurm_is_is_no_reason_for_a_remark(monkeypatch, recwarn):
    monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
    make_fabric("32-true")
    assert not recwarn.list


@pytest.mark.skipif(torch.cuda.is_available(), reason="such devices may be there")
def test_devices_that_are_not_there_are_one_sentence():
    with pytest.raises(CsviError, match=r"^cannot use 0 devices on 1 machines: ") as caught:
        make_fabric("32-true", devices=0)
    assert "\n" not in str(caught.value)


SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "7", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(("name", "started"), [("SLURM", SRUN), ("torchrun", TORCHRUN)])
def test_more_processes_than_devices_are_one_sentence(name, started, monkeypatch):
    for variable, value in started.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(CsviError, match=rf"^{name} started 2 processes and csvi was asked for 1 devices: start one .*"):
        make_fabric("32-true")


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("SLURM", SRUN | {"SLURM_NTASKS_PER_NODE": "2"}),
        ("SLURM", SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2(x1)", "SLURM_NTASKS_PER_NODE": "1"}),
        ("SLURM", SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1,2"}),
        ("torchrun", TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}),
    ],
)
def test_more_processes_on_a_machine_than_its_devices_are_one_sentence(name, started, monkeypatch):
    for variable, value in started.items():
        monkeypatch.setenv(variable, value)
    expected = rf"^{name} started 2 processes on a machine and csvi was asked for 1 devices on each of 2: start one .*"
    with pytest.raises(CsviError, match=expected):
        make_fabric("32-true", devices=1, nodes=2)


def test_more_devices_than_gpus_are_one_sentence(monkeypatch):
    monkeypatch.setattr("lightning_fabric.accelerators.cuda.num_cuda_devices", lambda: 1)
    with pytest.raises(CsviError, match=r"^cannot use 2 devices on 1 machines: You requested gpu: \[0, 1\]"):
        make_fabric("32-true", devices=2)


@pytest.mark.parametrize(
    "job",
    [
        {"SLURM_NTASKS": "2"},  # a script that does not start its tasks
        {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NAME": "bash"},
    ],
)
def test_one_process_of_a_job_is_one_process(job, monkeypatch):
    for variable, value in ({"SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"} | job).items():
        monkeypatch.setenv(variable, value)
    assert make_fabric("32-true").world_size == 1


ON_TWO = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
}


BY_HAND = {"MASTER_ADDR": "first", "NODE_RANK": "1"}


@pytest.mark.parametrize("job", [{}, {"MASTER_ADDR": "first"}, BY_HAND, ON_TWO])
def test_machines_that_nobody_starts_are_not_waited_for(job, monkeypatch):
    for variable, value in ({"SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"} | job).items():
        monkeypatch.setenv(variable, value)
    asked = r"^--nodes 2 needs torchrun or srun, .*docs/scaling\.md, or MASTER_ADDR, MASTER_PORT and NODE_RANK in"
    with pytest.raises(CsviError, match=asked):
        make_fabric("32-true", nodes=2)


@pytest.mark.parametrize("started", [SRUN | ON_TWO, TORCHRUN, BY_HAND | {"MASTER_PORT": "29500"}])
def test_machines_that_somebody_starts_are_set_up(started, monkeypatch):
    for variable, value in started.items():
        monkeypatch.setenv(variable, value)
    assert make_fabric("32-true", nodes=2) is not None


FAULTS = """
import resource, sys
import torch
from csvi.fabric import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, kept = [faults() for _ in range(3)], keep_freed_memory(torch.device("cpu"))
print(kept, min(before), [faults() for _ in range(20)][-1])  # once the heap has found its form
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_freed_memory_is_kept():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC", "CSVI_"))
    }
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    kept, before, after = done.stdout.split()
    assert kept == "True"
    assert int(after) < int(before) / 4


@pytest.mark.parametrize("name", ["CSVI_KEEP_MEMORY", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"])
def test_where_freed_memory_is_not_kept(name, monkeypatch):
    assert not keep_freed_memory(torch.device("cuda"))
    keep_freed_memory.cache_clear()
    monkeypatch.setenv(name, "0")
    assert not keep_freed_memory(torch.device("cpu"))
    keep_freed_memory.cache_clear()
