"""Reads person masks, whichever values mark the person, and judges whether the masks of a dataset are masks at all."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from PIL import Image

from csvi.config import MaskValues
from csvi.data.images import BadImage, is_deep, upright_image

FAULTS = {
    "labels": "look like the part labels of a human parser",
    "colours": "look like the part labels of a human parser, in colours",
    "cut-out": "are cut-outs, whose mask is in their alpha",
    "no alpha": "have no alpha",
    "same alpha": "have an alpha that is the same everywhere",
    "deep": "hold values of more than 16 bits, as labels may",
    "inverted": "mark the corners as person and not the centre, as inverted masks do",
    "everywhere": "mark a person everywhere, so that no person can be told from the background",
    "greys": "look like photographs rather than masks: most of what they mark is neither black nor white",
    "soft": "have soft edges or noise, all of which would count as person",
}
"""Fault of a mask under a reading → what masks of that fault do."""
UNREADABLE = {
    "no alpha": "has no alpha: give --data.mask_values 255, or what else marks a person in it",
    "deep": "has pixels that are neither of 8 bits nor of 16",
}
"""Fault of a mask that cannot be read so → what is the matter with the file."""
NEVER_BY_CHANCE = {"colours", "cut-out"}
"""Faults that no true mask has; the others one may have now and then, as where a person stands at the side."""
WRITE = "write the person as 255 and all else as 0"
"""The way out where no setting is one."""
FEW = 0.1
"""Share of masks, above which a fault that never comes by chance is one of the dataset."""
MOST_LABELS = 32
"""Values, or colours; human parsers tell up to 20 parts, while edges of grey masks, and photographs, take more."""
BLACK, WHITE = 16, 240
"""Bounds of black and white: compression leaves as much on either."""
SURE = 0.2
"""Share of the marked pixels that is white in true masks, at least; labels and photographs have less."""
BRIGHT = 0.6
"""Share of the marked pixels above 127 in a soft mask that is nowhere white, at least; photographs have less."""
MOST_GREY = 0.6
"""Share of all pixels that is neither black nor white in a mask, at most; soft ones have up to a third."""
DARK = 0.05
"""Share of the person under nonzero that is almost black, above which it is the foot of a soft edge, or noise."""
GROWN = 0.01
"""Share of the image that a grey mask wins under nonzero, above which its edges count."""
DISAGREEING = 0.05
"""Share of pixels in which alpha and mask may differ: where both are masks, at their edges."""
EVERYWHERE = 0.98
"""Share of the image that a person covers at most: a tight crop leaves the corners."""
APART = 64
"""Grey levels by which the corners of an inverted mask are above its centre."""
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Modes of Pillow that it turns into grey and RGB, beside those of more than 8 bits."""
PIXELS_ALONG = 256
"""Pixels along the longer side that are looked at, of larger masks every second, third, ..."""


class MaskLook(NamedTuple):
    """What a mask looks like under every reading of it; short, as a dataset has tens of thousands."""

    highest: int
    """Highest value, or entry of the palette; 0 if it holds colours."""
    faults: dict[MaskValues, str]
    """Reading → its fault, a key of `FAULTS`, if it has one."""
    empty: frozenset[MaskValues]
    """Readings under which nobody is marked."""


