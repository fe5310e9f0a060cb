"""People: who somebody is, drawn at random from their identity's own generator and from nothing else."""

from dataclasses import dataclass

import numpy as np

from csvi.synth.body import Body, draw_body
from csvi.synth.materials import BRIGHT, CLOTH, HAIR, LEATHER, TROUSERS, Material, draw_cloth, draw_material, draw_skin
from csvi.synth.pose import relaxed_hands
from csvi.synth.render import CHECK, HOOPS, PATCH, PINSTRIPES, SPLIT
from csvi.synth.wardrobe import FAR, Fabric, Figure, Tailor, blob

EYE = Material(np.full(3, 0.05), 0.08)


@dataclass(frozen=True)
class Person:
    """An identity: a dressed figure and what posing it needs."""

    body: Body
    hands: dict[int, np.ndarray]
    figure: Figure


def draw_person(seed: int, identity: int, rho_range: tuple[float, float]) -> Person:
    """The person of an identity; the same for the same arguments, whatever was drawn before."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, identity])))
    woman = bool(rng.random() < 0.5)
    body = draw_body(rng, woman)
    tailor = Tailor(body)
    dress(tailor, rng, rho_range, woman)
    return Person(body, relaxed_hands(body), tailor.finish())


def dress(tailor: Tailor, rng: np.random.Generator, rho: tuple[float, float], woman: bool) -> None:
    """Sews everything that a person wears and carries, and the skin that it leaves bare."""
    t = tailor
    skin = draw_skin(rng)
    trunk = rng.choice(["tee", "shirt", "jumper", "jacket", "coat", "hoodie"], p=[0.24, 0.16, 0.18, 0.2, 0.1, 0.12])
    legs = rng.choice(
        ["trousers", "wide", "shorts", "skirt"], p=[0.42, 0.18, 0.14, 0.26] if woman else [0.58, 0.24, 0.18, 0]
    )

    covered = [legwear(t, rng, rho, str(legs)), *upper(t, rng, rho, str(trunk)), footwear(t, rng, rho)]
    bare = [0.015 - np.minimum.reduce(hems) for hems in covered]
    t.sew("body", Fabric(skin, rough=0.08), 0.0, np.minimum.reduce(bare))
    t.sew("eyes", Fabric(EYE, rough=0), 0.0)
    headwear(t, rng, rho, woman, hood=bool(trunk == "hoodie"))
    luggage(t, rng, rho)


def any_cloth(rng: np.random.Generator, rho: tuple[float, float]) -> Material:
    """Cloth for the trunk: dark and muted colours are commoner than bright ones."""
    return draw_cloth(rng, tuple(CLOTH) if rng.random() < 0.65 else BRIGHT, rho)


def patterned(t: Tailor, rng: np.random.Generator, rho: tuple[float, float], plain: float = 0.5) -> Fabric:
    """Cloth for the trunk with a pattern."""
    first, second = any_cloth(rng, rho), any_cloth(rng, rho)
    if rng.random() < plain:
        return Fabric(first, rough=rng.uniform(0.15, 0.35))
    kind = rng.choice([HOOPS, PINSTRIPES, SPLIT, PATCH, CHECK], p=[0.3, 0.1, 0.25, 0.25, 0.1])
    parameters = {
        HOOPS: (rng.uniform(0.07, 0.16), rng.uniform(0.3, 0.6), 0, 0),
        PINSTRIPES: (rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.5), 0, 0),
        SPLIT: (rng.uniform(t.waist, t.chest + 0.12), 0, 0, 0),
        PATCH: (
            rng.normal(0, 0.02),
            t.chest + rng.uniform(-0.06, 0.06),
            rng.uniform(0.05, 0.1),
            rng.uniform(0.03, 0.1),
        ),
        CHECK: (rng.uniform(0.06, 0.12), 0, 0, 0),
    }[int(kind)]
    return Fabric(first, second, (int(kind), *parameters), rng.uniform(0.15, 0.3))


Hems = tuple[np.ndarray, ...]


def legwear(t: Tailor, rng: np.random.Generator, rho: tuple[float, float], kind: str) -> Hems:
    """Trousers, shorts or a skirt; returns the hems of what it covers."""
    fabric = Fabric(
        draw_cloth(rng, TROUSERS if rng.random() < 0.85 else tuple(CLOTH), rho), rough=rng.uniform(0.15, 0.35)
    )
    waist = t.below(t.waist + 0.03)
    down = np.clip((t.hip - t.z) / (t.hip - t.ankle), 0, 1)  # 0 at the hip, 1 at the ankle
    if kind == "skirt":
        hem = t.ankle + (t.hip - t.ankle) * rng.uniform(0.15, 0.8)
        t.sew("skirt", fabric, 0.0, t.below(t.waist + 0.02), t.above(hem), lined=True)
        if rng.random() < 0.5:  # tights beneath
            tights = Fabric(draw_cloth(rng, ("black", "charcoal", "navy", "brown"), rho), rough=0.1)
            t.sew("tights", tights, 0.002, waist)
            return (waist,)
        return (t.below(t.waist + 0.02), t.above(t.hip - 0.15))
    if kind == "shorts":
        hem = t.above(t.knee + rng.uniform(-0.02, 0.18))
        t.sew("tights", fabric, 0.008 + 0.03 * np.clip(down / 0.4, 0, 1), waist, hem, lined=True)
        return (waist, hem)
    hem = t.above(t.ankle + rng.uniform(-0.03, 0.03) if rng.random() < 0.8 else t.ankle + rng.uniform(0.08, 0.2))
    loose = rng.uniform(0.02, 0.045) if kind == "wide" else rng.uniform(0.0, 0.015)
    t.sew("tights", fabric, 0.006 + loose * np.clip(1.5 * down, 0, 1), waist, hem, lined=True)
    return (waist, hem)


def upper(t: Tailor, rng: np.random.Generator, rho: tuple[float, float], kind: str) -> list[Hems]:
    """What the trunk wears, from the inside out; returns the hems of what each layer covers."""
    fabric = patterned(t, rng, rho)
    hem = t.above(t.hip + rng.uniform(-0.09, 0.04))
    loose = rng.uniform(0.0, 0.02)
    belly = np.clip((t.chest - t.z) / (t.chest - t.hip), 0, 1)
    sleeve = {"tee": rng.uniform(0.35, 0.95), "shirt": rng.choice([0.8, 1.93])}.get(kind, rng.uniform(1.9, 2.0))
    neckline = t.neckline(rng.uniform(-0.01, 0.03), rng.uniform(0.08, 0.16) if rng.random() < 0.3 else 0)
    if kind == "tee" and rng.random() < 0.2:
        sleeve = rng.uniform(-0.1, 0.05)
    thickness = 0.012 + loose * (0.4 + belly)
    hems = (hem, t.sleeve(sleeve), neckline)
    if kind in ("tee", "shirt", "jumper", "hoodie"):
        t.sew("tights", fabric, thickness + (0.008 if kind in ("jumper", "hoodie") else 0), *hems, lined=True)
        return [hems]
    # under a jacket or coat
    t.sew("tights", fabric, 0.010, *hems, lined=True)
    outer = Fabric(any_cloth(rng, rho), rough=rng.uniform(0.15, 0.35))
    collar = t.neckline(rng.uniform(-0.05, -0.02), 0.1)
    gap = rng.uniform(0.03, 0.09) if rng.random() < 0.5 else 0.0
    front = t.open_front(gap) if gap else np.full_like(t.x, FAR)
    body_hem = t.hip + rng.uniform(-0.08, 0.05)
    arms = np.minimum(t.sleeve(rng.uniform(1.9, 2.0)), collar)
    bulk = 0.022 + rng.uniform(0, 0.02) + loose * belly
    if kind == "jacket":
        t.sew("tights", outer, bulk, t.above(body_hem), arms, front, lined=True)
        return [hems, (t.above(body_hem), t.sleeve(1.95), collar)]
    low = t.ankle + (t.hip - t.ankle) * rng.uniform(0.3, 0.75)
    t.sew("tights", outer, bulk, t.above(t.hip - 0.02), arms, front, lined=True)
    t.sew("skirt", outer, 0.012, t.below(t.waist + 0.04), t.above(low), front, lined=True)
    return [hems, (t.above(t.hip), t.sleeve(1.95), collar)]


def footwear(t: Tailor, rng: np.random.Generator, rho: tuple[float, float]) -> Hems:
    """Shoes, with soles of another colour, or boots."""
    upper_leather = draw_cloth(rng, LEATHER, rho)
    sole = draw_cloth(rng, ("white", "black", "black", "beige", "grey"), rho)
    height = t.ankle + (rng.uniform(0.1, 0.3) if rng.random() < 0.2 else rng.uniform(-0.02, 0.03))
    hems = (t.below(height),)
    t.sew(
        "tights", Fabric(upper_leather, sole, (SPLIT, rng.uniform(0.02, 0.035), 0, 0, 0), 0.1), 0.01, *hems, lined=True
    )
    return hems


def headwear(t: Tailor, rng: np.random.Generator, rho: tuple[float, float], woman: bool, hood: bool) -> None:
    """Hair, and sometimes a cap, a beanie or a hood."""
    tone = HAIR[rng.choice(len(HAIR), p=[0.28, 0.22, 0.18, 0.1, 0.07, 0.04, 0.03, 0.08])]
    hair = Fabric(draw_material(rng, tone, rho), rough=0.5)
    style = str(rng.choice(["short", "bald", "bob", "long", "bun", "tail"], p=[0.16, 0, 0.22, 0.26, 0.14, 0.22] if woman else [0.8, 0.1, 0.04, 0.03, 0.02, 0.01]))  # fmt: skip
    front = t.body.vertices[np.unique(t.model.triangles["eyes"])][:, 1].min()
    on_head = np.where(t.head_weight > 0.5, FAR, -FAR)
    depth = t.y - front  # from the eyes backwards
    hairline = t.z - t.eye - rng.uniform(0.045, 0.06) + rng.uniform(0.7, 0.85) * depth
    top = t.z - t.eye
    volume = rng.uniform(0.006, 0.022)
    if style != "bald":
        t.sew("body", hair, volume * np.clip(0.4 + 6 * top, 0.4, 1.2), np.minimum(hairline, on_head))
    back = np.array([0, t.y[t.head_weight > 0.9].max(), t.eye])
    if style in ("bob", "long"):
        end = t.eye - (rng.uniform(0.1, 0.17) if style == "bob" else rng.uniform(0.22, 0.42))
        t.sew("hair", hair, 0.004, t.z - end, lined=True)
    elif style == "bun":
        t.attach("head", hair, *blob(back + [0, 0.015, rng.uniform(0.0, 0.1)], np.array([0.045, 0.04, 0.045])))
    elif style == "tail":
        length = rng.uniform(0.1, 0.18)
        t.attach("head", hair, *blob(back + [0, 0.02, 0.03 - length], np.array([0.035, 0.03, length])))

    kind = rng.choice(["none", "cap", "beanie"], p=[0.8, 0.12, 0.08])
    if kind == "none":
        return
    cloth = Fabric(draw_cloth(rng, tuple(CLOTH), rho), rough=0.2)
    rim = np.minimum(t.z - t.eye - 0.05 + 0.12 * depth, on_head)
    t.sew("body", cloth, volume + (0.012 if kind == "cap" else 0.016), rim)
    if kind == "cap":
        brim, triangles = blob(np.array([0, front - 0.02, t.eye + 0.055]), np.array([0.08, 0.1, 0.006]), 0.8)
        t.attach("head", cloth, brim, triangles)


def luggage(t: Tailor, rng: np.random.Generator, rho: tuple[float, float]) -> None:
    """Sometimes a backpack, a shoulder bag or a handbag."""
    kind = rng.choice(["none", "backpack", "shoulder", "hand"], p=[0.54, 0.2, 0.14, 0.12])
    if kind == "none":
        return
    stuff = Fabric(any_cloth(rng, rho), rough=0.2)
    torso = (t.arm_weight < 0.1) & (t.head_weight < 0.1)
    if kind == "backpack":
        half = np.array([rng.uniform(0.13, 0.17), rng.uniform(0.06, 0.1), rng.uniform(0.18, 0.25)])
        back = t.y[torso & (t.z > t.chest) & (t.z < t.neck)].max()
        t.attach("spine01", stuff, *blob(np.array([0, back + half[1] + 0.01, t.neck - 0.04 - half[2]]), half, 0.35))
        strap = 0.018 - np.abs(np.abs(t.x) - 0.095)
        t.sew("tights", stuff, 0.05, strap, t.above(t.chest - 0.08), t.sleeve(0.0), lined=True)
        return
    half = np.array([rng.uniform(0.04, 0.06), rng.uniform(0.13, 0.18), rng.uniform(0.1, 0.15)])
    side = rng.choice([-1.0, 1.0])
    if kind == "shoulder":
        hip = np.abs(t.x[torso & (np.abs(t.z - t.hip) < 0.05)]).max()
        t.attach("root", stuff, *blob(np.array([side * (hip + half[0] + 0.02), 0.01, t.hip - 0.05]), half, 0.4))
        slope = (t.neck - t.hip) / (hip + 0.06)
        strap = 0.02 - np.abs(t.z - t.hip - slope * (side * -t.x + hip)) / np.hypot(1, slope)
        t.sew("tights", stuff, 0.05, strap, t.above(t.hip - 0.05), t.sleeve(-0.05), lined=True)
        return
    name = "L" if side > 0 else "R"
    wrist, knuckle = (t.body.joints[t.model.bones[f"{bone}.{name}"]] for bone in ("wrist", "finger3-1"))
    along = (knuckle - wrist) / np.linalg.norm(knuckle - wrist)
    vertices, triangles = blob(np.zeros(3), half, 0.4)
    down = vertices[:, 2:] * -along + vertices[:, 1:2] * np.cross(along, [side, 0, 0])
    t.attach(
        f"wrist.{name}",
        stuff,
        knuckle + along * (0.1 + half[2]) + down + vertices[:, :1] * np.array([1.0, 0, 0]),
        triangles,
    )
