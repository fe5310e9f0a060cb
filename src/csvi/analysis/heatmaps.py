"""Figure 6: where in the image the features of several runs are, and the masks.

The last block's features F_s (Eq. 2) of an image are a vector in each of their cells. A heatmap shows its length:
the L2 norm over channels, min-max normalised in each image by itself, so that heatmaps tell where the activation of an
image is and not how strong it is. What that looks like in a few images, `person_shares` measures over many.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import matplotlib
import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor
from torch.nn import functional as F

from csvi.analysis.canvas import STYLE, in_lines, outline, place, show, write
from csvi.analysis.images import (
    both_modalities,
    images_with_person,
    predict_sets,
    predicts_masks,
    same_test_images,
    true_masks,
)
from csvi.data import ImageRecord, Modality
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.losses import mask_target
from csvi.model.mask_decoder import full_size
from csvi.model.net import FeatureNet
from csvi.plain_table import plain_table
from csvi.progress import progress
from csvi.runs import Run

BATCH = 32
OUR_MODEL = "coseg"
"""The method that the paper calls "our proposed model", whose masks its Figure 6f has."""
TOGETHER = 10
"""Images of each modality that a mask is predicted with, all of one identity; fewer where there are fewer."""


@dataclass(frozen=True)
class Inside:
    """The place of the activation in the images of one modality; means over them."""

    person: float
    """Share of the activation energy F_s² inside the person."""
    other: float
    """Share of it inside the person of another image: as much comes of activation in the middle of every image, without
    following the person in it."""
    area: float
    """Share of the area that is person: what energy spread evenly would have."""
    images: int


@dataclass(frozen=True)
class PersonShare:
    """The share of one run's activation that is on the person."""

    run: str
    method: str
    visible: Inside
    infrared: Inside


