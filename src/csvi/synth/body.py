"""Bodies: a linear shape model with its skeleton, and skinning. The model is baked by `csvi.synth.bake` from CC0 data.

Coordinates are metres: x to the person's left, y to the back (people face −y), z up.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from csvi.compiled import compiled

HANGING = ("finger3-1.L", "finger3-1.R")
"""Joints that things hang from: `bone_transforms` adds a bone for each that moves with it but does not turn."""
LIMIT = 2.0
"""Standard deviations at which a component of the shape is cut off."""


@dataclass(frozen=True)
class BodyModel:
    """What `body.npz` holds: v vertices and b bones; a bone is where its head joint is."""

    mean: np.ndarray  # (2, v + b, 3): the mean man and the mean woman
    basis: np.ndarray  # (c, v + b, 3): principal components
    spread: np.ndarray  # (2, c): their standard deviations for each sex
    bones: dict[str, int]
    parents: np.ndarray  # (b,), -1 for the root; parents come before children
    skin_bones: np.ndarray  # (v, 4)
    skin_weights: np.ndarray  # (v, 4), rows sum to 1
    triangles: dict[str, np.ndarray]  # surface (body, eyes, tights, skirt, hair) -> (n, 3)

    def limb_weight(self, *prefixes: str) -> np.ndarray:
        """Share of each vertex, (v,), that moves with the bones whose names start with one of `prefixes`."""
        chosen = np.array([name.startswith(prefixes) for name in self.bones])
        return np.where(chosen[self.skin_bones], self.skin_weights, 0).sum(axis=1)


@dataclass(frozen=True)
class Body:
    """One person's shape at rest."""

    vertices: np.ndarray  # (v, 3)
    joints: np.ndarray  # (b, 3)


@cache
def load_body_model() -> BodyModel:
    """The packaged body model."""
    with np.load(Path(__file__).with_name("body.npz")) as file:
        weights = file["skin_weights"].astype(np.float32)
        return BodyModel(
            mean=file["mean"],
            basis=file["basis"].astype(np.float32),
            spread=file["spread"],
            bones={str(name): index for index, name in enumerate(file["bone_names"])},
            parents=file["bone_parents"].astype(np.int64),
            skin_bones=file["skin_bones"].astype(np.int32),
            skin_weights=weights / weights.sum(axis=1, keepdims=True),
            triangles={
                name.removeprefix("triangles_"): file[name].astype(np.int32)
                for name in file.files
                if name.startswith("triangles_")
            },
        )


def draw_body(rng: np.random.Generator, woman: bool) -> Body:
    """A random body of the given sex, standing on z = 0."""
    model = load_body_model()
    sex = int(woman)
    scores = np.clip(rng.normal(size=len(model.basis)), -LIMIT, LIMIT) * model.spread[sex]
    points = model.mean[sex] + np.einsum(
        "c,cvk->vk", scores.astype(np.float32), model.basis
    )  # BLAS may round by its threads
    points[:, 2] -= points[: len(model.skin_bones), 2].min()
    return Body(points[: len(model.skin_bones)], points[len(model.skin_bones) :])


def bone_transforms(joints: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """World transforms (b + 2, 3, 4) of bones turned by `rotations` (b, 3, 3) about their `joints` (b, 3).

    A rotation is given in the axes of the rest pose and carries the bone's children along. The last two are `HANGING`.
    """
    model = load_body_model()
    transforms = np.empty((len(joints) + len(HANGING), 3, 4))
    for bone, (parent, joint, rotation) in enumerate(zip(model.parents, joints, rotations, strict=True)):
        local = np.column_stack([rotation, joint - rotation @ joint])
        if parent >= 0:
            above = transforms[parent]
            local = above[:, :3] @ local
            local[:, 3] += above[:, 3]
        transforms[bone] = local
    for hanging, name in enumerate(HANGING, start=len(joints)):
        bone = model.bones[name]
        joint = joints[bone]
        transforms[hanging] = np.eye(3, 4)
        transforms[hanging, :, 3] = transforms[bone, :, :3] @ joint + transforms[bone, :, 3] - joint
    return transforms


@compiled
def skin(
    vertices: np.ndarray, bones: np.ndarray, weights: np.ndarray, transforms: np.ndarray, out: np.ndarray
) -> None:  # pragma: no cover
    """Linear blend skinning of `vertices` (v, 3) into `out` (v, 3)."""
    for v in range(len(vertices)):
        x, y, z = vertices[v]
        for axis in range(3):
            moved = 0.0
            for k in range(4):
                row = transforms[bones[v, k], axis]
                moved += weights[v, k] * (row[0] * x + row[1] * y + row[2] * z + row[3])
            out[v, axis] = moved


@compiled
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray, out: np.ndarray) -> None:  # pragma: no cover
    """Area-weighted unit normals of `vertices` (v, 3) into `out` (v, 3)."""
    out[:] = 0
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        ax, ay, az = vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
        bx, by, bz = vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1], vertices[k, 2] - vertices[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(len(vertices)):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2) + 1e-12
        out[v, 0] /= length
        out[v, 1] /= length
        out[v, 2] /= length
