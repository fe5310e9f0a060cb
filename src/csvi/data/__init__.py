"""Datasets on disk to batches. Knows no model."""

from pathlib import Path

from csvi.config import DataConfig
from csvi.data import folder, llcm, regdb, sysu_mm01
from csvi.data.folder import read_folder
from csvi.data.llcm import read_llcm
from csvi.data.records import Benchmark, Counts, ImageRecord, Layout, Modality
from csvi.data.regdb import read_regdb
from csvi.data.sysu_mm01 import read_sysu_mm01
from csvi.errors import CsviError
from csvi.paths import expanded

LAYOUTS = {"sysu": sysu_mm01.LAYOUT, "regdb": regdb.LAYOUT, "llcm": llcm.LAYOUT, "folder": folder.LAYOUT}
"""Name in the settings -> how it is read."""


def read_benchmark(config: DataConfig) -> Benchmark:
    """The dataset, and the split of it, that the settings name.

    Raises:
        CsviError: no root is given, the dataset has no such split, or the reader finds something wrong.
    """
    if not config.root:
        raise CsviError("no dataset: give its folder with --data.root")
    layout, root = LAYOUTS[config.dataset], expanded(config.root)
    if not 1 <= config.trial <= layout.trials:
        splits = "one split" if layout.trials == 1 else f"the splits 1 to {layout.trials}"
        raise CsviError(f"{layout.title} has {splits}: there is no --data.trial {config.trial}")
    found = recognise(root)
    if found not in (None, config.dataset) and not layout.recognise(root):
        raise CsviError(
            f"{root} is not laid out as {layout.title} but as {LAYOUTS[str(found)].title}: set --data.dataset {found}"
        )
    return layout.read(root, Path(config.masks) if config.masks else None, config.trial)


def recognise(root: Path) -> str | None:
    """The first layout that a folder looks like, if any."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognise(root)), None)


__all__ = [
    "LAYOUTS",
    "Benchmark",
    "Counts",
    "ImageRecord",
    "Layout",
    "Modality",
    "read_benchmark",
    "read_folder",
    "read_llcm",
    "read_regdb",
    "read_sysu_mm01",
    "recognise",
]
