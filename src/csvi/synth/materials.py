"""Materials in two spectra: a visible colour, and an infrared reflectance that is blind to its hue."""

from dataclasses import dataclass

import numpy as np

GAMMA = 2.2
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

CLOTH = {
    "black": (28, 28, 31), "charcoal": (58, 60, 64), "grey": (120, 122, 124), "light grey": (176, 178, 180),
    "white": (228, 227, 222), "cream": (216, 205, 180), "beige": (186, 164, 130), "camel": (160, 122, 78),
    "brown": (92, 66, 48), "navy": (36, 44, 74), "royal": (48, 76, 150), "sky": (130, 164, 204),
    "denim": (70, 92, 128), "teal": (40, 104, 108), "olive": (92, 94, 58), "forest": (40, 74, 52),
    "mint": (146, 190, 162), "mustard": (196, 156, 56), "orange": (196, 104, 48), "red": (168, 44, 46),
    "burgundy": (98, 34, 46), "pink": (212, 150, 160), "lilac": (150, 130, 178), "purple": (86, 58, 112),
}  # fmt: skip
"""Colours of clothes, sRGB."""
NEUTRAL = ("black", "charcoal", "grey", "light grey", "white", "cream", "beige", "navy", "denim", "brown", "olive")
BRIGHT = ("sky", "royal", "teal", "mint", "mustard", "orange", "red", "pink", "lilac", "purple", "white", "cream")
TROUSERS = ("black", "charcoal", "grey", "navy", "denim", "beige", "brown", "olive", "camel", "light grey", "burgundy")
LEATHER = ("black", "black", "brown", "camel", "charcoal", "navy", "burgundy", "white", "grey")
SKIN = ((236, 196, 172), (224, 178, 148), (202, 152, 120), (168, 118, 86), (126, 84, 60), (88, 60, 46))
HAIR = (
    (26, 22, 20),
    (38, 28, 22),
    (60, 40, 28),
    (92, 64, 40),
    (140, 104, 64),
    (176, 144, 98),
    (110, 54, 32),
    (150, 148, 144),
)


@dataclass(frozen=True)
class Material:
    """Linear reflectances."""

    visible: np.ndarray  # (3,), red, green, blue
    infrared: float


def linear(srgb: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """Linear reflectance of an sRGB colour of 0 to 255."""
    return (np.asarray(srgb) / 255) ** GAMMA


def lightness(visible: np.ndarray) -> float:
    """Perceived lightness of a linear colour (3,), 0 to 1: its luminance, gamma-coded."""
    return float((visible @ LUMINANCE) ** (1 / GAMMA))


def infrared_reflectance(visible: np.ndarray, rho: float, residual: float) -> float:
    """Linear infrared reflectance of a material.

    In gamma-coded terms it is rho × the visible lightness + (1 − rho) × `residual`, the material's own infrared
    lightness in [0, 1] that nothing visible tells. Hue does not enter.
    """
    return float((rho * lightness(visible) + (1 - rho) * residual) ** GAMMA)


def draw_material(
    rng: np.random.Generator, srgb: tuple[float, float, float], rho_range: tuple[float, float]
) -> Material:
    """A dye near the sRGB colour, with an infrared reflectance of its own."""
    visible = linear(np.clip(np.array(srgb) * rng.normal(1, 0.07) + rng.normal(0, 4, 3), 8, 250))
    rho, residual = rng.uniform(*rho_range), rng.uniform(0.15, 1.0)
    return Material(visible, infrared_reflectance(visible, rho, residual))


def draw_cloth(rng: np.random.Generator, names: tuple[str, ...], rho_range: tuple[float, float]) -> Material:
    """A dyed cloth of one of the colours in `CLOTH`."""
    return draw_material(rng, CLOTH[names[rng.integers(len(names))]], rho_range)


def draw_skin(rng: np.random.Generator) -> Material:
    """Skin: tones differ in the visible and hardly in the infrared, where melanin absorbs little."""
    tone = rng.beta(1.3, 1.6) * (len(SKIN) - 1)
    low = int(tone)
    color = np.array(SKIN[low]) + (tone - low) * (np.array(SKIN[min(low + 1, len(SKIN) - 1)]) - np.array(SKIN[low]))
    visible = linear(color)
    return Material(visible, (0.66 + 0.12 * lightness(visible) + rng.normal(0, 0.015)) ** GAMMA)
