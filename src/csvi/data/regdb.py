"""RegDB, and whatever is written in its layout.

Dat Tien Nguyen, Hyung Gil Hong, Ki Wan Kim, Kang Ryoung Park: Person Recognition System Based on a Combination of Body
Images from Visible Light and Thermal Cameras, Sensors 17(3), 2017. To be asked for from its authors. The ten splits are
those of Ye et al., Hierarchical Discriminative Learning for Visible Thermal Person Re-Identification, AAAI 2018.

    ROOT/Visible/...  ROOT/Thermal/...     412 people, 10 visible and 10 thermal images each
    ROOT/idx/train_visible_T.txt           T = 1 ... 10: lines `path label`, the path relative to ROOT
    ROOT/idx/train_thermal_T.txt  ROOT/idx/test_visible_T.txt  ROOT/idx/test_thermal_T.txt
    ROOT/masks/Visible/...                 optional, not part of the dataset: person masks, a tree like the images'

Split T has 206 people to train and 206 to test, 2,060 lines a file; there is none to validate. Every split trains a
model of its own. Labels begin at 0 in every file, and those of training and of test are different people: identities
are the labels of test, and behind them those of training. The dataset names no camera: 1 is visible, 2 thermal.
"""

import os
from pathlib import Path

from csvi.data.files import attach_masks, check_disjoint, dataset_root, is_synthetic, read_labels, title_of
from csvi.data.records import Benchmark, Counts, ImageRecord, Layout, Modality
from csvi.errors import CsviError

TITLE = "RegDB"
TRIALS = 10
NAMES = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}


def read_regdb(root: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None, trial: int = 1) -> Benchmark:
    """Lists the images of one split, in the order of its list files; no image is opened.

    Args:
        root: folder of the dataset.
        masks: folder of person masks, by default ROOT/masks where it exists; see `attach_masks`.
        trial: number of the split, 1 to 10.

    Raises:
        CsviError: a list file is missing or wrong (see `read_labels`), two of them name the same image, there is no
            such split, or `masks` is given and holds no mask of these images.
    """
    root = dataset_root(root, TITLE, "Visible, Thermal and idx")
    if not 1 <= trial <= TRIALS:
        raise CsviError(f"RegDB has the splits 1 to {TRIALS}, not {trial}: set --data.trial to one of them")
    lists = {
        f"{split}_{name}_{trial}.txt": read_labels(root / "idx" / f"{split}_{name}_{trial}.txt", TITLE)
        for split in ("test", "train")
        for name in NAMES.values()
    }
    check_disjoint(lists, "the image", f"{root / 'idx'}/{{}}")
    behind = 1 + max(max(lists[f"test_{name}_{trial}.txt"].values()) for name in NAMES.values())
    records = {
        split: [
            ImageRecord(path, label + offset, int(modality) + 1, modality)
            for modality, name in NAMES.items()
            for path, label in lists[f"{split}_{name}_{trial}.txt"].items()
        ]
        for split, offset in (("train", behind), ("test", 0))
    }
    records = attach_masks(root, records, masks)
    return Benchmark(
        title_of(root, TITLE), root, records["train"], [], records["test"], "regdb", is_synthetic(root), trial
    )


def _recognise(root: Path) -> bool:
    return any((root / "idx" / f"train_visible_{trial}.txt").is_file() for trial in range(1, TRIALS + 1))


LAYOUT = Layout(
    TITLE,
    read_regdb,
    _recognise,
    TRIALS,
    counts={"train": Counts(206, 2060, 2060), "val": Counts(0, 0, 0), "test": Counts(206, 2060, 2060)},
)
