"""The renderer: a z-buffer with 2×2 samples a pixel, diffuse light, and fabrics evaluated at every sample.

A figure's surfaces are cut where an interpolated value of its vertices changes sign (a hem, a neckline, the end of a
sleeve), so that the edge of a garment is a smooth line whatever the mesh beneath it.
"""

import numpy as np

from csvi.compiled import compiled

SAMPLES = 2
"""Samples a pixel and axis."""

AROUND = ((0.0, 1.0), (0.7, 0.7), (1.0, 0.0), (0.7, -0.7), (0.0, -1.0), (-0.7, -0.7), (-1.0, 0.0), (-0.7, 0.7))

PLAIN, HOOPS, PINSTRIPES, SPLIT, PATCH, CHECK = range(6)
"""Patterns of a fabric; see `pattern_share`."""


@compiled(inline="always")
def hash_noise(x: int, y: int, seed: int) -> float:  # pragma: no cover
    """A number in [0, 1) for a lattice point."""
    h = (x * 374761393 + y * 668265263 + seed * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@compiled
def value_noise(x: float, y: float, seed: int) -> float:  # pragma: no cover
    """Smooth noise in [0, 1) with features of size 1."""
    floor_x, floor_y = np.floor(x), np.floor(y)
    i, j = int(floor_x), int(floor_y)
    u, v = x - floor_x, y - floor_y
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    low = hash_noise(i, j, seed) * (1 - u) + hash_noise(i + 1, j, seed) * u
    high = hash_noise(i, j + 1, seed) * (1 - u) + hash_noise(i + 1, j + 1, seed) * u
    return low * (1 - v) + high * v


@compiled
def pattern_share(kind: int, a: float, b: float, c: float, d: float, p: float, y: float, q: float) -> float:
    """Share of a fabric's second colour at (p across, y deep, q up), metres of the rest pose."""  # pragma: no cover
    if kind == 1:  # hoops: period a, share b
        return 1.0 if (q / a) % 1.0 < b else 0.0
    if kind == 2:  # pinstripes: period a, share b
        return 1.0 if (p / a) % 1.0 < b else 0.0
    if kind == 3:  # split: below a
        return 1.0 if q < a else 0.0
    if kind == 4:  # a patch on the front: center (a, b), half width c, half height d
        return 1.0 if y < 0 and abs(p - a) < c and abs(q - b) < d else 0.0
    if kind == 5:  # check: period a
        return 0.5 * ((p / a) % 1.0 < 0.5) + 0.5 * ((q / a) % 1.0 < 0.5)
    return 0.0


@compiled
def rasterize(
    points: np.ndarray,
    triangles: np.ndarray,
    one_sided: np.ndarray,
    cuts: np.ndarray,
    depth: np.ndarray,
    owner: np.ndarray,
    corner: np.ndarray,
) -> None:  # pragma: no cover
    """Draw triangles into a z-buffer.

    points (n, 3): x and y in samples, depth; one_sided (m,): drawn only where they face the camera; cuts (n, k): a
    sample is drawn where all k interpolated values are positive. depth (h, w) starts at infinity, owner (h, w) at −1;
    corner (h, w, 2) receives the weights of a triangle's second and third corner.
    """
    height, width = depth.shape
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        xi, yi, xj, yj, xk, yk = points[i, 0], points[i, 1], points[j, 0], points[j, 1], points[k, 0], points[k, 1]
        area = (xj - xi) * (yk - yi) - (xk - xi) * (yj - yi)
        if area == 0 or (one_sided[t] and area > 0):
            continue
        x0, x1 = max(0, int(np.ceil(min(xi, xj, xk) - 0.5))), min(width - 1, int(np.floor(max(xi, xj, xk) - 0.5)))
        y0, y1 = max(0, int(np.ceil(min(yi, yj, yk) - 0.5))), min(height - 1, int(np.floor(max(yi, yj, yk) - 0.5)))
        for row in range(y0, y1 + 1):
            for column in range(x0, x1 + 1):
                px, py = column + 0.5 - xi, row + 0.5 - yi
                b = (px * (yk - yi) - py * (xk - xi)) / area
                c = (py * (xj - xi) - px * (yj - yi)) / area
                a = 1 - b - c
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * points[i, 2] + b * points[j, 2] + c * points[k, 2]
                if z >= depth[row, column]:
                    continue
                inside = True
                for cut in range(cuts.shape[1]):
                    if a * cuts[i, cut] + b * cuts[j, cut] + c * cuts[k, cut] < 0:
                        inside = False
                        break
                if inside:
                    depth[row, column] = z
                    owner[row, column] = t
                    corner[row, column, 0] = b
                    corner[row, column, 1] = c


@compiled
def openness(depth: np.ndarray, row: int, column: int, reach: float) -> float:  # pragma: no cover
    """Share of light, 0.4 to 1, that nearer surfaces around a sample leave it: folds, armpits and chins are darker."""
    here, hidden = depth[row, column], 0.0
    for down, right in AROUND:
        for ring in range(1, 3):
            y, x = row + int(0.5 * ring * reach * down), column + int(0.5 * ring * reach * right)
            if 0 <= y < depth.shape[0] and 0 <= x < depth.shape[1]:
                nearer = here - depth[y, x]
                if 0.015 < nearer < 0.3:  # metres
                    hidden += min(1.0, nearer / 0.06)
    return 1 - 0.6 * min(1.0, hidden / 12)


@compiled
def shade(
    triangles: np.ndarray,
    fabric_of: np.ndarray,
    normals: np.ndarray,
    cloth: np.ndarray,
    colors: np.ndarray,
    patterns: np.ndarray,
    depth: np.ndarray,
    owner: np.ndarray,
    corner: np.ndarray,
    light: np.ndarray,
    toward_camera: np.ndarray,
    reach: float,
    out: np.ndarray,
) -> None:  # pragma: no cover
    """Light the samples of `rasterize` and average them into `out` (h, w, 4): premultiplied colour and coverage.

    normals (n, 3) and cloth (n, 3) of the vertices; fabric_of (m,) indexes colors (f, 2, 3) and patterns (f, 6): kind,
    four parameters, roughness. light (4, 3): direction, key, sky, ground. What lies up to `reach` samples beside a
    pixel and nearer to the camera takes some of its light.
    """
    height, width = out.shape[:2]
    for y in range(height):
        for x in range(width):
            red = green = blue = count = 0.0
            for s in range(4):
                row, column = 2 * y + s // 2, 2 * x + s % 2
                t = owner[row, column]
                if t < 0:
                    continue
                i, j, k = triangles[t]
                b, c = corner[row, column]
                a = 1 - b - c
                nx = a * normals[i, 0] + b * normals[j, 0] + c * normals[k, 0]
                ny = a * normals[i, 1] + b * normals[j, 1] + c * normals[k, 1]
                nz = a * normals[i, 2] + b * normals[j, 2] + c * normals[k, 2]
                flip = 1.0 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9)
                if nx * toward_camera[0] + ny * toward_camera[1] + nz * toward_camera[2] < 0:
                    flip = -flip
                nx, ny, nz = nx * flip, ny * flip, nz * flip
                f = fabric_of[t]
                p = a * cloth[i, 0] + b * cloth[j, 0] + c * cloth[k, 0]
                deep = a * cloth[i, 1] + b * cloth[j, 1] + c * cloth[k, 1]
                q = a * cloth[i, 2] + b * cloth[j, 2] + c * cloth[k, 2]
                pattern = patterns[f]
                share = pattern_share(int(pattern[0]), pattern[1], pattern[2], pattern[3], pattern[4], p, deep, q)
                rough = 1.0
                if pattern[5] > 0:
                    rough += pattern[5] * (value_noise(p * 22 + deep * 15, q * 9, f) - 0.5)
                facing = nx * light[0, 0] + ny * light[0, 1] + nz * light[0, 2]
                facing = max(0.0, 0.12 + 0.88 * facing)
                up = 0.5 + 0.5 * nz
                red += (
                    rough
                    * ((1 - share) * colors[f, 0, 0] + share * colors[f, 1, 0])
                    * (facing * light[1, 0] + up * light[2, 0] + (1 - up) * light[3, 0])
                )
                green += (
                    rough
                    * ((1 - share) * colors[f, 0, 1] + share * colors[f, 1, 1])
                    * (facing * light[1, 1] + up * light[2, 1] + (1 - up) * light[3, 1])
                )
                blue += (
                    rough
                    * ((1 - share) * colors[f, 0, 2] + share * colors[f, 1, 2])
                    * (facing * light[1, 2] + up * light[2, 2] + (1 - up) * light[3, 2])
                )
                count += 1
            open_sky = openness(depth, 2 * y, 2 * x, reach) if count > 0 else 1.0
            out[y, x, 0] = open_sky * red / 4
            out[y, x, 1] = open_sky * green / 4
            out[y, x, 2] = open_sky * blue / 4
            out[y, x, 3] = count / 4
