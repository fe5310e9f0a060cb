"""Records to batches: one flat dictionary of tensors each."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from csvi.config import DataConfig
from csvi.data.cache import ImageCache, cached_images
from csvi.data.records import ImageRecord
from csvi.data.sampler import CrossModalitySampler, Draw
from csvi.data.transforms import TrainingTransform, Transform, evaluation_transform

EVALUATION_BATCH = 64


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Items of `image` (3, H, W), `modality` (), `identity` () and, where the cache has masks, `mask` (1, H, W).

    Args:
        records: the images.
        cache: their pixels, in the same order.
        labels: dataset's identity -> label; by default the dataset's own number.
        transform: see `csvi.data.transforms`.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        cache: ImageCache,
        labels: Mapping[int, int] | None = None,
        transform: Transform = evaluation_transform,
    ):
        self.records, self.cache, self.labels, self.transform = records, cache, labels, transform

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: int | Draw) -> dict[str, Tensor]:
        if isinstance(draw, Draw):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw.seed)
                return self._item(draw.image)
        return self._item(draw)

    def _item(self, index: int) -> dict[str, Tensor]:
        record, masks = self.records[index], self.cache.masks
        image = torch.from_numpy(self.cache.images[index].copy()).permute(2, 0, 1)
        mask = None if masks is None else torch.from_numpy(masks[index].copy())[None]
        image, mask = self.transform(image, mask, record.modality)
        identity = record.identity if self.labels is None else self.labels[record.identity]
        item = {"image": image, "modality": torch.tensor(int(record.modality)), "identity": torch.tensor(identity)}
        return item if mask is None else item | {"mask": mask}


def training_loader(
    root: Path, records: Sequence[ImageRecord], config: DataConfig, seed: int, rank: int = 0, world_size: int = 1
) -> tuple[DataLoader[dict[str, Tensor]], CrossModalitySampler, list[int]]:
    """Endless supply of training batches, epoch by epoch.

    Returns:
        The loader; its sampler, whose `start` says which epoch and step come next; and the identities in the order
        of their labels. Batches hold `image` (B, 3, H, W), `modality`, `identity` (B,) and, with masks for all
        images, `mask` (B, 1, H, W); visible images first, then infrared.
    """
    sampler = CrossModalitySampler(records, config.identities, config.images, seed, rank, world_size)
    identities = sorted({records[i].identity for both in sampler.members for i in both[0]})
    cache = cached_images(root, records, config.height, config.width, Path(config.cache))
    labels = {identity: label for label, identity in enumerate(identities)}
    dataset = ImageDataset(records, cache, labels, TrainingTransform(config))
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, sampler, identities


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the main one decides what it means, and may want this batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def evaluation_loader(
    root: Path, records: Sequence[ImageRecord], config: DataConfig, batches: Sequence[Sequence[int]] | None = None
) -> DataLoader[dict[str, Tensor]]:
    """Images without augmentation: these batches of indices, or by default all in the order of the records."""
    cache = cached_images(root, records, config.height, config.width, Path(config.cache))
    order = range(len(records))
    return DataLoader(
        ImageDataset(records, cache),
        batch_sampler=batches or [order[i : i + EVALUATION_BATCH] for i in order[::EVALUATION_BATCH]],  # type: ignore[arg-type]
        num_workers=config.workers,
        worker_init_fn=_leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )
