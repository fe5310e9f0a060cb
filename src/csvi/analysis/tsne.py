"""Figure 5: how far apart the visible and the infrared images of an identity lie in the embeddings of several runs.

A t-SNE plane keeps neighbours together and nothing else: distances between its clusters and their sizes mean little.
So the figure comes with a number that is measured in the embedding space itself, over all test identities.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.table import Column, Table
from sklearn.manifold import TSNE
from torch import Tensor

from csvi.analysis.canvas import STYLE, in_lines
from csvi.analysis.images import both_modalities, same_test_images
from csvi.data import Modality
from csvi.errors import CsviError
from csvi.plain_table import plain_table
from csvi.runs import Run

IMAGES = 10
"""Images of each modality of an identity in the plane."""

Point = tuple[float, float]


class _Look(NamedTuple):
    """The markers of a modality: of its images and of its centers."""

    dot: str
    center: str
    size: float


LOOKS = {Modality.VISIBLE: _Look("o", "*", 95), Modality.INFRARED: _Look("^", "^", 48)}
"""Centers are pentagrams and triangles, as in the paper."""
COLOURS = [*matplotlib.colormaps["tab10"](range(10)), *matplotlib.colormaps["tab20b"](range(0, 20, 4))]


@dataclass(frozen=True)
class Plane:
    """One run: its t-SNE plane of the chosen identities, and distances in its embedding space over all of them."""

    run: str
    same: float
    """Mean distance between the visible and the infrared center of an identity."""
    different: float
    """Mean distance between the visible center of one identity and the infrared center of another."""
    ratio: float
    """Same over different: 1 where the identity plays no part, 0 where the modalities of an identity coincide."""
    points: list[Point]
    centers: list[tuple[Point, Point]]
    """Visible and infrared, of the chosen identities; they are points of the same t-SNE, not means in the plane."""


@dataclass(frozen=True)
class Planes:
    """Figure 5: the same images under several runs."""

    identities: list[int]
    """Drawn at random from the test identities."""
    all_identities: int
    """Test identities with images in both modalities, over which distances are measured."""
    all_images: int
    identity: list[int]
    modality: list[int]
    """Modality of each point, 0 visible and 1 infrared."""
    runs: list[Plane]


def tsne(runs: Sequence[Run], identities: int = 12, seed: int = 0) -> Planes:
    """Embed the test images with each run, measure between modality centers, and lay out some identities in a plane.

    A center is the mean of the embeddings of all test images of an identity in one modality.

    Args:
        runs: opened on the same dataset.
        identities: of the plane, with up to `IMAGES` images of each modality.
        seed: of the identities, their images and t-SNE.

    Raises:
        CsviError: the runs have different test images, fewer than two identities have both modalities, or a
            run gives everybody the same embedding.
    """
    records = same_test_images(runs)
    members = both_modalities(records)
    if len(members) < 2:
        raise CsviError(f"the test split of {runs[0].benchmark.root} has fewer than two identities of both modalities")
    chosen = random.Random(seed)
    drawn = sorted(chosen.sample(list(members), min(identities, len(members))))
    index = [
        i for identity in drawn for images in members[identity] for i in chosen.sample(images, min(IMAGES, len(images)))
    ]
    rows = [list(members).index(identity) for identity in drawn]
    planes = []
    for run in runs:
        embeddings = run.embeddings
        centers = modality_centers(embeddings, list(members.values()))
        same, different = center_distances(centers)
        if not different:
            raise CsviError(f"{run.path} gives all test identities the same embedding: their distances have no ratio")
        plane = _plane(torch.cat([embeddings[index], centers[rows].flatten(0, 1)]), seed)
        of_centers = plane[len(index) :]
        pairs = list(zip(of_centers[::2], of_centers[1::2], strict=True))
        planes.append(Plane(run.name, same, different, same / different, plane[: len(index)], pairs))
    return Planes(
        drawn,
        len(members),
        sum(len(images) for both in members.values() for images in both),
        [records[i].identity for i in index],
        [int(records[i].modality) for i in index],
        planes,
    )


def modality_centers(embeddings: Tensor, members: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Average embeddings (n, d) over the visible and over the infrared images of each identity: (identities, 2, d)."""
    return torch.stack([torch.stack([embeddings[images].mean(0) for images in both]) for both in members])


