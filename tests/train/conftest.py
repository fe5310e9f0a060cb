"""Processes that train, started without seconds of imports, and the comparison of what runs left."""

import json
import multiprocessing
import os
import time

import pytest
import torch
from safetensors.torch import load_file

COMMAND = """
import multiprocessing, os, sys, torch
multiprocessing.set_start_method("fork", force=True)  # of the loader's, as in a process that is started as such
torch.set_num_threads(1)
{before}
from csvi.cli import main
sys.exit(main({arguments}))
"""


@pytest.fixture(scope="session")
def start_csvi():
    """Start the command line in a process of its own, forked from one that has imported torch already.

    Takes the arguments, and code to run before; returns the process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["csvi.train.loop", "csvi.commands.train", "csvi.runs.settings", "csvi.runs.run"])
    first = context.Process(target=time.sleep, args=(0,))
    first.start()
    first.join()

    def start(*arguments, before=""):
        code = COMMAND.format(arguments=[os.fspath(argument) for argument in arguments], before=before)
        process = context.Process(target=exec, args=(code,))
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def assert_same():
    """Assert that two run folders hold the same metrics, but for the speed, and the same weights, bit for bit."""

    def outcome(run):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            line.pop("train/images_per_second", None)
        return lines, load_file(run / "model.safetensors") | load_file(run / "method.safetensors")

    def compare(run, other):
        (lines, tensors), (other_lines, other_tensors) = outcome(run), outcome(other)
        assert lines == other_lines
        assert tensors.keys() == other_tensors.keys()
        assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())

    return compare