def person_shares(runs: Sequence[Run], images: int = 500, seed: int = 0) -> list[PersonShare]:
    """Measure the share of the activation energy inside the person, for each run on the same random test images.

    They are drawn from those that show a person by their true mask.

    Args:
        runs: opened on the same dataset.
        images: at most so many, half of each modality.
        seed: of the images.

    Raises:
        CsviError: the runs have different test images, these have no masks, or a modality has none.
    """
    same_test_images(runs)
    records = images_with_person(runs[0])
    chosen = random.Random(seed)
    by_modality = {m: [record for record in records if record.modality == m] for m in Modality}
    if images < 4 or min(map(len, by_modality.values())) < 2:
        raise CsviError("the share of activation inside people takes two test images of each modality, or more")
    drawn = {m: chosen.sample(some, min(images // 2, len(some))) for m, some in by_modality.items()}
    results = []
    for run in runs:
        found = []
        for modality, of_modality in drawn.items():
            chunks = [of_modality[i : i + BATCH] for i in range(0, len(of_modality), BATCH)]
            energies, people = [], []
            for chunk in progress(chunks, f"{run.name}, {modality.word}"):
                batch = run.batch(chunk)
                assert batch.mask is not None
                energies.append(activation_energy(run, batch))
                height, width = energies[-1].shape[1:]
                people.append(mask_target(batch.mask.cpu(), height, width, _net(run).backbone.stride)[:, 0])
            found.append(inside(torch.cat(energies), torch.cat(people)))
        results.append(PersonShare(run.name, run.net.method, *found))
    return results


def activation_energy(run: Run, batch: Batch) -> Tensor:
    """Sum F_s² over channels, in each cell: (B, h, w) float32 on the CPU, of a batch of `Run.batch`.

    Raises:
        CsviError: the network has no such features.
    """
    return energy_of(_net(run), run.fabric, batch)


def energy_of(net: FeatureNet, fabric: Fabric, batch: Batch) -> Tensor:
    """Sum F_s² over channels, in each cell: (B, h, w) float32 on the CPU, of a prepared batch."""
    with torch.inference_mode(), fabric.autocast():
        shared = net.features(batch.image, batch.streams)
    return shared.float().square().sum(1).cpu()


def _net(run: Run) -> FeatureNet:
    if not isinstance(run.net, FeatureNet):
        raise CsviError(f"{run.path} was trained with {run.net.method}, whose network has no features F_s to show")
    return run.net


def share_inside(energy: Tensor, person: Tensor) -> Tensor:
    """Compute the share of each image's energy that is inside the person; a cell counts as far as it is person.

    >>> share_inside(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[0.5, 1.0]]])).tolist()  # 1.5 + 1 of 4
    [0.625]

    Args:
        energy: (B, h, w), not negative.
        person: (B, h, w), how much of each cell is person, see `mask_target`.

    Returns:
        (B,) in [0, 1].
    """
    return (energy * person).sum((1, 2)) / energy.sum((1, 2)).clamp(min=torch.finfo(energy.dtype).tiny)


def inside(energy: Tensor, person: Tensor) -> Inside:
    """Average `share_inside` over images in random order, each also compared with the person of the one before it."""
    of_image, of_other = share_inside(energy, person), share_inside(energy, person.roll(1, 0))
    return Inside(float(of_image.mean()), float(of_other.mean()), float(person.mean()), len(energy))


def heatmap(energy: Tensor, height: int, width: int, cell: int) -> Tensor:
    """Make the picture of an activation: its length in each cell, from 0 to 1 in each image, at the images' size.

    Args:
        energy: (B, h, w) of `activation_energy`.
        height, width: of the images.
        cell: pixels on a side of a cell.

    Returns:
        (B, height, width); the least active cell of an image is 0 and the most active is 1.
    """
    length = energy.sqrt()
    low, high = length.amin((1, 2), keepdim=True), length.amax((1, 2), keepdim=True)
    normalised = (length - low) / (high - low).clamp(min=torch.finfo(length.dtype).tiny)
    return full_size(normalised[:, None], height, width, cell)[:, 0]


def heatmaps_table(shares: Sequence[PersonShare]) -> Table:
    """Make a row a run; in brackets the activation inside the person of another image."""
    table = plain_table(
        Column("activation in the person (%)", overflow="fold"),
        "visible",
        "(other)",
        "area",
        "infrared",
        "(other)",
        "area",
    )
    for share in shares:
        values = [v for part in (share.visible, share.infrared) for v in (part.person, part.other, part.area)]
        table.add_row(share.run, *(f"{100 * value:.1f}" for value in values))
    return table


def heatmaps_figure(
    runs: Sequence[Run], shares: Sequence[PersonShare] | None = None, seed: int = 0, rows: int = 2
) -> Figure:
    """Draw Figure 6: a row an image; columns: image, heatmap of each run, predicted mask, true mask.

    The mask is that of the paper's model, `coseg`, if it is among the runs, or else of the first run that predicts any,
    as the note below says; given with up to `TOGETHER` images of each modality of the same identity, and outlined at
    0.5. Without such a run, or without true masks, the figure is without that column.

    Args:
        runs: opened on the same dataset.
        shares: of `person_shares`, to stand below the heatmaps of their runs.
        seed: of the images, drawn at random, from different identities while there are any.
        rows: images of each modality.

    Raises:
        CsviError: the runs have different test images, or none of an identity in both modalities.
    """
    records = same_test_images(runs)
    chosen = random.Random(seed)
    members = both_modalities(records)
    if not members:
        root = runs[0].benchmark.root
        raise CsviError(f"no test identity of {root} has visible and infrared images: give another --data.root")
    identities = chosen.sample(list(members), min(2 * rows, len(members)))
    modalities = [m for m in Modality for _ in range(rows)]
    drawn = [chosen.choice(members[one][m]) for one, m in zip(cycle(identities), modalities, strict=False)]
    shown = [records[i] for i in drawn]

    predicting = min(filter(predicts_masks, runs), key=lambda run: run.net.method != OUR_MODEL, default=None)
    columns = _heatmaps(runs, shown)
    outlined = len(columns) if predicting else None
    if predicting:
        masks = [_predicted(predicting, i, members[records[i].identity], chosen) for i in drawn]
        columns.append((f"mask by {predicting.name}", masks))
    if all(record.mask for record in shown):
        columns.append(("true mask", list(true_masks(runs[0], shown).numpy())))

    height, width = runs[0].data.height, runs[0].data.width
    titles = [in_lines(title, 14) for title, _ in columns]
    cell, gap = (0.85, 0.85 * height / width), 0.05
    left, above, below = 0.95, 0.15 + 0.14 * max(1 + title.count("\n") for title in titles), 0.8 if shares else 0.25
    below += 0.11 if predicting else 0
    page = (max(left + len(columns) * (cell[0] + gap) + 0.05, 4.6), above + len(shown) * (cell[1] + gap) + below)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=page)
        for row, record in enumerate(shown):
            benchmark = runs[0].benchmark
            who, camera = benchmark.name_of(record.identity), benchmark.name_of_camera(record.camera)
            text = f"{record.modality.word}\n{in_lines(f'id {who}', 14)}\n{in_lines(camera, 14)}"
            y = above + row * (cell[1] + gap)
            write(figure, left - 0.08, y + cell[1] / 2, text, ha="right", va="center", fontsize=8)
            for column, (_, pictures) in enumerate(columns):
                axes = place(figure, left + column * (cell[0] + gap), y, *cell)
                show(axes, pictures[row])
                if column == outlined:
                    outline(axes, pictures[row])
        below_images = page[1] - below + 0.01
        for column, title in enumerate(titles):
            middle = left + column * (cell[0] + gap) + cell[0] / 2
            write(figure, middle, above - 0.05, title, ha="center", va="bottom", fontsize=7)
            if shares and column <= len(runs):
                both = shares[max(column - 1, 0)].visible, shares[max(column - 1, 0)].infrared
                lines = ["area", *(f"{100 * part.area:.0f} %" for part in both)]
                if column:
                    lines = ["activation", *(f"{100 * part.person:.0f} ({100 * part.other:.0f}) %" for part in both)]
                write(figure, middle, below_images, "\n".join(lines), ha="center", va="top", fontsize=8)
        if shares:
            text = "in the person:\nvisible\ninfrared"
            write(figure, left - 0.08, below_images, text, ha="right", va="top", fontsize=8)
        note = "heatmaps: length of the last block's features, from the least to the most of each image"
        if predicting:
            ours = predicting.net.method == OUR_MODEL
            note += f"\nmask by {predicting.name}, " + ("the paper's model" if ours else f"{OUR_MODEL} not being shown")
        if shares:
            note += "\nin brackets: inside the person of another image of the modality"
        write(figure, 0.08, page[1] - 0.05, note, ha="left", va="bottom", fontsize=7, color="0.35")
    return figure


def _heatmaps(runs: Sequence[Run], shown: Sequence[ImageRecord]) -> list[tuple[str, list[np.ndarray]]]:
    """Make a column of the images, and one of their heatmaps for each run: title and pictures."""
    images = [runs[0].image(record) for record in shown]
    columns = [("image", images)]
    for run in runs:
        energy = activation_energy(run, run.batch(shown))
        activation = heatmap(energy, run.data.height, run.data.width, _net(run).backbone.stride)
        size = runs[0].data.height, runs[0].data.width
        activation = F.interpolate(activation[:, None], size, mode="bilinear")[:, 0]
        columns.append((run.name, [overlay(*pair) for pair in zip(images, activation.numpy(), strict=True)]))
    return columns


def _predicted(run: Run, image: int, members: tuple[list[int], list[int]], chosen: random.Random) -> np.ndarray:
    """Predict the mask (H, W) of a test image, given with others of its identity."""
    together = [image]
    for of_modality in members:
        rest = [i for i in of_modality if i != image]
        together += chosen.sample(rest, min(len(rest), TOGETHER - (image in of_modality)))
    (predicted,) = predict_sets(run, [run.benchmark.test[i] for i in together], [range(len(together))])
    return predicted[0].numpy()


def overlay(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Lay a heatmap (H, W) on an image (H, W, 3) in grey: (H, W, 3) in [0, 1]."""
    grey = image.mean(2, keepdims=True) / 255
    return 0.45 * grey + 0.55 * matplotlib.colormaps["turbo"](activation)[..., :3]
