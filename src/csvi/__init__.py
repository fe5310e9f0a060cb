"""csvi: visible-infrared person re-identification with co-segmentation."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csvi.search.embedder import Embedder

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(model: str | os.PathLike[str], dimensions: int | None = None) -> "Embedder":
    """Open a trained model to embed images with, in whichever modality.

        import csvi

        model = csvi.load("demo/run")
        night = model.embed(["probe.jpg"], modality="infrared")       # (1, D) float32
        day = model.embed(["cam1/0001.jpg", "cam2/0007.jpg"])         # the modality is told by the colours
        nearest = ((night - day) ** 2).sum(1).argmin()

    Args:
        model: a run folder, a folder of a model alone, `owner/name` of the Hub, or a file of `csvi export --format
            onnx`, which needs no torch.
        dimensions: reduce embeddings to so many numbers.

    Raises:
        CsviError: there is none such, it is damaged, or it cannot be reduced.
    """
    from csvi.search.embedder import open_embedder

    return open_embedder(model, dimensions)
