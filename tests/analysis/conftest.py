"""Runs of networks without training, opened."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image

from csvi.methods import build_method, find_method
from csvi.runs import Run, save_config
from csvi.runs.network_files import save_method

CLASSES = range(1, 9)


@pytest.fixture
def born(config, tmp_path):
    """Opens a run of a method as it would begin, with the small settings and these of the method's own."""

    def make(method="coseg", folder=None, seed=0, **settings):
        kind = find_method(method).Settings
        known = {field.name for field in dataclasses.fields(kind)} - {"name"}
        shared = {name: value for name, value in vars(config.method).items() if name in known}
        of_run = dataclasses.replace(config, method=kind(**shared | settings))
        torch.manual_seed(seed)
        run = tmp_path / (folder or method)
        run.mkdir(exist_ok=True)
        save_method(build_method(of_run, len(CLASSES)), CLASSES, run)
        save_config(of_run, run / "config.yaml")
        return Run.open(run)

    return make


@pytest.fixture
def with_statistics():
    """Gives a run the statistics of its images: as it was born, a network makes next to nothing of any image."""

    def give(run):
        for layer in run.method.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.momentum = 1
        batch = run.batch(run.benchmark.test[::4])
        with torch.no_grad():
            run.method.train()(batch._replace(identity=batch.identity - 13), 0)
        run.method.eval()
        return run

    return give


@pytest.fixture
def with_nobody(with_test, tmp_path):
    """Opens the same run with true masks of nobody for some of the test images."""

    def change(run, numbers):
        empty = tmp_path / "empty.png"
        Image.new("L", (24, 48)).save(empty)
        test = enumerate(run.benchmark.test)
        return with_test(run, [dataclasses.replace(r, mask=empty) if i in numbers else r for i, r in test])

    return change


@pytest.fixture
def with_test():
    """Opens the same run with other test images."""

    def change(run, test):
        other = copy.copy(run)
        for made in ("embeddings", "embeddings_file", "key", "elsewhere"):
            other.__dict__.pop(made, None)
        other.benchmark = dataclasses.replace(run.benchmark, test=test)
        return other

    return change
