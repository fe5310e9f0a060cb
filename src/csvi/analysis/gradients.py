"""Which gradients the segmentation loss sends where: Eq. 20 to 24, measured.

The features of the network are F_task, what the layers of each modality make of the images (Eq. 1), and F_s, what the
shared layers make of that (Eq. 2). Of interest is how much the segmentation loss xi_Seg (Eq. 17, weight 1) pulls at the
features of either modality, and whether its infrared term pulls at visible features or its visible term at infrared
ones: that is the interaction of the modalities which Eq. 24 claims for co-segmentation alone. The network is in
evaluation mode, for in training mode the statistics of BatchNorm tie all images of a batch to each other.
"""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor, nn

from csvi.analysis.canvas import STYLE, grouped_bars, in_lines
from csvi.data import Modality
from csvi.data.batch import Batch, prepare
from csvi.data.sampler import CrossModalitySampler
from csvi.data.training_set import check_masks
from csvi.errors import CsviError
from csvi.methods.baseline import Baseline
from csvi.methods.decode import Decode
from csvi.plain_table import plain_table
from csvi.progress import progress
from csvi.runs import Run


@dataclass(frozen=True)
class Norms:
    """L2 norms of a gradient with respect to the features of a batch's visible and of its infrared images."""

    visible: float
    infrared: float


@dataclass(frozen=True)
class FeatureGradients:
    """Gradients with respect to one kind of features."""

    segmentation: Norms
    """Gradient of xi_Seg."""
    within: Norms
    """Gradient of the term of xi_Seg for the same modality: d xi_Seg,R / d F_R and d xi_Seg,I / d F_I."""
    across: Norms
    """Gradient of its term for the other modality: d xi_Seg,I / d F_R and d xi_Seg,R / d F_I."""
    identity: Norms
    """Gradient of the identity loss of the network's own part head, xi_id1 with weight 1 (Eq. 4)."""


@dataclass(frozen=True)
class Gradients:
    """The gradients of a run; norms are means over the batches."""

    run: str
    method: str
    """Name of the method, a row of Table 3."""
    masks: bool
    """Whether it has a segmentation loss."""
    batches: int
    images: int
    """Images in a batch, half of them infrared."""
    shared: FeatureGradients
    """Gradients with respect to F_s."""
    task: FeatureGradients
    """Gradients with respect to F_task, the task-shared features of Eq. 23."""


def gradients(run: Run, batches: int = 8, seed: int = 0) -> Gradients:
    """Measure a run on batches of training images as it was trained on, but not augmented, in float32.

    Args:
        run: of a method of Table 3.
        batches: at most so many of an epoch, at least one.
        seed: draws them.

    Raises:
        CsviError: the method is another or was not kept, or its images and masks are not what they were.
    """
    method, images = run.method, run.training_set
    if not isinstance(method, Baseline):
        raise CsviError(f"{run.path} was trained with {run.net.method}: this figure is about the rows of Table 3")
    if method.needs_masks:
        check_masks(run.benchmark, run.data)
    sampler = CrossModalitySampler(images.records, run.data.identities, run.data.images, seed, skipped=images.skipped)
    drawn = [[sample.image for sample in batch] for batch in itertools.islice(sampler, batches)]
    norms = [
        gradient_norms(method, prepare(images.images[index], run.fabric.device))
        for index in progress(drawn, f"Gradients of {run.name}")
    ]
    shared, task = by_loss(torch.stack(norms).mean(0))
    return Gradients(run.name, run.net.method, isinstance(method, Decode), len(drawn), len(drawn[0]), shared, task)


def gradient_norms(method: Baseline, batch: Batch) -> Tensor:
    """Measure the gradients of one batch.

    Args:
        method: a row of Table 3, in evaluation mode.
        batch: with labels of classes and, if the method needs them, masks.

    Returns:
        Norms (2, 4, 2): of F_s and F_task, losses as in `FeatureGradients`, at either modality. Where there is no path,
        or no such loss, they are exactly 0.
    """
    if method.training:
        raise CsviError("gradients are measured in evaluation mode: call method.eval() first")
    method = copy.copy(method)  # with the same weights
    method.settings = dataclasses.replace(method.settings, identity_weight=1.0)
    if isinstance(method, Decode):
        method.settings = dataclasses.replace(method.settings, segmentation_weight=1.0)
    visible, infrared = (batch.modality == m for m in Modality)

    def norms_of(loss: Tensor, features: list[Tensor]) -> Tensor:  # (2, 2): of F_s and F_task, at either modality
        found = torch.autograd.grad(loss, features, retain_graph=True, materialize_grads=True)
        return torch.stack(
            [torch.stack([gradient[some].double().norm() for some in (visible, infrared)]) for gradient in found]
        ).cpu()

    with torch.enable_grad():
        with _features_of(method) as features:
            identity = norms_of(method(batch, step=method.settings.center_ramp)["identity"], features)
        if not isinstance(method, Decode):
            none = torch.zeros_like(identity)
            return torch.stack([none, none, none, identity], 1)
        with _features_of(method) as features:
            logits = method.mask_logits(batch)
        whole, *terms = (  # xi_Seg, and its terms for either modality (Eq. 17)
            norms_of(method.segmentation_loss(logits[some], batch.subset(some)), features)
            for some in (visible | infrared, visible, infrared)
        )
    of_term = torch.stack(terms)  # (2, 2, 2): term, features, modality that it reaches
    within, across = (of.diagonal(dim1=0, dim2=2) for of in (of_term, of_term.flip(0)))
    return torch.stack([whole, within, across, identity], 1)


