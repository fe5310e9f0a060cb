"""Whether the extra part head reads the identity from the weights w of co-segmentation instead of from the image.

This is no figure of the paper. The weights of an identity (Eq. 12) come from its own images and multiply them (Eq.
13), so that the part head on the selected features (Eq. 15) may know the person by w alone. Here it is asked with
weights that are not the image's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor
from torch.nn import functional as F

from csvi.analysis.canvas import STYLE, grouped_bars, in_lines
from csvi.data import Modality
from csvi.data.batch import prepare
from csvi.errors import CsviError
from csvi.methods.coseg import CoSeg
from csvi.plain_table import plain_table
from csvi.progress import progress
from csvi.runs import Run

CHUNK = 64
"""Images that go through the backbone at a time."""


@dataclass(frozen=True)
class Shares:
    """The share of the training images that get the name in question from the extra part head, in [0, 1]."""

    all: float
    visible: float
    infrared: float


@dataclass(frozen=True)
class Leak:
    """The answers of a run's extra part head to training images under four kinds of weights."""

    run: str
    weights_from: str
    """Setting of the run: whose center gives an image its weights."""
    reads_weights: bool
    """Whether F_sel goes to the part head; if not (weights_to: decoder) it sees F_s and all four are the same."""
    identities: int
    images: int
    own: Shares
    """The image's identity is named, with the weights of that identity."""
    other: Shares
    """The image's identity is named, with the weights of another one."""
    other_named: Shares
    """The other identity is named: read from the weights, for nothing else in the input is of it."""
    mean: Shares
    """The image's identity is named, with the mean weights of all identities, which tell nothing about any."""
    without: Shares
    """The image's identity is named, on F_s, without weights."""


@dataclass(frozen=True)
class IdentityImages:
    """All images of one identity, as the extra part head is asked about them."""

    label: int
    modality: Tensor
    """(B,)"""
    strips: Tensor
    """F_s pooled over each strip, (B, C1, P, 1): a weight a channel may as well come after that pooling (Eq. 3)."""
    weights: Tensor
    """w of each image, (B, C1, 1, 1); the same for them all if they are from the identity's `own` center."""


def leak(runs: Sequence[Run], seed: int = 0) -> list[Leak]:
    """Measure each run on all of its training images, in evaluation mode and float32.

    The weights of an identity come from all of its images together, as when masks are predicted. Another identity's
    are those of the next one in an order that `seed` shuffles: the k-th image of a modality takes the weights of the
    k-th of the same modality there, counted around, which matters only where an identity's images differ in them.

    Raises:
        CsviError: a run has no extra part head, or it was trained on one identity.
    """
    methods = [_method(run) for run in runs]  # all of them, before any takes its time
    return [measure(run.name, method, _look(run, method), seed) for run, method in zip(runs, methods, strict=True)]


@torch.no_grad()
def measure(run: str, method: CoSeg, seen: Sequence[IdentityImages], seed: int = 0) -> Leak:
    """Ask the extra part head about these images under each kind of weights; see `leak`.

    Args:
        run: name of the run.
        method: with an extra part head, in evaluation mode.
        seen: the images, an item an identity, at least two.
        seed: chooses whose weights are another's.
    """
    if len(seen) < 2:
        raise CsviError(f"{run} was trained on one identity, and its weights can only leak among several")
    mean = torch.stack([images.weights.mean(0) for images in seen]).mean(0)  # (C1, 1, 1)
    label = torch.cat([torch.full_like(images.modality, images.label) for images in seen])
    donors = [seen[n] for n in another_of_each(len(seen), seed)]
    donor_label = torch.cat(
        [torch.full_like(images.modality, donor.label) for images, donor in zip(seen, donors, strict=True)]
    )
    modality = torch.cat([images.modality for images in seen])
    named = {
        "own": [_named(method, images.strips, images.weights) for images in seen],
        "other": [_named(method, i.strips, paired_weights(i, donor)) for i, donor in zip(seen, donors, strict=True)],
        "mean": [_named(method, images.strips, mean) for images in seen],
        "without": [_named(method, images.strips, None) for images in seen],
    }
    right = {weights: _shares(torch.cat(names) == label, modality) for weights, names in named.items()}
    return Leak(
        run=run,
        weights_from=method.settings.weights_from,
        reads_weights=method.settings.weights_to != "decoder",
        identities=len(seen),
        images=len(label),
        other_named=_shares(torch.cat(named["other"]) == donor_label, modality),
        **right,
    )


def another_of_each(number: int, seed: int = 0) -> list[int]:
    """Choose for each of 0...number-1 another one, none twice: the next in a shuffled round."""
    order = torch.randperm(number, generator=torch.Generator().manual_seed(seed)).tolist()
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [following[n] for n in range(number)]


