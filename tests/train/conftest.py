"""Processes that train, started without seconds of imports."""

import multiprocessing
import os
import time

import pytest

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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        first = context.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()

    def start(*arguments, before=""):
        code = COMMAND.format(arguments=[os.fspath(argument) for argument in arguments], before=before)
        process = context.Process(target=exec, args=(code,))
        process.start()
        return process

    return start
