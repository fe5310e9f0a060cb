"""Shorter embeddings: their principal components, found on the images that a run was trained on, never on test images.

Mean and components lie in RUN/reduction-768.safetensors, and are found again when the network has changed.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csvi.config import Config
from csvi.data.loader import EVALUATION_BATCH, batch_loader
from csvi.data.training_set import TrainingSet
from csvi.errors import CsviError
from csvi.model.weights import fingerprint_of
from csvi.runs import Run
from csvi.runs.embeddings import embed
from csvi.writing import replacing

MOST = 8192
"""Images whose embeddings the components are found on, evenly spaced over those that there are."""


@dataclass(frozen=True)
class Reduction:
    """Embeddings of D numbers to d, by principal component analysis, and to unit length."""

    mean: np.ndarray
    """(D,) float32, of the embeddings that it was found on."""
    components: np.ndarray
    """(d, D) float32, orthonormal rows; the first explain most of the variance."""

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Reduce embeddings, (n, D) to (n, d) float32 of unit length: compare them by Euclidean distance or cosine."""
        reduced = (embeddings - self.mean) @ self.components.T
        return reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)

    @classmethod
    def fit(cls, embeddings: np.ndarray, dimensions: int) -> "Reduction":
        """Find the components of embeddings, (n, D); raises `CsviError` if there are too few for so many."""
        from sklearn.decomposition import PCA

        images, longest = embeddings.shape
        if not 1 <= dimensions <= min(images - 1, longest):
            raise CsviError(
                f"cannot reduce embeddings to {dimensions} numbers: they have {longest}, and {images} training images "
                f"have at most {images - 1} principal components, so it must be from 1 to {min(images - 1, longest)}"
            )
        found = PCA(dimensions, svd_solver="covariance_eigh").fit(embeddings.astype(np.float64))
        return cls(*(np.ascontiguousarray(values, np.float32) for values in (found.mean_, found.components_)))

    @property
    def name(self) -> str:
        """Length of the embeddings, and 8 hexadecimal digits of the values: `pca768-0a1b2c3d`."""
        digest = hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()
        return f"pca{len(self.components)}-{digest[:8]}"

    def save(self, file: Path, fingerprint: str) -> None:
        """Write it to a file, as one of the network of this fingerprint; raises `CsviError` if it cannot be written."""
        tensors = {"mean": self.mean, "components": self.components}
        with replacing(file) as partial:
            partial.write_bytes(save(tensors, {"fingerprint": fingerprint}))

    @classmethod
    def load(cls, file: Path, fingerprint: str) -> "Reduction | None":
        """Read it from a file; None if there is none, it is damaged, or of another network."""
        try:
            with safe_open(file, "np") as opened:
                if (opened.metadata() or {}).get("fingerprint") != fingerprint:
                    return None
                found = cls(opened.get_tensor("mean"), opened.get_tensor("components"))
        except (OSError, SafetensorError):
            return None
        fits = found.components.ndim == 2 and found.mean.shape == found.components.shape[1:]
        return found if fits and found.mean.dtype == found.components.dtype == np.float32 else None


def reduction_of(folder: Path, dimensions: int, length: int, config: Config | None) -> Reduction:
    """Read the reduction that a folder holds, or find it on the images that the run was trained on, and keep it.

    Args:
        folder: of a run; or of a model alone that has the file.
        dimensions: d.
        length: D, of the embeddings that are reduced.
        config: settings of the run; None for a model alone, whose folder may be a stranger's.

    Raises:
        CsviError: d is more than D, or none; or the run is a model alone, its folder cannot be written, its training
            images are not there any more, or are too few.
    """
    if not 1 <= dimensions <= length:
        raise CsviError(f"--dimensions {dimensions}: embeddings of {folder} have {length} numbers, give 1 to {length}")
    file, fingerprint = folder / f"reduction-{dimensions}.safetensors", fingerprint_of(folder)
    kept = Reduction.load(file, fingerprint)
    if kept is not None and len(kept.components) == dimensions:
        return kept
    if config is None:
        raise CsviError(
            f"{folder} is a model alone: which images it was trained on is not known, and without them no reduction "
            "is found; give a run folder, or leave --dimensions away"
        )
    if not os.access(folder, os.W_OK):
        raise CsviError(f"cannot write to the run folder {folder}, in which {file.name} is kept: make it writable")
    run = Run.open(folder)
    images = TrainingSet(run.benchmark, run.data, masks=False)
    used = [index for index in range(len(images.records)) if index not in images.skipped]
    some = [used[i] for i in np.linspace(0, len(used) - 1, min(MOST, len(used))).round().astype(int)]
    batches = [some[i : i + EVALUATION_BATCH] for i in range(0, len(some), EVALUATION_BATCH)]
    loader = batch_loader(images.images, batches, workers=0, persistent=False)
    found = Reduction.fit(embed(run.net, loader, run.fabric).numpy(), dimensions)
    found.save(file, fingerprint)
    return found
