"""Cores and memory of this process, on machines that are made up."""

import os

import pytest

from csvi import machine, threads
from csvi.machine import available_memory, memory, memory_limit, usable_cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine with 9 kB of memory, 5 kB available, and a job in a control group `jobs`, both without limits."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   5 kB\nHugePages_Total: 0\n")
    (tmp_path / "own").write_text("0::/jobs/job\n")
    jobs = tmp_path / "groups" / "jobs"
    (jobs / "job").mkdir(parents=True)
    for folder in (jobs, jobs / "job"):
        (folder / "cpu.max").write_text("max 100000\n")
        (folder / "memory.max").write_text("max\n")
    for name, file in (("MEMORY", "meminfo"), ("OWN_GROUP", "own"), ("GROUPS", "groups")):
        monkeypatch.setattr(machine, name, tmp_path / file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5}, raising=False)
    return jobs


def test_without_limits_there_is_what_the_machine_has(groups):
    assert usable_cores() == threads.reading_threads() == 3
    assert (memory(), memory_limit(), available_memory()) == ((9216, 5120), None, 5120)


@pytest.mark.parametrize(("share", "usable", "reading"), [("50000 100000", 0.5, 1), ("250000 100000", 2.5, 3)])
def test_the_narrowest_control_group_counts(groups, monkeypatch, share, usable, reading):
    (groups / "cpu.max").write_text(share)
    assert (usable_cores(), threads.reading_threads()) == (usable, reading)
    (groups / "memory.max").write_text("4000")
    (groups / "job" / "memory.max").write_text("3000")
    (groups / "job" / "memory.current").write_text("1000")
    (groups / "job" / "memory.stat").write_text("anon 500\ninactive_file 200\nactive_file 100\n")
    assert (memory_limit(), available_memory()) == (3000, 2300)
    (groups / "memory.current").write_text("3900")
    assert available_memory() == 100
    monkeypatch.setattr(threads, "_limit", 7)
    assert threads.reading_threads() == 7


def test_a_machine_that_tells_less(groups, monkeypatch):
    machine.MEMORY.write_text("MemTotal: 9 kB\n")
    assert available_memory() == 9216
    machine.MEMORY.unlink()
    machine.OWN_GROUP.unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 5, "SC_PAGE_SIZE": 4096}.__getitem__, raising=False)
    assert available_memory() == 20480
    monkeypatch.setattr(os, "sysconf", lambda name: -1)
    assert available_memory() is None
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert (usable_cores(), memory(), available_memory()) == (os.cpu_count(), (None, None), None)
