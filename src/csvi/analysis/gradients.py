"""Which gradients the segmentation loss sends where: Eq. 20 to 24, measured.

The features of the network are F_task, what the layers of each modality make of the images (Eq. 1), and F_s, what the
shared layers make of that (Eq. 2). Of interest is how much the segmentation loss xi_Seg (Eq. 17, weight 1) pulls at the
features of either modality, and whether its infrared term pulls at visible features or its visible term at infrared
ones: that is the interaction of the modalities which Eq. 24 claims for co-segmentation alone. The network is in
evaluation mode, for in training mode the statistics of BatchNorm tie all images of a batch to each other.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor, nn

from csvi.analysis.canvas import STYLE, in_lines, name_groups
from csvi.analysis.plain_table import plain_table
from csvi.analysis.trained import Trained
from csvi.config import LossConfig
from csvi.data import ImageRecord, Modality
from csvi.data.sampler import CrossModalitySampler
from csvi.errors import CsviError
from csvi.model import TrainingNetwork


@dataclass(frozen=True)
class Norms:
    """L2 norms of a gradient with respect to the features of a batch's visible and of its infrared images."""

    visible: float
    infrared: float


@dataclass(frozen=True)
class FeatureGradients:
    """Gradients with respect to one kind of features."""

    segmentation: Norms
    """Of xi_Seg."""
    within: Norms
    """Of the term of xi_Seg for the same modality: d xi_Seg,R / d F_R and d xi_Seg,I / d F_I."""
    across: Norms
    """Of its term for the other modality: d xi_Seg,I / d F_R and d xi_Seg,R / d F_I."""
    identity: Norms
    """Of the identity loss of the network's own part module, xi_id1 with weight 1 (Eq. 4)."""


@dataclass(frozen=True)
class Gradients:
    """What was measured on a run; norms are means over the batches."""

    run: str
    auxiliary: str
    """Row of Table 3, a key of `csvi.model.network.AUXILIARIES`."""
    batches: int
    images: int
    """In a batch, half of them infrared."""
    shared: FeatureGradients
    """With respect to F_s."""
    task: FeatureGradients
    """With respect to F_task, the task-shared features of Eq. 23."""


def gradients(trained: Trained, batches: int = 8, seed: int = 0) -> Gradients:
    """Measure a run on batches of training images as it was trained on, but not augmented, in float32.

    Args:
        trained: the run.
        batches: how many; fewer if an epoch has no more.
        seed: draws them.

    Raises:
        CsviError: the run's auxiliary or the masks of its images are missing, or no batch is asked for.
    """
    if batches < 1:
        raise CsviError(f"gradients are measured on at least one batch, not on {batches}")
    name = trained.config.model.auxiliary
    if name != "none" and trained.network.auxiliary is None:
        raise CsviError(f"{trained.run} has no auxiliary (auxiliary.safetensors), whose gradients this figure shows")
    labels = trained.labels()
    records = [record for record in trained.training_records if record.identity in labels]
    if name != "none" and not all(record.mask for record in records):
        raise CsviError(f"the training images of {trained.run} have no masks, which the segmentation loss is about")
    drawn = _draw(records, trained, batches, seed)
    measured = [
        batch_gradients(trained.network, _labelled(trained.batch(batch), labels), trained.config.loss)
        for batch in track(drawn, description=f"Gradients of {trained.name}", transient=True)
    ]
    shared, task = (_mean(kind) for kind in zip(*measured, strict=True))
    return Gradients(trained.name, name, len(drawn), len(drawn[0]), shared, task)


def batch_gradients(
    network: TrainingNetwork, batch: dict[str, Tensor], settings: LossConfig
) -> tuple[FeatureGradients, FeatureGradients]:
    """The gradients of one batch with respect to F_s and to F_task.

    Args:
        network: in evaluation mode; any that `csvi.model.build_network` gives.
        batch: `image` (B, 3, H, W), `modality` (B,), `identity` (B,), labels of classes, and `mask` (B, 1, H, W)
            if there is an auxiliary.
        settings: how to read the losses; their weights do not count.

    Returns:
        Norms for F_s and for F_task. Where there is no path, or no such loss, they are exactly 0.
    """
    if network.training:
        raise CsviError("gradients are measured in evaluation mode: call network.eval() first")
    settings = dataclasses.replace(settings, identity=1.0, segmentation=1.0)
    outputs, features = _forward(network, batch)
    visible, infrared = (batch["modality"] == m for m in Modality)

    def norms_of(loss: Tensor | None) -> list[dict[str, float]]:
        """For F_s and for F_task, the norms at the images of each modality."""
        return [
            {"visible": _norm(gradient[visible]), "infrared": _norm(gradient[infrared])}
            for gradient in _gradient(loss, features)
        ]

    whole = norms_of(_segmentation_loss(network, outputs, batch, settings))
    of_visible, of_infrared = (
        norms_of(_segmentation_loss(network, _only(outputs, chosen), _only(batch, chosen), settings))
        for chosen in (visible, infrared)
    )
    identity = norms_of(network.losses(outputs, batch, settings)["identity"])
    shared, task = (
        FeatureGradients(
            segmentation=Norms(**whole[kind]),
            within=Norms(of_visible[kind]["visible"], of_infrared[kind]["infrared"]),
            across=Norms(of_infrared[kind]["visible"], of_visible[kind]["infrared"]),
            identity=Norms(**identity[kind]),
        )
        for kind in (0, 1)
    )
    return shared, task


