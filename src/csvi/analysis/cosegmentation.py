"""Figure 4: person masks when the images given to the co-segmentation show one identity, and when they show two.

Co-segmentation makes one set of channel weights for all images that it is told are of one identity (Eq. 10-13). If
these weights pick out what is particular to that identity, then many images of one person among which a few of another
are mixed should keep the masks of the first and spoil those of the second. One pair of people cannot show that; the
figure is one pair drawn at random, the numbers are means over many.

By default masks are of any person. A run with the paper's channels, one for each training identity (`mask_channels`
identity), is asked for an identity: pairs are then of training people, alone each in the channel of its own identity,
and mixed both in that of the first, whose images are the more.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from csvi.analysis.canvas import STYLE, outline, place, show, write
from csvi.analysis.images import (
    both_modalities,
    has_channels_of_identities,
    images_with_person,
    predict_sets,
    training_images_with_person,
    true_masks,
)
from csvi.data import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.intervals import paired_difference
from csvi.evaluate.mask_iou import best_constant_mask, mask_iou
from csvi.plain_table import plain_table
from csvi.progress import progress
from csvi.runs import Run

MANY, FEW = 10, 2
"""Images of each modality that the first and the second identity of a pair bring; fewer where there are fewer."""


@dataclass(frozen=True)
class Role:
    """The images of the first, or of the second, identity of all pairs: means over pairs of their mean mask IoU."""

    images: float
    """Images of a pair, both modalities together."""
    alone: float
    """Mask IoU where they are given without the other identity."""
    mixed: float
    """Mask IoU where they are given with the other identity, as if all were one."""
    change: float
    """Mixed less alone."""
    low: float
    high: float
    """95 % interval of the change, by resampling pairs."""
    constant: float
    """Mask IoU of the best mask that is the same for all these images."""


@dataclass(frozen=True)
class Cosegmentation:
    """Figure 4 in numbers, for one run."""

    run: str
    method: str
    pairs: int
    by_identity: bool
    """Whether masks are those of the channel of the identity asked for, and people those of training."""
    first: Role
    second: Role


@dataclass(frozen=True)
class Pair:
    """Two identities; visible images come before infrared ones."""

    first: list[ImageRecord]
    second: list[ImageRecord]

    @property
    def sets(self) -> list[range]:
        """The first alone, the second alone and both mixed, as indices into all images of the pair."""
        both = range(len(self.first) + len(self.second))
        return [both[: len(self.first)], both[len(self.first) :], both]


def cosegmentation(run: Run, pairs: int = 50, seed: int = 0, many: int = MANY, few: int = FEW) -> Cosegmentation:
    """Measure mask IoU, at threshold 0.5 and the size of the images, of pairs of identities given alone and mixed.

    A method that looks at each image by itself (`decode`, `segment`) finds the same mixed as alone. For the arguments
    see `draw_pairs`.

    Raises:
        CsviError: the run predicts no masks, or the test images have none or are too few.
    """
    drawn = draw_pairs(run, pairs, seed, many, few)
    iou = np.zeros((pairs, 4))  # first alone, first mixed, second alone, second mixed
    seen: tuple[list[Tensor], list[Tensor]] = [], []
    for row, pair in zip(iou, progress(drawn, "Mixing identities"), strict=True):
        true, alone, mixed = _masks(run, pair)
        of_alone, of_mixed, n = mask_iou(alone > 0.5, true), mask_iou(mixed > 0.5, true), len(pair.first)
        row[:] = of_alone[:n].mean(), of_mixed[:n].mean(), of_alone[n:].mean(), of_mixed[n:].mean()
        seen[0].append(true[:n])
        seen[1].append(true[n:])
    one = np.ones(pairs, dtype=np.int64)
    alone_mixed = iou[:, [0, 2]], iou[:, [1, 3]]
    means = [of.mean(0) for of in alone_mixed]
    images = [sum(map(len, true)) / pairs for true in seen]
    constant = [best_constant_mask(torch.cat(true))[1] for true in seen]
    numbers = np.stack([images, *means, *paired_difference(alone_mixed, (one, one)), constant])  # (7, 2)
    first, second = (Role(*of_identity) for of_identity in numbers.T.tolist())
    return Cosegmentation(run.name, run.net.method, pairs, has_channels_of_identities(run), first, second)


def cosegmentation_table(results: Sequence[Cosegmentation]) -> Table:
    """Make two rows a run: the identity of many images and the one of few."""
    table = plain_table(
        Column("masks (IoU)", overflow="fold"), "alone", "mixed", "change", "95 % interval", "constant", "images"
    )
    for result in results:
        for name, role in (("first", result.first), ("second", result.second)):
            table.add_row(
                f"{result.run}, {name}" if len(results) > 1 else f"{name} identity",
                f"{role.alone:.3f}",
                f"{role.mixed:.3f}",
                f"{role.change:+.3f}",
                f"{role.low:+.3f} {role.high:+.3f}",
                f"{role.constant:.3f}",
                f"{role.images:.0f}",
            )
    return table


def cosegmentation_figure(run: Run, seed: int = 0, shown: int = 2, many: int = MANY, few: int = FEW) -> Figure:
    """Draw Figure 4 for the first of the pairs that `cosegmentation` draws with the same seed, whatever came out.

    Rows: image, true mask, mask predicted alone, mask predicted mixed (probability of person, outlined at 0.5, with
    its IoU). Columns: visible and infrared images of (a) the identity of many images and (b) the one of few.

    Args:
        shown: images of each modality and identity that are drawn; all are given to the network.

    Raises:
        CsviError: as `cosegmentation`.
    """
    (pair,) = draw_pairs(run, 1, seed, many, few)
    records = [*pair.first, *pair.second]
    true, alone, mixed = _masks(run, pair)
    iou = {"alone": mask_iou(alone > 0.5, true), "mixed": mask_iou(mixed > 0.5, true)}

    columns = [[[i for i in part if records[i].modality == m][:shown] for m in Modality] for part in pair.sets[:2]]
    height, width = true.shape[1:]
    cell = (0.72, 0.72 * height / width)
    left, group_gap, modality_gap, below, above = 1.0, 0.3, 0.06, 0.16, 0.62
    shown_images = sum(len(of_modality) for part in columns for of_modality in part)
    size = (
        left + shown_images * (cell[0] + 0.03) + group_gap + 2 * modality_gap + 0.05,
        above + 2 * (cell[1] + 0.03) + 2 * (cell[1] + below) + 0.46,
    )
    tops = np.cumsum([above, cell[1] + 0.03, cell[1] + 0.03, cell[1] + below])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        for top, text in zip(
            tops, ("image", "true mask", "predicted,\ngiven alone", "predicted,\na, b mixed"), strict=True
        ):
            write(figure, left - 0.1, top + cell[1] / 2, text, ha="right", va="center", fontsize=9)
        x = left
        for letter, part, by_modality in zip("ab", pair.sets, columns, strict=False):
            start = x
            for modality, indices in zip(Modality, by_modality, strict=True):
                middle = x + len(indices) * (cell[0] + 0.03) / 2
                write(figure, middle, above - 0.08, modality.word, ha="center", va="bottom", fontsize=8)
                for i in indices:
                    image = run.image(records[i])
                    rows = (image, *(masks[i].numpy() for masks in (true, alone, mixed)))
                    for row, pixels in enumerate(rows):
                        axes = place(figure, x, float(tops[row]), *cell)
                        show(axes, pixels)
                        if row >= 2:
                            outline(axes, pixels)
                            text = f"{iou['alone' if row == 2 else 'mixed'][i]:.2f}"
                            write(figure, x + cell[0] / 2, tops[row] + cell[1] + 0.01, text, ha="center", va="top")
                    x += cell[0] + 0.03
                x += modality_gap
            counts = " + ".join(str(sum(records[i].modality == m for i in part)) for m in Modality)
            of_part = {name: float(values[list(part)].mean()) for name, values in iou.items()}
            title = f"({letter}) {counts} images of identity {run.benchmark.name_of(records[part[0]].identity)}"
            write(figure, (start + x - modality_gap) / 2, 0.05, title, ha="center", va="top", fontsize=10)
            means = f"mean IoU: alone {of_part['alone']:.2f}, mixed {of_part['mixed']:.2f}"
            write(figure, (start + x - modality_gap) / 2, 0.22, means, ha="center", va="top", fontsize=8.5)
            x += group_gap - modality_gap
        person = "the training person asked for (mixed: a)" if has_channels_of_identities(run) else "a person"
        note = f"{run.name}: the line is 0.5, numbers are IoU,\ngrey is the probability of {person}"
        write(figure, left, size[1] - 0.06, note, ha="left", va="bottom", fontsize=8, color="0.35")
    return figure


def draw_pairs(run: Run, pairs: int, seed: int, many: int = MANY, few: int = FEW) -> list[Pair]:
    """Draw pairs of test identities and some of their images; with the same seed, fewer pairs are the first of more.

    They are training identities if masks have channels of these. Images whose true mask shows nobody are left out.

    Args:
        run: of whose dataset.
        pairs: ordered pairs of identities, drawn with replacement.
        seed: of the identities and of their images.
        many, few: images of each modality of the first and of the second identity.

    Raises:
        CsviError: as `images_with_person`; or there are no two identities with images in both modalities, one of them
            with more than `few`.
    """
    training = has_channels_of_identities(run)
    records = training_images_with_person(run) if training else images_with_person(run)
    members = both_modalities(records)
    rich = [identity for identity, both in members.items() if min(map(len, both)) > few]
    if not rich or len(members) < 2:
        raise CsviError(
            f"the {'training' if training else 'test'} images of {run.benchmark.root} have no pair of identities with "
            f"both modalities, one of them with more than {few} images of each"
        )
    chosen = random.Random(seed)

    def some(identity: int, count: int) -> list[ImageRecord]:
        both = members[identity]
        return [records[i] for images in both for i in chosen.sample(images, min(count, len(images)))]

    drawn = []
    for _ in range(pairs):
        first = chosen.choice(rich)
        second = chosen.choice([identity for identity in members if identity != first])
        drawn.append(Pair(some(first, many), some(second, few)))
    return drawn


def _masks(run: Run, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """True masks (n, H, W) of the images of a pair, and those predicted alone and mixed, in [0, 1]."""
    records, asked = [*pair.first, *pair.second], None
    if has_channels_of_identities(run):
        one, other = (run.training_set.labels[images[0].identity] for images in (pair.first, pair.second))
        asked = [one, other, one]
    first, second, mixed = predict_sets(run, records, pair.sets, asked)
    return true_masks(run, records), torch.cat([first, second]), mixed
