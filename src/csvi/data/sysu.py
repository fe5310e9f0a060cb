"""SYSU-MM01, and any dataset that is written in its layout.

Ancong Wu, Wei-Shi Zheng, Hong-Xing Yu, Shaogang Gong, Jianhuang Lai: RGB-Infrared Cross-Modality Person
Re-Identification, ICCV 2017. The dataset needs a signed agreement with its authors and may not be passed on.

    ROOT/cam1 ... cam6/0006/0001.jpg    camera / identity / image
    ROOT/exp/train_id.txt               one line of comma-separated identities, and so val_id.txt and test_id.txt
    ROOT/exp/rand_perm_cam.mat          the official galleries, for `--galleries official` alone; some copies lack it
    ROOT/masks/cam1/0006/0001.png       optional, not part of the dataset: person masks, a tree that mirrors the images'

Cameras 1, 2, 4 and 5 are visible, 3 and 6 infrared; 1, 2 and 3 are indoors; 2 and 3 stand at the same place. An
identity that a camera never saw has no folder there, or an empty one. The authors' split: 296 identities to train
(20,284 visible and 9,929 infrared images), 99 to validate (1,974 and 1,980) and 96 to test (6,775 and 3,803).
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csvi.data.files import (
    Folders,
    attach_masks,
    check_disjoint,
    dataset_root,
    is_synthetic,
    read_ids,
    title_of,
)
from csvi.data.galleries import by_identity_and_camera, draw_seeded, images_of, queries_of
from csvi.data.layout import Layout
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.protocols import GalleryDraw, Protocol, Rules, Trial

MODALITIES = {camera: Modality(camera in (3, 6)) for camera in range(1, 7)}
"""Camera → modality."""
PERMUTATIONS = "exp/rand_perm_cam.mat"
"""The official galleries, relative to the root."""
SEARCHED = {"all-search": (1, 2, 4, 5), "indoor-search": (1, 2)}
"""Mode → cameras of the gallery."""
SHOTS = {"single-shot": 1, "multi-shot": 10}
"""Setting → gallery images of each identity and camera."""
FOLDERS = {f"cam{camera}": (f"camera{camera}", f"cam_{camera}", f"c{camera}") for camera in MODALITIES} | {"exp": ()}
COUNTS = {"train": Counts(296, 20284, 9929), "val": Counts(99, 1974, 1980), "test": Counts(96, 6775, 3803)}


class Sysu(Layout):
    """SYSU-MM01: three splits, and galleries drawn from the visible cameras."""

    title = "SYSU-MM01"
    counts = COUNTS
    rules = Rules(same_place=((3, 2),), unique_identities=True)
    """Cameras 2 and 3 stand at the same place."""
    draws = ("seeded", "official")
    folders = FOLDERS
    writer = "csvi.synth.sysu:plan"

    def recognise(self, root: Path) -> bool:
        """Whether there are cam1 and exp."""
        return (root / "cam1").is_dir() and (root / "exp").is_dir()

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images of the three splits, sorted by camera, identity and file name; see `Layout.read`.

        Raises:
            CsviError: a folder or an id list is missing or cannot be read, an identity is in two splits, a split has no
                image, or `masks` holds no mask of these images.
        """
        root = dataset_root(root, self.title, "cam1…cam6 and exp")
        missing = [f"cam{camera}" for camera in MODALITIES if not (root / f"cam{camera}").is_dir()]
        if len(missing) == len(MODALITIES):
            raise CsviError(f"no cam1…cam6 in {root}: is this the folder of SYSU-MM01?")
        if missing:
            raise CsviError(f"no {', '.join(missing)} in {root}: SYSU-MM01 has cam1…cam6, copy what is missing")
        splits = "train", "val", "test"
        identities = {split: read_ids(root / "exp" / f"{split}_id.txt", self.title) for split in splits}
        check_disjoint(identities, "identity", f"{root / 'exp'}/{{}}_id.txt")
        folders = Folders(root)
        records = {
            split: [
                ImageRecord(path, identity, camera, modality)
                for camera, modality in MODALITIES.items()
                for identity, path in folders.of_identities(f"cam{camera}", ids)
            ]
            for split, ids in identities.items()
        }
        for split, images in records.items():
            if not images:
                raise CsviError(
                    f"no image of any identity of {root / 'exp' / f'{split}_id.txt'} in {root}: is the copy complete?"
                )
        train, val, test = attach_masks(root, records, masks).values()
        return Benchmark(
            title_of(root, self.title), root, train, val, test, synthetic=is_synthetic(root),
            unread=folders.unread, misplaced=folders.misplaced,
        )  # fmt: skip

    def paths(self) -> Iterator[str]:
        """Every image of SYSU-MM01 itself."""
        for row in images_per_camera():
            for camera in MODALITIES:
                for n in range(1, int(row[f"cam{camera}"]) + 1):
                    yield f"cam{camera}/{int(row['id']):04d}/{n:04d}.jpg"

    def protocols(
        self, records: Sequence[ImageRecord], draw: GalleryDraw, root: Path, trials: int = 10
    ) -> list[Protocol]:
        """All-search and indoor-search, each single-shot and multi-shot; see `Layout.protocols`.

        Every infrared image is a query, in both modes. Of each identity and each visible camera of the mode, a trial's
        gallery holds one image (single-shot) or ten (multi-shot; all where there are fewer): drawn with the trial as
        seed, as most public code does, or `official`, from one of the ten rows of the authors' permutations. A mode
        whose cameras saw nobody is left out: on SYSU-MM01's val identities all-search remains.
        """
        query = queries_of(records, Modality.INFRARED, "SYSU-MM01's queries are the images of cameras 3 and 6")
        images_of(records, Modality.VISIBLE, "SYSU-MM01's galleries are drawn from cameras 1, 2, 4 and 5")
        visible = by_identity_and_camera(records, Modality.VISIBLE)
        rows = _official_rows(root / PERMUTATIONS, visible, trials) if draw == "official" else None
        protocols = []
        for mode, cameras in SEARCHED.items():
            images = {key: indices for key, indices in visible.items() if key[1] in cameras}
            if not images:  # SYSU-MM01's val identities were never in cameras 1 and 2
                continue
            for shots, count in SHOTS.items():
                galleries = [
                    draw_seeded(images, count, trial)
                    if rows is None
                    else [indices[i - 1] for key, indices in images.items() for i in rows[key][trial, :count]]
                    for trial in range(trials)
                ]
                name = f"{mode} {shots}"
                protocols.append(Protocol(name, self.rules, draw, [Trial(query, gallery) for gallery in galleries]))
        return protocols


