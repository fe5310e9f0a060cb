"""The cameras: where each stands, what it sees, how it is lit, and how good it is.

1 to 6 are as SYSU-MM01's: 1, 2, 4 and 5 see visible light, 3 and 6 infrared; 1, 2 and 3 are indoors; 2 and 3 stand at
the same place. 11 to 19 are LLCM's nine, visible in low light; 21 to 29 their infrared twins, without the third.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from csvi.synth import places
from csvi.synth.places import Surface


@dataclass(frozen=True)
class Camera:
    """A camera and its place. Nothing here, and nothing drawn from here, knows who walks by."""

    place: Callable[[], list[Surface]]
    infrared: bool
    height: float
    """Metres above the ground."""
    pitch: float
    """Radians downwards."""
    near: float
    far: float
    """Metres along the ground at which people pass."""
    side: float
    """Metres that they pass to either side of the middle."""
    facing: tuple[float, float]
    """Mean and spread, in radians, of the direction in which most people walk; 0 is towards the camera."""
    sun: tuple[float, float, float]
    """Direction to the main light; x to the right, y away from the camera, z up."""
    key: float
    ambient: float
    lamp: float
    """Strengths of the main light, of light from everywhere, and of a lamp at the camera."""
    white: tuple[float, float, float]
    """White balance: gains of red, green and blue."""
    blur: float
    """Standard deviation in pixels of an image 288 high."""
    noise: float
    """Standard deviation of the noise at full white."""
    quality: tuple[int, int]
    """Range of JPEG qualities."""
    sky: tuple[tuple[float, float, float], tuple[float, float, float]] = ((0.75, 0.8, 0.85), (0.5, 0.62, 0.8))
    front: float = 1.0
    """Light on what stands between the camera and people."""


NIGHT = ((0.01, 0.01, 0.01), (0.005, 0.005, 0.005))
DUSK = ((0.16, 0.15, 0.17), (0.07, 0.08, 0.13))

CAMERAS: dict[int, Camera] = {
    1: Camera(
        place=places.corridor, infrared=False,
        height=2.1, pitch=0.1, near=5.0, far=9.0, side=0.9, facing=(0.2, 0.5),
        sun=(-0.2, -0.35, 0.9), key=0.55, ambient=0.55, lamp=0,
        white=(1.04, 1.0, 0.92), blur=0.7, noise=0.018, quality=(82, 92),
    ),
    2: Camera(
        place=places.lobby, infrared=False,
        height=2.2, pitch=0.12, near=5.0, far=8.5, side=1.4, facing=(-0.4, 0.6),
        sun=(-0.75, -0.3, 0.6), key=0.55, ambient=0.5, lamp=0,
        white=(0.97, 1.0, 1.05), blur=0.8, noise=0.02, quality=(80, 90),
    ),
    3: Camera(
        place=places.lobby, infrared=True,
        height=2.2, pitch=0.12, near=5.0, far=8.5, side=1.4, facing=(-0.4, 0.6),
        sun=(0, -1, 0), key=0, ambient=0.14, lamp=1.5,
        white=(1, 1, 1), blur=0.9, noise=0.02, quality=(80, 90),
    ),
    4: Camera(
        place=places.courtyard, infrared=False,
        height=2.5, pitch=0.12, near=5.5, far=10.0, side=1.8, facing=(0.5, 0.6),
        sun=(0.5, -0.45, 0.74), key=0.75, ambient=0.45, lamp=0,
        white=(1.0, 1.0, 0.98), blur=0.7, noise=0.014, quality=(84, 94),
    ),
    5: Camera(
        place=places.path, infrared=False,
        height=2.2, pitch=0.09, near=5.0, far=10.0, side=1.4, facing=(0.0, 0.6),
        sun=(-0.3, 0.35, 0.88), key=0.5, ambient=0.65, lamp=0,
        white=(0.96, 1.0, 1.04), blur=0.9, noise=0.016, quality=(78, 90),
    ),
    6: Camera(
        place=places.gate, infrared=True,
        height=2.3, pitch=0.11, near=5.0, far=9.0, side=1.5, facing=(-0.2, 0.6),
        sun=(0, -1, 0), key=0, ambient=0.06, lamp=1.9,
        white=(1, 1, 1), blur=1.0, noise=0.026, quality=(76, 88), sky=NIGHT,
    ),
}  # fmt: skip

LOW_LIGHT, LOW_LIGHT_INFRARED = 10, 20
"""What is added to LLCM's number of a camera to have ours."""


