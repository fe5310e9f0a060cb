"""The benchmarks of loading, rendering and starting run, and measure what they say."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from csvi.config import DataConfig
from csvi.data.records import Modality

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A benchmark by its name, as a module."""
    monkeypatch.syspath_prepend(FOLDER)  # where `common` is, as for a script that is run

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # where loader processes that are spawned look for it
        spec.loader.exec_module(module)
        return module

    return load


def test_loading(load, capsys):
    assert load("loading").main(["--quick", "--step-seconds", "0.01", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    for expected in ("decoding every epoch", "csvi, images and masks", "first epoch ≤ decoding", "waiting for batches"):
        assert expected in printed


def test_loading_beside_training(load, capsys, monkeypatch):
    loading = load("loading")
    steps = []
    monkeypatch.setattr(loading, "training_step", lambda *_: steps.append)
    assert loading.main(["--quick", "--workers", "0"]) == 0
    assert steps[0]["mask"].shape == (64, 1, 48, 24)
    assert "resnet50 with coseg" in capsys.readouterr().out


def test_a_step_of_training(load, config):
    loading = load("loading")
    fabric = loading.make_fabric(config)
    batch = {
        "image": torch.randint(256, (64, 3, 48, 24), dtype=torch.uint8),
        "mask": torch.randint(256, (64, 1, 48, 24), dtype=torch.uint8),
        "modality": torch.arange(2).repeat_interleave(32),
        "identity": torch.arange(8).repeat_interleave(4).repeat(2),
    }
    loading.training_step(config, 8, fabric)(batch)


def test_both_loaders_draw_the_same_images(load, tmp_path):
    loading = load("loading")
    records = loading.make_images(tmp_path / "images", loading.some_names(320))
    with Image.open(tmp_path / "images" / records[7].path) as image, Image.open(records[7].mask) as mask:
        assert image.size == mask.size
        assert 100 <= image.width <= 400
        assert 2 * image.width <= image.height <= 3 * image.width
    data = DataConfig(
        height=48, width=24, workers=0, cache=str(tmp_path / "cache"), flip=0, pad=0, erase=0, grayscale=0
    )
    fabric = loading.make_fabric(loading.Config(data=data))
    usual, _ = loading.usual_loader(tmp_path / "images", records, data)
    ours, _ = loading.csvi_loader(tmp_path / "images", records, data, masks=False)
    for theirs, mine in zip(usual, ours, strict=True):
        theirs, mine = loading.usual_to_device(theirs, fabric), loading.on_device(mine, fabric)
        assert torch.equal(theirs["identity"], mine["identity"])
        torch.testing.assert_close(theirs["image"], mine["image"], rtol=0, atol=0.02)
        assert theirs["image"].stride() == mine["image"].stride()


def test_waiting_is_told_from_working(load):
    loading = load("loading")

    class Slow:
        epoch = 0

        def start(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            for _ in range(3):
                time.sleep(0.03)
                yield {}

    slow = Slow()
    share, steps, each = loading.waited_share(slow, slow, lambda _: time.sleep(0.01), 0.3)
    assert 0.5 < share < 0.95
    assert 1 <= steps <= 8
    assert each >= 0.01


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says what is resident in a process"
)
def test_memory(load, capsys):
    loading = load("loading")
    names = loading.sysu_names()
    assert len(names) == len(set(names)) == 34_167
    assert sum(modality == Modality.INFRARED for _, _, modality in names) == 9929 + 1980
    assert loading.main(["--quick", "--memory", "--workers", "1"]) == 0
    assert "worker 1" in capsys.readouterr().out


def test_rendering(load, capsys):
    assert load("rendering").main(["--quick"]) == 0
    assert "images/s of processor time" in capsys.readouterr().out


def test_startup(load, capsys):
    assert load("startup").main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "csvi --help" in printed
    assert "python -c pass" in printed
