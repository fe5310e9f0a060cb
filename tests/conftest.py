"""A small dataset in SYSU-MM01's layout, and settings that train on it in seconds."""

import contextlib
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from csvi.cli import main
from csvi.config import Config, DataConfig, TrainConfig
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.model import trunk
from csvi.model.trunk import Stage, Trunk
from csvi.runs import Run
from csvi.runs.evaluation import evaluated
from csvi.train.loop import train

SPLITS = {"train": range(1, 9), "val": range(9, 13), "test": range(13, 21)}

torch.set_num_threads(1)  # layers this small only wait for each other's threads
os.environ["OMP_NUM_THREADS"] = "1"  # those of processes that tests start, too


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def tiny_trunk():
    """Every trunk is five convolutions, a block each, but where a test asks for `real_trunk`."""

    def build_trunk(name):
        stages, channels = [], 3
        for number, (width, stride, total) in enumerate([(8, 4, 4), (8, 1, 4), (8, 2, 8), (16, 2, 16), (16, 1, 16)]):
            convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            name, block = f"block{number}", nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
            stages.append(Stage({name: block}, width, total, (name,)))
            channels = width
        return Trunk(stages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csvi.model.two_stream.build_trunk", build_trunk)
        yield


@pytest.fixture(scope="session")
def real_trunks():
    """A context in which every trunk is what it is, for fixtures that serve more than one test."""

    @contextlib.contextmanager
    def real():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("csvi.model.two_stream.build_trunk", trunk.build_trunk)
            yield

    return real


@pytest.fixture
def real_trunk(real_trunks):
    """Every trunk is what it is."""
    with real_trunks():
        yield


@pytest.fixture
def latin_1(monkeypatch):
    """Files are written as where the locale is in Latin-1, which has neither Δ nor †."""
    monkeypatch.setattr("io.text_encoding", lambda encoding, stacklevel=2: encoding or "latin-1")


@pytest.fixture(scope="session")
def sysu_root(tmp_path_factory):
    """Twenty people, two images a camera: stripes whose brightness both spectra see, coloured in the visible."""
    root = tmp_path_factory.mktemp("data") / "sysu"
    rng = np.random.default_rng(0)
    for split, identities in SPLITS.items():
        (root / "exp").mkdir(parents=True, exist_ok=True)
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, identities)))
        for identity in identities:
            stripes = rng.integers(40, 255, (6, 1, 1)).repeat(7, 0)  # (42, 1, 1)
            colour = rng.uniform(0.3, 1, (6, 1, 3)).repeat(7, 0)
            for camera in range(1, 7):
                for kind in ("", "masks"):
                    (root / kind / f"cam{camera}/{identity:04d}").mkdir(parents=True)
                for n in (1, 2):
                    top, left = rng.integers(7, size=2)
                    image, mask = rng.normal(90, 20, (48, 24, 3)), np.zeros((48, 24), np.uint8)
                    image[top : top + 42, left : left + 18] = stripes * (1 if camera in (3, 6) else colour)
                    mask[top : top + 42, left : left + 18] = 255
                    if camera in (3, 6):
                        image[:] = image.mean(2, keepdims=True)
                    name = f"cam{camera}/{identity:04d}/{n:04d}"
                    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{name}.jpg", quality=95)
                    Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    return root


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def small(root, cache):
    """An epoch of two steps."""
    return Config(
        CoSeg.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16, widths=(16, 8)),
        data=DataConfig(
            root=str(root), train_on="train", height=48, width=24, identities=8, images=4, pad=2, workers=0,
            cache=str(cache),
        ),
        train=TrainConfig(epochs=1, lr=0.001, validate_every=0),
        precision="32-true",
    )  # fmt: skip


@pytest.fixture
def config(sysu_root, cache_folder):
    return small(sysu_root, cache_folder)


@pytest.fixture(scope="session")
def coseg_run(sysu_root, cache_folder, tmp_path_factory):
    """A run of those settings, trained and evaluated; a test that changes it copies it before (`shutil.copytree`)."""
    run = tmp_path_factory.mktemp("shared") / "coseg"
    train(small(sysu_root, cache_folder), run)
    evaluated(Run.open(run))
    return run


@pytest.fixture(scope="session")
def real_run(sysu_root, cache_folder, real_trunks, tmp_path_factory):
    """A run of those settings with a trunk that other processes build as well."""
    run = tmp_path_factory.mktemp("shared") / "real"
    with real_trunks():
        train(small(sysu_root, cache_folder), run)
    return run


@pytest.fixture(scope="session")
def coseg_onnx(coseg_run, tmp_path_factory):
    """That run as ONNX, by `csvi export`."""
    file = tmp_path_factory.mktemp("exported") / "coseg.onnx"
    assert main(["export", str(coseg_run), "--format", "onnx", "--out", str(file)]) == 0
    return file


@pytest.fixture(scope="session")
def baseline_run(sysu_root, cache_folder, tmp_path_factory):
    """The same of the Baseline."""
    run, config = tmp_path_factory.mktemp("shared") / "baseline", small(sysu_root, cache_folder)
    config.method = Baseline.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16)
    train(config, run)
    evaluated(Run.open(run))
    return run


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.fixture
def trap(tmp_path_factory):
    """What runs code when it is unpickled, as a control does; the test fails if it did."""
    folder = tmp_path_factory.mktemp("trap")
    pickle.loads(pickle.dumps(_Trap(folder / "control"))).close()
    assert (folder / "control").exists()
    yield _Trap(folder / "ran")
    assert not (folder / "ran").exists()
