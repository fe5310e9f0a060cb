"""Datasets on disk to batches. Knows no model."""

from pathlib import Path

from csvi.config import DataConfig
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.data.sysu_mm01 import read_sysu_mm01
from csvi.errors import CsviError

READERS = {"sysu": read_sysu_mm01}
"""Name in the settings -> reader, called with the root and the folder of masks (or None)."""


def read_benchmark(config: DataConfig) -> Benchmark:
    """The dataset that the settings name.

    Raises:
        CsviError: no root is given, or the reader finds something wrong.
    """
    if not config.root:
        raise CsviError("no dataset: give its folder with --data.root")
    return READERS[config.dataset](Path(config.root), Path(config.masks) if config.masks else None)


__all__ = ["READERS", "Benchmark", "ImageRecord", "Modality", "read_benchmark", "read_sysu_mm01"]
