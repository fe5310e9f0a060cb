"""Images to embeddings."""

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from csvi.fabric import keep_freed_memory, on_device
from csvi.model import VIReIDNet
from csvi.model.folding import folded
from csvi.progress import progress


def embed(net: VIReIDNet, batches: Iterable[dict[str, Tensor]], fabric: Fabric, flip: bool = False) -> Tensor:
    """Embeddings of all images, in the order of the batches, float32 on the CPU: (n, P * C2).

    Every image goes through the stream of its own modality, whichever images stand beside it.

    Args:
        net: on the device of `fabric`; left in evaluation mode.
        batches: each with `image` (B, 3, H, W) and `modality` (B,).
        fabric: device and precision.
        flip: average the embedding of each image with that of its mirror image, part by part.
    """
    net.eval()
    lean = folded(net)
    keep_freed_memory(fabric.device)
    embeddings: list[Tensor] = []
    with torch.inference_mode(), fabric.autocast():
        for batch in progress(batches, "Embedding"):
            batch = on_device(batch, fabric)
            embedding = lean(batch["image"], batch["route"]).float()
            if flip:
                both = embedding + lean(batch["image"].flip(3), batch["route"]).float()
                embedding = F.normalize(both.unflatten(1, (net.part_module.parts, -1)), dim=2).flatten(1)
            embeddings.append(embedding)  # on the device, which waits for nobody until it has done them all
    return torch.cat(embeddings).cpu()
