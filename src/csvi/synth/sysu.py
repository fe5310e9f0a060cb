"""SYSU-MM01's layout: which identities exist, which camera saw them how often, and the lists beside the images."""

import io

import numpy as np

from csvi.data import sysu
from csvi.synth.plan import Plan, Structure, consecutive, generator, lines

TRIALS = 10

ABOUT = """\
cam1 ... cam6/IIII/NNNN.jpg   camera, identity, image; cameras 1, 2, 4, 5 see visible light, 3 and 6 infrared;
                              1, 2, 3 are indoors; 2 and 3 stand at the same place
exp/*_id.txt                  identities of the splits, one line each
exp/rand_perm_cam.mat         permutations from which the official galleries are drawn
"""

VIEWS = {
    1: "visible\nindoors\ncamera 1",
    4: "visible\noutdoors\ncamera 4",
    3: "infrared\nindoors\ncamera 3",
    6: "infrared\nat night\ncamera 6",
}


def plan(preset: str, seed: int) -> Plan:
    """The benchmark in this layout; the seed decides the official galleries."""
    wanted = structure(preset)
    files = {f"exp/{split}_id.txt": lines([",".join(map(str, ids))]) for split, ids in wanted.splits.items()}
    files["exp/rand_perm_cam.mat"] = gallery_permutations(wanted, seed)
    shots = wanted.shots(lambda identity, camera, index: f"cam{camera}/{identity:04d}/{index:04d}.jpg")
    return Plan(sysu.Sysu.title, ABOUT, VIEWS, shots, files, wanted.counts())


def structure(preset: str) -> Structure:
    """What a preset contains.

    `paper` has SYSU-MM01's own identities, split and counts (Wu et al., "RGB-Infrared Cross-Modality Person
    Re-Identification", ICCV 2017); `demo` 160, 16 and 70 identities with 10 + 10 images, `study` 200, 60 and
    220 such; `tiny` 6, 2 and 4 with 5 + 4.
    """
    if preset == "paper":
        rows = sysu.images_per_camera()
        splits = {name: [int(row["id"]) for row in rows if row["split"] == name] for name in ("train", "val", "test")}
        return Structure(
            splits, {(int(row["id"]), camera): int(row[f"cam{camera}"]) for row in rows for camera in range(1, 7)}
        )
    splits, images = {
        "demo": (consecutive(train=160, val=16, test=70), {1: 3, 2: 2, 3: 5, 4: 3, 5: 2, 6: 5}),
        "study": (consecutive(train=200, val=60, test=220), {1: 3, 2: 2, 3: 5, 4: 3, 5: 2, 6: 5}),
        "tiny": (consecutive(train=6, val=2, test=4), {1: 2, 2: 1, 3: 2, 4: 1, 5: 1, 6: 2}),
    }[preset]
    return Structure(
        splits,
        {
            (identity, camera): count
            for identities in splits.values()
            for identity in identities
            for camera, count in images.items()
        },
    )


def gallery_permutations(wanted: Structure, seed: int) -> bytes:
    """`rand_perm_cam.mat`: a 6×1 cell of cameras, each a cell of identities 1 to the last, each a (10, images) matrix.

    A row is a 1-based permutation for one trial; the matrix is empty for an identity that the camera never saw.
    """
    from scipy.io import savemat

    last = max(identity for identity, _ in wanted.images)
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cell = np.empty((last, 1), dtype=object)
        for identity in range(1, last + 1):
            count = wanted.images.get((identity, camera), 0)
            rng = generator(seed, identity, camera, 0)
            orders = np.array([rng.permutation(count) + 1 for _ in range(TRIALS)])
            cell[identity - 1, 0] = orders.astype(np.float64) if count else np.empty((0, 0))
        cameras[camera - 1, 0] = cell
    file = io.BytesIO()
    savemat(file, {"rand_perm_cam": cameras})
    header = b"MATLAB 5.0 MAT-file, csvi synthetic benchmark"  # in place of scipy's, which holds the time
    return header.ljust(116) + file.getvalue()[116:]
