"""People: who somebody is, drawn at random from their identity's own generator and from nothing else."""

from dataclasses import dataclass

import numpy as np

from csvi.synth.body import HANGING, Body, draw_body
from csvi.synth.materials import (
    BRIGHT,
    CLOTH,
    HAIR,
    LEATHER,
    NEUTRAL,
    TROUSERS,
    Material,
    draw_cloth,
    draw_material,
    draw_skin,
)
from csvi.synth.plan import generator
from csvi.synth.pose import relaxed_hands
from csvi.synth.render import CHECK, HOOPS, PATCH, PINSTRIPES, SPLIT
from csvi.synth.wardrobe import FAR, Fabric, Figure, Tailor, blob

EYE = Material(np.full(3, 0.05), 0.08)
RhoRange = tuple[float, float]
Hems = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Person:
    """An identity: a dressed figure and what posing it needs."""

    body: Body
    hands: dict[int, np.ndarray]
    figure: Figure


def draw_person(seed: int, identity: int, rho: RhoRange) -> Person:
    """The person of an identity; the same for the same arguments, whatever was drawn before.

    rho: range of the share of a material's infrared reflectance that comes from its visible luminance.
    """
    rng = generator(seed, identity)
    woman = bool(rng.random() < 0.5)
    body = draw_body(rng, woman)
    tailor = Tailor(body)
    dress(tailor, rng, rho, woman)
    return Person(body, relaxed_hands(body), tailor.finish())


def choose(rng: np.random.Generator, chances: dict[str, float]) -> str:
    """A key, drawn by its chance; the chances need not sum to 1."""
    chance = np.array(list(chances.values()))
    return list(chances)[rng.choice(len(chance), p=chance / chance.sum())]


def dress(t: Tailor, rng: np.random.Generator, rho: RhoRange, woman: bool) -> None:
    """Sew everything that a person wears and carries, and the skin that it leaves bare."""
    skin = draw_skin(rng)
    lips = Material(skin.visible * np.array([0.72, 0.45, 0.45]), 0.9 * skin.infrared)
    face = Fabric(skin, lips, (PATCH, 0, t.eye - 0.068, 0.021, 0.006), rough=0.08)
    trunk = choose(rng, {"tee": 24, "shirt": 14, "jumper": 18, "hoodie": 12, "jacket": 20, "coat": 10})
    legs = choose(rng, {"trousers": 42, "wide": 18, "shorts": 12, "skirt": 28 if woman else 0})
    covered = [*legwear(t, rng, rho, legs), footwear(t, rng, rho)]
    hood = choose(rng, {"down": 3, "up": 1}) if trunk == "hoodie" else "none"
    cloth, layers, bulk = upper(t, rng, rho, trunk, hood, over=0.012 if legs == "skirt" else 0.0)
    covered += layers
    t.sew("body", face, 0.0, np.minimum.reduce([0.015 - np.minimum.reduce(hems) for hems in covered]))
    t.sew("eyes", Fabric(EYE, rough=0), 0.0)
    headwear(t, rng, rho, woman, cloth if hood == "up" else None, bulk)
    luggage(t, rng, rho, bulk)


def any_cloth(rng: np.random.Generator, rho: RhoRange) -> Material:
    """Cloth for the trunk: muted colours are commoner than bright ones."""
    return draw_cloth(rng, (NEUTRAL, tuple(CLOTH), BRIGHT)[rng.choice(3, p=[0.4, 0.4, 0.2])], rho)


def plain(rng: np.random.Generator, material: Material) -> Fabric:
    """One cloth, more or less worn and creased."""
    return Fabric(material, rough=rng.uniform(0.15, 0.4))


def patterned(t: Tailor, rng: np.random.Generator, rho: RhoRange) -> Fabric:
    """Cloth for the trunk, half of the time with a pattern."""
    first, second = any_cloth(rng, rho), any_cloth(rng, rho)
    kind = (HOOPS, PINSTRIPES, SPLIT, PATCH, CHECK)[rng.choice(5, p=[0.3, 0.1, 0.22, 0.28, 0.1])]
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
    }[kind]
    fabric = plain(rng, first)
    return fabric if rng.random() < 0.5 else Fabric(first, second, (kind, *parameters), fabric.rough)


