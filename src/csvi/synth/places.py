"""Places: what each camera sees when nobody is there, ray cast once from textured rectangles.

Coordinates are metres: x to the right of the image, y away from the camera, z up; the camera stands above the origin.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from csvi.compiled import compiled
from csvi.synth.render import value_noise

PLASTER, TILES, BRICKS, PLANKS, FOLIAGE, WINDOWS, PAVING, POSTER, PANELS, CROWN = range(10)


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    """A rectangle with a texture of two colours; colours are linear reflectances."""

    corner: Triple
    right: Triple  # along its width
    up: Triple  # along its height
    texture: int
    first: Triple
    second: Triple
    infrared: tuple[float, float]
    size: float = 1.0
    """Of the texture's unit, metres."""
    shine: float = 0.0
    """Light of its own: lamps, windows, sky."""


def box(
    x: float, y: float, z: float, width: float, depth: float, height: float,
    texture: int, first: Triple, second: Triple, infrared: tuple[float, float], size: float = 1.0,
) -> list[Surface]:  # fmt: skip
    """The four visible sides of a box whose front left lower corner is at (x, y, z)."""
    look = (texture, first, second, infrared, size)
    return [
        Surface((x, y, z), (width, 0, 0), (0, 0, height), *look),
        Surface((x, y + depth, z), (0, -depth, 0), (0, 0, height), *look),
        Surface((x + width, y, z), (0, depth, 0), (0, 0, height), *look),
        Surface((x, y, z + height), (width, 0, 0), (0, depth, 0), *look),
    ]


WALL, WALL_2 = (0.52, 0.5, 0.45), (0.48, 0.46, 0.42)
FLOOR, FLOOR_2 = (0.36, 0.34, 0.31), (0.3, 0.28, 0.26)
WOOD, WOOD_2 = (0.26, 0.16, 0.09), (0.2, 0.12, 0.07)
STONE, STONE_2 = (0.36, 0.35, 0.33), (0.27, 0.26, 0.25)
LEAF, LEAF_2 = (0.05, 0.1, 0.035), (0.12, 0.19, 0.06)
BRICK, MORTAR = (0.3, 0.15, 0.1), (0.4, 0.37, 0.33)
GLASS, FRAME = (0.13, 0.16, 0.19), (0.5, 0.5, 0.5)
STEEL, PAPER, INK = (0.3, 0.31, 0.32), (0.6, 0.58, 0.52), (0.2, 0.26, 0.36)


def ground(texture: int, first: Triple, second: Triple, infrared: tuple[float, float], size: float) -> Surface:
    """Level ground to the horizon."""
    return Surface((-60, 0.2, 0), (120, 0, 0), (0, 120, 0), texture, first, second, infrared, size)


def corridor() -> list[Surface]:
    """Camera 1: a corridor with doors on the left and notice boards on the right."""
    wall = (PLASTER, WALL, WALL_2, (0.5, 0.46), 1.5)
    surfaces = [
        ground(TILES, FLOOR, FLOOR_2, (0.35, 0.3), 0.6),
        Surface((-2.3, 0, 0), (0, 18, 0), (0, 0, 3), *wall),
        Surface((2.3, 18, 0), (0, -18, 0), (0, 0, 3), *wall),
        Surface((-2.3, 18, 0), (4.6, 0, 0), (0, 0, 3), *wall),
        Surface((-2.3, 0, 3), (4.6, 0, 0), (0, 18, 0), TILES, (0.55, 0.55, 0.53), (0.5, 0.5, 0.48), (0.5, 0.5), 0.6),
        Surface((-0.9, 17.98, 0), (1.8, 0, 0), (0, 0, 2.2), PANELS, GLASS, FRAME, (0.15, 0.4), 0.9),
        Surface((-2.28, 0, 0), (0, 18, 0), (0, 0, 0.12), PLASTER, WOOD_2, WOOD_2, (0.3, 0.3)),
        Surface((2.28, 18, 0), (0, -18, 0), (0, 0, 0.12), PLASTER, WOOD_2, WOOD_2, (0.3, 0.3)),
    ]
    for y in (4.4, 7.6, 10.8, 14.0):
        surfaces.append(Surface((-2.27, y, 0), (0, 1.0, 0), (0, 0, 2.15), PANELS, WOOD, WOOD_2, (0.42, 0.36), 1.0))
        surfaces.append(
            Surface((-0.5, y - 0.8, 2.98), (1.0, 0, 0), (0, 1.4, 0), PLASTER, FRAME, FRAME, (0.6, 0.6), 1, 1.1)
        )
    for y in (6.6, 9.8, 13.2):
        surfaces.append(Surface((2.27, y, 1.0), (0, -1.5, 0), (0, 0, 1.0), POSTER, PAPER, INK, (0.55, 0.4), 0.3))
    return surfaces


