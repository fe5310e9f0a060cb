"""Runs on infrared images of more than 8 bits: one range, measured once, wherever the run reads images."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from csvi.data.depth import levels_of
from csvi.data.images import deep_values
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.methods.baseline import Baseline
from csvi.runs import Options, Run, load_config
from csvi.runs.evaluation import evaluate_run, save_evaluation
from csvi.train import loop
from csvi.train.loop import train


@pytest.fixture(scope="module")
def thermal_root(sysu_root, tmp_path_factory):
    """The small dataset with raw 14-bit infrared images."""
    root = tmp_path_factory.mktemp("data") / "thermal"
    shutil.copytree(sysu_root, root, ignore=shutil.ignore_patterns("masks"))
    for camera in (3, 6):
        for file in root.glob(f"cam{camera}/*/*.jpg"):
            grey = np.asarray(Image.open(file).convert("L")).astype(np.uint16)
            Image.fromarray(7500 + 3 * grey).save(file, "PNG")
    return root


@pytest.fixture
def thermal(config, thermal_root):
    """Settings of two epochs of the Baseline on it."""
    config.data = dataclasses.replace(config.data, root=str(thermal_root), identities=4)
    config.method = Baseline.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16)
    config.train.epochs = 2
    return config


@pytest.fixture(scope="module")
def whole(thermal_root, cache_folder, tmp_path_factory):
    """Takes settings; the run of them, trained once."""
    run = tmp_path_factory.mktemp("whole") / "run"

    def trained(config):
        if not run.exists():
            train(config, run)
        return run

    return trained


def range_of(run):
    return load_config(run / "config.yaml").data.infrared_range


def same_weights(run, other):
    ours, theirs = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def stop_after(monkeypatch, steps):
    """Let the training crash in a step."""
    taken = iter(range(steps))
    step = loop.train_step

    def crash(*arguments):
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", crash)


def warmer(root):
    """Let the first people's images have other values, which would be measured."""
    for file in root.glob("cam3/000[1-4]/*.jpg"):
        Image.fromarray(deep_values(file) + np.uint16(500)).save(file, "PNG")
    return root


@pytest.mark.slow
def test_training_and_evaluation_read_with_the_numbers_in_the_settings(thermal, whole):
    folder = whole(thermal)
    assert re.fullmatch(r"7\d\d\d,8\d\d\d", range_of(folder))
    assert load_config(folder / "config.yaml").data.visible_range == "auto"
    run = Run.open(folder)
    levels = levels_of(run.data, Modality.INFRARED)
    assert run.training_set.data == run.data
    infrared = [i for i, record in enumerate(run.training_set.records) if record.modality == Modality.INFRARED]
    record = run.training_set.records[infrared[0]]
    expected = levels.applied_to(deep_values(run.benchmark.file(record)))
    assert (run.training_set.images[[infrared[0]]].image[0].numpy() == expected).all()
    assert (run.image(record) == expected[:, :, None]).all()
    assert len(np.unique(run.training_set.images[infrared].image)) > 150
    evaluation = evaluate_run(run)
    assert save_evaluation(evaluation, run).name == "evaluation.json"
    probe = next(i for i, r in enumerate(run.benchmark.test) if r.modality == Modality.INFRARED)
    with torch.inference_mode():
        batch = run.batch([run.benchmark.test[probe]])
        torch.testing.assert_close(run.net(batch.image, batch.modality)[0], run.embeddings[probe], atol=1e-3, rtol=0)


@pytest.mark.slow
def test_resumed_by_the_same_command_as_if_never_stopped(thermal, whole, tmp_path, monkeypatch):
    """It says auto again, and the images that would be measured have changed since."""
    root = shutil.copytree(thermal.data.root, tmp_path / "data")
    thermal.data.root = str(root)
    reference = whole(thermal)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(thermal, tmp_path / "run")
    assert range_of(tmp_path / "run") == range_of(reference)
    train(thermal, tmp_path / "run", resume="auto")
    assert same_weights(tmp_path / "run", reference)
    warmer(root)
    thermal.train.epochs = 3
    train(thermal, tmp_path / "run", resume="auto")
    assert range_of(tmp_path / "run") == range_of(reference)


def test_a_checkpoint_alone_has_the_range(thermal, whole, tmp_path):
    reference = whole(thermal)
    shutil.copy(reference / "last.ckpt", tmp_path)
    thermal.data.root = str(warmer(shutil.copytree(thermal.data.root, tmp_path / "data")))
    thermal.train.epochs = 3
    train(thermal, tmp_path / "other", resume=str(tmp_path / "last.ckpt"))
    assert range_of(tmp_path / "other") == range_of(reference)


@pytest.mark.parametrize("given", ["7000,9000", "0,65535"])
def test_resuming_with_another_range_is_refused(given, thermal, whole):
    folder = whole(thermal)
    thermal.data = dataclasses.replace(thermal.data, infrared_range=given)
    with pytest.raises(CsviError, match=f"under other settings .data.infrared_range was {range_of(folder)}"):
        train(thermal, folder, resume="auto")


def test_resuming_with_the_same_range_in_other_words_is_not(thermal, whole):
    folder = whole(thermal)
    written = "{}.0, {}".format(*range_of(folder).split(","))
    thermal.data = dataclasses.replace(thermal.data, infrared_range=written)
    train(thermal, folder, resume="auto")


def test_a_run_on_8_bits_has_to_be_told_the_range(baseline_run, thermal_root, tmp_path):
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    options = Options(root=str(thermal_root), cache=str(tmp_path / "cache"))
    with pytest.raises(CsviError, match=r"more than 8 bits a pixel: say which values .* --data\.infrared_range"):
        Run.open(folder, options).embed()
    run = Run.open(folder, dataclasses.replace(options, infrared_range="7500,8265"))
    name = save_evaluation(evaluate_run(run), run).name
    assert name == "evaluation-on-thermal-infrared_range-7500,8265.json"


@pytest.mark.slow
def test_embeddings_under_another_range_are_others(thermal, whole, tmp_path):
    folder = shutil.copytree(whole(thermal), tmp_path / "run")
    own, other = Run.open(folder), Run.open(folder, Options(infrared_range="7000,9000"))
    assert own.key != other.key
    assert own.embeddings_file != other.embeddings_file
    assert not torch.equal(own.embed(), other.embed())
    with pytest.raises(
        CsviError, match=r"^100% of the pixels of the infrared images .* lie outside --data\.infrared_range"
    ):
        Run.open(folder, Options(infrared_range="29000,31000")).embed()
