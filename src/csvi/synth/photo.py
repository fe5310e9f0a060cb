"""A photograph: one person before one camera, cut out as a person detector would, and the mask of their pixels."""

from dataclasses import dataclass

import numpy as np

from csvi.compiled import compiled
from csvi.synth.body import bone_transforms, load_body_model, skin, vertex_normals
from csvi.synth.cameras import CAMERAS, Camera, plate
from csvi.synth.materials import GAMMA
from csvi.synth.people import Person
from csvi.synth.pose import Gait, about_z, draw_gait, pose
from csvi.synth.render import SAMPLES, rasterize, shade, value_noise

OCCLUDED = 0.12
"""Share of the images in which something stands in front of the person."""


@dataclass(frozen=True)
class Photo:
    """A photograph and the person's pixels in it."""

    image: np.ndarray  # (h, w, 3) uint8; infrared has three equal channels
    mask: np.ndarray  # (h, w) uint8, 255 where the person covers the pixel


@dataclass(frozen=True)
class Moment:
    """What one photograph draws at random, all of it independent of who the person is."""

    gait: Gait
    yaw: float  # of the person, radians, 0 towards the camera
    spot: tuple[float, float]  # on the ground, metres to the right and away
    margin: tuple[float, float]  # height and width of the crop over the person's own
    shift: tuple[float, float]  # of the crop, right and down, as a share of its size
    exposure: float
    blur: float  # pixels of an image 288 high
    quality: int  # of the JPEG
    occluder: np.ndarray  # (8,): kind, left, right and top as shares of the crop, linear colour, seed of its texture


NOTHING, POST, BIN, PLANT = range(4)
"""What may stand in front of the person."""


def draw_occluder(rng: np.random.Generator, camera: Camera) -> np.ndarray:
    """What stands in front of the person, most often nothing; see `Moment.occluder`."""
    kind = rng.choice([POST, BIN, PLANT], p=[0.35, 0.4, 0.25]) if rng.random() < OCCLUDED else NOTHING
    width = {NOTHING: 0, POST: rng.uniform(0.06, 0.13), BIN: rng.uniform(0.3, 0.6), PLANT: rng.uniform(0.4, 0.8)}[kind]
    middle = rng.choice([-1, 1]) * rng.uniform(0.15, 0.5) + 0.5  # more often beside the person than before them
    top = -1.0 if kind == POST else rng.uniform(0.62, 0.85)
    if kind == PLANT:
        green = np.array([0.06, 0.11, 0.04])
        color = rng.uniform(0.35, 0.55) * np.ones(3) if camera.infrared else green * rng.uniform(0.8, 1.6)
    else:
        color = rng.uniform(0.06, 0.3) * (np.ones(3) if camera.infrared else rng.uniform(0.8, 1.1, 3))
    color = color * camera.front
    return np.array([kind, middle - width / 2, middle + width / 2, top, *color, rng.integers(1000)], dtype=np.float64)


def draw_moment(rng: np.random.Generator, camera: Camera) -> Moment:
    """A random moment before a camera."""
    gait = draw_gait(rng)
    yaw = rng.normal(*camera.facing) if rng.random() < 0.75 else rng.uniform(-np.pi, np.pi)
    return Moment(
        gait=gait,
        yaw=yaw,
        spot=(rng.uniform(-camera.side, camera.side), rng.uniform(camera.near, camera.far)),
        margin=(rng.uniform(1.06, 1.18), rng.uniform(1.12, 1.25)),
        shift=(rng.normal(0, 0.025), rng.normal(0, 0.012)),
        exposure=float(np.exp(rng.normal(0, 0.12))),
        blur=camera.blur * rng.uniform(0.7, 1.5),
        quality=int(rng.integers(camera.quality[0], camera.quality[1] + 1)),
        occluder=draw_occluder(rng, camera),
    )


def photograph(person: Person, number: int, rng: np.random.Generator, height: int, width: int) -> tuple[Photo, Moment]:
    """Take a picture of `person` with camera `number`, `height` × `width` pixels, at a moment drawn from `rng`."""
    camera = CAMERAS[number]
    moment = draw_moment(rng, camera)
    vertices, feet = stand(person, moment)
    points = project(vertices, camera, height)
    visible = points[person.figure.cuts.min(axis=1) >= 0]
    left, top, scale = frame(visible, moment, height, width)
    points[:, 0] = (points[:, 0] - left) * scale
    points[:, 1] = (points[:, 1] - top) * scale
    color = draw_figure(person, camera, moment, vertices, points, height, width)
    canvas, cover = np.empty((height, width, 3), dtype=np.float32), np.empty((height, width), dtype=np.float32)
    view = np.array([camera.height, camera.pitch, 3.0 * height])
    cast = cast_shadow(camera, float(np.ptp(vertices[:, 2])))
    compose(plate(number, height), left, top, 1 / scale, view, feet, cast, color, moment.occluder, canvas, cover)
    return Photo(expose(canvas, camera, moment, rng), np.round(cover * 255).astype(np.uint8)), moment