def images_per_camera() -> list[dict[str, str]]:
    """Rows of `id`, `split` and `cam1` … `cam6`: the number of SYSU-MM01's images of every identity and camera."""
    with Path(__file__).with_name("sysu_mm01_counts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _official_rows(
    file: Path, images: dict[tuple[int, int], list[int]], trials: int
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(identity, camera) → (at least trials, images) permutations of 1…images, checked against the images there are."""
    import scipy.io

    if not file.is_file():
        raise CsviError(f"no {file}: copy it from SYSU-MM01, or evaluate on seeded galleries")
    try:
        cameras = scipy.io.loadmat(file)["rand_perm_cam"].ravel()
    except Exception as error:  # scipy raises whatever its parser stumbles on
        raise CsviError(f"cannot read rand_perm_cam in {file} ({error}): copy it from SYSU-MM01 again") from error
    rows = {}
    for (identity, camera), indices in images.items():
        try:
            row = np.asarray(cameras[camera - 1].ravel()[identity - 1])
        except (IndexError, AttributeError) as error:
            raise CsviError(
                f"{file} has nothing of identity {identity} in cam{camera}: is it of this dataset?"
            ) from error
        expected = np.arange(1, len(indices) + 1)
        if row.dtype.kind not in "iuf" or row.shape[1:] != expected.shape or (np.sort(row) != expected).any():
            raise CsviError(
                f"{file} holds no permutations of the {len(indices)} images of cam{camera}/{identity:04d}: "
                "are images missing, or is it of another dataset?"
            )
        if len(row) < trials:
            raise CsviError(f"{file} has {len(row)} official trials, not {trials}: ask for {len(row)} at most")
        rows[identity, camera] = row.astype(np.int64)
    return rows
