"""`last.ckpt`: all of a run comes back, and what is not one is refused."""

import dataclasses
import errno
import pickle
import random
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn

from csvi.config import Config, TrainConfig, flatten
from csvi.data import read_benchmark
from csvi.data.training_set import TrainingSet
from csvi.errors import CsviError
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.train.checkpoint import (
    Position,
    checkpoints_to_resume,
    epochs_done,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def built(fabric, seed=0, width=3):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4))
    return fabric.setup(network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9))


CONFIG = Config(CoSeg.Settings())


def position(epoch=0, step=0, identities=(3, 5), images="digest of all images"):
    return Position(flatten(CONFIG), list(identities), images, epoch, step)


def save(fabric, run, network, optimizer, epoch, step):
    save_checkpoint(fabric, run, network, optimizer, position(epoch, step))


@pytest.mark.parametrize(("epoch", "said"), [(59, True), (60, False)])
def test_other_masks_than_before_are_said_where_something_is_left_to_train(fabric, saved, caplog, epoch, said):
    network, optimizer, file = saved
    save(fabric, file.parent, network, optimizer, epoch, 0)
    start, config = position(), dataclasses.replace(CONFIG, train=TrainConfig(epochs=60))
    start.settings["data.masks"] = "/other"
    load_checkpoint(fabric, [file], network, optimizer, start, config)
    assert ("masks are those in /other from here on, and were those in ROOT/masks" in caplog.text) == said


def load(fabric, files, network, optimizer, **start):
    """Epoch and step."""
    found, _ = load_checkpoint(fabric, files, network, optimizer, position(**start), CONFIG)
    return found.epoch, found.step


def train(fabric, network, optimizer, steps, seed):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        fabric.backward(network(torch.randn(5, 3)).square().sum())
        optimizer.step()


@pytest.fixture
def saved(fabric, tmp_path):
    network, optimizer = built(fabric)
    train(fabric, network, optimizer, 3, seed=1)
    save(fabric, tmp_path, network, optimizer, 4, 7)
    return network, optimizer, tmp_path / "last.ckpt"


def test_method_optimiser_and_position_come_back(fabric, saved):
    network, optimizer, file = saved
    other, other_optimizer = built(fabric, seed=9)
    assert load(fabric, [file], other, other_optimizer) == (4, 7)
    for some in ((network, optimizer), (other, other_optimizer)):
        train(fabric, *some, 3, seed=2)  # the momentum counts, and the running statistics
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_the_scale_of_float16_comes_back(saved):
    """A scaler that began anew would overflow again."""
    network, optimizer, file = saved
    scales = []
    for scale in (2.0**7, 2.0**20):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.ones(()))  # which makes the scale
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
        if not scales:
            save(fabric, file.parent, network, optimizer, 5, 0)
        else:
            load(fabric, [file], network, optimizer)
        scales.append(scaler.get_scale())
    assert scales == [2.0**7, 2.0**7]


def test_a_full_disk_leaves_the_checkpoints_and_nothing_else(fabric, saved, monkeypatch):
    network, optimizer, file = saved
    before = file.read_bytes()

    def half(state, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CsviError, match=r"cannot write .*last\.ckpt: No space left on device"):
        save(fabric, file.parent, network, optimizer, 5, 0)
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == before