def stand(person: Person, moment: Moment) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) of the posed person on the ground of the place, and the spots (2, 2) of the feet."""
    figure, body = person.figure, person.body
    transforms = bone_transforms(body.joints, pose(body, person.hands, moment.gait))
    transforms = about_z(moment.yaw) @ transforms
    posed = np.empty_like(figure.vertices)
    skin(figure.vertices, figure.skin_bones, figure.skin_weights, transforms, posed)
    posed += np.array([*moment.spot, -posed[:, 2].min()], dtype=np.float32)
    bones = load_body_model().bones
    feet = [
        transforms[bone, :2, :3] @ body.joints[bone] + transforms[bone, :2, 3]
        for bone in (bones["foot.L"], bones["foot.R"])
    ]
    return posed, np.array(feet) + moment.spot


def cast_shadow(camera: Camera, stature: float) -> np.ndarray:
    """Where the main light throws the shadow of somebody's head, metres from the feet, and its darkness: (3,)."""
    if camera.infrared:  # the lamp is at the camera, which cannot see the shadow
        return np.zeros(3)
    x, y, z = camera.sun
    return np.array([-x * stature / z, -y * stature / z, 0.7 * camera.key / (camera.key + camera.ambient)])


def project(vertices: np.ndarray, camera: Camera, height: int) -> np.ndarray:
    """Where (n, 3) points of the place appear in the camera's plate: (n, 3) pixels right and down, and depth."""
    c, s = np.cos(camera.pitch), np.sin(camera.pitch)
    x, y, z = vertices[:, 0], vertices[:, 1], vertices[:, 2] - camera.height
    depth = c * y - s * z
    focal = 3.0 * height
    plate_height, plate_width = round(2.6 * height), round(3.8 * height)
    return np.stack(
        [plate_width / 2 + focal * x / depth, plate_height / 2 - focal * (s * y + c * z) / depth, depth], axis=1
    ).astype(np.float32)


def frame(points: np.ndarray, moment: Moment, height: int, width: int) -> tuple[float, float, float]:
    """The crop around `points`: left and top in the plate's pixels, and the image's pixels per pixel of the plate."""
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    tall = max((y1 - y0) * moment.margin[0], (x1 - x0) * moment.margin[1] * height / width)
    wide = tall * width / height
    # the crop may move only as far as the person stays inside
    room_x, room_y = 0.25 * (wide - (x1 - x0)), 0.25 * (tall - (y1 - y0))
    x = (x0 + x1) / 2 + np.clip(moment.shift[0] * wide, -room_x, room_x)
    y = (y0 + y1) / 2 + np.clip(moment.shift[1] * tall, -room_y, room_y)
    return float(x - wide / 2), float(y - tall / 2), float(height / tall)