def lobby() -> list[Surface]:
    """Cameras 2 and 3: a lobby with windows on the left, a bench and a cupboard at the back wall."""
    surfaces = [
        ground(PLANKS, WOOD, WOOD_2, (0.42, 0.36), 0.14),
        Surface(
            (-4.5, 11, 0), (9, 0, 0), (0, 0, 3.4), PLASTER, (0.5, 0.52, 0.5), (0.46, 0.48, 0.47), (0.52, 0.48), 2.0
        ),
        Surface((-4.5, 0, 0), (0, 11, 0), (0, 0, 3.4), PLASTER, WALL, WALL_2, (0.5, 0.47), 1.5),
        Surface((4.5, 11, 0), (0, -11, 0), (0, 0, 3.4), PLASTER, WALL, WALL_2, (0.5, 0.47), 1.5),
        Surface((-4.5, 0, 3.4), (9, 0, 0), (0, 11, 0), PLASTER, (0.6, 0.6, 0.58), (0.57, 0.57, 0.55), (0.5, 0.5)),
        Surface((1.2, 10.98, 0), (1.9, 0, 0), (0, 0, 2.3), PANELS, WOOD, WOOD_2, (0.42, 0.34), 0.95),
        Surface((-1.6, 10.98, 1.2), (2.0, 0, 0), (0, 0, 1.1), POSTER, PAPER, INK, (0.55, 0.42), 0.35),
        *box(-3.8, 10.2, 0, 1.5, 0.7, 1.7, PANELS, STEEL, (0.24, 0.25, 0.26), (0.35, 0.3), 0.75),
        *box(-1.9, 10.3, 0, 2.4, 0.5, 0.45, PLANKS, (0.3, 0.2, 0.12), WOOD, (0.45, 0.4), 0.12),
        *box(3.5, 8.6, 0, 0.5, 0.5, 0.5, PLASTER, BRICK, BRICK, (0.4, 0.4)),
        Surface((3.25, 8.8, 0.5), (1.0, 0, 0), (0, 0, 1.0), FOLIAGE, LEAF, LEAF_2, (0.4, 0.6), 0.12),
    ]
    surfaces += [
        Surface((-4.48, y, 0.9), (0, 1.7, 0), (0, 0, 1.8), PANELS, (0.62, 0.68, 0.72), FRAME, (0.1, 0.5), 0.85, 0.5)
        for y in (3.5, 6.0, 8.5)
    ]
    return surfaces


def courtyard() -> list[Surface]:
    """Camera 4: a paved courtyard before a building, with a hedge, a bench and two trees."""
    surfaces = [
        ground(PAVING, STONE, STONE_2, (0.34, 0.28), 0.8),
        Surface((-30, 24, 0), (60, 0, 0), (0, 0, 12), WINDOWS, (0.45, 0.4, 0.34), GLASS, (0.45, 0.15), 3.2),
        *box(-14, 16, 0, 11, 1.0, 1.1, FOLIAGE, LEAF, LEAF_2, (0.5, 0.7), 0.2),
        *box(2.5, 16, 0, 12, 1.0, 1.1, FOLIAGE, LEAF, LEAF_2, (0.5, 0.7), 0.2),
        *box(2.8, 12.5, 0.25, 1.8, 0.5, 0.22, PLANKS, WOOD, WOOD_2, (0.4, 0.36), 0.12),
        *box(-5.2, 13, 0, 0.25, 0.25, 3.2, PLASTER, WOOD_2, WOOD, (0.35, 0.3), 0.2),
        *box(6.0, 14, 0, 0.3, 0.3, 3.2, PLASTER, WOOD_2, WOOD, (0.35, 0.3), 0.2),
    ]
    surfaces += [
        Surface((x - 2.0, y, 2.0), (4.2, 0, 0), (0, 0, 4.0), CROWN, LEAF, LEAF_2, (0.5, 0.7), 0.35)
        for x, y in ((-5.1, 13.1), (6.1, 14.1))
    ]
    return surfaces


