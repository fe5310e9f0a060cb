"""Identity-balanced cross-modality batches (Section 4.2)."""

import itertools
import logging
import math
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from csvi.data.records import ImageRecord, Modality, paired_images
from csvi.errors import CsviError

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One image of a batch, and all that its augmentation follows from."""

    image: int
    """Index of its record."""
    seed: int
    """Seed of its augmentation."""
    epoch: int = 0
    """Epoch in which it is drawn, counted from 0."""


class CrossModalitySampler(Sampler[list[Sample]]):
    """Batches of N identities x (K visible + K infrared) images, the visible ones first, each grouped by identity.

    An epoch has as many batches as it takes to draw the larger modality once; every identity is drawn equally often.
    An identity with fewer than K images of a modality repeats some of them; an identity without images of one modality
    is never drawn, and the log counts these. Batches depend on the seed and the epoch alone, so that a run can be
    resumed at any step.

    With `replacement` it draws as the public code of AGW does (Ye et al., TPAMI 2021), from which CAJ, DDAG, HcTri and
    DEEN have their sampler: N different identities uniformly, whatever other batches have drawn; of each of them K
    images a modality uniformly with replacement; and one batch more than fit into the larger modality.

    Args:
        records: the images to train on, without the numbers that are `skipped`.
        identities, images: N and K.
        seed: fixes every batch and every augmentation.
        rank, world_size: a step draws world_size * N different identities, as one process with as many would, and this
            process gets all images of its N of them.
        replacement: draw as described above.

    Attributes:
        members: the visible and the infrared images of each identity that is drawn.
        batches: steps of a whole epoch.

    Raises:
        CsviError: fewer identities have both modalities than a step draws.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        identities: int = 8,
        images: int = 4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped: Container[int] = (),
        replacement: bool = False,
    ):
        self.identities, self.images, self.seed, self.rank, self.world_size = identities, images, seed, rank, world_size
        self.replacement = replacement
        self.members = list(paired_images(records, skipped).values())
        seen = {record.identity for index, record in enumerate(records) if index not in skipped}
        left_out = len(seen) - len(self.members)
        if left_out:
            log.warning("%d of %d identities have images of one modality only and are left out", left_out, len(seen))
        self.drawn = identities * world_size  # identities of a step
        if len(self.members) < self.drawn:
            of = "" if world_size == 1 else f" of {world_size} processes"
            raise CsviError(
                f"a batch{of} needs {self.drawn} identities with visible and infrared images and there are "
                f"{len(self.members)}: lower --data.identities (--train.global_identities, where it is set) or add data"
            )
        larger = max(sum(len(both[modality]) for both in self.members) for modality in Modality)
        step = self.drawn * images  # images of a modality
        self.batches = larger // step + 1 if replacement else math.ceil(larger / step)
        self.start(epoch=0)

    def start(self, epoch: int, step: int = 0) -> None:
        """Set what is drawn next: this epoch, beginning with this step."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return max(self.batches - self.step, 0)

    def __iter__(self) -> Iterator[list[Sample]]:
        own = self.identities * self.images  # images of a modality
        begins = (self.rank * own, (self.world_size + self.rank) * own)
        for batch in itertools.islice(self._all_batches(self.epoch), self.step, None):
            yield [sample for begin in begins for sample in batch[begin : begin + own]]

    def images_of(self, epoch: int, step: int) -> list[int]:
        """Indices of the images that a step draws, in the batches of all processes together."""
        return [sample.image for sample in next(itertools.islice(self._all_batches(epoch), step, None))]

    def _all_batches(self, epoch: int) -> Iterator[list[Sample]]:
        """Batches of an epoch, each of all processes together."""
        rng = np.random.default_rng((self.seed, epoch))
        for _, chosen in zip(range(self.batches), self._identities(rng), strict=False):
            drawn = [self._choose(self.members[n][m], rng) for m in Modality for n in chosen]
            seeds = iter(rng.integers(2**63, size=2 * self.drawn * self.images).tolist())
            yield [Sample(index, next(seeds), epoch) for indices in drawn for index in indices]

    def _identities(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The identities of a step, all different; without replacement all are drawn once before any is drawn again."""
        while self.replacement:
            yield rng.choice(len(self.members), self.drawn, replace=False)
        waiting = np.empty(0, int)  # rest of the last permutation, fewer than a step draws
        while True:
            order = rng.permutation(len(self.members))
            again = np.isin(order, waiting)
            waiting = np.concatenate([waiting, order[~again], order[again]])  # so that the next ones still differ
            while len(waiting) >= self.drawn:
                yield waiting[: self.drawn]
                waiting = waiting[self.drawn :]

    def _choose(self, indices: list[int], rng: np.random.Generator) -> list[int]:
        """Choose K of these images; without replacement none is chosen twice before all are chosen once."""
        if self.replacement:
            return [indices[i] for i in rng.integers(len(indices), size=self.images)]
        rounds = math.ceil(self.images / len(indices))
        return np.concatenate([rng.permutation(indices) for _ in range(rounds)])[: self.images].tolist()
