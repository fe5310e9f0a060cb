"""Models that embed images: what they all can do, and opening one. Nothing here imports torch."""

import os
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from csvi.config import DataConfig
from csvi.data.crops import detected_modality
from csvi.data.depth import levels_of
from csvi.data.images import SHORTEST_SIDE, is_deep, load_image, resized
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.progress import in_threads

BATCH = 64
"""Images that a network is given at once."""

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""An image file, an opened image, or pixels: (H, W, 3) RGB or (H, W) grey, uint8."""
Spectrum = Literal["visible", "infrared", "detect"] | Modality
"""Modality of an image; `detect` tells it by the colours: infrared if the channels are alike."""


class Embedder:
    """A trained network that is ready to embed images.

    Args:
        name: of the run or the model, for people to read.
        fingerprint: 16 hexadecimal digits of the weights that were trained, with `-pca768-` and 8 digits behind them if
            embeddings are reduced. Embeddings of different fingerprints cannot be compared.
        digest: of the very file, which is other than the fingerprint where weights are rounded, and of the code of a
            method that is not csvi's.
        dim: D, length of an embedding.
        data: size in pixels of the images that the network takes, and ranges of those of more than 8 bits.
    """

    model = ""
    """What it was opened from: an absolute path, or a name of the Hub; empty if that is not known."""
    dimensions: int | None = None
    """Numbers that embeddings were asked to be reduced to, see `open_embedder`."""

    def __init__(self, name: str, fingerprint: str, digest: str, dim: int, data: DataConfig):
        self.name, self.fingerprint, self.digest, self.dim, self.data = name, fingerprint, digest, dim, data
        self.height, self.width = data.height, data.width

    def embed_pixels(self, images: np.ndarray, modality: Modality) -> np.ndarray:
        """Embed images of the size of the network, all of one modality.

        Args:
            images: (B, H, W, 3) uint8, RGB.
            modality: of all of them.

        Returns:
            (B, D) float32; compare them by Euclidean distance.
        """
        raise NotImplementedError

    def embed(self, images: Iterable[Picture], modality: Spectrum | Sequence[Spectrum] = "detect") -> np.ndarray:
        """Embed images of any size.

        Args:
            images: image files, opened images or arrays, in any mixture.
            modality: one for all images, or one for each.

        Returns:
            (n, D) float32, in the order of the images; compare them by Euclidean distance.

        Raises:
            CsviError: an image cannot be read, or is no image; or modalities are others or of another number.
        """
        if isinstance(images, str | os.PathLike | Image.Image):
            raise CsviError("embed takes a list of images, also of a single one: embed([image])")
        images = list(images)
        wanted = _modalities(modality, len(images))
        embeddings = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), BATCH):
            batch = range(start, min(start + BATCH, len(images)))
            read = in_threads(lambda i: self._read(images[i], wanted[i], i), batch)
            for of_batch in Modality:
                rows = [i for i, (_, modality) in zip(batch, read, strict=True) if modality == of_batch]
                if rows:
                    embeddings[rows] = self.embed_pixels(np.stack([read[i - start][0] for i in rows]), of_batch)
        return embeddings

    def _read(self, picture: Picture, modality: Modality | None, number: int) -> tuple[np.ndarray, Modality]:
        """Read an image as the network takes it, (H, W, 3) uint8, and tell its modality if it is not known."""
        if isinstance(picture, str | os.PathLike):
            likely = Modality.INFRARED if modality is None else modality  # images of one deep channel are
            image = load_image(expanded(picture), levels_of(self.data, likely))
        else:
            image = _upright(picture, number)
        return resized(image, self.height, self.width), detected_modality(image) if modality is None else modality


def open_embedder(model: str | os.PathLike[str], dimensions: int | None = None) -> Embedder:
    """Open a model to embed images with.

    Args:
        model: a run folder, a folder of a model alone, `owner/name` of the Hub, or a file of `csvi export --format
            onnx`, which runs in onnxruntime, without torch.
        dimensions: reduce embeddings to so many numbers, see `csvi.export.reduction`.

    Raises:
        CsviError: there is none such, it is damaged, or it cannot be reduced.
    """
    there = expanded(model).absolute()
    if str(model).endswith(".onnx"):
        from csvi.search.onnx_embedder import OnnxEmbedder

        opened: Embedder = OnnxEmbedder(there, dimensions)
    else:
        from csvi.search.torch_embedder import TorchEmbedder

        opened = TorchEmbedder(str(model), dimensions)
    opened.model, opened.dimensions = str(there if there.exists() else model), dimensions
    return opened


def _modalities(modality: Spectrum | Sequence[Spectrum], images: int) -> list[Modality | None]:
    """The modality of each image; None for those that are to be told."""
    one_for_all = isinstance(modality, str | Modality)
    given: list[Spectrum] = [modality] * images if one_for_all else list(modality)  # type: ignore[list-item, arg-type]
    if len(given) != images:
        raise CsviError(f"there are {images} images and {len(given)} modalities: give one for each, or one for all")
    names: dict[object, Modality | None] = {"detect": None}
    for each in Modality:
        names |= {each.word: each, each: each}
    for name in given:
        if name not in names:
            raise CsviError(f"the modality is {name!r}: it must be visible, infrared or detect")
    return [names[name] for name in given]


def _upright(picture: Image.Image | np.ndarray, number: int) -> Image.Image:
    """An image in memory as RGB, and upright as `load_image` gives it; raises `CsviError` if it is none."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)) or picture.ndim < 2:
            raise CsviError(
                f"image {number} is an array of shape {picture.shape} and type {picture.dtype}: it must be (H, W, 3) "
                "RGB or (H, W) grey, of uint8"
            )
        picture = Image.fromarray(picture)
    elif not isinstance(picture, Image.Image):
        raise CsviError(f"image {number} is a {type(picture).__name__}: give a path, an opened image or an array")
    elif is_deep(picture):
        raise CsviError(f"image {number} has more than 8 bits a pixel: give the path of its file, which is then scaled")
    if min(picture.size) < SHORTEST_SIDE:
        width, height = picture.size
        raise CsviError(
            f"image {number} is of {width}x{height} pixels: at least {SHORTEST_SIDE} are needed on each side"
        )
    return ImageOps.exif_transpose(picture).convert("RGB")
