"""A real process, ended as clusters and terminals do it: all of its group at once, and the reader of its output too."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from csvi.config import save_config
from csvi.errors import CsviError
from csvi.train import loop
from csvi.train.loop import train


def test_a_loader_process_that_is_killed(config, tmp_path, monkeypatch):
    config.data.workers, config.model.auxiliary = 1, "none"

    def kill_one(*arguments):
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(30)  # the signal of its end comes before

    monkeypatch.setattr(loop, "train_step", kill_one)
    with pytest.raises(CsviError, match="a loader process was ended, perhaps for want of memory"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run(config, tmp_path, number):
    """As `timeout csvi train` or `csvi train | tee log` and Ctrl-C."""
    config.data.workers, config.train.epochs, config.model.auxiliary = 2, 1000, "none"
    save_config(config, tmp_path / "settings.yaml")
    run = tmp_path / "run"
    command = [sys.executable, "-c", "import sys; from csvi.cli import main; sys.exit(main())", "train"]
    process = subprocess.Popen(
        [*command, f"--config={tmp_path}/settings.yaml", f"--run={run}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    until = time.monotonic() + 60
    while not (run / "model.safetensors").exists() and time.monotonic() < until:  # the first epoch
        time.sleep(0.05)
    process.stdout.close()
    os.killpg(process.pid, number)
    assert process.wait(60) == 75
    progress = torch.load(run / "last.ckpt", weights_only=True)["progress"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * progress["epoch"] + progress["step"] + 1))
    assert steps