def by_loss(norms: Tensor) -> tuple[FeatureGradients, FeatureGradients]:
    """Name what `gradient_norms` measures."""
    shared, task = (FeatureGradients(*(Norms(*of_loss) for of_loss in of)) for of in norms.tolist())
    return shared, task


def gradients_figure(results: Sequence[Gradients]) -> Figure:
    """Draw six bars a run on a log scale, exact zeros as "0": above with respect to F_s, below to F_task."""
    losses = [
        ("ξ$_{Seg}$", "segmentation", ("#4c78a8", "#d6453d"), ""),
        ("other modality's ξ$_{Seg}$", "across", ("#c3d4e6", "#f4c4c1"), "////"),
        ("ξ$_{ID}$", "identity", ("#8d8d8d", "#c9c9c9"), ""),
    ]
    names = [in_lines(result.run, 18) + ("" if result.masks else "\n(no ξ$_{Seg}$)") for result in results]

    def draw(axes: Axes, features: str, title: str) -> None:
        bars = []
        for loss, kind, colors, hatch in losses:
            for modality, color in zip(("visible", "infrared"), colors, strict=True):
                values = [getattr(getattr(getattr(result, features), kind), modality) for result in results]
                edge = "#555555" if hatch else color
                label = f"{loss} at {modality} features"
                bars.append((values, {"label": label, "color": color, "hatch": hatch, "edgecolor": edge, "lw": 0.5}))
        above_zero = [value for values, _ in bars for value in values if value > 0] or [1.0]
        floor = min(above_zero) / 2
        for drawn, (values, _) in zip(grouped_bars(axes, names, bars, 0.14, floor), bars, strict=True):
            for bar, value in zip(drawn, values, strict=True):
                if value == 0:
                    at = bar.get_x() + bar.get_width() / 2, floor
                    axes.annotate("0", at, (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.set(yscale="log", ylim=(floor, max(above_zero) * 1.5), ylabel=title)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.2, 0.8 + 1.5 * len(results)), 5.6), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        draw(above, "shared", "‖∂ξ / ∂F$_s$‖")
        draw(below, "task", "‖∂ξ / ∂F$_{task}$‖")
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(losses), frameon=False, fontsize=8)
    return figure


def gradients_table(results: Sequence[Gradients]) -> Table:
    """Make four rows a run: norms at either modality's F_s and F_task; the other modality's term in % too."""
    table = plain_table(
        Column("run", overflow="fold", max_width=22),
        Column("at features", no_wrap=True),
        "ξ_Seg",
        "other modality's",
        "in %",
        "ξ_ID",
    )
    for result in results:
        for number, (features, modality) in enumerate(itertools.product(("shared", "task"), ("visible", "infrared"))):
            found = getattr(result, features)
            whole, across, identity = (
                getattr(norms, modality) for norms in (found.segmentation, found.across, found.identity)
            )
            where = f"{'F_s' if features == 'shared' else 'F_task'} {modality}"
            share = f"{100 * across / whole:.1f}" if across else ""
            cells = (_short(whole), _short(across), share, _short(identity))
            table.add_row("" if number else result.run, where, *cells, end_section=number == 3)
    return table


@contextlib.contextmanager
def _features_of(method: Baseline) -> Iterator[list[Tensor]]:
    """Keep F_s and F_task of what the method computes in the block."""
    # Segment adds features to those of the shared layers to get F_s; the gradients of both are the same
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        features.extend([output, inputs[0]])

    hook = method.net.backbone.shared.register_forward_hook(keep)
    try:
        yield features
    finally:
        hook.remove()


def _short(norm: float) -> str:
    return "0" if norm == 0 else f"{norm:.1e}"
