"""What reaches a network."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from lightning_fabric import Fabric

from csvi.data.transforms import normalize
from csvi.fabric import keep_freed_memory, on_device


@pytest.mark.parametrize("lies_as", [torch.contiguous_format, torch.channels_last])
def test_bytes_become_numbers_in_the_networks_memory_format(lies_as):
    batch = {
        "image": torch.randint(256, (4, 3, 8, 6), dtype=torch.uint8).contiguous(memory_format=lies_as),
        "mask": torch.randint(256, (4, 1, 8, 6), dtype=torch.uint8),
        "modality": torch.tensor([0, 0, 1, 1]),
    }
    found = on_device(batch, Fabric(accelerator="cpu", devices=1))
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    for key, expected in normalize(batch).items():
        assert torch.equal(found[key], expected)


FAULTS = """
import resource, sys
import torch
from csvi.fabric import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, kept = [faults() for _ in range(3)], keep_freed_memory(torch.device("cpu"))
print(kept, min(before), [faults() for _ in range(3)][-1])
"""


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
