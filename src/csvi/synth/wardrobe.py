"""Garments, hair and things carried, cut from the surfaces of the body.

A piece is a copy of a surface, moved along its normals, with a fabric and with signed distances in metres to its hems:
it exists where all of them are positive. Everything happens in the rest pose; skinning then carries it along.
"""

from dataclasses import dataclass, field

import numpy as np

from csvi.synth.body import Body, load_body_model, vertex_normals
from csvi.synth.materials import Material
from csvi.synth.render import PLAIN

CUTS = 4
FAR = 1.0
"""A distance that is inside every hem."""
ARM = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
"""Beginnings of the names of its bones."""


@dataclass(frozen=True)
class Fabric:
    """What a piece is made of; `second` shows where the pattern says so."""

    first: Material
    second: Material | None = None
    pattern: tuple[float, float, float, float, float] = (PLAIN, 0, 0, 0, 0)
    rough: float = 0.25
    """Strength of its folds and stains, relative to its colour."""


@dataclass(frozen=True)
class Piece:
    """One garment's part: n vertices, m triangles."""

    fabric: Fabric
    vertices: np.ndarray  # (n, 3) metres, at rest
    skin_bones: np.ndarray  # (n, 4)
    skin_weights: np.ndarray  # (n, 4)
    cloth: np.ndarray  # (n, 3) coordinates of the pattern
    cuts: np.ndarray  # (n, CUTS) signed distances to the hems, metres
    triangles: np.ndarray  # (m, 3)
    one_sided: bool


@dataclass(frozen=True)
class Figure:
    """A dressed person in the rest pose: n vertices, m triangles, f fabrics."""

    vertices: np.ndarray  # (n, 3) metres
    skin_bones: np.ndarray  # (n, 4)
    skin_weights: np.ndarray  # (n, 4)
    cloth: np.ndarray  # (n, 3) coordinates of the patterns
    cuts: np.ndarray  # (n, CUTS) signed distances to the hems, metres
    triangles: np.ndarray  # (m, 3)
    one_sided: np.ndarray  # (m,)
    fabric_of: np.ndarray  # (m,)
    visible: np.ndarray  # (f, 2, 3) linear reflectance
    infrared: np.ndarray  # (f, 2, 3), three times the same
    patterns: np.ndarray  # (f, 6)


