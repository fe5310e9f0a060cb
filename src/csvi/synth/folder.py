"""The layout of people's own images: a table that names every image. Cameras and counts are those of SYSU-MM01."""

import csv
import io
from datetime import datetime, timedelta

from csvi.data import folder
from csvi.data.records import Modality
from csvi.synth import sysu
from csvi.synth.cameras import CAMERAS
from csvi.synth.plan import Plan, Shot

TITLE = "a folder of photographs"

ABOUT = """\
visible/NAME/camC-NNNN.jpg    person, camera, image: cameras 1, 2, 4 and 5
infrared/NAME/camC-NNNN.jpg   the same, cameras 3 and 6; 1, 2, 3 are indoors, 2 and 3 stand at the same place
images.csv                    path, identity, camera, modality, split, mask and time of every image; times are made up
"""


def plan(preset: str, seed: int) -> Plan:
    """The benchmark in this layout: the same photographs as `csvi.synth.sysu` has with this preset and seed."""
    wanted = sysu.structure(preset)
    shots = wanted.shots(
        lambda identity, camera, index: f"{spectrum(camera)}/{name(identity)}/cam{camera}-{index:04d}.jpg"
    )
    split_of = wanted.split_of
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "identity", "camera", "modality", "split", "mask", "time"])
    table.writerows(
        [
            shot.path, name(shot.identity), shot.camera, spectrum(shot.camera), split_of[shot.identity], shot.mask,
            time(shot).isoformat(),
        ]
        for shot in shots
    )  # fmt: skip
    return Plan(TITLE, ABOUT, sysu.VIEWS, shots, {folder.TABLE: text.getvalue().encode()}, wanted.counts())


def name(identity: int) -> str:
    """What a person is called."""
    return f"person-{identity:04d}"


def spectrum(camera: int) -> str:
    """`visible` or `infrared`."""
    return Modality(CAMERAS[camera].infrared).word


def time(shot: Shot) -> datetime:
    """A made-up one: a hundred people a working day, past one camera a minute; infrared twelve hours later."""
    return datetime(2024, 5, 6, 8) + timedelta(
        days=shot.identity // 100,
        hours=12 * CAMERAS[shot.camera].infrared,
        minutes=6 * (shot.identity % 100) + shot.camera,
        seconds=shot.index,
    )