def legwear(t: Tailor, rng: np.random.Generator, rho: RhoRange, kind: str) -> list[Hems]:
    """Trousers, shorts or a skirt; returns the hems of what it covers."""
    fabric = plain(rng, draw_cloth(rng, TROUSERS if rng.random() < 0.85 else tuple(CLOTH), rho))
    waist = t.below(t.waist + 0.03)
    down = np.clip((t.hip - t.z) / (t.hip - t.ankle), 0, 1)  # 0 at the hip, 1 at the ankle
    if kind == "skirt":
        hem = t.ankle + (t.hip - t.ankle) * rng.uniform(0.15, 0.75)
        flare = 0.008 + rng.uniform(0, 0.12) * np.clip(down - 0.15, 0, 1)
        t.sew("skirt", fabric, flare, t.below(t.waist + 0.02), t.above(hem), lined=True)
        # legs stay out of sight beneath the skirt, where they could come through it
        beneath = t.below(hem + 0.1)
        if rng.random() < 0.5:
            tights = draw_cloth(rng, ("black", "charcoal", "navy", "brown"), rho)
            t.sew("tights", Fabric(tights, rough=0.1), 0.002, beneath)
            return [(waist,)]
        return [(waist, -beneath)]
    if kind == "shorts":
        hem = t.knee + rng.uniform(-0.02, 0.18)
        loose = 0.03 * np.clip(2.5 * down, 0, 1)
    elif rng.random() < 0.15:  # cropped
        hem, loose = t.ankle + rng.uniform(0.08, 0.2), rng.uniform(0, 0.02) * down
    else:
        hem = t.ankle + rng.uniform(-0.04, 0.02)
        loose = (rng.uniform(0.02, 0.045) if kind == "wide" else rng.uniform(0, 0.015)) * np.clip(1.5 * down, 0, 1)
    hems = (waist, t.above(hem))
    t.sew("tights", fabric, 0.006 + loose, *hems, lined=True)
    return [hems]


def upper(
    t: Tailor, rng: np.random.Generator, rho: RhoRange, kind: str, hood: str, over: float
) -> tuple[Fabric, list[Hems], float]:
    """What the trunk wears, from the inside out, `over` metres off the body to clear what is beneath.

    Returns the innermost cloth, the hems of what each layer covers, and how thick it all is in metres.
    """
    sleeve = {"tee": rng.uniform(0.35, 0.95), "shirt": rng.choice([0.85, 1.93])}.get(kind, rng.uniform(1.9, 2.0))
    arms = t.sleeveless() if kind == "tee" and rng.random() < 0.2 else t.sleeve(sleeve)
    neckline = t.neckline(rng.uniform(-0.01, 0.02), rng.uniform(0.08, 0.16) if rng.random() < 0.3 else 0)
    hem = t.hip - rng.uniform(0.0, 0.12)
    loose = rng.uniform(0.0, 0.025)
    bulk = 0.010 + over + (0.008 if kind in ("jumper", "hoodie") else 0)
    fabric = patterned(t, rng, rho)
    t.drape(fabric, bulk, loose, hem, np.minimum(arms, neckline))
    layers: list[Hems] = [(t.above(hem), arms, neckline)]
    if hood == "down":
        t.attach(
            t.model.bones["neck01"],
            Fabric(fabric.first),
            *blob((0, t.nape + 0.02, t.neck + 0.02), (0.1, 0.06, 0.07), 0.9),
        )
    if kind not in ("jacket", "coat"):
        return fabric, layers, bulk + 0.4 * loose
    outer = plain(rng, any_cloth(rng, rho))
    collar = t.neckline(rng.uniform(-0.05, -0.02), 0.1)
    gap = rng.uniform(0.03, 0.09) if rng.random() < 0.5 else -FAR
    bulk += 0.014 + rng.uniform(0, 0.012)
    low = t.hip - rng.uniform(-0.04, 0.1)
    if kind == "coat":
        low = t.ankle + (t.hip - t.ankle) * rng.uniform(0.3, 0.75)
    arms = t.sleeve(rng.uniform(1.9, 2.0))
    t.drape(outer, bulk, loose + 0.012, low, np.minimum(arms, collar), t.open_front(gap))
    layers.append((t.above(max(low, t.hip)), arms, collar, t.open_front(gap)))
    return fabric, layers, bulk + 0.4 * loose


