"""Embedding in PyTorch: a run, or a model alone."""

import numpy as np
import torch

from csvi.data.batch import Batch, prepare
from csvi.data.records import Modality
from csvi.export.reduction import Reduction, reduction_of
from csvi.fabric import choose_precision, keep_freed_memory, make_fabric
from csvi.methods import code_of
from csvi.model.folding import folded
from csvi.model.weights import model_file
from csvi.paths import digest_of
from csvi.runs.trained import Trained
from csvi.search.embedder import Embedder


class TorchEmbedder(Embedder):
    """The network of a run folder, of a model's folder or of the Hub, in the precision that `csvi evaluate` takes.

    Args:
        model: as `csvi.runs.load_net` takes it.
        dimensions: reduce embeddings to so many numbers.

    Attributes:
        net: the network, on the device.
        fabric: device and precision.

    Raises:
        CsviError: there is no such model, or it is damaged, or cannot be reduced.
    """

    def __init__(self, model: str, dimensions: int | None = None):
        trained = Trained.open(model)
        config, net = trained.config, trained.net
        digest = digest_of(model_file(trained.folder)) + code_of(net.method)
        super().__init__(trained.name, trained.fingerprint, digest, 0, trained.data)
        self.fabric = make_fabric(choose_precision(config.precision if config else "auto"))
        self.net = net.to(self.fabric.device).to(memory_format=torch.channels_last)
        self._lean = folded(self.net)
        self._reduction: Reduction | None = None
        blank = np.zeros((1, self.height, self.width, 3), np.uint8)
        self.dim = self.embed_pixels(blank, Modality.VISIBLE).shape[1]
        if dimensions is not None:
            self._reduction = reduction_of(trained.folder, dimensions, self.dim, config)
            self.dim = dimensions
            self.fingerprint, self.digest = (f"{of}-{self._reduction.name}" for of in (self.fingerprint, self.digest))

    def embed_pixels(self, images: np.ndarray, modality: Modality) -> np.ndarray:
        """Embed images, see `Embedder`; raises RuntimeError of PyTorch if memory does not suffice."""
        keep_freed_memory(self.fabric.device)
        with torch.inference_mode(), self.fabric.autocast():
            batch = prepare(Batch.of(images, modality), self.fabric.device)
            embeddings = self._lean(batch.image, batch.streams).float().cpu().numpy()
        return embeddings if self._reduction is None else self._reduction(embeddings)
