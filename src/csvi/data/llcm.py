"""LLCM, and any dataset that is written in its layout.

Yukang Zhang, Hanzi Wang: Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for
Visible-Infrared Person Re-identification, CVPR 2023. Its authors give it on request.

    ROOT/idx/train_vis.txt  train_nir.txt      lines `path label`, the path relative to ROOT
    ROOT/vis/0001/0001_c01_s185535_f7010_vis.jpg  ROOT/nir/...       what they name; `_c01_` is the camera
    ROOT/idx/test_id.txt                       one line of comma-separated identities
    ROOT/test_vis/cam1 ... cam9/0006/*.jpg     camera / identity / image
    ROOT/test_nir/cam1 cam2 cam4 ... cam9/0006/*.jpg
    ROOT/masks/vis/...                         optional, not part of the dataset: person masks, a tree like the images'

713 people to train (16,946 visible and 13,975 infrared images) and 351 to test (8,680 and 7,166); there is none to
validate. Nine cameras take both spectra, camera 3 visible only. Identities are the dataset's numbers in test and,
behind them, the labels of training. The lists test_vis.txt and test_nir.txt are not read: results in the field come
from test_id.txt and the folders.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from csvi.data.files import (
    Folders,
    attach_masks,
    check_disjoint,
    dataset_root,
    is_synthetic,
    read_ids,
    read_labels,
    title_of,
)
from csvi.data.galleries import by_identity_and_camera, draw_seeded, images_of, queries_of
from csvi.data.layout import Layout
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.protocols import GalleryDraw, Protocol, Rules, Trial

NAMES = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
CAMERAS = {Modality.VISIBLE: (1, 2, 3, 4, 5, 6, 7, 8, 9), Modality.INFRARED: (1, 2, 4, 5, 6, 7, 8, 9)}
"""Modality → cameras of the test images."""
FOLDERS = {"idx": (), "test_vis": ("test_visible", "test_rgb"), "test_nir": ("test_infrared", "test_ir")}
COUNTS = {"train": Counts(713, 16946, 13975), "val": Counts(0, 0, 0), "test": Counts(351, 8680, 7166)}


class LLCM(Layout):
    """LLCM: one fold, and galleries of one image of each identity and camera."""

    title = "LLCM"
    counts = COUNTS
    rules = Rules(same_camera=True, unique_identities=True)
    """A camera that takes both spectra sees the same moment twice."""
    draws = ("seeded",)
    folders = FOLDERS
    writer = "csvi.synth.llcm:plan"

    def recognise(self, root: Path) -> bool:
        """Whether there are a list of visible images to train, or visible images to test."""
        return (root / "idx" / "train_vis.txt").is_file() or (root / "test_vis").is_dir()

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images: training in the order of the lists, test by modality, camera, identity and file name.

        Raises:
            CsviError: a list file is missing or wrong (see `read_labels`), an image is in two of them, there is no test
                image of a modality, or `masks` holds no mask of these images.
        """
        root = dataset_root(root, self.title, "vis, nir, test_vis, test_nir and idx")
        lists = {name: read_labels(root, f"idx/train_{name}.txt", self.title) for name in NAMES.values()}
        check_disjoint(lists, "the image", f"{root / 'idx'}/train_{{}}.txt")
        identities = read_ids(root / "idx" / "test_id.txt", self.title)
        folders, test = Folders(root), []
        for modality, name in NAMES.items():
            images = [
                ImageRecord(path, identity, camera, modality)
                for camera in CAMERAS[modality]
                for identity, path in folders.of_identities(f"test_{name}/cam{camera}", identities)
            ]
            if not images:
                raise CsviError(
                    f"no image of any identity of {root / 'idx' / 'test_id.txt'} in {root / f'test_{name}'}: "
                    "is the copy complete?"
                )
            test += images
        behind = identities[-1] + 1
        train = [
            ImageRecord(path, label + behind, _camera(path, modality), modality)
            for modality, name in NAMES.items()
            for path, label in lists[name].items()
        ]
        records = attach_masks(root, {"train": train, "test": test}, masks)
        return Benchmark(
            title_of(root, self.title), root, records["train"], [], records["test"], synthetic=is_synthetic(root),
            names={record.identity: f"training label {record.identity - behind}" for record in train},
            unread=folders.unread, misplaced=folders.misplaced,
        )  # fmt: skip

    def protocols(
        self, records: Sequence[ImageRecord], draw: GalleryDraw, root: Path, trials: int = 10
    ) -> list[Protocol]:
        """Make both directions, and the one that public code prints in place of the second; see `Layout.protocols`.

        Every image of the one modality is a query; trial t's gallery holds one image of each identity and camera of the
        other, drawn with seed t. `llcm-swapped`, which public code prints as "VIS to NIR", asks with infrared images
        drawn so and searches every visible image: its metrics compare with nothing else.
        """
        why = "LLCM is tested on both modalities"
        asked = {modality: queries_of(records, modality, why) for modality in Modality}
        every_visible = images_of(records, Modality.VISIBLE, why)
        drawn = {
            modality: [draw_seeded(by_identity_and_camera(records, modality), 1, trial) for trial in range(trials)]
            for modality in Modality
        }
        visible, infrared = Modality.VISIBLE, Modality.INFRARED
        return [
            Protocol("infrared to visible", self.rules, draw, [Trial(asked[infrared], g) for g in drawn[visible]]),
            Protocol("visible to infrared", self.rules, draw, [Trial(asked[visible], g) for g in drawn[infrared]]),
            Protocol("llcm-swapped", self.rules, draw, [Trial(q, every_visible) for q in drawn[infrared]]),
        ]


def _camera(path: str, modality: Modality) -> int:
    """The number behind `_c` in a training image's name; without one that of the modality, as training needs none."""
    found = re.search(r"_c([0-9]{1,3})_", path)
    return int(found[1]) if found else int(modality) + 1