def footwear(t: Tailor, rng: np.random.Generator, rho: RhoRange) -> Hems:
    """Shoes, with soles of another colour, or boots."""
    leather = draw_cloth(rng, LEATHER, rho)
    sole = draw_cloth(rng, ("white", "black", "black", "beige", "grey"), rho)
    top = t.below(t.ankle + (rng.uniform(0.1, 0.3) if rng.random() < 0.2 else rng.uniform(-0.02, 0.03)))
    t.sew("tights", Fabric(leather, sole, (SPLIT, rng.uniform(0.01, 0.03), 0, 0, 0), 0.1), 0.009, top, lined=True)
    return (top,)


def headwear(t: Tailor, rng: np.random.Generator, rho: RhoRange, woman: bool, hood: Fabric | None, bulk: float) -> None:
    """Hair, over clothes `bulk` metres thick, and sometimes a cap, a beanie or the `hood` of the clothes."""
    tone = HAIR[rng.choice(len(HAIR), p=[0.28, 0.22, 0.18, 0.1, 0.07, 0.04, 0.03, 0.08])]
    hair = Fabric(draw_material(rng, tone, rho), rough=0.6)
    style = choose(
        rng,
        {"short": 16, "bob": 22, "long": 26, "bun": 14, "tail": 22}
        if woman
        else {"short": 74, "shaved": 10, "bald": 8, "bob": 4, "long": 3, "bun": 1},
    )
    on_head = np.where(t.head_weight > 0.5, FAR, -FAR)
    behind, top = t.y - t.face, t.z - t.eye  # metres behind and above the eyes
    wisps = t.noise(rng, 0.02)
    hairline = top - rng.uniform(0.045, 0.06) + rng.uniform(0.7, 0.85) * behind + 0.012 * wisps
    hat = "hood" if hood else choose(rng, {"none": 80, "cap": 12, "beanie": 8})
    volume = 0.004 if style == "shaved" else rng.uniform(0.009, 0.03 if style == "short" else 0.02)
    if hat != "none":
        volume = min(volume, 0.008)
    if style != "bald":
        thickness = volume * (np.clip(0.35 + 7 * top, 0.35, 1.1) + 0.35 * wisps)
        t.sew("body", hair, np.maximum(thickness, 0.003), np.minimum(hairline, on_head))
    back = np.array([0, t.y[t.head_weight > 0.9].max(), t.eye])
    if style in ("bob", "long"):
        end = t.eye - (rng.uniform(0.1, 0.17) if style == "bob" else rng.uniform(0.22, 0.42))
        beside = np.maximum(behind - 0.055, np.abs(t.x) - 0.085)  # not before the face
        over_clothes = (bulk + 0.02) * np.clip((t.neck + 0.08 - t.z) / 0.08, 0, 1)
        t.sew(
            "hair",
            hair,
            0.004 + volume / 3 + over_clothes,
            t.z - end + 0.02 * wisps,
            np.maximum(beside, top - 0.07),
            lined=True,
        )
    elif style == "bun":
        t.attach(
            t.model.bones["head"], hair, *blob(back + np.array([0, 0.02, rng.uniform(0.0, 0.1)]), (0.045, 0.04, 0.045))
        )
    elif style == "tail":
        length = rng.uniform(0.1, 0.18)
        t.attach(t.model.bones["head"], hair, *blob(back + np.array([0, 0.025, 0.05 - length]), (0.035, 0.03, length)))

    brow = np.minimum.reduce([np.abs(t.x) - 0.012, 0.045 - np.abs(t.x), 0.03 - behind, on_head])
    t.sew("body", hair, 0.001, brow, top - 0.017, 0.023 - top)

    cloth = plain(rng, draw_cloth(rng, tuple(CLOTH), rho))
    if hood:
        opening = np.maximum(np.hypot(t.x / 0.075, (top + 0.015) / 0.12) - 1, (behind - 0.075) / 0.1) * 0.08
        t.sew(
            "body",
            Fabric(hood.first),
            0.022,
            opening,
            t.z - t.neck,
            np.where(t.head_weight > 0.2, FAR, -FAR),
            lined=True,
        )
    elif hat == "cap":
        t.sew("body", cloth, 0.015, np.minimum(top - 0.05 + 0.12 * behind, on_head))
        t.attach(t.model.bones["head"], cloth, *blob((0, t.face - 0.025, t.eye + 0.055), (0.07, 0.09, 0.006), 0.8))
    elif hat == "beanie":
        t.sew("body", cloth, 0.014 + 0.1 * np.clip(top - 0.06, 0, 0.1), np.minimum(top - 0.04 + 0.3 * behind, on_head))
    if rng.random() < 0.1:
        scarf = plain(rng, any_cloth(rng, rho))
        t.sew("tights", scarf, 0.035, t.z - t.neck + 0.03, t.neck + 0.06 - t.z, t.sleeveless() - 0.06, lined=True)


