"""Arrays of public preprocessing, `train_RGB_img_mask.npy` and others: which images they hold, in which order.

Public code of the field resizes all training images into one array a modality, `train_rgb_resized_img.npy` and
`train_ir_resized_img.npy` (pre_process_sysu.py of Ye et al., AGW, and of all that derive from it); masks of the paper's
lineage lie in arrays of the same order beside them. The arrays name no image. Their order is that of the code, and is
compared with the array of the images wherever there is one.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from csvi.data.crops import SPECTRA
from csvi.data.images import BadImage, TroubleReading
from csvi.data.masks import Mask
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError, in_one_line
from csvi.paths import status_of
from csvi.progress import in_threads

IMAGES = {Modality.VISIBLE: "train_rgb_resized_img.npy", Modality.INFRARED: "train_ir_resized_img.npy"}
"""Names of the arrays of images."""
ORDERS: dict[str, Callable[[ImageRecord], int]] = {
    "sysu": lambda record: record.identity,
    "regdb": lambda record: 0,
    "llcm": lambda record: 0,
}
"""Layout → what its records, which are sorted by camera and name or as listed, are sorted by in public code."""
COMPARED = 200
"""Images of which each is compared with its place in an array of images, evenly spaced."""
COARSE = 18, 36
"""Width and height at which they are compared; filters of resizing and decoders of JPEG make no difference there."""
SAME = 2.0
"""Mean difference in grey levels of the same image, at most."""
NEARER = 0.25
"""Grey levels by which a neighbour may seem nearer: in a burst, images are nearly the same."""
MOST_WRONG = 0.05
"""Share of the compared images that may differ, as where a file was replaced."""


class Stack:
    """Images in one array on disk, (N, H, W) or (N, H, W, C) of 1, 3 or 4 channels; each is read when asked for.

    Values are 0 to 255, fractions 0 to 1, or truth values.

    Raises:
        CsviError: it is no such array, or holds Python objects, which are never loaded.
    """

    def __init__(self, file: Path):
        self.file = file
        try:
            status_of(file)
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy raises whatever a damaged header leads to
            raise CsviError(
                f"cannot read the array {file} ({in_one_line(error)}): write it with numpy.save, without objects"
            ) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
            raise CsviError(f"{file} holds no array of numbers: write one array with numpy.save")
        if array.ndim not in (3, 4) or array.shape[3:] not in ((), (1,), (3,), (4,)) or not array.size:
            raise CsviError(
                f"{file} is of shape {array.shape}: it must be (images, height, width), or with 1, 3 or 4 channels last"
            )
        self.array = array
        fractions = array.dtype.kind == "f" and not any((array[i] > 1).any() for i in _evenly(len(array)))
        self._scale = 255 if fractions or array.dtype.kind == "b" else 1

    def __len__(self) -> int:
        return len(self.array)

    def name(self, i: int) -> str:
        """Name an image of the array, for people to read."""
        return f"{self.file}[{i}]"

    def image(self, i: int) -> Image.Image:
        """Read an image, of mode L, RGB or RGBA; raises `BadImage` if it has values that are none of 8 bits."""
        values = np.asarray(self.array[i])
        values = values[..., 0] if values.shape[2:] == (1,) else values
        if values.dtype != np.uint8:
            values = values.astype(np.float32) * self._scale
            if not (values >= 0).all() or not (values <= 255).all():
                raise BadImage(Path(self.name(i)), "has values that are neither 0 to 255 nor, in all images, 0 to 1")
            values = np.rint(values).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(values))

    def mask(self, i: int) -> Mask:
        """Read an image as a mask; raises as `image`."""
        return Mask(Path(self.name(i)), self.image(i))


def mask_stacks(source: Path) -> dict[Modality, Path]:
    """Find the arrays of masks: one file, or in a folder those with `mask` in their names, or else the only ones.

    Returns:
        Modality → file; empty if a folder holds none.

    Raises:
        CsviError: several may be the masks of a modality, or the name of the file says no modality.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.npy"))
    found: dict[Modality, Path] = {}
    for modality in Modality:
        named = [file for file in files if _modality_of(file) == modality and "label" not in _words(file)]
        masks = [file for file in named if is_of_masks(file)] or named
        if len(masks) > 1:
            raise CsviError(f"{masks[0]} and {masks[1]} may both be the {modality.word} masks: give the file itself")
        if masks:
            found[modality] = masks[0]
    if source.is_file() and not found:
        raise CsviError(f"the name of {source} does not say whether rgb or ir: rename it, as train_rgb_mask.npy")
    return found


