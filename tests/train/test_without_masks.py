"""Training where some images have no mask: none is lost, and it resumes as any other."""

import json
import shutil
from pathlib import Path

import pytest

from csvi.errors import CsviError, StoppedError
from csvi.methods import METHODS, find_method
from csvi.runs import Run
from csvi.runs.settings import as_method
from csvi.train import loop
from csvi.train.loop import train, train_step


@pytest.fixture
def settings(config, sysu_root, tmp_path):
    """Two epochs of four steps; of each camera's two masks of a person the first is missing, but in camera 1."""
    masks = shutil.copytree(sysu_root / "masks", tmp_path / "masks")
    for mask in masks.glob("cam[2-6]/*/0001.png"):
        mask.unlink()
    config.data.masks, config.data.without_mask = str(masks), "train"
    config.data.identities, config.train.epochs = 4, 2
    return config


@pytest.mark.slow
def test_all_images_are_trained_on_and_those_without_a_mask_are_counted_and_listed(settings, tmp_path, caplog):
    run = tmp_path / "run"
    train(settings, run)
    file = run / "without-mask.json"
    said = f"40 of 96 training images have no usable mask and train without the mask loss, listed in {file}"
    assert said in caplog.text
    listed = json.loads(file.read_text())
    assert listed.keys() == {f"cam{camera}/{person:04d}/0001.jpg" for camera in range(2, 7) for person in range(1, 9)}
    assert all(why.endswith("has no mask") for why in listed.values())
    assert not (run / "skipped.json").exists()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(line["train/coseg/segmentation"] > 0 for line in lines)


@pytest.mark.slow
def test_it_resumes_bit_for_bit_with_any_number_of_loader_processes(settings, tmp_path, monkeypatch, assert_same):
    train(settings, tmp_path / "whole")
    steps = []
    monkeypatch.setattr(loop, "train_step", lambda *args: steps.append(args) or train_step(*args))
    monkeypatch.setattr(loop.TimeLimit, "fits", lambda *_: len(steps) != 3)
    settings.data.workers = 1
    with pytest.raises(StoppedError, match="stopped after 3 of 8 steps"):
        train(settings, tmp_path / "stopped")
    steps.append(None)
    train(settings, tmp_path / "stopped", resume="auto")
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_masks_that_are_made_while_a_run_is_stopped_are_learned_from_then_on(settings, sysu_root, tmp_path):
    settings.train.epochs = 1
    train(settings, tmp_path / "run")
    shutil.copytree(sysu_root / "masks", settings.data.masks, dirs_exist_ok=True)
    settings.train.epochs = 2
    train(settings, tmp_path / "run", resume="auto")
    assert not (tmp_path / "run" / "without-mask.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if find_method(name).needs_masks and name != "coseg"])
def test_every_method_that_learns_from_masks_trains_without_some(settings, tmp_path, name):
    settings.method, settings.train.epochs = as_method(settings.method, name), 1
    settings.data.images = 2
    train(settings, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert len(run.training_set.without_mask) == 40
    assert run.method.needs_masks


def test_doubtful_masks_are_not_read(settings, sysu_root, tmp_path):
    """As `csvi masks` puts them aside."""
    masks = Path(settings.data.masks)
    shutil.copytree(sysu_root / "masks", masks / "doubtful")
    settings.train.epochs = 1
    train(settings, tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "without-mask.json").read_text())) == 40
    settings.data.without_mask = "error"
    with pytest.raises(CsviError, match=r"40 of 96 training images have no mask.*--data.without_mask train"):
        train(settings, tmp_path / "other")
