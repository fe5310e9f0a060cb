"""Images to embeddings."""

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.data.batch import Batch, prepare
from csvi.fabric import keep_freed_memory
from csvi.model.folding import folded
from csvi.model.net import EmbeddingNet
from csvi.progress import progress


def embed(net: EmbeddingNet, batches: Iterable[Batch], fabric: Fabric, flip: bool = False) -> Tensor:
    """Embed all images, in the order of the batches.

    Every image goes through the stream of its own modality, whichever images stand beside it.

    Args:
        net: on the device of `fabric`; left in evaluation mode.
        batches: as a loader gives them.
        fabric: device and precision.
        flip: average the embedding of each image with that of its mirror image, as the network does it.

    Returns:
        (n, D) float32 on the CPU.
    """
    net.eval()
    lean = folded(net)
    keep_freed_memory(fabric.device)
    embeddings: list[Tensor] = []
    with torch.inference_mode(), fabric.autocast():
        for batch in progress(batches, "Embedding"):
            batch = prepare(batch, fabric.device)
            route = batch.route or batch.modality
            embedding = lean(batch.image, route).float()
            if flip:
                embedding = lean.average([embedding, lean(batch.image.flip(3), route).float()])
            embeddings.append(embedding)  # on the device, which waits for nobody until it has done them all
    return torch.cat(embeddings).cpu()