def path() -> list[Surface]:
    """Camera 5: an asphalt path between lawn and a brick wall."""
    asphalt = ((0.17, 0.17, 0.17), (0.14, 0.14, 0.14))
    return [
        ground(PLASTER, (0.1, 0.15, 0.05), (0.15, 0.19, 0.08), (0.6, 0.5), 0.25),
        Surface((-2.6, 0.3, 0.005), (5.2, 0, 0), (0, 60, 0), PAVING, *asphalt, (0.2, 0.17), 3.0),
        Surface((-2.75, 0.3, 0.01), (0.15, 0, 0), (0, 60, 0), PAVING, STONE, STONE_2, (0.35, 0.3), 1.0),
        Surface((2.6, 0.3, 0.01), (0.15, 0, 0), (0, 60, 0), PAVING, STONE, STONE_2, (0.35, 0.3), 1.0),
        Surface((3.6, 40, 0), (0, -40, 0), (0, 0, 2.1), BRICKS, BRICK, MORTAR, (0.42, 0.45), 0.25),
        Surface((3.5, 40, 2.1), (0, -40, 0), (0.4, 0, 0), PLASTER, STONE, STONE_2, (0.4, 0.35)),
        Surface((-25, 42, 0), (50, 0, 0), (0, 0, 9), WINDOWS, (0.5, 0.46, 0.4), GLASS, (0.45, 0.15), 3.5),
        *box(-12, 19, 0, 7.5, 3, 2.6, FOLIAGE, LEAF, LEAF_2, (0.5, 0.7), 0.35),
        *box(-3.6, 11, 0, 0.1, 0.1, 3.8, PLASTER, STEEL, STEEL, (0.3, 0.3)),
        *box(-9, 30, 0, 16, 2, 3.4, FOLIAGE, LEAF, LEAF_2, (0.5, 0.7), 0.5),
    ]


def gate() -> list[Surface]:
    """Camera 6: a yard at night, with a gate, bins and shrubs."""
    bars = [-1.6 + 0.28 * bar for bar in range(16)]
    return [
        ground(PAVING, (0.2, 0.2, 0.2), (0.17, 0.17, 0.17), (0.26, 0.22), 2.0),
        Surface((-2.9, 0.3, 0.01), (0.12, 0, 0), (0, 30, 0), PLASTER, PAPER, PAPER, (0.6, 0.55)),
        Surface((-9, 15, 0), (7, 0, 0), (0, 0, 2.2), BRICKS, BRICK, MORTAR, (0.4, 0.46), 0.3),
        Surface((3.2, 15, 0), (8, 0, 0), (0, 0, 2.2), BRICKS, BRICK, MORTAR, (0.4, 0.46), 0.3),
        *box(-2.1, 14.9, 0, 0.35, 0.35, 2.6, PLASTER, STONE, STONE_2, (0.5, 0.45)),
        *box(2.9, 14.9, 0, 0.35, 0.35, 2.6, PLASTER, STONE, STONE_2, (0.5, 0.45)),
        *box(3.4, 12.2, 0, 0.7, 0.7, 1.1, PANELS, STEEL, LEAF, (0.3, 0.24), 0.7),
        *box(4.3, 12.2, 0, 0.7, 0.7, 1.1, PANELS, STEEL, LEAF, (0.22, 0.18), 0.7),
        *box(-8, 11.5, 0, 3.8, 1.5, 1.3, FOLIAGE, LEAF, LEAF_2, (0.45, 0.7), 0.25),
        *[side for x in bars for side in box(x, 15, 0, 0.05, 0.05, 2.0, PLASTER, STEEL, STEEL, (0.4, 0.4))],
    ]


