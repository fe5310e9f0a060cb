"""Training, end to end on a few small images: it learns, can be stopped and resumed, and says what is wrong."""

import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

from csvi.config import Config, TrainConfig
from csvi.data import read_benchmark
from csvi.data.loader import evaluation_loader
from csvi.errors import CsviError, StoppedError
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.model.weights import initial_weights
from csvi.runs import Run, evaluate_run, load_config, load_net
from csvi.runs.embeddings import embed
from csvi.runs.settings import as_method
from csvi.train import loop
from csvi.train.loop import train, train_step, validates


def metrics(run):
    """Lines of metrics.jsonl without the speed, which is never the same."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/images_per_second"} for line in lines]


def same_model(run, other):
    some, others = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.fixture
def two_epochs(config):
    """Of four steps each."""
    config.data.identities = 4
    config.train = dataclasses.replace(config.train, epochs=2, decay_every=1, warmup=3)
    return config


def at_step(monkeypatch, number, action):
    """Do something in the middle of a run, right after its `number`-th step."""
    steps = []

    def patched(*args):
        outcome = train_step(*args)
        steps.append(outcome)
        if len(steps) == number:
            action()
        return outcome

    monkeypatch.setattr(loop, "train_step", patched)


@pytest.mark.slow
def test_eight_identities_are_learnt_by_heart(config, tmp_path, real_trunk):
    config.data = dataclasses.replace(config.data, height=48, width=24, images=2, pad=0, flip=0.0, erase=0.0)
    config.method = dataclasses.replace(
        config.method, weights="packaged", part_dim=64, center_reduction="mean", center_ramp=10,
    )  # fmt: skip
    config.train = TrainConfig(
        epochs=13, optimizer="adamw", lr=0.0015, lr_pretrained=0.5, warmup=5, schedule="cosine", validate_every=0
    )
    train(config, tmp_path / "run")
    benchmark = read_benchmark(config.data)
    loader = evaluation_loader(benchmark.root, benchmark.train, config.data)
    embeddings = embed(load_net(tmp_path / "run"), loader, Fabric(accelerator="cpu", devices=1))
    infrared = torch.tensor([bool(record.modality) for record in benchmark.train])
    identity = torch.tensor([record.identity for record in benchmark.train])
    nearest = torch.cdist(embeddings[infrared], embeddings[~infrared]).argmin(1)
    assert (identity[~infrared][nearest] == identity[infrared]).all()  # R1 = 100 %
    first, last = metrics(tmp_path / "run")[0], metrics(tmp_path / "run")[-1]
    for term in ("train/identity", "train/coseg/identity"):
        assert last[term] < 0.1 * first[term]
    assert last["train/coseg/segmentation"] < 0.9 * first["train/coseg/segmentation"]


def test_a_run_folder_holds_all_of_a_run(config, tmp_path):
    train(config, f"{tmp_path}/run")
    names = {file.name for file in (tmp_path / "run").iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        ".lock", "config.json", "config.yaml", "last.ckpt", "method.safetensors", "metrics.jsonl", "model.safetensors",
    }  # fmt: skip
    assert load_config(tmp_path / "run" / "config.yaml") == config
    assert set(metrics(tmp_path / "run")[0]) == {
        "step", "train/loss", "train/identity", "train/center", "train/coseg/segmentation", "train/coseg/identity",
        "train/coseg/center", "train/lr",
    }  # fmt: skip


@pytest.mark.slow
def test_same_seed_same_metrics_and_another_seed_others(config, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(torch.seed() % 1000)  # what came before does not count
        train(dataclasses.replace(config, seed=seed), tmp_path / name)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != metrics(tmp_path / "c")
    assert same_model(tmp_path / "a", tmp_path / "b")
    assert not same_model(tmp_path / "a", tmp_path / "c")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Where runs are kept that several tests look at."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def whole(two_epochs, shelf):
    """A run that nothing stopped, to look at."""
    if not (shelf / "whole").exists():
        train(two_epochs, shelf / "whole")
    assert [line["step"] for line in metrics(shelf / "whole")] == list(range(1, 9))
    return shelf / "whole"


@pytest.fixture
def run(config, shelf, tmp_path):
    """A run of one epoch of two steps, to do anything with."""
    if not (shelf / "one").exists():
        train(config, shelf / "one")
    return Path(shutil.copytree(shelf / "one", tmp_path / "run"))


def assert_same_run(run, other):
    assert metrics(run) == metrics(other)
    assert same_model(run, other)


@pytest.mark.slow
def test_resumed_after_an_epoch_as_if_never_stopped(two_epochs, whole, tmp_path):
    one = dataclasses.replace(two_epochs, train=dataclasses.replace(two_epochs.train, epochs=1))
    train(one, tmp_path / "run")
    train(two_epochs, tmp_path / "run", resume="auto")
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers", "step", "message"),
    [
        (signal.SIGINT, 0, 6, r"stopped after 6 of 8 steps, all of it saved in .*/run: .*--resume auto"),
        (signal.SIGTERM, 1, 1, r"stopped after 1 of 8 steps, all of it saved"),
        (signal.SIGINT, 0, 4, r"stopped after 4 of 8 steps, all of it saved"),
    ],
)
def test_resumed_after_a_signal_as_if_never_stopped(
    two_epochs, whole, tmp_path, monkeypatch, number, workers, step, message
):
    two_epochs.data.workers = workers
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: signal.raise_signal(number))
        with pytest.raises(CsviError, match=message):
            train(two_epochs, tmp_path / "run")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, step + 1))
    train(two_epochs, tmp_path / "run", resume="auto")
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_resumed_after_a_crash_from_the_last_checkpoint(two_epochs, whole, tmp_path, monkeypatch):
    def crash():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("csvi.runs.metrics_log.FLUSH_EVERY", 1)  # steps after the checkpoint are written already
        at_step(patch, 7, crash)
        with pytest.raises(RuntimeError):
            train(two_epochs, tmp_path / "run")
    train(two_epochs, tmp_path / "run", resume=str(tmp_path / "run" / "last.ckpt"))
    assert_same_run(tmp_path / "run", whole)


def raises(error):
    def patched(*_):
        raise error

    return patched


def position(run):
    saved = torch.load(run / "last.ckpt", weights_only=True)["position"]
    return saved["epoch"], saved["step"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in it", "after it"])
def test_a_kill_during_or_after_a_validation(two_epochs, tmp_path, monkeypatch, moment):
    """Costs no step, and the one that is done again is written once."""
    two_epochs.train.validate_every = 1
    train(two_epochs, tmp_path / "whole")
    with monkeypatch.context() as patch:
        if moment == "in it":
            patch.setattr(loop, "validate", raises(KeyboardInterrupt))
        else:
            patch.setattr(loop, "save_method", raises(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(two_epochs, tmp_path / "run")
    assert position(tmp_path / "run") == (0, 4)
    train(two_epochs, tmp_path / "run", resume="auto")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_going_back_to_the_checkpoint_before(two_epochs, whole, tmp_path, monkeypatch):
    """A kill right after that leaves a run that can be resumed."""
    two_epochs.train.checkpoint_every = 1e-9
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(two_epochs, tmp_path / "run")
        at_step(patch, 1, raises(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(two_epochs, tmp_path / "run", resume=str(tmp_path / "run" / "previous.ckpt"))
    assert position(tmp_path / "run") == (1, 1)
    train(two_epochs, tmp_path / "run", resume="auto")
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("gone", [1, 40])
def test_resuming_with_other_images_is_refused(two_epochs, sysu_root, tmp_path, monkeypatch, gone):
    root = Path(shutil.copytree(sysu_root, tmp_path / "root"))
    two_epochs.data.root = str(root)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(two_epochs, tmp_path / "run")
    images = sorted(path for n in range(1, 9) for path in root.glob(f"cam[2456]/{n:04d}/0001.jpg"))
    for image in images[:gone]:
        image.unlink()
    assert len(images) >= gone or gone > 1
    with pytest.raises(CsviError, match="was trained on other images than these data have"):
        train(two_epochs, tmp_path / "run", resume="auto")


def test_a_checkpoint_alone_knows_its_settings(config, run, tmp_path):
    alone = (run / "last.ckpt").rename(tmp_path / "alone.ckpt")
    config.train.lr, config.seed = 0.5, 9
    with pytest.raises(CsviError, match=r"under other settings \(train\.lr was 0\.001; seed was 0\)"):
        train(config, tmp_path / "other", resume=str(alone))


@pytest.mark.slow
def test_nothing_left_to_do(config, tmp_path):
    config.train.epochs = 2
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    config.data.masks = shutil.copytree(f"{config.data.root}/masks", tmp_path / "other").as_posix()
    train(config, tmp_path / "run", resume="auto")
    train(config, tmp_path / "copy", resume=str(tmp_path / "run" / "last.ckpt"))
    assert same_model(tmp_path / "copy", tmp_path / "run")
    config.train.epochs = 1
    with pytest.raises(CsviError, match=r"is of epoch 2 already: --train\.epochs 1 is less"):
        train(config, tmp_path / "run", resume="auto")
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_what_is_logged_is_on_disk_before_a_checkpoint_says_so(config, tmp_path, monkeypatch):
    synced = []
    with monkeypatch.context() as patch:
        fsync = os.fsync
        patch.setattr(
            os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").resolve().name) or fsync(number)
        )
        train(config, tmp_path / "run")
    last = max(i for i, name in enumerate(synced) if name.startswith(".last.ckpt."))
    assert "metrics.jsonl" in synced[:last]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("data", "identities", 4), ("train", "optimizer", "adamw"), ("method", "center_weight", 0.25), (None, "seed", 5)],
)
def test_resuming_under_other_settings_is_refused(config, run, section, name, value):
    before = (run / "config.yaml").read_text()
    config.train.epochs = 2  # this one may change
    setattr(getattr(config, section) if section else config, name, value)
    with pytest.raises(CsviError, match=f"{name} was"):
        train(config, run, resume="auto")
    assert (run / "config.yaml").read_text() == before


def test_resuming_with_another_method_is_refused(config, run):
    config.method = as_method(config.method, "decode")
    with pytest.raises(CsviError, match=r"run was trained with the method coseg, not with decode: start a new run"):
        train(config, run, resume="auto")


def test_a_run_of_a_cosine_does_not_change_its_length(two_epochs, tmp_path):
    """Where it ends decides the rate of every step; with `step` it does not."""
    two_epochs.train = dataclasses.replace(two_epochs.train, epochs=1, schedule="cosine")
    train(two_epochs, tmp_path / "run")
    two_epochs.train.epochs = 2
    with pytest.raises(CsviError, match=r"train\.epochs was 1"):
        train(two_epochs, tmp_path / "run", resume="auto")


def test_a_signal_in_the_last_step_changes_nothing(config, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_with_a_run_is_not_overwritten(config, run):
    before = {file: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(CsviError, match=r"run holds a run already: resume it by --resume auto, or name another"):
        train(config, run)
    assert {file: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize("resume", [None, "auto"])
def test_after_a_failure_in_the_first_step_the_command_can_be_corrected(config, run, tmp_path, monkeypatch, resume):
    """Whatever the correction is, the run is then one that never failed."""
    begun = tmp_path / "begun"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", raises(ValueError("of a method of one's own")))
        with pytest.raises(ValueError, match="of a method of one's own"):
            train(dataclasses.replace(config, seed=5), begun)
    assert position(begun) == (0, 0)
    train(config, begun, resume)
    assert_same_run(begun, run)
    assert load_config(begun / "config.yaml").seed == config.seed
    with pytest.raises(CsviError, match="begun holds a run already"):
        train(config, begun)


def test_a_run_is_not_overwritten_by_resuming_another(config, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    with pytest.raises(CsviError, match="other holds a run already"):
        train(config, other, resume=str(run / "last.ckpt"))


def test_a_model_without_its_checkpoint_is_not_overwritten(config, tmp_path):
    (tmp_path / "model.safetensors").touch()
    for resume in (None, "auto"):
        with pytest.raises(CsviError, match="holds a run already: it has no checkpoint to resume"):
            train(config, tmp_path, resume)


def test_a_folder_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CsviError, match=r"cannot write the run to .*file/run"):
        train(config, tmp_path / "file" / "run")


def test_the_dataset_is_found_again_from_any_folder(config, sysu_root, tmp_path, monkeypatch):
    monkeypatch.chdir(sysu_root.parent)
    cache = config.data.cache
    config.data.root, config.data.cache = sysu_root.name, os.path.relpath(cache)
    train(config, tmp_path / "run")
    written = load_config(tmp_path / "run" / "config.yaml").data
    assert [written.root, os.path.normpath(written.cache)] == [str(sysu_root), cache]


def test_resume_auto_begins_where_there_is_nothing_to_resume(config, tmp_path):
    train(config, tmp_path / "run", resume="auto")
    assert len(metrics(tmp_path / "run")) == 2


def test_a_missing_checkpoint_is_named_before_anything_is_done(tmp_path):
    with pytest.raises(CsviError, match=r"no checkpoint .*other\.ckpt: --resume takes auto or the path of one"):
        train(Config(CoSeg.Settings()), tmp_path / "run", resume=str(tmp_path / "other.ckpt"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def without_masks(config, sysu_root, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name in ("exp", *(f"cam{n}" for n in range(1, 7))):
        (root / name).symlink_to(sysu_root / name)
    config.data.root = str(root)
    return config


def test_co_segmentation_without_masks_is_refused(without_masks, tmp_path):
    message = r"96 of 96 training images have no mask, .*csvi masks .*--data\.masks.*--method baseline"
    with pytest.raises(CsviError, match=message):
        train(without_masks, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_baseline_trains_without_masks(without_masks, tmp_path):
    without_masks.method = as_method(without_masks.method, "baseline")
    train(without_masks, tmp_path / "run")
    assert set(metrics(tmp_path / "run")[0]) == {"step", "train/loss", "train/identity", "train/center", "train/lr"}


@pytest.mark.slow
def test_validation_on_identities_that_are_not_trained_on(config, tmp_path, monkeypatch):
    config.train = dataclasses.replace(config.train, epochs=3, validate_every=2)
    modes = []
    at_step(monkeypatch, 0, None)
    patched = loop.train_step
    monkeypatch.setattr(
        loop,
        "train_step",
        lambda fabric, method, *rest: modes.append(method.net.training) or patched(fabric, method, *rest),
    )
    train(config, tmp_path / "run")
    found = [line for line in metrics(tmp_path / "run") if "val/R1" in line]
    assert [line["step"] for line in found] == [4, 6]  # after the second epoch and at the end
    for line in found:
        assert set(line) == {"step", "val/R1", "val/mAP", "val/mINP"}
        assert all(0 < line[name] <= 1 for name in ("val/R1", "val/mAP", "val/mINP"))
    assert modes == 6 * [True]  # validation leaves nothing switched off


def test_what_a_run_would_be_tested_on_is_said_before_its_first_step(config, sysu_root, tmp_path, caplog):
    """One number for all cameras, and a person under two names in train and in test."""
    root = tmp_path / "root"
    root.mkdir()
    lines = ["path,identity,modality,split,camera"]
    for camera, modality in ((1, "visible"), (3, "infrared")):
        (root / f"cam{camera}").symlink_to(sysu_root / f"cam{camera}")
        lines += [
            f"cam{camera}/{person:04d}/0001.jpg,{name},{modality},{split},1"
            for person, name, split in ((1, "anna", "train"), (13, "Anna", "test"), (14, "-1", "train"))
        ]
    (root / "images.csv").write_text("\n".join(lines))
    config.data = dataclasses.replace(config.data, root=str(root), layout="folder")
    config.method = Baseline.Settings(backbone="mobilenet_v2", weights="none")
    with pytest.raises(CsviError, match=r"^a batch needs 8 identities .* there are 1"):  # and -1 is none
        train(config, tmp_path / "run")
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [sentence.split(":")[0] for sentence in said[:3]] == [
        "Anna and anna look alike and are in train and test",
        "train has 2 images of -1, distractors, never trained on and in no gallery",
        "test has no query with anything to find",
    ]


def test_a_dataset_whose_people_have_one_modality_is_refused_with_its_likely_reason(config, sysu_root, tmp_path):
    (tmp_path / "exp").symlink_to(sysu_root / "exp")
    for camera in (1, 2, 4, 5):
        (tmp_path / f"cam{camera}").symlink_to(sysu_root / f"cam{camera}")
    for camera in (3, 6):
        (tmp_path / f"cam{camera}").mkdir()
    config.data.root, config.train.validate_every = str(tmp_path), 1
    with pytest.raises(CsviError, match=r"^nobody to train on in \S+ has images of both modalities: are the folders"):
        train(config, tmp_path.with_name("run"))


def test_trained_identities_are_never_validated_on(config, tmp_path, caplog):
    config.data.train_on, config.train.validate_every = "train+val", 1
    with caplog.at_level(logging.INFO):
        train(config, tmp_path / "run")
    assert "no validation: the val identities are trained on" in caplog.text
    assert json.loads((tmp_path / "run" / "config.json").read_text())["identities"] == 12
    assert not any("val/R1" in line for line in metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("train_on", "every", "expected"),
    [("train", 2, [2, 4, 5]), ("train", 1, [1, 2, 3, 4, 5]), ("train", 0, []), ("train+val", 2, [])],
)
def test_epochs_that_are_validated(train_on, every, expected):
    config = Config(CoSeg.Settings(), train=TrainConfig(epochs=5, validate_every=every))
    config.data.train_on = train_on
    assert [epoch for epoch in range(1, 6) if validates(config, epoch)] == expected


def test_initial_weights_are_loaded(config, tmp_path, real_trunk):
    config.method.weights, config.train.lr = "packaged", 0.0
    train(config, tmp_path / "run")
    saved, initial = load_file(tmp_path / "run" / "model.safetensors"), initial_weights("mobilenet_v2", "packaged")
    for stream in ("visible", "infrared"):
        assert torch.equal(saved[f"backbone.{stream}.0.0.weight"], initial["0.0.weight"])
    assert torch.equal(saved["backbone.shared.17.conv.2.weight"], initial["17.conv.2.weight"])


def test_losses_are_said_in_a_few_digits():
    assert loop._summary({"identity": 2.04, "center": 2.4e18}) == "loss 2.4e+18 = 2.0 identity + 2.4e+18 center"


def test_the_learning_rate_of_every_step_is_logged(two_epochs, whole):
    factors = [1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.1, 0.1]
    assert [line["train/lr"] for line in metrics(whole)] == pytest.approx([0.001 * factor for factor in factors])


def test_the_ramp_of_the_center_loss_counts_the_steps_of_the_run(config, tmp_path):
    config.method.center_ramp = 4
    train(config, tmp_path / "run")
    first, second = metrics(tmp_path / "run")
    assert first["train/center"] == first["train/coseg/center"] == 0 < second["train/center"]


@pytest.mark.slow
def test_what_a_method_advises_is_said_with_its_step(two_epochs, tmp_path, monkeypatch, caplog):
    """It is asked every ten steps, with the terms of that step."""
    asked = []

    def advise(self, terms, step):
        asked.append((step, set(terms)))
        return "lower the rate" if step == 20 else None

    monkeypatch.setattr(CoSeg, "advise", advise)
    two_epochs.train.epochs = 6
    train(two_epochs, tmp_path / "run")
    terms = {"identity", "center", "coseg/segmentation", "coseg/identity", "coseg/center"}
    assert asked == [(10, terms), (20, terms)]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "step 20: lower the rate"
    ]


@pytest.mark.slow
def test_training_in_bfloat16_is_close_to_float32(config, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        train(dataclasses.replace(config, precision=precision), tmp_path / precision)
    exact, low = metrics(tmp_path / "32-true")[0], metrics(tmp_path / "bf16-mixed")[0]
    assert low == pytest.approx(exact, rel=0.05)
    assert low != exact


@pytest.mark.parametrize(("name", "kinds"), [("baseline", {"images"}), ("select", {"images", "masks"})])
def test_only_who_learns_from_masks_decodes_them(config, tmp_path, name, kinds):
    config.method, config.data.cache = as_method(config.method, name), str(tmp_path / "cache")
    train(config, tmp_path / "run")
    assert {file.name.split("-")[0] for file in (tmp_path / "cache").iterdir()} == kinds


@pytest.mark.slow
def test_labels_end_a_run_before_it_begins_and_by_their_setting_train_as_the_masks_do(
    config, coseg_run, sysu_root, tmp_path
):
    """The palette of a human parser, as it is written: pixels are labels, and colours are for people to look at."""
    root = Path(shutil.copytree(sysu_root, tmp_path / "root"))
    for file in (root / "masks").glob("*/*/*.png"):
        person = np.asarray(Image.open(file)) > 127
        image = Image.fromarray((person * (np.arange(48)[:, None] // 12 + 1)).astype(np.uint8))
        image.putpalette([0, 0, 0, 128, 0, 0, 255, 0, 0, 0, 85, 0, 170, 0, 51])
        image.save(file)
    config.data.root, config.data.cache = str(root), str(tmp_path / "cache")
    with pytest.raises(CsviError, match=r"^the visible masks need --data\.mask_values nonzero: they look like "):
        train(config, tmp_path / "refused")
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()
    config.data.mask_values = "nonzero"
    train(config, tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(coseg_run)
    assert same_model(tmp_path / "run", coseg_run)
    assert evaluate_run(Run.open(tmp_path / "run")).masks == evaluate_run(Run.open(coseg_run)).masks


@pytest.mark.slow
def test_what_cannot_be_read_ends_a_run_or_is_skipped_and_listed(config, sysu_root, tmp_path, caplog):
    root = Path(shutil.copytree(sysu_root, tmp_path / "root"))
    (root / "cam1/0001/0001.jpg").write_bytes(b"not an image")
    (root / "masks/cam3/0002/0001.png").unlink()
    config.data.root, config.data.cache = str(root), str(tmp_path / "cache")
    with pytest.raises(CsviError, match="1 of 96 training images have no mask"):
        train(config, tmp_path / "run")
    coseg, config.method = config.method, as_method(config.method, "baseline")
    with pytest.raises(CsviError, match=r"cam1/0001/0001\.jpg: it is not an image"):
        train(config, tmp_path / "run")
    config.method, config.data.on_error = coseg, "skip"
    train(config, tmp_path / "run")
    skipped = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert list(skipped) == ["cam1/0001/0001.jpg", "cam3/0002/0001.jpg"]
    assert "2 of 96 training images are skipped" in caplog.text
    (root / "cam2/0013/0001.jpg").write_bytes(b"not an image")
    with pytest.raises(CsviError, match=r"cam2/0013/0001\.jpg: it is not an image"):  # of test: never skipped
        evaluate_run(Run.open(tmp_path / "run"))


@pytest.mark.slow
def test_a_method_is_told_of_every_epoch_and_again_when_it_is_resumed_within_one(two_epochs, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Baseline, "begin_epoch", lambda method, epoch: told.append(epoch))
    at_step(monkeypatch, 6, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(two_epochs, tmp_path)
    train(two_epochs, tmp_path, resume="auto")
    assert told == [0, 1, 1]


def test_settings_of_augmentation_without_effect_are_named(two_epochs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Baseline, "view_settings", ("flip", "erase"))
    two_epochs.train.epochs, two_epochs.data.pad = 1, 3
    train(two_epochs, tmp_path)
    found = [message for message in caplog.messages if "has no effect" in message]
    assert found == ["coseg augments images in its own way: data.pad has no effect"]


@pytest.mark.slow
def test_the_moving_average_of_the_weights_is_kept_validated_and_resumed(config, two_epochs, tmp_path, monkeypatch):
    """What is saved is the average of what the run without it goes through."""
    two_epochs.train.ema = 0.75
    seen, validated = [], []

    def remember(fabric, method, *others):
        outcome = train_step(fabric, method, *others)
        seen.append({key: tensor.clone() for key, tensor in method.net.state_dict().items()})
        return outcome

    monkeypatch.setattr(loop, "train_step", remember)
    train(two_epochs, tmp_path / "whole")
    saved = load_file(tmp_path / "whole" / "model.safetensors")
    for key, expected in seen[0].items():
        if expected.is_floating_point():
            for later in seen[1:]:
                expected = 0.75 * expected + 0.25 * later[key]
            torch.testing.assert_close(saved[key], expected)
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(two_epochs, tmp_path / "resumed")
    train(two_epochs, tmp_path / "resumed", resume="auto")
    assert same_model(tmp_path / "whole", tmp_path / "resumed")
    monkeypatch.setattr(loop, "validate", lambda net, *others: validated.append(net.state_dict()) or {})
    two_epochs.data.train_on, two_epochs.train.validate_every = "train", 2
    train(two_epochs, tmp_path / "validated")
    saved = load_file(tmp_path / "validated" / "model.safetensors")
    assert all(torch.equal(tensor, validated[0][key]) for key, tensor in saved.items())
