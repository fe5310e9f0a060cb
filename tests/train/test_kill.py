"""`kill -9` at random moments: what is there can be read, and the run ends as if nothing had happened."""

import json
import multiprocessing
import random
import time

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from csvi.config import load_config, save_config

STEPS = 8


@pytest.fixture(scope="module")
def processes():
    """Children of a process that has torch already, so that a start takes no seconds of imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["csvi.train.loop", "csvi.cli"])
    first = context.Process(target=time.sleep, args=(0,))
    first.start()
    first.join()
    return context


@pytest.fixture
def settings(config, tmp_path, monkeypatch):
    """Two epochs of four short steps, each step with a checkpoint and each epoch with a validation."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config.data.identities, config.data.height, config.data.width = 4, 32, 16
    config.model.auxiliary = "none"
    config.train.epochs, config.train.validate_every, config.train.checkpoint_every = 2, 1, 1e-9
    save_config(config, tmp_path / "settings.yaml")
    return tmp_path / "settings.yaml"


COMMAND = """
import multiprocessing, sys
from csvi.cli import main
multiprocessing.set_start_method("fork", force=True)  # of the loader's, as in a process that is started as such
sys.exit(main({}))
"""


def start(processes, settings, run, workers):
    arguments = ["train", f"--config={settings}", f"--run={run}", "--resume=auto", f"--data.workers={workers}"]
    process = processes.Process(target=exec, args=(COMMAND.format(arguments),))
    process.start()
    return process


def position(run):
    """Steps done in the newest checkpoint, after a look at everything else; -1 if there is none yet."""
    if (run / "config.yaml").exists():
        load_config(run / "config.yaml")
    if (run / "model.safetensors").exists():
        load_file(run / "model.safetensors")
    if (run / "config.json").exists():
        json.loads((run / "config.json").read_text())
    if (run / "metrics.jsonl").exists():
        whole, _, _ = (run / "metrics.jsonl").read_text().rpartition("\n")
        assert [json.loads(line)["step"] for line in whole.splitlines()]  # but for half a line at the end
    found = []
    for name in ("last.ckpt", "previous.ckpt"):
        if (run / name).exists():
            saved = torch.load(run / name, weights_only=True)
            found.append(4 * saved["progress"]["epoch"] + saved["progress"]["step"])
    return max(found, default=-1)


def state(run):
    """All of a finished run that must not depend on how often it was killed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("train/images_per_second", None)
    saved = torch.load(run / "last.ckpt", weights_only=True)
    momentum = {str(n): of["momentum_buffer"] for n, of in saved["optimizer"]["state"].items()}
    model = {f"model {name}": tensor for name, tensor in load_file(run / "model.safetensors").items()}
    return lines, saved["network"] | momentum | model


def assert_same(run, other):
    lines, tensors = state(run)
    other_lines, other_tensors = state(other)
    assert lines == other_lines
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())
    names = {file.name for file in run.iterdir() if "tfevents" not in file.name}
    assert names == {file.name for file in other.iterdir() if "tfevents" not in file.name}
    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, STEPS + 1))


def modified(file):
    return file.stat().st_mtime_ns if file.exists() else None


def kill_at_random(processes, settings, folder, kills, seed):
    """So many kills over as many runs as it takes, workers or not; returns the positions that the kills found."""
    rng = random.Random(seed)
    begun = time.monotonic()
    process = start(processes, settings, folder / "whole", workers=0)
    process.join()
    lasts = time.monotonic() - begun
    found, number = [], 0
    while len(found) < kills:
        run, number = folder / f"killed-{number}", number + 1
        before, goal = -1, min(kills, len(found) + 4)  # then it may end, and the next be killed from its first step on
        while True:
            process = start(processes, settings, run, workers=rng.randrange(2))
            if len(found) == goal:
                process.join()
            elif rng.random() < 0.5:  # at any moment, be it of the start
                process.join(rng.uniform(0, lasts))
            else:  # between steps, most of which is writing
                written = modified(run / "last.ckpt")
                while process.is_alive() and modified(run / "last.ckpt") == written:
                    time.sleep(0.001)
                process.join(rng.uniform(0, lasts / 4))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            found.append(position(run))
            assert found[-1] >= before  # nothing that was saved is lost
            before = found[-1]
        assert process.exitcode == 0
        assert_same(run, folder / "whole")
    return found


def test_a_killed_run_goes_on_as_if_never_stopped(processes, settings, tmp_path):
    assert len(kill_at_random(processes, settings, tmp_path, 3, seed=0)) >= 3


@pytest.mark.slow
def test_twenty_kills(processes, settings, tmp_path):
    found = kill_at_random(processes, settings, tmp_path, 20, seed=1)
    print(f"{len(found)} kills, checkpoints of steps {found}")
    assert len(found) >= 20
    assert len(set(found)) > 4  # at many different steps