def seen_from(place: Callable[[], list[Surface]], right: float, forward: float) -> list[Surface]:
    """A place as a camera sees it that stands so many metres to the right and forward."""
    return [
        replace(surface, corner=(surface.corner[0] - right, surface.corner[1] - forward, surface.corner[2]))
        for surface in place()
    ]


def table(surfaces: list[Surface], infrared: bool) -> np.ndarray:
    """Surfaces as rows of numbers, (s, 18), for `cast`."""
    return np.array(
        [
            (
                *s.corner, *s.right, *s.up, s.texture, s.size, 0.0 if infrared else s.shine,
                *((s.infrared[0],) * 3 if infrared else s.first), *((s.infrared[1],) * 3 if infrared else s.second),
            )
            for s in surfaces
        ],
        dtype=np.float64,
    )  # fmt: skip


@compiled(inline="always")
def edge_distance(u: float) -> float:  # pragma: no cover
    """Distance to the nearest whole number."""
    return abs(u - np.round(u))


@compiled
def texture_share(kind: int, a: float, b: float, size: float, seed: int) -> float:  # pragma: no cover
    """Share of a surface's second colour at (a, b), metres from its corner; may leave [0, 1] a little, as stains do."""
    u, v = a / size, b / size
    fine = value_noise(a * 9, b * 9, seed) - 0.5
    stain = value_noise(a * 0.7, b * 0.7, seed + 1) - 0.5
    if kind == 0:  # plaster, soil, lawn
        return 0.5 + 0.8 * stain + 0.8 * (value_noise(u * 4, v * 4, seed + 2) - 0.5) + 0.4 * fine
    if kind == 1 or kind == 6:  # tiles, paving
        joint = min(edge_distance(u), edge_distance(v)) * size
        tile = value_noise(np.floor(u) * 3.3 + 0.5, np.floor(v) * 3.3 + 0.5, seed + 2) - 0.5
        return 0.4 + 0.9 * tile + 0.5 * stain + 0.4 * fine + (0.9 if joint < 0.012 else 0.0)
    if kind == 2:  # bricks, twice as long as high
        course = np.floor(v * 3)
        along = u + 0.5 * (course % 2)
        joint = min(edge_distance(along) * size, edge_distance(v * 3) * size / 3)
        brick = value_noise(np.floor(along) * 3.3 + 0.5, course * 3.3 + 0.5, seed + 2)
        return 0.8 if joint < 0.008 else 0.5 * (brick - 0.3) + 0.3 * fine
    if kind == 3:  # planks across the view
        plank = np.floor(v)
        grain = value_noise(a * 1.5, b * 40, seed + 3) - 0.5
        return (
            0.4
            + 1.2 * (value_noise(np.floor(a / 2 + plank * 0.37) * 3.3 + 0.5, plank * 3.3 + 0.5, seed + 2) - 0.5)
            + 0.5 * grain
        )
    if kind == 4 or kind == 9:  # foliage
        return 1.6 * value_noise(u, v, seed + 2) + 1.2 * value_noise(u * 2.7, v * 2.7, seed + 3) - 1.0
    if kind == 5:  # a front with windows
        i, j = u % 1.0, v % 1.0
        return 1.0 + 0.5 * stain if 0.28 < i < 0.72 and 0.25 < j < 0.75 else 0.25 * stain + 0.2 * fine
    if kind == 7:  # sheets of paper on a board
        i, j = np.floor(u), np.floor(v * 0.8)
        margin = min(edge_distance(u), edge_distance(v * 0.8))
        return 0.9 if margin < 0.1 else 0.6 * value_noise(i * 3.3 + 0.5, j * 3.3 + 0.5, seed + 2) + 0.2 * fine
    joint = min(edge_distance(u), edge_distance(v)) * size  # panels
    return 1.0 if joint < 0.06 else 0.15 + 0.4 * stain + 0.2 * fine


