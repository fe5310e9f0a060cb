"""The training set: which images are used, which label each identity has, and the loader of batches."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader

from csvi.config import DataConfig
from csvi.data.batch import Batch
from csvi.data.cache import cached_images, cached_masks
from csvi.data.loader import AugmentedDataset, ImageDataset, batch_loader
from csvi.data.records import Benchmark, ImageRecord
from csvi.data.sampler import CrossModalitySampler, paired_images
from csvi.data.views import Views
from csvi.errors import CsviError


class TrainingSet:
    """The images of a benchmark to train on, decoded once, with masks or without; the only place that numbers classes.

    Attributes:
        records: all images of the identities to train on.
        skipped: index of a record -> why it is not used; empty unless `data.on_error` is skip.
        used: the other records.
        identities: the identities of which both modalities are used, in the order of their labels.
        labels: identity -> label.
        digest: of paths, identities and modalities of the used records, in their order.
        images: the images as they are, in batches: `images[[3, 5]]`; an identity that has no label is -1.

    Raises:
        CsviError: as `check_masks`, `cached_images` and `cached_masks` do.
    """

    def __init__(self, benchmark: Benchmark, data: DataConfig, masks: bool):
        self.data = data
        self.records = training_records(benchmark, data)
        skip = data.on_error == "skip"
        if masks:
            check_masks(benchmark, data)
        cached = benchmark.root, self.records, data.height, data.width, Path(data.cache), skip
        images = cached_images(*cached)
        masks_of = cached_masks(*cached) if masks else None
        bad = (masks_of.bad if masks_of else {}) | images.bad
        self.skipped = {index: bad[index] for index in sorted(bad)}
        self.used = [record for index, record in enumerate(self.records) if index not in self.skipped]
        self.identities = sorted(paired_images(self.records, self.skipped))
        self.labels = {identity: label for label, identity in enumerate(self.identities)}
        self.digest = _digest(self.used)
        self.images = ImageDataset(self.records, images, masks_of, self.labels)

    def loader(
        self, views: Views, seed: int, rank: int = 0, world_size: int = 1
    ) -> tuple[DataLoader[Batch], CrossModalitySampler]:
        """A loader of batches in these views, see `AugmentedDataset`, and its sampler, see `CrossModalitySampler`."""
        data = self.data
        sampler = CrossModalitySampler(self.records, data.identities, data.images, seed, rank, world_size, self.skipped)
        return batch_loader(AugmentedDataset(self.images, views), sampler, data.workers, persistent=True), sampler


def training_records(benchmark: Benchmark, data: DataConfig) -> list[ImageRecord]:
    """List the images of all identities to train on."""
    return [*benchmark.train, *(benchmark.val if data.train_on == "train+val" else [])]


def check_masks(benchmark: Benchmark, data: DataConfig) -> None:
    """Raises `CsviError` if training images lack masks; if `data.on_error` is skip, a few may, but not all."""
    records = training_records(benchmark, data)
    missing = sum(record.mask is None for record in records)
    if missing and (data.on_error == "stop" or missing == len(records)):
        raise CsviError(
            f"{missing} of {len(records)} training images have no mask, which the method learns from: "
            "give their folder with --data.masks, or train with --method baseline"
        )


def _digest(records: Sequence[ImageRecord]) -> str:
    lines = [f"{record.path}\t{record.identity}\t{int(record.modality)}\n" for record in records]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
