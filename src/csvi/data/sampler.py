"""Identity-balanced cross-modality batches (Section 4.2)."""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError

log = logging.getLogger(__name__)


class Draw(NamedTuple):
    """One image of a batch, and the seed of its augmentation."""

    image: int
    seed: int


class CrossModalitySampler(Sampler[list[Draw]]):
    """Batches of N identities x (K visible + K infrared) images, the visible ones first, each grouped by identity.

    An epoch has as many batches as it takes to draw the larger modality once; every identity comes up equally often.
    An identity with fewer than K images of a modality repeats some; one without a modality is left out and the log
    says how many. Batches depend on the seed and the epoch alone, so that a run can go on from any step.

    Args:
        records: the images to train on.
        identities: N.
        images: K.
        seed: fixes every batch and every augmentation.
        rank, world_size: this process draws every world_size-th batch, from the rank-th on.
        skipped: numbers of records that are never drawn, and why.

    Raises:
        CsviError: fewer than N identities have both modalities.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        identities: int = 8,
        images: int = 4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped: Mapping[int, str] | None = None,
    ):
        self.skipped = dict(skipped or {})
        self.identities, self.images, self.seed, self.rank, self.world_size = identities, images, seed, rank, world_size
        members: dict[int, tuple[list[int], list[int]]] = {}
        for index, record in enumerate(records):
            if index in self.skipped:
                continue
            members.setdefault(record.identity, ([], []))[record.modality].append(index)
        self.members = [both for both in members.values() if all(both)]
        left_out = len(members) - len(self.members)
        if left_out:
            log.warning("%d of %d identities have images of one modality only and are left out", left_out, len(members))
        if len(self.members) < identities:
            raise CsviError(
                f"a batch needs {identities} identities with visible and infrared images and there are "
                f"{len(self.members)}: lower --data.identities or add data"
            )
        larger = max(sum(len(both[modality]) for both in self.members) for modality in Modality)
        self.batches = math.ceil(larger / (identities * images * world_size))
        self.start(epoch=0)

    def start(self, epoch: int, step: int = 0) -> None:
        """What to draw next: this epoch, from this step on."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return max(self.batches - self.step, 0)

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.step
        for number, batch in enumerate(self._all_batches(self.epoch)):
            step, rank = divmod(number, self.world_size)
            if rank == self.rank and step >= first:
                yield batch

    def images_of(self, epoch: int, step: int) -> list[int]:
        """Indices of the images that a step draws or drew, in the batches of all processes together."""
        first = step * self.world_size
        batches = itertools.islice(self._all_batches(epoch), first, first + self.world_size)
        return [draw.image for batch in batches for draw in batch]

    def _all_batches(self, epoch: int) -> Iterator[list[Draw]]:
        """Of all processes in turn."""
        rng = np.random.default_rng((self.seed, epoch))
        for _, chosen in zip(range(self.batches * self.world_size), self._identities(rng), strict=False):
            drawn = [self._draw(self.members[n][m], rng) for m in Modality for n in chosen]
            seeds = iter(rng.integers(2**63, size=2 * self.identities * self.images).tolist())
            yield [Draw(index, next(seeds)) for indices in drawn for index in indices]

    def _identities(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """N different identities after another, all of them once before any comes again."""
        waiting = np.empty(0, int)  # left of the last permutation, fewer than N
        while True:
            order = rng.permutation(len(self.members))
            again = np.isin(order, waiting)
            waiting = np.concatenate([waiting, order[~again], order[again]])  # so that the next N still differ
            while len(waiting) >= self.identities:
                yield waiting[: self.identities]
                waiting = waiting[self.identities :]

    def _draw(self, indices: list[int], rng: np.random.Generator) -> list[int]:
        """K of these images, none twice before all came once."""
        rounds = math.ceil(self.images / len(indices))
        return np.concatenate([rng.permutation(indices) for _ in range(rounds)])[: self.images].tolist()
