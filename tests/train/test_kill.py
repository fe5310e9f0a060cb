"""`kill -9` at random moments: what is there can be read, and the run ends as if nothing had happened."""

import json
import random
import time

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from csvi.runs import load_config, save_config
from csvi.runs.settings import as_method

STEPS = 8


@pytest.fixture
def settings(config, tmp_path):
    """Two epochs of four short steps, each step with a checkpoint and each epoch with a validation."""
    config.data.identities, config.data.height, config.data.width = 4, 32, 16
    config.method = as_method(config.method, "baseline")
    config.train.epochs, config.train.validate_every, config.train.checkpoint_every = 2, 1, 1e-9
    save_config(config, tmp_path / "settings.yaml")
    return tmp_path / "settings.yaml"


@pytest.fixture
def start(start_csvi, settings):
    """Start or resume a run."""
    return lambda run, workers: start_csvi(
        "train", f"--config={settings}", f"--run={run}", "--resume=auto", f"--data.workers={workers}"
    )


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
            found.append(4 * saved["position"]["epoch"] + saved["position"]["step"])
    return max(found, default=-1)


def state(run):
    """All of a finished run that must not depend on how often it was killed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("train/images_per_second", None)
    saved = torch.load(run / "last.ckpt", weights_only=True)
    momentum = {str(n): of["momentum_buffer"] for n, of in saved["optimizer"]["state"].items()}
    model = {f"model {name}": tensor for name, tensor in load_file(run / "model.safetensors").items()}
    return lines, saved["method"] | momentum | model


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


def kill_at_random(start, folder, kills, seed):
    """So many kills over as many runs as it takes, workers or not; returns the positions that the kills found."""
    rng = random.Random(seed)
    begun = time.monotonic()
    process = start(folder / "whole", workers=0)
    process.join()
    lasts = time.monotonic() - begun
    found, number = [], 0
    while len(found) < kills:
        run, number = folder / f"killed-{number}", number + 1
        before, goal = -1, min(kills, len(found) + 4)  # then it may end, and the next be killed from its first step on
        while True:
            process = start(run, workers=rng.randrange(2))
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


@pytest.mark.slow
def test_a_killed_run_is_resumed_as_if_never_stopped(start, tmp_path):
    assert len(kill_at_random(start, tmp_path, 3, seed=0)) >= 3


@pytest.mark.long
def test_twenty_kills(start, tmp_path):
    found = kill_at_random(start, tmp_path, 20, seed=1)
    print(f"{len(found)} kills, checkpoints of steps {found}")
    assert len(found) >= 20
    assert len(set(found)) > 4  # at many different steps
