"""SYSU-MM01, and whatever is written in its layout.

Ancong Wu, Wei-Shi Zheng, Hong-Xing Yu, Shaogang Gong, Jianhuang Lai: RGB-Infrared Cross-Modality Person
Re-Identification, ICCV 2017. The dataset needs a signed agreement with its authors and may not be passed on.

    ROOT/cam1 ... cam6/0006/0001.jpg    camera / identity / image
    ROOT/exp/train_id.txt               one line of comma-separated identities, and so val_id.txt and test_id.txt
    ROOT/exp/rand_perm_cam.mat          the official galleries; some copies lack it, only `--gallery official` reads it
    ROOT/masks/cam1/0006/0001.png       optional, not part of the dataset: person masks, a tree that mirrors the images'

Cameras 1, 2, 4 and 5 are visible, 3 and 6 infrared; 1, 2 and 3 are indoors; 2 and 3 stand at the same place. An
identity that a camera never saw has no folder there, or an empty one. The authors' split: 296 identities to train
(20,284 visible and 9,929 infrared images), 99 to validate (1,974 and 1,980) and 96 to test (6,775 and 3,803).
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from csvi.data.files import (
    attach_masks,
    check_disjoint,
    dataset_root,
    image_names,
    is_synthetic,
    read_ids,
    title_of,
)
from csvi.data.records import Benchmark, Counts, ImageRecord, Layout, Modality
from csvi.errors import CsviError

TITLE = "SYSU-MM01"
MODALITIES = {
    1: Modality.VISIBLE,
    2: Modality.VISIBLE,
    3: Modality.INFRARED,
    4: Modality.VISIBLE,
    5: Modality.VISIBLE,
    6: Modality.INFRARED,
}
"""Camera → modality."""
PERMUTATIONS = "exp/rand_perm_cam.mat"
"""The official galleries, relative to the root."""


def read_sysu_mm01(
    root: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None, trial: int = 1
) -> Benchmark:
    """Lists the images of the three splits, sorted by camera, identity and file name; no image is opened.

    Args:
        root: folder of the dataset.
        masks: folder of person masks, by default ROOT/masks where it exists; see `attach_masks`.
        trial: the dataset has one split, 1.

    Raises:
        CsviError: a folder or an id list is missing or cannot be read, an identity is in two splits, a split has no
            image, or `masks` is given and holds no mask of these images.
    """
    root = dataset_root(root, TITLE, "cam1…cam6 and exp")
    missing = [f"cam{camera}" for camera in MODALITIES if not (root / f"cam{camera}").is_dir()]
    if len(missing) == len(MODALITIES):
        raise CsviError(f"no cam1…cam6 in {root}: is this the folder of SYSU-MM01?")
    if missing:
        raise CsviError(f"no {', '.join(missing)} in {root}: SYSU-MM01 has cam1…cam6, copy what is missing")
    identities = {split: read_ids(root / "exp" / f"{split}_id.txt", TITLE) for split in ("train", "val", "test")}
    check_disjoint(identities, "identity", f"{root / 'exp'}/{{}}_id.txt")
    records = {
        split: [record for camera in MODALITIES for i in ids for record in _images(root, camera, i)]
        for split, ids in identities.items()
    }
    for split, images in records.items():
        if not images:
            raise CsviError(
                f"no image of any identity of {root / 'exp' / f'{split}_id.txt'} in {root}: is the copy complete?"
            )
    train, val, test = attach_masks(root, records, masks).values()
    return Benchmark(title_of(root, TITLE), root, train, val, test, "sysu", is_synthetic(root))


def counts() -> list[dict[str, str]]:
    """Rows of `id`, `split` and `cam1` … `cam6`: how many images SYSU-MM01 has of every identity and camera."""
    with Path(__file__).with_name("sysu_mm01_counts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _images(root: Path, camera: int, identity: int) -> list[ImageRecord]:
    folder = f"cam{camera}/{identity:04d}"
    return [
        ImageRecord(f"{folder}/{name}", identity, camera, MODALITIES[camera]) for name in image_names(root / folder)
    ]


def _paths() -> Iterator[str]:
    for row in counts():
        for camera in MODALITIES:
            for n in range(1, int(row[f"cam{camera}"]) + 1):
                yield f"cam{camera}/{int(row['id']):04d}/{n:04d}.jpg"


LAYOUT = Layout(
    TITLE,
    read_sysu_mm01,
    recognise=lambda root: (root / "cam1").is_dir() and (root / "exp").is_dir(),
    counts={"train": Counts(296, 20284, 9929), "val": Counts(99, 1974, 1980), "test": Counts(96, 6775, 3803)},
    paths=_paths,
)