def center_distances(centers: Tensor) -> tuple[float, float]:
    """Mean Euclidean distance of the visible to the infrared center, of one identity and of two different ones.

    >>> center_distances(torch.tensor([[[0.0], [1.0]], [[5.0], [8.0]]]))  # 1, 3; 8, 4
    (2.0, 6.0)

    Args:
        centers: (identities, 2, d).
    """
    visible, infrared = centers.double().unbind(1)
    distance = torch.cdist(visible, infrared)
    same = distance.diagonal()
    pairs = len(distance) * (len(distance) - 1)
    return float(same.mean()), float((distance.sum() - same.sum()) / pairs)


def tsne_table(planes: Planes) -> Table:
    """Make a row a run: distances in the embedding space."""
    table = plain_table(Column("visible to infrared center", overflow="fold"), "same identity", "different", "ratio")
    for plane in planes.runs:
        table.add_row(plane.run, f"{plane.same:.3f}", f"{plane.different:.3f}", f"{plane.ratio:.3f}")
    return table


def tsne_figure(planes: Planes) -> Figure:
    """Draw Figure 5: a panel a run, at most three in a line; a colour an identity, a marker a modality."""
    across = min(3, len(planes.runs))
    down = -(-len(planes.runs) // across)
    identity, modality = np.array(planes.identity), np.array(planes.modality)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(3.5 * across, 5.6), 3.9 * down + 0.6), layout="constrained")
        for axes, plane in zip(figure.subplots(down, across, squeeze=False).flat, planes.runs, strict=False):
            points, centers = np.array(plane.points), np.array(plane.centers)
            for number, (one, pair) in enumerate(zip(planes.identities, centers, strict=True)):
                colour = COLOURS[number % len(COLOURS)]
                for of, look in LOOKS.items():
                    drawn = points[(identity == one) & (modality == of)]
                    axes.scatter(*drawn.T, s=14, marker=look.dot, color=colour, alpha=0.6, linewidths=0, zorder=1)
                axes.plot(*pair.T, color="black", linewidth=1.1, zorder=2)
                for of, look in LOOKS.items():
                    axes.scatter(
                        *pair[of], s=look.size, marker=look.center, color=colour, edgecolors="black", linewidths=0.8,
                        zorder=3,
                    )  # fmt: skip
            axes.set(xticks=[], yticks=[])
            axes.margins(0.06)
            axes.spines[:].set(visible=True, color="0.8")
            axes.set_title(in_lines(plane.run, 34), fontsize=11)
            scale = f"{plane.ratio:.2f} of that between identities ({plane.different:.2f})"
            axes.set_xlabel(f"center distance {plane.same:.2f}\n{scale}", fontsize=9)
        for axes in figure.axes[len(planes.runs) :]:
            axes.remove()
        handles = []
        for of, look in LOOKS.items():
            center = look.size**0.5
            for what, marker, size, edge in (("image", look.dot, 4.0, "none"), ("center", look.center, center, "k")):
                label = f"{of.word} {what}"
                handles.append(Line2D([], [], ls="", marker=marker, ms=size, color="0.45", mec=edge, label=label))
        legend = figure.legend(
            handles=handles,
            title=f"{len(planes.identities)} of {planes.all_identities} test identities, a colour each\n"
            f"distances are of the embeddings, over all {planes.all_identities}",
            title_fontsize=9,
            fontsize=9,
            ncols=4,
            frameon=False,
            loc="outside lower center",
            handletextpad=0.1,
            columnspacing=1.2,
        )
        legend.get_title().set_multialignment("center")
    return figure


def _plane(embeddings: Tensor, seed: int) -> list[Point]:
    """Lay out (n, d) by exact t-SNE, which is the same on any number of cores."""
    plane = TSNE(perplexity=min(20, (len(embeddings) - 1) / 3), init="pca", method="exact", random_state=seed)
    return [(float(x), float(y)) for x, y in plane.fit_transform(embeddings.numpy())]
