"""Untrained runs on the tiny benchmark in every layout."""

import pytest
import torch

from csvi.config import Config, DataConfig
from csvi.data import LAYOUTS
from csvi.methods import build_method
from csvi.methods.baseline import Baseline
from csvi.runs import save_config
from csvi.runs.network_files import save_method
from csvi.synth import SynthConfig, write_benchmark


@pytest.fixture(scope="session", params=LAYOUTS)
def root(request, tmp_path_factory):
    """The tiny benchmark in a layout; tests read it only."""
    folder = tmp_path_factory.mktemp("layouts") / request.param
    write_benchmark(folder, SynthConfig(layout=request.param, preset="tiny", height=48, width=24, processes=1))
    return folder


@pytest.fixture
def untrained(cache_folder):
    """Makes run folders of networks as they were born."""

    def make(folder, root, **data):
        folder.mkdir(parents=True, exist_ok=True)
        size = {"height": 48, "width": 24, "workers": 0, "cache": str(cache_folder)}
        config = Config(
            Baseline.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16),
            data=DataConfig(root=str(root), layout=root.name, **size, **data),
            precision="32-true",
        )
        torch.manual_seed(config.data.fold)
        save_method(build_method(config, identities=5), range(5), folder)
        save_config(config, folder / "config.yaml")
        return folder

    return make
