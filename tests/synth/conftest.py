from pathlib import Path

import pytest

from csvi.config import SynthConfig
from csvi.synth import write_benchmark


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny benchmark, rendered by two processes; tests read it only."""
    out = tmp_path_factory.mktemp("synth") / "tiny"
    write_benchmark(out, SynthConfig(preset="tiny", processes=2))
    return out