@dataclass
class Tailor:
    """Measures one body and sews pieces for it."""

    body: Body
    pieces: list[Piece] = field(default_factory=list)

    def __post_init__(self) -> None:
        model, v = load_body_model(), self.body.vertices
        self.model = model
        self.normals = np.empty_like(v)
        for triangles in model.triangles.values():
            used = np.unique(triangles)
            normals = np.empty_like(v)
            vertex_normals(v, triangles, normals)
            self.normals[used] = normals[used]
        self.x, self.y, self.z = v.T
        z = {name: float(self.body.joints[bone, 2]) for name, bone in model.bones.items()}
        self.ankle, self.knee, self.hip, self.waist = z["foot.L"], z["lowerleg01.L"], z["upperleg01.L"], z["spine04"]
        self.chest, self.neck, self.eye = z["spine01"], z["neck01"], z["eye.L"]
        self.arm_weight = model.limb_weight(*ARM)
        self.head_weight = model.limb_weight("head", "neck02", "neck03")
        self.on_trunk = (self.arm_weight < 0.1) & (self.head_weight < 0.1)
        self.face = float(self.y[np.unique(model.triangles["eyes"])].min())
        self.nape = float(self.y[self.on_trunk & (np.abs(self.z - self.neck) < 0.03)].max())
        self.arm = self._along_arm()
        # patterns run level around trunk and legs, and across the sleeves
        on_arm = self.arm_weight > 0.5
        length = self.body.joints[model.bones["wrist.L"]] - self.body.joints[model.bones["upperarm01.L"]]
        shoulder = float(self.body.joints[model.bones["upperarm01.L"], 2])
        self.cloth = v.copy()
        self.cloth[on_arm, 2] = shoulder - 0.5 * np.linalg.norm(length) * self.arm[on_arm]
        self.cloth[on_arm, 0] = self.y[on_arm] + FAR  # far from what is printed on the chest

    def _along_arm(self) -> np.ndarray:
        """(v,) how far down the arm: 0 at the shoulder, 1 at the elbow, 2 at the wrist; −1 off the arms."""
        along = np.full(len(self.x), -1.0)
        for side in ("L", "R"):
            weight = self.model.limb_weight(*self._arm_bones(side))
            shoulder, elbow, wrist = (
                self.body.joints[self.model.bones[f"{name}.{side}"]] for name in ("upperarm01", "lowerarm01", "wrist")
            )
            v = self.body.vertices
            upper = (v - shoulder) @ (elbow - shoulder) / np.sum((elbow - shoulder) ** 2)
            lower = 1 + (v - elbow) @ (wrist - elbow) / np.sum((wrist - elbow) ** 2)
            along = np.where(weight > 0.02, np.where(upper < 1, upper, np.maximum(lower, 1)), along)
        return along

    def _arm_bones(self, side: str) -> list[str]:
        return [name for name in self.model.bones if name.startswith(ARM) and name.endswith(side)]

    # ------------------------------------------------------------------------------------------ regions, (v,) metres

    def above(self, z: float) -> np.ndarray:
        """Above a level of the trunk; arms count as above."""
        return np.where(self.arm_weight > 0.3, FAR, self.z - z)

    def below(self, z: float) -> np.ndarray:
        """Below a level of the trunk; arms count as not."""
        return np.where(self.arm_weight > 0.3, -FAR, z - self.z)

    def sleeve(self, length: float) -> np.ndarray:
        """Up to `length` down the arm (0 shoulder, 1 elbow, 2 wrist)."""
        return (length - self.arm) * 0.3

    def sleeveless(self) -> np.ndarray:
        """Up to the shoulder joint."""
        shoulder = abs(float(self.body.joints[self.model.bones["upperarm01.L"], 0]))
        inside = shoulder - 0.01 - np.abs(self.x)
        return np.where(self.arm_weight < 0.02, np.maximum(inside, 0.03), inside)

    def neckline(self, drop: float, vee: float = 0.0) -> np.ndarray:
        """Below a neckline `drop` metres beneath the base of the neck, in front twice so; `vee` deepens it to a V."""
        front = np.clip((0.03 - self.y) / 0.12, 0, 1)
        opening = np.maximum(vee - 1.6 * np.abs(self.x), 0) * front
        return self.neck + 0.045 - drop - front * (0.05 + drop) - opening - self.z

    def open_front(self, gap: float) -> np.ndarray:
        """Off the front's center line by `gap` metres."""
        return np.maximum(np.abs(self.x) - gap, 4 * (self.y - 0.02))

    def noise(self, rng: np.random.Generator, size: float) -> np.ndarray:
        """Smooth noise on the surface, (v,) in −1 to 1, with features of `size` metres."""
        waves = rng.normal(0, 1.6 / size, (8, 3))
        return np.sin(self.body.vertices @ waves.T + rng.uniform(0, 2 * np.pi, 8)).mean(axis=1) * 2

    # ------------------------------------------------------------------------------------------------------- sewing

    def drape(self, fabric: Fabric, thickness: float, loose: float, hem: float, *hems: np.ndarray) -> None:
        """Add a garment of the trunk that falls free from the waist down to the level `hem`."""
        down = np.clip((self.chest - self.z) / (self.chest - self.hip), 0, 1.5)
        over = thickness + loose * (0.4 + 0.6 * np.minimum(down, 1))
        self.sew("tights", fabric, over, self.above(max(hem, self.hip)), *hems, lined=True)
        if hem < self.hip:
            self.sew(
                "skirt",
                fabric,
                over + 0.006 * down,
                self.below(self.hip + 0.05),
                self.above(hem),
                *hems[1:],
                lined=True,
            )

    def sew(
        self, surface: str, fabric: Fabric, thickness: np.ndarray | float, *hems: np.ndarray, lined: bool = False
    ) -> None:
        """Add a piece of `surface`, `thickness` metres off it; `lined` pieces are seen from both sides."""
        triangles = self.model.triangles[surface]
        cuts = np.stack([*hems, *[np.full(len(self.x), FAR)] * (CUTS - len(hems))], axis=1)
        kept = triangles[(cuts[triangles] >= 0).any(axis=1).all(axis=1)]
        used, renumbered = np.unique(kept, return_inverse=True)
        thickness = np.broadcast_to(thickness, self.x.shape)[used, None]
        self.pieces.append(
            Piece(
                fabric,
                self.body.vertices[used] + thickness * self.normals[used],
                self.model.skin_bones[used],
                self.model.skin_weights[used],
                self.cloth[used],
                cuts[used],
                renumbered.reshape(-1, 3),
                one_sided=not lined,
            )
        )

    def attach(self, bone: int, fabric: Fabric, vertices: np.ndarray, triangles: np.ndarray) -> None:
        """Add a rigid thing, (n, 3) vertices in the rest pose, that moves with `bone`."""
        n = len(vertices)
        bones, weights, cuts = np.full((n, 4), bone), np.tile([1.0, 0, 0, 0], (n, 1)), np.full((n, CUTS), FAR)
        self.pieces.append(Piece(fabric, vertices, bones, weights, vertices, cuts, triangles, one_sided=True))

    def finish(self) -> Figure:
        """The dressed figure."""
        pieces = self.pieces

        def stack(name: str, kind: type) -> np.ndarray:
            return np.concatenate([getattr(piece, name) for piece in pieces]).astype(kind)

        starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
        lengths = [len(piece.triangles) for piece in pieces]
        pairs = [(piece.fabric.first, piece.fabric.second or piece.fabric.first) for piece in pieces]
        return Figure(
            vertices=stack("vertices", np.float32),
            skin_bones=stack("skin_bones", np.int32),
            skin_weights=stack("skin_weights", np.float32),
            cloth=stack("cloth", np.float32),
            cuts=stack("cuts", np.float32),
            triangles=stack("triangles", np.int32) + np.repeat(starts[:-1], lengths).astype(np.int32)[:, None],
            one_sided=np.repeat([piece.one_sided for piece in pieces], lengths),
            fabric_of=np.repeat(np.arange(len(pieces), dtype=np.int32), lengths),
            visible=np.array([[material.visible for material in pair] for pair in pairs], dtype=np.float32),
            infrared=np.array([[[material.infrared] * 3 for material in pair] for pair in pairs], dtype=np.float32),
            patterns=np.array([(*piece.fabric.pattern, piece.fabric.rough) for piece in pieces], dtype=np.float32),
        )


Triple = tuple[float, float, float] | np.ndarray
RINGS = 10
"""Rings of triangles of an ellipsoid, each of twice as many corners."""


def blob(center: Triple, half: Triple, squareness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid, squarer as `squareness` falls towards 0: vertices (n, 3) and triangles (m, 3)."""
    polar, around = np.linspace(0, np.pi, RINGS + 1), np.linspace(0, 2 * np.pi, 2 * RINGS, endpoint=False)
    theta, phi = (grid.ravel() for grid in np.meshgrid(polar, around, indexing="ij"))

    def curve(values: np.ndarray) -> np.ndarray:
        return np.sign(values) * np.abs(values) ** squareness

    ball = np.stack(
        [curve(np.sin(theta)) * curve(np.cos(phi)), curve(np.sin(theta)) * curve(np.sin(phi)), curve(np.cos(theta))], 1
    )
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(RINGS), np.arange(2 * RINGS), indexing="ij"))
    n = 2 * RINGS
    a, b, c, d = i * n + j, i * n + (j + 1) % n, (i + 1) * n + j, (i + 1) * n + (j + 1) % n
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return np.asarray(center) + ball * np.asarray(half), triangles