def low_light(number: int, right: float, forward: float, **changes: Any) -> Camera:
    """A camera at the place of camera `number`, but so many metres to its right and before it, in the evening."""
    there = CAMERAS[number]
    return replace(
        there, place=partial(places.seen_from, there.place, right, forward), infrared=False, lamp=0, sky=DUSK,
        sun=(0.25, -0.4, 0.88), noise=0.034, front=0.45, **changes,
    )  # fmt: skip


def infrared_twin(camera: Camera) -> Camera:
    """A camera beside `camera` that sees in the dark by its own lamp."""
    return replace(
        camera, infrared=True, sun=(0, -1, 0), key=0, ambient=0.08, lamp=1.7, white=(1, 1, 1), blur=camera.blur + 0.1,
        noise=0.024, sky=NIGHT, front=0.7,
    )  # fmt: skip


EVENING = {
    1: low_light(
        4, -1.5, 2.0, height=2.9, pitch=0.16, facing=(-0.6, 0.6), side=1.5,
        key=0.21, ambient=0.17, white=(1.12, 1.0, 0.76),
    ),
    2: low_light(
        4, 2.5, -0.5, height=2.3, pitch=0.1, facing=(0.3, 0.6), side=2.0,
        key=0.16, ambient=0.21, white=(0.98, 1.0, 1.04),
    ),
    3: low_light(
        1, 0.3, 2.0, height=2.4, pitch=0.14, facing=(0.1, 0.5), side=0.8,
        key=0.21, ambient=0.21, white=(1.0, 1.02, 0.94),
    ),
    4: low_light(
        5, -0.6, 3.0, height=2.8, pitch=0.14, facing=(0.4, 0.6), side=1.2,
        key=0.23, ambient=0.18, white=(0.97, 1.0, 1.06),
    ),
    5: low_light(
        5, 0.5, -1.0, height=2.1, pitch=0.08, facing=(-0.3, 0.6), side=1.3,
        key=0.16, ambient=0.23, white=(0.93, 1.0, 1.12),
    ),
    6: low_light(
        6, 0.8, 2.0, height=2.9, pitch=0.16, facing=(0.5, 0.6), side=1.6,
        key=0.29, ambient=0.16, white=(1.15, 1.0, 0.7),
    ),
    7: low_light(
        6, -1.2, -0.5, height=2.2, pitch=0.1, facing=(-0.5, 0.6), side=1.4,
        key=0.23, ambient=0.21, white=(1.02, 1.0, 0.92),
    ),
    8: low_light(
        2, 0.6, 0.0, height=2.6, pitch=0.15, facing=(0.5, 0.6), side=1.2,
        key=0.2, ambient=0.2, white=(1.08, 1.0, 0.84),
    ),
    9: low_light(
        1, -0.3, -1.0, height=2.2, pitch=0.11, facing=(-0.2, 0.5), side=0.9,
        key=0.16, ambient=0.22, white=(1.05, 1.0, 0.9),
    ),
}  # fmt: skip
CAMERAS |= {LOW_LIGHT + number: camera for number, camera in EVENING.items()}
CAMERAS |= {LOW_LIGHT_INFRARED + number: infrared_twin(camera) for number, camera in EVENING.items() if number != 3}


@cache
def plate(number: int, height: int) -> np.ndarray:
    """Linear radiance (2.6 h, 3.8 h, 3) of a camera's empty place for images of `height` h; the focal length is 3 h."""
    camera = CAMERAS[number]
    image = np.empty((round(2.6 * height), round(3.8 * height), 3), dtype=np.float32)
    light = np.array([*camera.sun, camera.key, camera.ambient, camera.lamp])
    rows = places.table(camera.place(), camera.infrared)
    places.cast(rows, camera.height, camera.pitch, 3.0 * height, np.array(camera.sky), light, image)
    return image
