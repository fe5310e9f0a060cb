"""One seed, one result: whatever ran before, however many loader processes, wherever it was stopped."""

import pytest
import torch

from csvi.errors import StoppedError
from csvi.runs import save_config
from csvi.train import loop
from csvi.train.loop import seed_step, train, train_step


@pytest.fixture
def settings(config, tmp_path):
    """Two epochs of four steps, validated."""
    config.data.identities, config.train.epochs, config.train.validate_every = 4, 2, 1
    save_config(config, tmp_path / "settings.yaml")
    return config


@pytest.mark.slow
def test_two_processes_and_any_number_of_loaders(settings, tmp_path, start_csvi, assert_same, real_trunk):
    """This one, in which much ran before, and a new one; Python hashes texts differently in each."""
    process = start_csvi("train", f"--config={tmp_path}/settings.yaml", f"--run={tmp_path}/b", "--data.workers=2")
    train(settings, tmp_path / "a")
    process.join()
    assert process.exitcode == 0
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_random_numbers_of_a_step_are_the_same_in_a_resumed_run(settings, tmp_path, monkeypatch, assert_same):
    """As a dropout would draw them."""
    steps = []

    def noisy(fabric, method, wrapped, optimizer, batch, *rest):
        steps.append(batch.image.copy_(torch.randint_like(batch.image, 256)))
        return train_step(fabric, method, wrapped, optimizer, batch, *rest)

    monkeypatch.setattr(loop, "train_step", noisy)
    train(settings, tmp_path / "whole")
    assert len(steps) == 8
    monkeypatch.setattr(loop.TimeLimit, "fits", lambda *_: len(steps) != 14)
    with pytest.raises(StoppedError, match="stopped after 6 of 8 steps"):
        train(settings, tmp_path / "stopped")
    steps.append(None)
    train(settings, tmp_path / "stopped", resume="auto")
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_steps_processes_and_seeds_draw_apart():
    drawn = set()
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 10**6, 7)]:
        for _ in range(2):
            seed_step(*key)
            drawn.add(torch.rand(()).item())
    assert len(drawn) == 5