def _modality_of(file: Path) -> Modality | None:
    """The modality that a file's name says; None if it says none, or both."""
    said = {SPECTRA[word] for word in _words(file) if word in SPECTRA}
    return said.pop() if len(said) == 1 else None


def is_of_masks(file: Path) -> bool:
    """Whether a file says by its name that it holds masks."""
    return bool({"mask", "masks"} & _words(file))


def in_order(stack: Stack, benchmark: Benchmark, modality: Modality) -> list[ImageRecord]:
    """List the images of an array: those of train and val, or of train, as many as it has, in the order of public code.

    Raises:
        CsviError: the order is known of no such layout, or neither split has as many images.
    """
    if benchmark.layout not in ORDERS:
        raise CsviError(
            f"{stack.file} names no images, and no public code says their order in this dataset: "
            "write each mask to a file, named after its image"
        )
    key = ORDERS[benchmark.layout]
    counts = []
    for records in ([*benchmark.train, *benchmark.val], benchmark.train):
        images = sorted((record for record in records if record.modality == modality), key=key)
        if len(images) == len(stack):
            return images
        counts.append(f"{len(images):,}")
    raise CsviError(
        f"{stack.file} holds {len(stack):,} masks, and {benchmark.root} has {' or '.join(dict.fromkeys(counts))} "
        f"{modality.word} images to train on: they are not of one copy of the dataset"
    )


def images_beside(stack: Path, root: Path, modality: Modality) -> Path | None:
    """Find the array of images that public code has written, into the dataset or, without a slash, beside it."""
    name = IMAGES[modality]
    places = [stack.with_name(name), root / name, root.with_name(f"{root.name}{name}")]
    return next((place for place in places if place.is_file() and place != stack), None)


def check_order(images: Stack, records: Sequence[ImageRecord], load: Callable[[ImageRecord], Image.Image]) -> int:
    """Compare images with an array of them; returns how many.

    Args:
        images: the array.
        records: the images, in the order that is to be checked.
        load: opens one, as RGB and upright.

    Raises:
        CsviError: the array holds another number of images, or other ones, or the same in another order.
    """
    if len(images) != len(records):
        raise CsviError(
            f"{images.file} holds {len(images):,} images and the masks beside it are {len(records):,}: "
            "they are not of one preprocessing"
        )
    places = _evenly(len(records))

    def is_right(i: int) -> bool:
        there = _coarse(images.image(i))

        def distance(j: int) -> float:
            image = load(records[j]).resize(images.array.shape[2:0:-1], Image.Resampling.LANCZOS)
            return float(np.abs(_coarse(image) - there).mean())

        try:
            own = distance(i)
            others = [distance(j) for j in (i - 1, i + 1) if 0 <= j < len(records)]
        except TroubleReading:
            raise
        except BadImage:
            return False
        return own <= SAME and own <= min(others, default=own) + NEARER

    right = in_threads(is_right, places, "Comparing images")
    wrong = [i for i, same in zip(places, right, strict=True) if not same]
    if len(wrong) > MOST_WRONG * len(places):
        raise CsviError(
            f"{images.file} does not hold the images in the order of public code: {len(wrong)} of {len(places)} that "
            f"were compared are others, such as {images.name(wrong[0])}, not {records[wrong[0]].path}; the masks would "
            "be given to wrong images: make both arrays from this copy of the dataset"
        )
    return len(places)


def _coarse(image: Image.Image) -> np.ndarray:
    """The mean of the channels, whichever their order, at a coarse size; float32."""
    return np.asarray(image.convert("RGB").resize(COARSE, Image.Resampling.BOX), np.float32).mean(2)


def _evenly(count: int) -> list[int]:
    """Places in an array of so many images, evenly spaced: all, or `COMPARED`."""
    return [int(i) for i in np.linspace(0, count - 1, min(COMPARED, count)).round()]


def _words(file: Path) -> set[str]:
    return set(re.split("[^a-z]+", file.stem.lower()))
