"""RegDB's layout: one place with a visible and an infrared camera, ten random halves of the people."""

import numpy as np

from csvi.data import regdb
from csvi.data.records import Modality
from csvi.synth.plan import Plan, Structure, generator, labelled

CAMERAS = {Modality.VISIBLE: 2, Modality.INFRARED: 3}
"""Those of the renderer that stand at the same place."""

ABOUT = """\
Visible/I/NN.jpg                 identity, image
Thermal/I/NN.jpg                 the same people at the same place before a near-infrared camera with a lamp: the name
                                 is RegDB's, but nothing here is thermal, and no image shows heat
idx/train_visible_T.txt          lines `path label`, T = 1 ... 10: ten random halves of the people; labels begin at 0
idx/train_thermal_T.txt          in every file, so that those of training and of test are different people
idx/test_visible_T.txt
idx/test_thermal_T.txt
"""

VIEWS = {2: "visible\nindoors", 3: "near-\ninfrared\nindoors"}


def plan(preset: str, seed: int) -> Plan:
    """The benchmark in this layout; the seed decides the halves.

    `paper` has RegDB's 412 identities with 10 + 10 images; `demo` 240 with 10 + 10; `study` 400 such; `tiny` 12
    with 4 + 4.
    """
    people, images = {"paper": (412, 10), "demo": (240, 10), "study": (400, 10), "tiny": (12, 4)}[preset]
    wanted = Structure(
        halves(people, seed, 1), {(i, camera): images for i in range(1, people + 1) for camera in CAMERAS.values()}
    )
    folders = {CAMERAS[modality]: name.capitalize() for modality, name in regdb.NAMES.items()}
    shots = wanted.shots(lambda identity, camera, index: f"{folders[camera]}/{identity}/{index:02d}.jpg")
    files = {
        f"idx/{split}_{name}_{fold}.txt": labelled(shots, identities, modality)
        for fold in range(1, regdb.RegDB.folds + 1)
        for split, identities in halves(people, seed, fold).items()
        if split != "val"
        for modality, name in regdb.NAMES.items()
    }
    return Plan(regdb.RegDB.title, ABOUT, VIEWS, shots, files, wanted.counts())


def halves(people: int, seed: int, fold: int) -> dict[str, list[int]]:
    """Draw a random half of the identities to train, the other to test."""
    order = generator(seed, 0, 0, fold).permutation(people) + 1  # no person has the number 0
    train, test = np.sort(order[: people // 2]).tolist(), np.sort(order[people // 2 :]).tolist()
    return {"train": train, "val": [], "test": test}
