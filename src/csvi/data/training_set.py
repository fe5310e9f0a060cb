"""The training set: which images are used, which label each identity has, and the loader of batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence

from torch.utils.data import DataLoader

from csvi.config import DataConfig
from csvi.data.batch import Batch
from csvi.data.cache import EMPTY, CachedPixels, cached_images, cached_masks
from csvi.data.files import masks_folder, why_no_mask
from csvi.data.loader import AugmentedDataset, ImageDataset, batch_loader
from csvi.data.masks import WRITE
from csvi.data.records import DISTRACTOR, Benchmark, ImageRecord, Modality, paired_images
from csvi.data.sampler import CrossModalitySampler
from csvi.data.views import Views
from csvi.errors import CsviError
from csvi.paths import as_argument

log = logging.getLogger(__name__)


class TrainingSet:
    """The images of a benchmark to train on, decoded once, with masks or without; the only place that numbers classes.

    Attributes:
        records: all images of the identities to train on.
        skipped: index of a record -> why it is not used; empty unless `data.on_error` is skip.
        without_mask: index of a used record -> why it has no mask; empty unless `data.without_mask` is train.
        used: the other records.
        identities: the identities of which both modalities are used, in the order of their labels.
        labels: identity -> label.
        digest: of paths, identities and modalities of the used records, in their order.
        images: the images as they are, in batches: `images[[3, 5]]`; an identity that has no label is -1.

    Raises:
        CsviError: as `check_masks`, `cached_images` and `cached_masks` do; or no image has a usable mask.
    """

    def __init__(self, benchmark: Benchmark, data: DataConfig, masks: bool):
        self.data = data
        self.records = training_records(benchmark, data)
        skip, without = data.on_error == "skip", data.without_mask == "train"
        if masks:
            check_masks(benchmark, data)
        cached = benchmark.root, self.records, data
        images = cached_images(*cached, skip)
        masks_of = cached_masks(*cached, skip or without) if masks else None
        no_mask = masks_of.bad if masks_of else {}
        if masks_of:
            _check_people(self.records, masks_of)
        bad = images.bad if without else no_mask | images.bad
        self.skipped = {index: bad[index] for index in sorted(bad)}
        self.without_mask = {index: why for index, why in no_mask.items() if index not in self.skipped}
        if self.without_mask:
            _check_masked(self.records, no_mask)
        self.used = [record for index, record in enumerate(self.records) if index not in self.skipped]
        self.identities = sorted(paired_images(self.records, self.skipped))
        self.labels = {identity: label for label, identity in enumerate(self.identities)}
        self.digest = digest_of(self.used)
        self.images = ImageDataset(self.records, images, masks_of, self.labels, self.without_mask)

    def loader(
        self, views: Views, seed: int, rank: int = 0, world_size: int = 1
    ) -> tuple[DataLoader[Batch], CrossModalitySampler]:
        """A loader of batches in these views, see `AugmentedDataset`, and its sampler, see `CrossModalitySampler`."""
        data = self.data
        sampler = CrossModalitySampler(
            self.records, data.identities, data.images, seed, rank, world_size, self.skipped, data.replacement
        )
        return batch_loader(AugmentedDataset(self.images, views), sampler, data.workers, persistent=True), sampler


def training_records(benchmark: Benchmark, data: DataConfig) -> list[ImageRecord]:
    """List the images of all identities to train on; distractors are none."""
    records = [*benchmark.train, *(benchmark.val if data.train_on == "train+val" else [])]
    return [record for record in records if record.identity != DISTRACTOR]


def check_masks(benchmark: Benchmark, data: DataConfig) -> None:
    """Raises `CsviError` if training images lack masks; where these are skipped or train without, some may, not all."""
    records = training_records(benchmark, data)
    missing = [record for record in records if record.mask is None]
    all_missing = len(missing) == len(records)
    if missing and (all_missing or (data.on_error == "stop" and data.without_mask == "error")):
        folder = masks_folder(benchmark.root, data.masks)
        instead = why_no_mask(benchmark.root, folder, missing[0].path, any_name=all_missing)
        found = f" ({instead} in {folder})" if instead else ""
        without = "" if all_missing else "--data.without_mask train takes these images without the mask loss, "
        raise CsviError(
            f"{len(missing):,} of {len(records):,} training images have no mask, which the method learns from{found}: "
            f"csvi masks {as_argument(benchmark.root)} --out MASKS makes them, --data.masks MASKS names their folder, "
            f"{without}and --method baseline needs none"
        )


def _check_masked(records: Sequence[ImageRecord], without: Mapping[int, str]) -> None:
    """Warn of a modality without any mask; raises `CsviError` if there is none at all."""
    modalities = {record.modality for index, record in enumerate(records) if index not in without}
    why = next(iter(without.values()))
    if not modalities:
        raise CsviError(f"no training image has a usable mask, which the method learns from: {why}")
    for modality in set(Modality) - modalities:
        name = modality.word
        log.warning(
            "no %s image has a usable mask, so that only masks of the other modality are learned: %s", name, why
        )


def _check_people(records: Sequence[ImageRecord], masks: CachedPixels) -> None:
    """Warn of masks that mark no person; raises `CsviError` if all of a modality are such."""
    empty = set(masks.marked(EMPTY))
    for modality in Modality:
        read = [i for i, record in enumerate(records) if record.modality == modality and i not in masks.bad]
        nobody = [i for i in read if i in empty]
        if not nobody:
            continue
        name, example = modality.word, records[nobody[0]].mask
        if len(nobody) == len(read):
            raise CsviError(f"no {name} mask marks a person, such as {example}: {WRITE}")
        log.warning("%d of %d %s masks mark no person, such as %s", len(nobody), len(read), name, example)


def digest_of(records: Sequence[ImageRecord]) -> str:
    """Digest the paths, identities and modalities of records, in their order."""
    lines = [f"{record.path}\t{record.identity}\t{int(record.modality)}\n" for record in records]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