def draw_figure(
    person: Person, camera: Camera, moment: Moment, vertices: np.ndarray, points: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The lit figure, (h, w, 4): premultiplied linear colour and coverage."""
    figure = person.figure
    normals = np.empty_like(vertices)
    vertex_normals(vertices, figure.triangles, normals)
    points = points.copy()
    points[:, :2] *= SAMPLES
    shape = (SAMPLES * height, SAMPLES * width)
    depth, owner = np.full(shape, np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int32)
    corner = np.empty((*shape, 2), dtype=np.float32)
    rasterize(points, figure.triangles, figure.one_sided, figure.cuts, depth, owner, corner)
    toward = np.array([-moment.spot[0], -moment.spot[1], camera.height - 1.0])
    distance = np.linalg.norm(toward)
    toward /= distance
    if camera.infrared:
        lamp = camera.lamp * (5.0 / distance) ** 2
        light = np.array([toward, [lamp] * 3, [camera.ambient] * 3, [camera.ambient] * 3])
    else:
        light = np.array([camera.sun, [camera.key] * 3, [camera.ambient * 1.15] * 3, [camera.ambient * 0.55] * 3])
    reach = 0.09 * np.ptp(points[:, 1]) / np.ptp(vertices[:, 2])  # 9 cm
    out = np.empty((height, width, 4), dtype=np.float32)
    reflectance = figure.infrared if camera.infrared else figure.visible
    shade(
        figure.triangles, figure.fabric_of, normals, figure.cloth, reflectance, figure.patterns,
        depth, owner, corner, light, toward, reach, out,
    )  # fmt: skip
    return out


@compiled
def occlude(occluder: np.ndarray, x: float, y: float, width: int) -> tuple[float, float]:  # pragma: no cover
    """Coverage and brightness of the occluder at (x, y), shares of a crop `width` pixels wide and twice as high."""
    kind, left, right, top, seed = int(occluder[0]), occluder[1], occluder[2], occluder[3], int(occluder[7])
    if kind == 0 or x < left - 0.05 or x > right + 0.05 or y < top - 0.05:
        return 0.0, 0.0
    across, down = (x - left) / (right - left), y - top
    grain = value_noise(x * 40, y * 80, seed)
    edge = min(min(x - left, right - x), 2 * down) * width
    if kind == 3:
        bulge = 0.5 * (2 * across - 1) ** 2 + 0.5 * value_noise(x * 14, y * 28, seed) - 2.5 * down
        coverage = (0.3 - bulge) * 0.15 * width
        return min(1.0, max(0.0, coverage)), 0.4 + 1.2 * value_noise(x * 30, y * 60, seed + 1)
    brightness = 0.55 + 0.6 * np.sqrt(max(0.0, 1 - (1.7 * across - 0.7) ** 2)) + 0.15 * grain
    if kind == 2:  # a bin with a lid
        brightness = 0.8 + 0.25 * (1 - across) + 0.12 * grain
        if down < 0.03:
            brightness *= 1.25
        elif down < 0.037:
            brightness *= 0.5
    return min(1.0, max(0.0, edge + 0.5)), brightness


@compiled
def compose(
    plate: np.ndarray,
    left: float,
    top: float,
    step: float,
    view: np.ndarray,
    feet: np.ndarray,
    cast: np.ndarray,
    figure: np.ndarray,
    occluder: np.ndarray,
    canvas: np.ndarray,
    cover: np.ndarray,
) -> None:  # pragma: no cover
    """Put the place, the shadow at the feet, the figure and what stands in front of it into `canvas` (h, w, 3).

    left, top, step: the crop in the plate's pixels; view: the camera's height, pitch and focal length in pixels;
    cast (3,): where the shadow of the head falls, from the feet, metres, and how dark; feet (2, 2) on the ground;
    cover (h, w) receives the share of each pixel that shows the figure.
    """
    height, width = cover.shape
    plate_height, plate_width = plate.shape[:2]
    c, s = np.cos(view[1]), np.sin(view[1])
    for row in range(height):
        for column in range(width):
            u, v = left + (column + 0.5) * step, top + (row + 0.5) * step
            shadow = 1.0
            up = (plate_height / 2 - v) / view[2]
            falling = s - up * c
            if falling > 0:
                t = view[0] / falling
                x, y = t * (u - plate_width / 2) / view[2], t * (c + up * s)
                fx, fy = x - 0.5 * (feet[0, 0] + feet[1, 0]), y - 0.5 * (feet[0, 1] + feet[1, 1])
                shadow -= 0.3 * np.exp(-(fx**2 + fy**2) / 0.18)
                length = cast[0] ** 2 + cast[1] ** 2 + 1e-9
                along = min(1.0, max(0.0, (fx * cast[0] + fy * cast[1]) / length))
                beside = (fx - along * cast[0]) ** 2 + (fy - along * cast[1]) ** 2
                shadow -= cast[2] * (1 - 0.4 * along) * np.exp(-((beside / 0.045) ** 2))
                for foot in range(2):
                    near = (x - feet[foot, 0]) ** 2 + (y - feet[foot, 1]) ** 2
                    shadow -= 0.3 * np.exp(-near / 0.025)
            pu, pv = min(max(u - 0.5, 0.0), plate_width - 1.001), min(max(v - 0.5, 0.0), plate_height - 1.001)
            i, j = int(pv), int(pu)
            di, dj = pv - i, pu - j
            front, brightness = occlude(occluder, (column + 0.5) / width, (row + 0.5) / height, width)
            behind = 1 - figure[row, column, 3]
            for k in range(3):
                ground = (plate[i, j, k] * (1 - dj) + plate[i, j + 1, k] * dj) * (1 - di)
                ground += (plate[i + 1, j, k] * (1 - dj) + plate[i + 1, j + 1, k] * dj) * di
                color = figure[row, column, k] + behind * ground * max(0.15, shadow)
                canvas[row, column, k] = front * brightness * occluder[4 + k] + (1 - front) * color
            cover[row, column] = figure[row, column, 3] * (1 - front)


@compiled
def smooth(image: np.ndarray, sigma: float) -> np.ndarray:  # pragma: no cover
    """Gaussian blur of (h, w, c) with `sigma` pixels; edges are repeated."""
    height, width, channels = image.shape
    radius = int(np.ceil(2.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    rows, out = np.zeros_like(image), np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for o in range(-radius, radius + 1):
                xo = min(max(x + o, 0), width - 1)
                for k in range(channels):
                    rows[y, x, k] += kernel[o + radius] * image[y, xo, k]
    for y in range(height):
        for o in range(-radius, radius + 1):
            yo = min(max(y + o, 0), height - 1)
            for x in range(width):
                for k in range(channels):
                    out[y, x, k] += kernel[o + radius] * rows[yo, x, k]
    return out


def expose(canvas: np.ndarray, camera: Camera, moment: Moment, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of a linear image (h, w, 3): blur, gain, gamma, noise, eight bits."""
    if camera.infrared:
        canvas = canvas[:, :, :1]
    gain = moment.exposure * np.array(camera.white[: canvas.shape[2]], dtype=np.float32)
    image = smooth(canvas, max(0.25, moment.blur * len(canvas) / 288)) * gain
    image = np.maximum(image, 0) ** np.float32(1 / GAMMA)
    if camera.infrared:  # scattered light and a small sensor: low contrast
        image = 0.08 + 0.85 * image
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + camera.noise * (0.6 + 0.4 * image) * noise
    image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if camera.infrared else image
