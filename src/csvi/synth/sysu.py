"""SYSU-MM01's layout: which identities exist, which camera saw them how often, and the lists beside the images.

camC/IIII/NNNN.jpg                        camera, identity, image
exp/train_id.txt val_id.txt test_id.txt   one line of comma-separated identities each
exp/rand_perm_cam.mat                     permutations from which the official galleries are drawn
"""

import io
from dataclasses import dataclass

import numpy as np

from csvi.data import sysu_mm01

SPLITS = ("train", "val", "test")
TRIALS = 10


@dataclass(frozen=True)
class Shot:
    """One image that the layout wants."""

    identity: int
    camera: int
    index: int
    """From 1, within the identity and camera."""
    path: str
    """Relative to the root, with the suffix .jpg."""


@dataclass(frozen=True)
class Structure:
    """Identities of each split, and images for each identity and camera."""

    splits: dict[str, list[int]]
    counts: dict[tuple[int, int], int]


def structure(preset: str) -> Structure:
    """What a preset contains.

    `paper` has SYSU-MM01's own identities, split and counts (Wu et al., "RGB-Infrared Cross-Modality Person
    Re-Identification", ICCV 2017); `demo` 160, 16 and 70 identities with 10 + 10 images; `tiny` 6, 2 and 4 with 5 + 4.
    """
    if preset == "paper":
        rows = sysu_mm01.counts()
        splits = {split: [int(row["id"]) for row in rows if row["split"] == split] for split in SPLITS}
        return Structure(
            splits, {(int(row["id"]), camera): int(row[f"cam{camera}"]) for row in rows for camera in range(1, 7)}
        )
    sizes, images = {
        "demo": ((160, 16, 70), {1: 3, 2: 2, 3: 5, 4: 3, 5: 2, 6: 5}),
        "study": ((200, 60, 220), {1: 3, 2: 2, 3: 5, 4: 3, 5: 2, 6: 5}),
        "tiny": ((6, 2, 4), {1: 2, 2: 1, 3: 2, 4: 1, 5: 1, 6: 2}),
    }[preset]
    ends = np.cumsum(sizes)
    splits = {
        split: list(range(end - size + 1, end + 1))
        for split, size, end in zip(SPLITS, sizes, ends.tolist(), strict=True)
    }
    counts = {(identity, camera): count for identity in range(1, sum(sizes) + 1) for camera, count in images.items()}
    return Structure(splits, counts)


def shots(wanted: Structure) -> list[Shot]:
    """Every image, identity by identity."""
    return [
        Shot(identity, camera, index, f"cam{camera}/{identity:04d}/{index:04d}.jpg")
        for (identity, camera), count in sorted(wanted.counts.items())
        for index in range(1, count + 1)
    ]


def lists(wanted: Structure, seed: int) -> dict[str, bytes]:
    """The files of `exp/`: path relative to the root -> content."""
    files = {
        f"exp/{split}_id.txt": (",".join(map(str, identities)) + "\n").encode()
        for split, identities in wanted.splits.items()
    }
    files["exp/rand_perm_cam.mat"] = gallery_permutations(wanted, seed)
    return files


def gallery_permutations(wanted: Structure, seed: int) -> bytes:
    """`rand_perm_cam.mat`: a 6×1 cell of cameras, each a cell of identities 1 to the last, each a (10, images) matrix.

    A row is a 1-based permutation for one trial; the matrix is empty for an identity that the camera never saw.
    """
    from scipy.io import savemat

    last = max(identity for identity, _ in wanted.counts)
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cell = np.empty((last, 1), dtype=object)
        for identity in range(1, last + 1):
            count = wanted.counts.get((identity, camera), 0)
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, identity, camera, 0])))
            orders = np.array([rng.permutation(count) + 1 for _ in range(TRIALS)])
            cell[identity - 1, 0] = orders.astype(np.float64) if count else np.empty((0, 0))
        cameras[camera - 1, 0] = cell
    file = io.BytesIO()
    savemat(file, {"rand_perm_cam": cameras})
    header = b"MATLAB 5.0 MAT-file, csvi synthetic benchmark"  # in place of scipy's, which holds the time
    return header.ljust(116) + file.getvalue()[116:]
