"""The person masks that a run's auxiliary predicts, and how good they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.config import Config
from csvi.data import ImageRecord, Modality
from csvi.data.cache import cached_masks
from csvi.data.loader import evaluation_loader
from csvi.evaluate.masks import best_constant_mask, full_size, mask_iou
from csvi.fabric import on_device
from csvi.model import TrainingNetwork
from csvi.progress import progress


@dataclass(frozen=True)
class MaskResult:
    """Predicted masks against the true ones, for the images of one modality; means of the intersection over union."""

    images: int
    iou: float
    constant_iou: float
    """Of the best mask that is the same for all these images."""


def predict_masks(
    network: TrainingNetwork, root: Path, records: Sequence[ImageRecord], config: Config, fabric: Fabric
) -> Tensor | None:
    """Probability of person, (n, 1, H/4, W/4) float16, in the order of the records; None if the auxiliary has no masks.

    Co-segmentation looks at all images of an identity together, so that each batch is one identity.

    Args:
        network: on the device of `fabric`; left in evaluation mode.
        root, records: the images.
        config: of the run.
        fabric: device and precision.
    """
    assert network.auxiliary is not None
    by_identity: dict[int, list[int]] = {}
    for i, record in enumerate(records):
        by_identity.setdefault(record.identity, []).append(i)
    batches = list(by_identity.values())
    loader = evaluation_loader(root, records, config.data, batches)
    network.eval()
    masks = []
    with torch.inference_mode(), fabric.autocast():
        for batch in progress(loader, "Predicting masks"):
            batch = on_device(batch, fabric)
            features = network.net.features(batch["image"], batch["route"])
            predicted = network.auxiliary.predict_masks(features, batch["identity"], batch["modality"])
            if predicted is None:
                return None
            masks.append(predicted.half().cpu())
    back = torch.tensor([i for batch in batches for i in batch]).argsort()
    return torch.cat(masks)[back]


def compare_masks(
    predicted: Tensor, root: Path, records: Sequence[ImageRecord], config: Config
) -> dict[str, MaskResult]:
    """Predicted masks against the true ones, at the size of the images, for each modality.

    Args:
        predicted: (n, 1, h, w), probability of person.
        root, records: the images, all with a mask.
    """
    size = (config.data.height, config.data.width)
    masks = cached_masks(root, records, *size, Path(config.data.cache))
    results = {}
    for modality in Modality:
        index = [i for i, record in enumerate(records) if record.modality == modality]
        true = torch.from_numpy(np.stack([masks[i] > 127 for i in index]))
        iou = torch.cat(
            [
                mask_iou(full_size(p, *size) > 0.5, t)
                for p, t in zip(predicted[index].split(256), true.split(256), strict=True)
            ]
        )
        _, constant = best_constant_mask(true)
        results[modality.name.lower()] = MaskResult(len(index), float(iou.mean()), constant)
    return results