def paired_weights(images: IdentityImages, donor: IdentityImages) -> Tensor:
    """Take weights of the donor for each of these images, (B, C1, 1, 1): the k-th of a modality has the k-th's."""
    weights = torch.empty_like(images.weights)
    for m in Modality:
        mine, theirs = images.modality == m, donor.weights[donor.modality == m]
        weights[mine] = theirs[torch.arange(int(mine.sum()), device=theirs.device) % len(theirs)]
    return weights


def leak_figure(results: Sequence[Leak]) -> Figure:
    """Draw five bars a run, in %: who is named under which weights."""
    bars = [
        ("its own w: right", "own", "#4c78a8"),
        ("mean w: right", "mean", "#9ecae9"),
        ("no w, F$_s$: right", "without", "#bab0ac"),
        ("another's w: right", "other", "#f2b447"),
        ("another's w: names the other", "other_named", "#d6453d"),
    ]
    names = [in_lines(r.run, 22) + ("" if r.reads_weights else "\n(head reads F$_s$)") for r in results]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 0.8 + 1.9 * len(results)), 3.8), layout="constrained")
        axes = figure.subplots()
        values = [[100 * getattr(result, name).all for result in results] for _, name, _ in bars]
        styles = [{"label": label, "color": color} for label, _, color in bars]
        for drawn in grouped_bars(axes, names, list(zip(values, styles, strict=True)), 0.17, 0):
            axes.bar_label(drawn, fmt="%.3g", fontsize=8, padding=1)
        axes.set(ylim=(0, 105), ylabel="training images (%)")
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def leak_table(results: Sequence[Leak]) -> Table:
    """Make four rows a run: whom the extra part head names under which weights, in %."""
    table = plain_table(
        Column("run", overflow="fold", max_width=22),
        Column("weights", no_wrap=True),
        "right (%)",
        "visible",
        "infrared",
        "names w's",
    )
    for result in results:
        rows = [
            ("its own", result.own, ""),
            ("another's", result.other, f"{100 * result.other_named.all:.1f}"),
            ("the mean", result.mean, ""),
            ("none: F_s", result.without, ""),
        ]
        about = result.run if result.reads_weights else f"{result.run} (head reads F_s)"
        for number, (weights, right, named) in enumerate(rows):
            shares = (f"{100 * share:.1f}" for share in (right.all, right.visible, right.infrared))
            last = number == len(rows) - 1
            table.add_row("" if number else about, weights, *shares, named, end_section=last)
    return table


def _method(run: Run) -> CoSeg:
    method = run.method
    if not isinstance(method, CoSeg):
        raise CsviError(f"{run.path} has no co-segmentation (--method coseg), and so no weights that may leak")
    if not method.settings.head:
        raise CsviError(
            f"{run.path} was trained without the extra part head (method.head false), which this figure is about"
        )
    return method


@torch.no_grad()
def _look(run: Run, method: CoSeg) -> list[IdentityImages]:
    """Look at all training images, in the order of their identities' labels."""
    images = run.training_set
    members: dict[int, list[int]] = {label: [] for label in images.labels.values()}
    for i, record in enumerate(images.records):
        if i not in images.skipped and record.identity in images.labels:
            members[images.labels[record.identity]].append(i)
    return [_look_at(run, method, index, label) for label, index in progress(members.items(), f"Reading {run.name}")]


def _look_at(run: Run, method: CoSeg, index: Sequence[int], label: int) -> IdentityImages:
    chunks = [index[i : i + CHUNK] for i in range(0, len(index), CHUNK)]
    batches = [prepare(run.training_set.images[chunk], run.fabric.device) for chunk in chunks]
    features = torch.cat([method.features(batch) for batch in batches])
    identity, modality = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("identity", "modality"))
    strips = F.adaptive_avg_pool2d(features, (method.net.head.parts, 1))
    return IdentityImages(label, modality, strips, method.ccwg(features, identity, modality))


def _named(method: CoSeg, strips: Tensor, weights: Tensor | None) -> Tensor:
    """Name the class of highest score, summed over the parts, of each image, (B,); None leaves the weights out."""
    seen = strips if weights is None else method.selected(strips, weights, "head")
    _, scores = method.head(seen)
    return scores.sum(1).argmax(1)


def _shares(hit: Tensor, modality: Tensor) -> Shares:
    """Compute shares of (B,) bool, in all images and in those of each modality."""
    of = [hit, *(hit[modality == m] for m in Modality)]
    return Shares(*(float(part.double().mean()) for part in of))