class Mask:
    """A mask file, decoded upright at its own size, or an image that stands for one, as from an array.

    Raises as `upright_image` does, or `BadImage` for odd colours.
    """

    def __init__(self, file: Path, image: Image.Image | None = None):
        self.file, self.image = file, upright_image(file) if image is None else image
        if self.image.mode not in MODES and not is_deep(self.image):
            raise BadImage(file, f"has colours of a kind that no mask is of ({self.image.mode})")

    def person(self, values: MaskValues) -> np.ndarray:
        """Give the opacity of the person, (height, width) uint8, 255 = person.

        Args:
            values: what marks the person, see `DataConfig.mask_values`.

        Raises:
            BadImage: there is no alpha, which these values ask for, or grey has neither 8 bits nor 16.
        """
        if values == "alpha":
            alpha = _alpha(self.image)
            if alpha is None:
                raise BadImage(self.file, UNREADABLE["no alpha"])
            return alpha
        if values == "nonzero":
            return np.where(_marked(self.image), np.uint8(255), np.uint8(0))
        grey = self._grey()
        return 255 - grey if values == 0 else grey

    def resized(self, height: int, width: int, values: MaskValues) -> np.ndarray:
        """Give the opacity of the person as `person` does, resized like an image: antialiased, bilinear."""
        image = Image.fromarray(self.person(values))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def look(self) -> MaskLook:
        """Look at the mask under every reading."""
        step = -(-max(self.image.size) // PIXELS_ALONG)
        levels, highest, coloured = _levels(self.image, step)
        alpha = _alpha(self.image)
        alpha = None if alpha is None or np.ptp(alpha) < 128 else alpha[::step, ::step]
        faults: dict[MaskValues, str] = {}
        empty: set[MaskValues] = set()
        grey = None
        for values in get_args(MaskValues):
            try:
                person = self.person(values)[::step, ::step]
            except BadImage:
                faults[values] = "no alpha" if values == "alpha" else "deep"
                continue
            grey = person if values == 255 else grey
            if fault := _fault(values, person, grey, alpha, levels, highest, coloured):
                faults[values] = fault
            if (person <= 127).all():
                empty.add(values)
        return MaskLook(highest, faults, frozenset(empty))

    def _grey(self) -> np.ndarray:
        if not is_deep(self.image):
            return np.asarray(self.image.convert("L"))
        pixels = np.asarray(self.image)
        if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 65_535:
            raise BadImage(self.file, UNREADABLE["deep"])
        return (pixels >> 8).astype(np.uint8)


def read_mask(file: Path, height: int, width: int, values: MaskValues) -> np.ndarray:
    """Decode and resize a mask: (height, width) uint8, 255 = person; see `Mask`."""
    return Mask(file).resized(height, width, values)


def judge_masks(looks: Mapping[Any, MaskLook], values: MaskValues) -> str | None:
    """Judge the masks of a dataset, or of a modality; single odd masks, and empty ones, are no fault of the dataset.

    Args:
        looks: name of each mask → its look.
        values: what marks the person, see `DataConfig.mask_values`.

    Returns:
        The way out and what they do, a predicate of which the masks are the subject; None if they can be read so.
    """
    found = _common_fault(looks, values)
    if found is None:
        return None
    fault, example = found
    highest = max(look.highest for look in looks.values() if look.faults.get(values) == fault)
    numbers = f" (values 0 to {highest})" if fault in ("labels", "colours") and highest else ""
    readings: list[MaskValues] = ["alpha", 255, "nonzero", 0]  # a cut-out on black could be read by nonzero too
    fitting = [
        other
        for other in readings
        if any(other not in look.empty for look in looks.values()) and _common_fault(looks, other) is None
    ]
    way = f"--data.mask_values {fitting[0]}" if fitting else "the person written as 255 and all else as 0"
    return f"need {way}: they {FAULTS[fault]}{numbers}, such as {example}"  # its end may be cut off on a terminal


def _common_fault(looks: Mapping[Any, MaskLook], values: MaskValues) -> tuple[str, Any] | None:
    """The most common fault under a reading, and a mask of it, if it is a fault of the dataset."""
    examples: dict[str, Any] = {}
    faults: Counter[str] = Counter()
    judged = 0
    for name, look in looks.items():
        fault = look.faults.get(values)
        judged += fault is not None or values not in look.empty
        if fault is not None:
            faults[fault] += 1
            examples.setdefault(fault, name)
    never = Counter({fault: count for fault, count in faults.items() if fault in NEVER_BY_CHANCE})
    common = faults if faults.total() > judged / 2 else never if never.total() > FEW * judged else None
    if not common:
        return None
    fault = common.most_common(1)[0][0]
    return fault, examples[fault]


def _fault(
    values: MaskValues,
    person: np.ndarray,
    grey: np.ndarray | None,
    alpha: np.ndarray | None,
    levels: int,
    highest: int,
    coloured: bool,
) -> str | None:
    """Find the fault of one mask under one reading; see `MaskLook`.

    Args:
        person: (height, width) uint8 under this reading.
        grey: the same under 255, None if that cannot be read.
        alpha: the same under alpha, None if it is the same everywhere.
        levels, highest, coloured: see `_levels`.
    """
    on, some, white = person > 127, person >= BLACK, person >= WHITE
    sure = white.sum() / max(some.sum(), 1)
    dark, light = (0, 0) if grey is None else (((grey > 0) & (grey < BLACK)).sum(), (grey >= BLACK).sum())
    if values == "alpha" and alpha is None and on.any():
        return "same alpha"
    if alpha is not None and (on != (alpha > 127)).mean() > DISAGREEING:
        return "cut-out"
    if values in (255, 0):
        if coloured:
            return "colours" if levels <= MOST_LABELS else "greys"
        if dark > light and levels <= MOST_LABELS:  # be it within a border of 255, which means "ignore"
            return "labels"
        if values == 255 and highest > 0 and sure < SURE and (levels <= MOST_LABELS or not some.any()):
            return "labels"
        dim = some.any() and sure < SURE / 2 and on.sum() < BRIGHT * some.sum()
        if dim or (some & ~white).mean() > MOST_GREY:
            return "greys"
    if values == "nonzero" and grey is not None and not coloured:  # labels are few, and none is white
        foot = levels > MOST_LABELS and dark > DARK * on.sum()
        bright = (grey >= WHITE).sum() > SURE * light
        if foot or (bright and on.mean() - (grey > 127).mean() > GROWN):
            return "soft"
    if on.mean() > EVERYWHERE:
        return "everywhere"
    return "inverted" if _corners(person) > _centre(person) + APART else None


def _levels(image: Image.Image, step: int) -> tuple[int, int, bool]:
    """Look at every `step`-th pixel.

    Returns:
        The number of values, or colours; the highest value, 0 of colours; and whether there are more than greys.
    """
    values, coloured = _plain(image)[..., ::step, ::step], False
    if image.mode not in ("1", "L", "LA") and not is_deep(image):
        colours = _channels(image)[:, ::step, ::step]
        coloured = bool((np.ptp(colours, axis=0) > 32).mean() > 0.02)  # compression leaves less on grey
    highest = int(np.nan_to_num(values.max(), posinf=0))
    if values.ndim == 3:
        highest = 0 if coloured else highest
        red, green, blue = values.astype(np.int32)
        values = 65_536 * red + 256 * green + blue
    return len(np.unique(values)), highest, coloured


def _marked(image: Image.Image) -> np.ndarray:
    """The pixels (height, width) bool that are not 0; of a palette not its entry 0, of colours not black."""
    marked: np.ndarray = _plain(image) != 0
    return np.any(marked, axis=0) if marked.ndim == 3 else marked


def _plain(image: Image.Image) -> np.ndarray:
    """Values as they are in the file, without alpha: (height, width), or (3, height, width) of colours."""
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0]
    if image.mode in ("1", "L", "P") or is_deep(image):
        return np.asarray(image)
    return _channels(image)


def _channels(image: Image.Image) -> np.ndarray:
    """Red, green and blue (3, height, width) uint8; numpy is slow along an axis of 3 that comes last."""
    return np.stack([np.asarray(channel) for channel in image.convert("RGB").split()])


def _alpha(image: Image.Image) -> np.ndarray | None:
    """Opacity (height, width) uint8, be it a channel, of the palette's entries or of one value; None without any."""
    if is_deep(image) or not image.has_transparency_data:
        return None
    return np.asarray(image.convert("RGBA").getchannel("A"))


def _corners(person: np.ndarray) -> float:
    """Mean of the four corners, each of an eighth of height and width."""
    height, width = (-(-side // 8) for side in person.shape)
    ends = np.concatenate([person[:height], person[-height:]])
    return float(np.concatenate([ends[:, :width], ends[:, -width:]]).mean())


def _centre(person: np.ndarray) -> float:
    """Mean of the middle, of a quarter of height and width."""
    height, width = person.shape
    return float(person[height * 3 // 8 : -(-height * 5 // 8), width * 3 // 8 : -(-width * 5 // 8)].mean())
