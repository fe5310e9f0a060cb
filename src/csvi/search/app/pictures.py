"""Crops of a gallery as the page shows them: small pictures within its text.

Gradio serves files by their paths; it is never given one of a gallery. What leaves is pixels, encoded anew.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from csvi.config import DataConfig
from csvi.data.depth import levels_of
from csvi.data.images import load_image
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.search.embedder import Embedder

LARGEST = (192, 384)
"""Width and height in pixels of a picture on the page, at most."""


def read_crop(root: Path, path: str, modality: str, data: DataConfig) -> Image.Image:
    """Read an image of a gallery, as RGB.

    Args:
        root: folder that must hold it.
        path: relative to the root.
        modality: `visible` or `infrared`.
        data: ranges of images of more than 8 bits.

    Raises:
        CsviError: its path, or a link on its way, leads out of the root; or as `load_image`.
    """
    outside = CsviError(f"the image {path} is not shown: its path leads out of {root}")
    try:
        file = (root / path).resolve()
        inside = file.is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # no path at all, or links in a circle
        raise outside from error
    if not inside:
        raise outside
    return load_image(file, levels_of(data, Modality[modality.upper()]))


def small(image: Image.Image) -> Image.Image:
    """Copy an image to be shown, of at most 192 x 384 pixels."""
    image = image.copy()
    image.thumbnail(LARGEST)
    return image


def as_source(picture: Image.Image) -> str:
    """Write a picture as the `src` of an `img`."""
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def heatmaps_of(embedder: Embedder, images: np.ndarray, modalities: Sequence[Modality]) -> np.ndarray:
    """Lay on each image a heatmap of the features that the network embeds it by, see `csvi.analysis.heatmaps`.

    Args:
        embedder: the network.
        images: (n, H, W, 3) uint8, of the size of the network.
        modalities: n of them.

    Returns:
        (n, H, W, 3) uint8.

    Raises:
        CsviError: the network runs without PyTorch, or has no such features.
    """
    from csvi.search.onnx_embedder import OnnxEmbedder

    if isinstance(embedder, OnnxEmbedder):
        raise CsviError("a file of ONNX shows no heatmaps: open the page with --run RUN")
    from csvi.analysis.heatmaps import energy_of, heatmap, overlay
    from csvi.data.batch import Batch, prepare
    from csvi.model.net import FeatureNet
    from csvi.search.torch_embedder import TorchEmbedder

    if not (isinstance(embedder, TorchEmbedder) and isinstance(embedder.net, FeatureNet)):
        raise CsviError(f"the network of {embedder.name} has no features to show a heatmap of")
    batch = prepare(Batch.of(images, modalities), embedder.fabric.device)
    energy = energy_of(embedder.net, embedder.fabric, batch)
    heat = heatmap(energy, embedder.height, embedder.width, embedder.net.backbone.stride).numpy()
    return np.stack([(255 * overlay(*pair)).astype(np.uint8) for pair in zip(images, heat, strict=True)])
