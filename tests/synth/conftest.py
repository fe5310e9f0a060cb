from pathlib import Path

import pytest

from csvi.data import LAYOUTS
from csvi.synth import SynthConfig, write_benchmark


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny benchmark, rendered by two processes; tests read it only."""
    out = tmp_path_factory.mktemp("synth") / "tiny"
    write_benchmark(out, SynthConfig(preset="tiny", processes=2))
    return out


@pytest.fixture(scope="session", params=LAYOUTS)
def written(request, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A layout and the tiny benchmark in it; tests read it only."""
    if request.param == "sysu":
        return "sysu", tiny
    out = tmp_path_factory.mktemp("synth") / request.param
    write_benchmark(out, SynthConfig(layout=request.param, preset="tiny", processes=1))
    return request.param, out
