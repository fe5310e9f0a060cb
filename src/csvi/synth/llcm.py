"""LLCM's layout: nine cameras in low light, eight of which have a near-infrared twin at the same place."""

from datetime import datetime, timedelta

from csvi.data import llcm
from csvi.data.records import Modality
from csvi.synth.cameras import CAMERAS, LOW_LIGHT, LOW_LIGHT_INFRARED
from csvi.synth.plan import Plan, Structure, consecutive, labelled, lines

ABOUT = """\
vis/IIII/*_vis.jpg               people to train, visible; file names are IIII_cCC_sTTTTTT_fNNNN: identity, camera,
nir/IIII/*_nir.jpg               time, image; the same, near-infrared
idx/train_vis.txt train_nir.txt  lines `path label`, labels from 0
test_vis/camC/IIII/*_vis.jpg     people to test, cameras 1 to 9
test_nir/camC/IIII/*_nir.jpg     the same, near-infrared: cameras 1, 2 and 4 to 9, each beside the visible one
idx/test_id.txt                  identities to test, one line
idx/test_vis.txt test_nir.txt    lines `path label` of their images, labels from 0

Who passed which cameras, and how the images spread over them, is the renderer's and not LLCM's.
"""

VIEWS = {
    LOW_LIGHT + 1: "visible\ncamera 1",
    LOW_LIGHT + 5: "visible\ncamera 5",
    LOW_LIGHT_INFRARED + 1: "infrared\ncamera 1",
    LOW_LIGHT_INFRARED + 5: "infrared\ncamera 5",
}

OFFSETS = {Modality.VISIBLE: LOW_LIGHT, Modality.INFRARED: LOW_LIGHT_INFRARED}
"""What is added to LLCM's number of a camera to have the renderer's."""


def plan(preset: str, seed: int) -> Plan:
    """The benchmark in this layout; nothing but the pixels depends on the seed."""
    wanted = structure(preset)
    test = set(wanted.splits["test"])
    shots = wanted.shots(lambda identity, camera, index: path(identity, camera, index, identity in test))
    files = {
        f"idx/{split}_{name}.txt": labelled(shots, wanted.splits[split], modality)
        for split in ("train", "test")
        for modality, name in llcm.NAMES.items()
    }
    files["idx/test_id.txt"] = lines([",".join(map(str, wanted.splits["test"]))])
    return Plan(llcm.LLCM.title, ABOUT, VIEWS, shots, files, wanted.counts())


def structure(preset: str) -> Structure:
    """What a preset contains.

    `paper` has as many identities and images of each spectrum as LLCM (Zhang and Wang, "Diverse Embedding Expansion
    Network and Low-Light Cross-Modality Benchmark for Visible-Infrared Person Re-identification", CVPR 2023); `demo`
    160 and 70 identities with 10 + 8 images on average; `study` 200 and 220 such; `tiny` 5 and 4 with 6 + 5.
    """
    train, test, totals = {
        "paper": (713, 351, {"train": (16946, 13975), "test": (8680, 7166)}),
        "demo": (160, 70, {"train": (1600, 1280), "test": (700, 560)}),
        "study": (200, 220, {"train": (2000, 1600), "test": (2200, 1760)}),
        "tiny": (5, 4, {"train": (30, 25), "test": (24, 20)}),
    }[preset]
    splits = consecutive(train=train, val=0, test=test)
    images: dict[tuple[int, int], int] = {}
    for split, both in totals.items():
        for modality, total in zip(Modality, both, strict=True):
            seen = [
                (identity, OFFSETS[modality] + camera)
                for identity in splits[split]
                for camera in passed(identity)
                if camera in llcm.CAMERAS[modality]
            ]
            share = [n * total // len(seen) for n in range(len(seen) + 1)]  # as evenly as whole numbers allow
            images |= {pair: share[n + 1] - share[n] for n, pair in enumerate(seen)}
    return Structure(splits, images)


def passed(identity: int) -> list[int]:
    """The cameras that somebody passes, three to six of the nine: at least two of them have a twin."""
    return [(identity + 2 * step) % 9 + 1 for step in range(3 + identity % 4)]


def path(identity: int, camera: int, index: int, test: bool) -> str:
    """Where an image lies; the time in its name is made up, an evening on which people pass camera after camera."""
    modality = Modality(CAMERAS[camera].infrared)
    name, number = llcm.NAMES[modality], camera - OFFSETS[modality]
    time = datetime(2000, 1, 1, 18) + timedelta(seconds=(97 * identity + 40 * number) % (4 * 3600))
    file = f"{identity:04d}_c{number:02d}_s{time:%H%M%S}_f{index:04d}_{name}.jpg"
    return f"test_{name}/cam{number}/{identity:04d}/{file}" if test else f"{name}/{identity:04d}/{file}"
