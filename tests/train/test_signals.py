"""A real process, ended as clusters and terminals do it: all of its group at once, and the reader of its output too."""

import contextlib
import gc
import json
import multiprocessing
import os
import pty
import select
import signal
import time

import pytest
import torch

from csvi.errors import CsviError, StoppedError
from csvi.runs import save_config
from csvi.runs.settings import as_method
from csvi.train import loop
from csvi.train.loop import train


def test_a_loader_process_that_is_killed(config, tmp_path, monkeypatch):
    config.data.workers, config.method = 1, as_method(config.method, "baseline")

    def kill_one(*arguments):
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(30)  # the signal of its end comes before

    monkeypatch.setattr(loop, "train_step", kill_one)
    with pytest.raises(CsviError, match="a loader process was ended, perhaps for want of memory"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("stops", [False, True])
def test_loader_processes_end_with_the_run(config, tmp_path, monkeypatch, stops):
    """Not when somebody collects garbage, which would wait five seconds for each run."""
    config.data.workers = 1
    step = loop.train_step

    def signalled(*arguments):
        if stops:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", signalled)
    gc.disable()
    try:
        with contextlib.suppress(StoppedError):
            train(config, tmp_path / "run")
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()
    assert (tmp_path / "run" / "model.safetensors").exists()


OF_A_GROUP = """
os.setsid()
sys.stdout = sys.stderr = open({!r}, "w", buffering=1)
"""
IN_A_TERMINAL = """
import fcntl, termios
os.setsid()
terminal = os.open({!r}, os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for stream in (0, 1, 2):
    os.dup2(terminal, stream)
sys.stdout = sys.stderr = open(2, "w", buffering=1)
os.environ["TERM"] = "xterm"
"""


@pytest.fixture
def training(config, tmp_path, start_csvi):
    """Start a run of a thousand epochs with two loader processes; gives it back once its first epoch is over."""

    def start(before):
        config.data.workers, config.train.epochs = 2, 1000
        config.method = as_method(config.method, "baseline")
        save_config(config, tmp_path / "settings.yaml")
        arguments = ["train", f"--config={tmp_path}/settings.yaml", f"--run={tmp_path}/run"]
        return start_csvi(*arguments, before=before)

    return start


def wait_for_an_epoch(run):
    until = time.monotonic() + 60
    while not (run / "model.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.01)


def assert_saved(run):
    position = torch.load(run / "last.ckpt", weights_only=True)["position"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * position["epoch"] + position["step"] + 1))
    assert steps


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_a_run(training, tmp_path, number):
    """As `timeout csvi train`, `csvi train | tee log` and Ctrl-C, and SLURM with --signal=USR1@120."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = training(OF_A_GROUP.format(str(pipe)))
    with pipe.open():  # and read nothing; then nobody is there to read
        wait_for_an_epoch(tmp_path / "run")
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 75
    assert_saved(tmp_path / "run")


@pytest.mark.slow
def test_a_terminal_that_is_gone(training, tmp_path):
    """As an SSH connection that drops: SIGHUP, and the bar of progress can be written nowhere."""
    terminal, other_end = pty.openpty()
    process = training(IN_A_TERMINAL.format(os.ttyname(other_end)))
    shown, until = b"", time.monotonic() + 60
    while not (tmp_path / "run" / "model.safetensors").exists() and time.monotonic() < until:
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 10_000)
    assert b"epoch 1/1000" in shown
    os.close(other_end)
    os.close(terminal)
    process.join(60)
    assert process.exitcode == 75
    assert_saved(tmp_path / "run")