def gradients_figure(results: Sequence[Gradients]) -> Figure:
    """Six bars a run on a log scale, exact zeros as "0": above with respect to F_s, below to F_task."""
    kinds = [
        ("ξ$_{Seg}$", "segmentation", ("#4c78a8", "#d6453d"), ""),
        ("other modality's ξ$_{Seg}$", "across", ("#c3d4e6", "#f4c4c1"), "////"),
        ("ξ$_{ID}$", "identity", ("#8d8d8d", "#c9c9c9"), ""),
    ]
    width = 0.14
    bars = [
        (f"{loss} at {modality} features", kind, modality, colors[m], hatch)
        for loss, kind, colors, hatch in kinds
        for m, modality in enumerate(("visible", "infrared"))
    ]

    def draw(axes: Axes, features: str, title: str) -> None:
        values = {
            (kind, modality): [getattr(getattr(getattr(result, features), kind), modality) for result in results]
            for _, kind, modality, _, _ in bars
        }
        floor, ceiling = _limits([value for several in values.values() for value in several])
        for number, (label, kind, modality, color, hatch) in enumerate(bars):
            at = [group + (number - (len(bars) - 1) / 2) * width for group in range(len(results))]
            found = values[kind, modality]
            axes.bar(
                at,
                [max(value, floor) - floor for value in found],
                0.88 * width,
                floor,
                label=label,
                color=color,
                hatch=hatch,
                edgecolor="#555555" if hatch else color,
                linewidth=0.5,
            )
            for x, value in zip(at, found, strict=True):
                if value == 0:
                    axes.annotate("0", (x, floor), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.set(yscale="log", ylim=(floor, ceiling), ylabel=title)
        name_groups(axes, [_group(result) for result in results])

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.2, 0.8 + 1.5 * len(results)), 5.6), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        draw(above, "shared", "‖∂ξ / ∂F$_s$‖")
        draw(below, "task", "‖∂ξ / ∂F$_{task}$‖")
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(kinds), frameon=False, fontsize=8)
    return figure


def gradients_table(results: Sequence[Gradients]) -> Table:
    """Four rows a run: norms at either modality's F_s and F_task; the other modality's term also in % of all xi_Seg."""
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


def _draw(records: Sequence[ImageRecord], trained: Trained, batches: int, seed: int) -> list[list[ImageRecord]]:
    """Batches of N identities x (K visible + K infrared) images, as in training."""
    data = trained.config.data
    sampler = CrossModalitySampler(records, data.identities, data.images, seed)
    return [[records[draw.image] for draw in batch] for batch in itertools.islice(sampler, batches)]


def _labelled(batch: dict[str, Tensor], labels: dict[int, int]) -> dict[str, Tensor]:
    identity = batch["identity"]
    return batch | {"identity": torch.tensor([labels[i] for i in identity.tolist()], device=identity.device)}


def _forward(network: TrainingNetwork, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The outputs of the network, and F_s and F_task on their way.

    Segment adds features to those of the shared layers to get F_s; the gradients of both are the same.
    """
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        features.extend([output, inputs[0]])

    hook = network.net.backbone.shared.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            return network(batch), features
    finally:
        hook.remove()


def _segmentation_loss(
    network: TrainingNetwork, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig
) -> Tensor | None:
    """xi_Seg (Eq. 17), or None in a network that does not predict masks."""
    if network.auxiliary is None:
        return None
    terms = network.auxiliary.losses(outputs, batch, settings)
    return next((term for name, term in terms.items() if name.endswith("/segmentation")), None)


def _gradient(loss: Tensor | None, features: list[Tensor]) -> list[Tensor]:
    """Gradients with respect to the features; 0 where the loss is none or does not depend on them."""
    if loss is None:
        return [torch.zeros_like(feature) for feature in features]
    return list(torch.autograd.grad(loss, features, retain_graph=True, materialize_grads=True))


def _only(tensors: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """These images of a batch; chosen (B,) bool."""
    return {name: value[chosen] for name, value in tensors.items() if isinstance(value, Tensor)}  # not the route


def _norm(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient.double()))


def _mean(several: Sequence[FeatureGradients]) -> FeatureGradients:
    def mean(name: str) -> Norms:
        norms = [getattr(one, name) for one in several]
        return Norms(*(sum(getattr(n, m) for n in norms) / len(norms) for m in ("visible", "infrared")))

    return FeatureGradients(**{field.name: mean(field.name) for field in dataclasses.fields(FeatureGradients)})


def _limits(values: list[float]) -> tuple[float, float]:
    """Of a log axis: from half the least value that is not 0 to a little above the greatest."""
    above_zero = [value for value in values if value > 0] or [1.0]
    return min(above_zero) / 2, max(above_zero) * 1.5


def _short(norm: float) -> str:
    return "0" if norm == 0 else f"{norm:.1e}"


def _group(result: Gradients) -> str:
    name = in_lines(result.run, 18)
    return f"{name}\n(no ξ$_{{Seg}}$)" if result.auxiliary in ("none", "select") else name