@compiled
def cast(
    surfaces: np.ndarray,
    eye_height: float,
    pitch: float,
    focal: float,
    sky: np.ndarray,
    light: np.ndarray,
    plate: np.ndarray,
) -> None:  # pragma: no cover
    """Fill `plate` (h, w, 3) with what a camera sees.

    focal is in pixels, pitch in radians downwards; sky (2, 3) at the horizon and above. light (6,): direction to the
    sun or lamps (3), their strength, strength from everywhere, and strength of a lamp at the camera (at 5 m).
    """
    height, width = plate.shape[:2]
    c, s = np.cos(pitch), np.sin(pitch)
    for row in range(height):
        for column in range(width):
            right, up = (column + 0.5 - width / 2) / focal, (height / 2 - row - 0.5) / focal
            dx, dy, dz = right, c + up * s, -s + up * c
            nearest, hit, at_a, at_b = 1e9, -1, 0.0, 0.0
            for i in range(len(surfaces)):
                f = surfaces[i]
                nx, ny, nz = f[4] * f[8] - f[5] * f[7], f[5] * f[6] - f[3] * f[8], f[3] * f[7] - f[4] * f[6]
                slope = dx * nx + dy * ny + dz * nz
                if slope == 0:
                    continue
                t = (f[0] * nx + f[1] * ny + (f[2] - eye_height) * nz) / slope
                if t <= 0.1 or t >= nearest:
                    continue
                px, py, pz = t * dx - f[0], t * dy - f[1], t * dz + eye_height - f[2]
                wide, tall = f[3] ** 2 + f[4] ** 2 + f[5] ** 2, f[6] ** 2 + f[7] ** 2 + f[8] ** 2
                a, b = (px * f[3] + py * f[4] + pz * f[5]) / wide, (px * f[6] + py * f[7] + pz * f[8]) / tall
                if a < 0 or a > 1 or b < 0 or b > 1:
                    continue
                a, b = a * np.sqrt(wide), b * np.sqrt(tall)
                if f[9] == 4 and min(a, b, np.sqrt(wide) - a, np.sqrt(tall) - b) < 0.35 * value_noise(a * 5, b * 5, i):
                    continue  # ragged edges of foliage
                if f[9] == 9:  # the crown of a tree
                    radius = np.hypot(2 * a / np.sqrt(wide) - 1, 2 * b / np.sqrt(tall) - 1)
                    if radius > 0.55 + 0.45 * value_noise(a * 3, b * 3, i):
                        continue
                nearest, hit, at_a, at_b = t, i, a, b
            if hit < 0:
                blend = min(1.0, max(0.0, dz * 3))
                for k in range(3):
                    plate[row, column, k] = sky[0, k] * (1 - blend) + sky[1, k] * blend
                continue
            f = surfaces[hit]
            share = texture_share(int(f[9]), at_a, at_b, f[10], hit)
            nx, ny, nz = f[4] * f[8] - f[5] * f[7], f[5] * f[6] - f[3] * f[8], f[3] * f[7] - f[4] * f[6]
            distance = nearest * np.sqrt(dx * dx + dy * dy + dz * dz)
            area = np.sqrt(nx * nx + ny * ny + nz * nz)
            facing = -(nx * dx + ny * dy + nz * dz) * nearest / distance / area
            side = 1.0 if facing > 0 else -1.0
            sun = max(0.0, side * (nx * light[0] + ny * light[1] + nz * light[2]) / area)
            z = nearest * dz + eye_height
            corner = 1.0 - 0.35 * np.exp(-z / 0.2) if abs(nz) < 0.5 * area else 1.0
            bright = corner * (light[3] * sun + light[4]) + f[11]
            bright += light[5] * (0.3 + 0.7 * abs(facing)) * min(4.0, (5.0 / distance) ** 2)
            for k in range(3):
                plate[row, column, k] = max(0.004, f[12 + k] * (1 - share) + f[15 + k] * share) * bright