def luggage(t: Tailor, rng: np.random.Generator, rho: RhoRange, bulk: float) -> None:
    """Sometimes a backpack, a shoulder bag or a handbag, over clothes `bulk` metres thick."""
    kind = choose(rng, {"none": 54, "backpack": 20, "shoulder": 14, "hand": 12})
    if kind == "none":
        return
    stuff = plain(rng, any_cloth(rng, rho))
    side = rng.choice([-1.0, 1.0])
    if kind == "backpack":
        half = np.array([rng.uniform(0.13, 0.17), rng.uniform(0.06, 0.1), rng.uniform(0.18, 0.25)])
        back = t.y[t.on_trunk & (t.z > t.chest) & (t.z < t.neck)].max()
        t.attach(
            t.model.bones["spine01"], stuff, *blob((0, back + half[1] + bulk, t.neck - 0.04 - half[2]), half, 0.35)
        )
        strap = (np.abs(t.x) - 0.075, 0.115 - np.abs(t.x))
        t.sew("tights", stuff, bulk + 0.016, *strap, t.above(t.chest - 0.08), lined=True)
        return
    half = np.array([rng.uniform(0.04, 0.06), rng.uniform(0.13, 0.18), rng.uniform(0.1, 0.15)])
    if kind == "shoulder":
        hip = np.abs(t.x[t.on_trunk & (np.abs(t.z - t.hip) < 0.05)]).max()
        t.attach(t.model.bones["root"], stuff, *blob((side * (hip + half[0] + bulk), 0.01, t.hip - 0.05), half, 0.4))
        slope = (t.neck - t.hip) / (hip + 0.07)
        off = (t.z - t.hip - slope * (hip - side * t.x)) / np.hypot(1, slope)
        t.sew(
            "tights", stuff, bulk + 0.016, 0.02 - off, 0.02 + off, t.above(t.hip - 0.05), t.neckline(-0.02), lined=True
        )
        return
    knuckle = t.body.joints[t.model.bones[HANGING[0] if side > 0 else HANGING[1]]]
    bag = blob(knuckle + np.array([0.03 * side, 0, -0.1 - half[2]]), half, 0.4)
    handle = blob(knuckle + np.array([0.015 * side, 0, -0.06]), (0.008, 0.5 * half[1], 0.07))
    for shape, triangles in (bag, handle):
        t.attach(len(t.model.bones) + (0 if side > 0 else 1), stuff, shape, triangles)
