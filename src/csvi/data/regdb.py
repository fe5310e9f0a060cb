"""RegDB, and any dataset that is written in its layout.

Dat Tien Nguyen, Hyung Gil Hong, Ki Wan Kim, Kang Ryoung Park: Person Recognition System Based on a Combination of Body
Images from Visible Light and Thermal Cameras, Sensors 17(3), 2017. Its authors give it on request. The ten folds are
those of Ye et al., Hierarchical Discriminative Learning for Visible Thermal Person Re-Identification, AAAI 2018.

    ROOT/Visible/...  ROOT/Thermal/...     412 people, 10 visible and 10 thermal images each
    ROOT/idx/train_visible_F.txt           F = 1 ... 10: lines `path label`, the path relative to ROOT
    ROOT/idx/train_thermal_F.txt  ROOT/idx/test_visible_F.txt  ROOT/idx/test_thermal_F.txt
    ROOT/masks/Visible/...                 optional, not part of the dataset: person masks, a tree like the images'

Fold F has 206 people to train and 206 to test, 2,060 lines a file; there is none to validate. Every fold trains a model
of its own. Labels begin at 0 in every file, and those of training and of test are different people: identities
are the labels of test, and behind them those of training. The dataset names no camera: 1 is visible, 2 thermal.
"""

from pathlib import Path

from csvi.data.files import attach_masks, check_disjoint, dataset_root, is_synthetic, read_labels, title_of
from csvi.data.layout import Layout
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.evaluate.protocols import Rules

COUNTS = {"train": Counts(206, 2060, 2060), "val": Counts(0, 0, 0), "test": Counts(206, 2060, 2060)}
FOLDERS = {"idx": (), "Visible": ("rgb", "vis"), "Thermal": ("infrared", "ir")}
DIRECTIONS = {Modality.VISIBLE: "visible to thermal", Modality.INFRARED: "thermal to visible"}
NAMES = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}


class RegDB(Layout):
    """RegDB: ten folds, and searches in both directions among all images.

    The field's ten trials are the ten folds, each with a model of its own (`csvi evaluate RUN RUN …`).
    """

    title = "RegDB"
    folds = 10
    counts = COUNTS
    rules = Rules()
    """No image is removed, and CMC is over images; evaluated as in Ye et al."""
    directions = DIRECTIONS
    folders = FOLDERS
    writer = "csvi.synth.regdb:plan"

    def recognise(self, root: Path) -> bool:
        """Whether the list of any fold is there."""
        return any((root / "idx" / f"train_visible_{fold}.txt").is_file() for fold in range(1, self.folds + 1))

    def has_fold(self, root: Path, fold: int) -> bool:
        """Whether any list of the fold is there."""
        return any((root / "idx").glob(f"*_{fold}.txt"))

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images of one fold, in the order of its list files; see `Layout.read`.

        Raises:
            CsviError: a list file is missing or wrong (see `read_labels`), two of them name the same image, or `masks`
                holds no mask of these images.
        """
        root = dataset_root(root, self.title, "Visible, Thermal and idx")
        lists = {
            f"{split}_{name}_{fold}.txt": read_labels(root, f"idx/{split}_{name}_{fold}.txt", self.title)
            for split in ("test", "train")
            for name in NAMES.values()
        }
        check_disjoint(lists, "the image", f"{root / 'idx'}/{{}}")
        behind = 1 + max(max(lists[f"test_{name}_{fold}.txt"].values()) for name in NAMES.values())
        records = {
            split: [
                ImageRecord(path, label + offset, int(modality) + 1, modality)
                for modality, name in NAMES.items()
                for path, label in lists[f"{split}_{name}_{fold}.txt"].items()
            ]
            for split, offset in (("train", behind), ("test", 0))
        }
        records = attach_masks(root, records, masks)
        names = {record.identity: f"training label {record.identity - behind}" for record in records["train"]}
        return Benchmark(
            title_of(root, self.title), root, records["train"], [], records["test"],
            synthetic=is_synthetic(root), names=names,
        )  # fmt: skip