def test_the_checkpoint_before_is_kept(fabric, saved):
    network, optimizer, file = saved
    first = file.read_bytes()
    for epoch in (5, 6):
        second = file.read_bytes()
        save(fabric, file.parent, network, optimizer, epoch, 0)
    assert {path.name for path in file.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert file.with_name("previous.ckpt").read_bytes() == second != first
    assert load(fabric, [file], network, optimizer) == (6, 0)


@pytest.mark.parametrize("state", ["nothing renamed", "first renamed"])
def test_a_kill_between_the_renamings_leaves_one_to_resume_from(fabric, saved, monkeypatch, state):
    network, optimizer, file = saved
    save(fabric, file.parent, network, optimizer, 5, 0)

    def killed(self, target, replace=Path.replace):
        if (target == file) == (state == "first renamed"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(fabric, file.parent, network, optimizer, 6, 0)
    assert load(fabric, checkpoints_to_resume(file.parent, "auto"), network, optimizer) == (5, 0)


def test_the_checkpoint_before_takes_the_place_of_an_unreadable_one(fabric, saved, caplog):
    network, optimizer, file = saved
    save(fabric, file.parent, network, optimizer, 5, 0)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CsviError, match=r"last\.ckpt is damaged"):  # who names a file means this one
        load(fabric, checkpoints_to_resume(file.parent, str(file)), network, optimizer)
    assert load(fabric, checkpoints_to_resume(file.parent, "auto"), network, optimizer) == (4, 7)
    assert "last.ckpt is damaged or no checkpoint of csvi: resuming from" in caplog.text
    assert {path.name for path in file.parent.iterdir()} == {"damaged.ckpt", "previous.ckpt"}


def test_a_flipped_bit_is_found(fabric, saved):
    network, optimizer, file = saved
    whole, weights = file.read_bytes(), network.state_dict()["0.weight"].numpy().tobytes()
    place = whole.index(weights)
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(CsviError, match=r"last\.ckpt is damaged"):
        load(fabric, [file], network, optimizer)


@pytest.mark.parametrize("identities", [[3], [5, 3], [3, 6], []])
def test_other_identities_are_refused(fabric, saved, identities):
    network, optimizer, file = saved
    with pytest.raises(CsviError, match=r"last\.ckpt was trained on other identities"):
        load(fabric, [file], network, optimizer, identities=identities)


def test_other_images_are_refused(fabric, saved):
    network, optimizer, file = saved
    with pytest.raises(CsviError, match=r"last\.ckpt was trained on other images"):
        load(fabric, [file], network, optimizer, images="digest of others")


def test_other_settings_are_refused(fabric, saved):
    network, optimizer, file = saved
    for config, message in (
        (Config(CONFIG.method, seed=3), r"cannot resume .*last\.ckpt under other settings \(seed was 0\)"),
        (
            Config(CONFIG.method, train=TrainConfig(epochs=4)),
            r"last\.ckpt is of epoch 5 already: --train.epochs 4 is less",
        ),
    ):
        with pytest.raises(CsviError, match=message):
            load_checkpoint(fabric, [file], network, optimizer, position(), config)


def test_what_cannot_be_read_now_or_by_this_version_is_not_damaged(fabric, saved, monkeypatch):
    """It stays where it is, for the time or the version that can."""
    network, optimizer, file = saved
    save(fabric, file.parent, network, optimizer, 5, 0)
    files = checkpoints_to_resume(file.parent, "auto")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(CsviError, match=r"cannot read .*last\.ckpt: Input/output error"):
            load(fabric, files, network, optimizer)
    torch.save({"network": {}, "version": 2}, file)
    with pytest.raises(CsviError, match=r"last\.ckpt is no checkpoint of this version of csvi"):
        load(fabric, files, network, optimizer)
    assert {path.name for path in file.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_two_damaged_checkpoints_stay_where_they_are(fabric, saved):
    network, optimizer, file = saved
    save(fabric, file.parent, network, optimizer, 5, 0)
    for path in file.parent.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CsviError, match=r"previous\.ckpt is damaged"):
        load(fabric, checkpoints_to_resume(file.parent, "auto"), network, optimizer)
    assert {path.name for path in file.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_epochs_done(fabric, saved):
    assert epochs_done(saved[2].parent) == 4
    assert epochs_done(saved[2].parent / "none") is None


def test_another_network_is_refused_and_the_difference_named(fabric, saved):
    message = r"last\.ckpt does not fit the settings of this run: .*size mismatch for 0\.weight"
    with pytest.raises(CsviError, match=message) as caught:
        load(fabric, [saved[2]], *built(fabric, width=2))
    assert "\n" not in str(caught.value)


def test_damaged_checkpoints_are_refused(fabric, saved):
    network, optimizer, file = saved
    whole, rng = file.read_bytes(), random.Random(0)
    cut = [whole[:length] for length in range(0, len(whole), 97)]
    for content in [b"", b"something else", *cut, *(rng.randbytes(40) for _ in range(30))]:
        file.write_bytes(content)
        with pytest.raises(CsviError, match=r"last\.ckpt is damaged or no checkpoint of csvi"):
            load(fabric, [file], network, optimizer)


def test_another_file_of_torch_is_refused(fabric, saved):
    network, optimizer, file = saved
    for content in ({"a": torch.ones(2)}, [1, 2], {"position": {"epoch": 1}}):
        torch.save(content, file)
        with pytest.raises(CsviError, match=r"last\.ckpt is no checkpoint of this version of csvi"):
            load(fabric, [file], network, optimizer)


@pytest.mark.parametrize("save", [torch.save, lambda what, file: file.write_bytes(pickle.dumps(what, protocol=2))])
def test_code_in_a_checkpoint_does_not_run(trap, fabric, saved, save):
    network, optimizer, file = saved
    save({"network": trap}, file)
    with pytest.raises(CsviError, match=r"last\.ckpt is damaged or no checkpoint of csvi"):
        load(fabric, [file], network, optimizer)


def test_another_method_is_named(fabric, saved):
    network, optimizer, file = saved
    with pytest.raises(
        CsviError, match=r"last\.ckpt was trained with the method coseg, not with baseline: start a new"
    ):
        load_checkpoint(fabric, [file], network, optimizer, position(), Config(Baseline.Settings()))


def test_a_position_begins_with_all_that_makes_a_run_this_one(config):
    training_set = TrainingSet(read_benchmark(config.data), config.data, masks=False)
    start = Position.start(config, training_set)
    assert (start.settings, start.identities) == (flatten(config), list(range(1, 9)))
    assert (start.epoch, start.step, start.skipped) == (0, 0, [])
    assert start.images == training_set.digest


def test_a_run_that_has_done_no_step_is_none(fabric, tmp_path):
    network, optimizer = built(fabric)
    for _ in range(2):
        save(fabric, tmp_path, network, optimizer, 0, 0)
    (tmp_path / "metrics.jsonl").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "metrics.jsonl"}
    assert checkpoints_to_resume(tmp_path, None) == checkpoints_to_resume(tmp_path, "auto") == []
    file = tmp_path / "last.ckpt"
    assert checkpoints_to_resume(tmp_path, str(file)) == [file]


@pytest.mark.parametrize("what", ["a step", "a step before", "a line", "a network", "damaged", "another version"])
def test_a_run_of_which_anything_could_be_lost_is_one(fabric, tmp_path, what):
    """Such as the steps of a run that went back to its start, by --resume RUN/previous.ckpt."""
    network, optimizer = built(fabric)
    if what == "a step before":
        save(fabric, tmp_path, network, optimizer, 0, 1)
    save(fabric, tmp_path, network, optimizer, 0, int(what == "a step"))
    file = tmp_path / "last.ckpt"
    if what in ("a line", "a network"):
        (tmp_path / {"a line": "metrics.jsonl", "a network": "model.safetensors"}[what]).write_text("{}")
    if what == "damaged":
        file.write_bytes(file.read_bytes()[:100])
    if what == "another version":
        torch.save({"network": {}, "version": 2}, file)
    with pytest.raises(CsviError, match="holds a run already: resume it by --resume auto"):
        checkpoints_to_resume(tmp_path, None)
    assert file in checkpoints_to_resume(tmp_path, "auto")
