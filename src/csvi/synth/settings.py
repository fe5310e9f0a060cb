"""The settings of the synthetic benchmark, checked before anything heavy is imported."""

import math
from dataclasses import dataclass
from typing import Literal

from csvi.config import check_range
from csvi.errors import CsviError

SIZES = {"tiny": (96, 48), "demo": (144, 72), "study": (144, 72), "paper": (288, 144)}
"""Height and width of each preset's images, pixels."""


@dataclass
class SynthConfig:
    """Settings of the open synthetic benchmark (ours; not in the paper)."""

    layout: str = "sysu"
    """Layout of the files: sysu, regdb, llcm, folder, or module:Class of one that names its writer."""
    preset: Literal["tiny", "demo", "study", "paper"] = "demo"
    """tiny: 12 identities, for tests; demo: 246 identities with 10 + 10 images; study: 480 such, of them 220
    to test; paper: the size of the dataset that the layout is named after, SYSU-MM01's 491 identities and 44,745 images
    (docs/synthetic-benchmark.md)."""
    seed: int = 0
    """Fixes everything: the same version, settings and seed give the same bytes."""
    height: int | None = None
    """Image height in pixels; by default the preset's."""
    width: int | None = None
    """Image width in pixels; by default the preset's."""
    rho_min: float = 0.5
    """Least share of a material's infrared reflectance that comes from its visible luminance; the rest is its own."""
    rho_max: float = 0.8
    """Greatest such share."""
    processes: int | None = None
    """Processes that render; by default one a core."""

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise CsviError(f"preset is {self.preset!r}: it must be one of {', '.join(SIZES)}")
        check_range(self, 0, math.inf, "seed")
        for name, least, most in (("height", 48, 1024), ("width", 24, 1024), ("processes", 1, math.inf)):
            if getattr(self, name) is not None:
                check_range(self, least, most, name)
        check_range(self, 0, 1, "rho_min", "rho_max")
        if self.rho_min > self.rho_max:
            raise CsviError(f"rho_min is {self.rho_min}, and rho_max {self.rho_max}: it cannot be the greater")
