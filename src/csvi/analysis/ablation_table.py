"""The ablation as tables and a figure: Table 3, the differences to the first variant, and Table 4."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

from csvi.analysis.canvas import STYLE
from csvi.analysis.tables import SYNTHETIC, difference_cell, percent
from csvi.methods import find_method
from csvi.runs.evaluation import MaskResult
from csvi.runs.statistics import Difference, Mean
from csvi.train.cost import Cost
from csvi.writing import replacing

PUBLISHED_ON = ("sysu", "all-search single-shot")
"""Layout and protocol of Table 3."""
SAME_AS_ML = "The paper's Baseline+Seg_ReID is, digit for digit, ML [8] of its Table 1.\n"
R10_OF_TABLE_3 = (
    "The paper's Table 3 has 98.79 as R10 of Baseline+CoSeg_ReID, which its Table 1 gives as R20; "
    "above is the R10 of Table 1.\n"
)
NOT_TO_THE_LETTER = "Not to the letter of the paper, for the reasons in docs/paper-to-code.md"


@dataclass(frozen=True)
class Tried:
    """Settings that were tried on the val identities."""

    variant: str
    settings: dict[str, str]
    R1: float
    mAP: float
    chosen: bool


@dataclass(frozen=True)
class VariantResult:
    """One variant, all of its seeds."""

    variant: str
    method: str
    settings: dict[str, str]
    """Settings of its own, those chosen on the val identities among them."""
    backbone: str
    weights: str
    """Initial weights; this, and the backbone, are empty where the method has no such setting."""
    departures: dict[str, tuple[object, object]]
    """All settings that are not to the letter of the paper, see `csvi.config.departures`."""
    runs: list[str]
    metrics: dict[str, Mean]
    """R1, R10, mAP and mINP over the seeds, fractions."""
    differences: dict[str, Difference]
    """Metric → difference of the means over seeds to the first variant; empty for that one."""
    masks: list[dict[str, MaskResult]]
    """Mask results of every seed, by modality."""
    validation: list[tuple[list[int], list[float]]] = field(repr=False)
    """Steps and R1 on the val identities, of every seed."""
    cost: Cost


@dataclass(frozen=True)
class Ablation:
    """Everything `csvi ablate` finds."""

    benchmark: str
    synthetic: bool
    protocol: str
    gallery: str
    identities: int
    """Identities asked for in the test."""
    seeds: int
    rows: list[VariantResult]
    coseg_over_decode: dict[str, Difference]
    """Metric → difference of the paper's model to the plain decoder, which is what CCWG adds; empty without both."""
    tried: list[Tried]


def write_ablation(out: Path, ablation: Ablation) -> Path:
    """Write OUT/ablation.md, ablation.json and the curves, ablation.svg and ablation.png; returns the first."""
    with replacing(out / "ablation.json") as partial:
        partial.write_text(json.dumps(dataclasses.asdict(ablation), indent=1) + "\n")
    figure = curves(ablation)
    for suffix in ("svg", "png"):
        with replacing(out / f"ablation.{suffix}") as partial:
            figure.savefig(partial, format=suffix, dpi=150)
    file = out / "ablation.md"
    with replacing(file) as partial:
        partial.write_text(markdown(ablation), encoding="utf-8")
    return file


def curves(ablation: Ablation) -> Figure:
    """Draw R1 on the val identities against steps: a line a variant, the mean over seeds in a band of all."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for number, row in enumerate(ablation.rows):
            seeds = [dict(zip(*seed, strict=True)) for seed in row.validation]
            steps = sorted({step for seed in seeds for step in seed})
            values = [[100 * seed[step] for seed in seeds if step in seed] for step in steps]
            color = f"C{number}"
            axes.plot(steps, [fmean(v) for v in values], color=color, marker="o", markersize=3, label=row.variant)
            axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15, lw=0)
        axes.set(xlabel="step", ylabel="R1 on the val identities (%)", xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, loc="lower right")
    return figure


def markdown(ablation: Ablation) -> str:
    """Write the tables, for docs and terminals."""
    first = ablation.rows[0].variant
    parts = [f"# {'Synthetic data: ' if ablation.synthetic else ''}ablation on {ablation.benchmark}\n"]
    if ablation.synthetic:
        parts.append(f"{SYNTHETIC}\n")
    backbones = {row.backbone for row in ablation.rows}
    backbone = f"{min(backbones)}, " if len(backbones) == 1 and any(backbones) else ""
    parts.append(
        f"{ablation.protocol}, {ablation.gallery} galleries, {ablation.identities} identities, {backbone}"
        f"{ablation.seeds} seeds: mean ± standard deviation over seeds, in %. Δ: difference of the means to {first}, "
        "in points, with its 95 % interval over identities (paired bootstrap; what other seeds would give is not in "
        "it); \\* excludes 0.\n"
    )
    parts += [_table_3(ablation.rows), *_beside_table_3(ablation)]
    masks = next((masks for row in ablation.rows for masks in row.masks if masks), {})
    nobody = [f"{m.without_person:,} of {m.without_person + m.images:,} {name}" for name, m in masks.items()]
    if any(result.without_person for result in masks.values()):
        parts.append(f"True masks that show nobody are left out of the mask IoU: {', '.join(nobody)}.\n")
    parts.append("Settings of their own: " + "; ".join(map(_settings, ablation.rows)) + ".\n")
    parts += _where_unlike("Backbones", {row.variant: row.backbone for row in ablation.rows})
    parts += _where_unlike("Initial weights", {row.variant: row.weights for row in ablation.rows})
    if ablation.tried:
        parts.append("## Chosen on the val identities\n\n" + _tried(ablation.tried))
    parts.append("## Cost (Table 4)\n\n" + _table_4(ablation.rows))
    parts.append("## R1 by step\n\n![R1 on the val identities by step](ablation.svg)\n")
    return "\n".join(parts)


def _table_3(rows: Sequence[VariantResult]) -> str:
    lines = [
        "| variant | R1 | R10 | mAP | Δ R1 | Δ mAP | mask IoU | paper's name | paper, SYSU-MM01, R1 / R10 / mAP |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        metrics = [percent(row.metrics[name], sign=" ± ") for name in ("R1", "R10", "mAP")]
        differences = [_escaped(row.differences.get(name)) for name in ("R1", "mAP")]
        ious = [mask.iou for masks in row.masks for mask in masks.values()]
        title, figures = papers_name(row), published_metrics(row.method)
        name = f"{title}{' †' if row.departures else ''}" if title else ""
        cells = [f"{figures[metric]:.2f}" if metric in figures else "-" for metric in ("R1", "R10", "mAP")]
        paper = " / ".join(cells) if title else ""
        iou = f"{fmean(ious):.3f}" if ious else ""
        lines.append(f"| {' | '.join([row.variant, *metrics, *differences, iou, name, paper])} |")
    return "\n".join(lines) + "\n"


def _escaped(difference: Difference | None) -> str:
    return difference_cell(difference).rstrip().replace("*", r"\*")


def published_metrics(method: str) -> Mapping[str, float]:
    """Figures of a method in Table 3, in %; for `coseg` those of Table 1. Empty for a method that is not in it."""
    published = find_method(method).published
    layout, protocol = PUBLISHED_ON
    return published.metrics.get(layout, {}).get(protocol, {}) if published else {}


def papers_name(row: VariantResult) -> str:
    """Name in Table 3 of a variant; empty if it is none of its rows, or a setting of its own makes it another model.

    Weights of losses and defaults do not make it another, but are departures where they are not to the letter.
    """
    kind = find_method(row.method)
    usual = {f"method.{name}": value for name, value in vars(kind.Settings()).items()}
    for name in row.departures.keys() & row.settings.keys() & usual.keys():
        if not name.endswith("_weight") and row.departures[name][0] != usual[name]:
            return ""
    return kind.title if published_metrics(row.method) else ""


def _beside_table_3(ablation: Ablation) -> list[str]:
    """Say what has to be known of the paper's figures beside ours."""
    named = [row for row in ablation.rows if papers_name(row)]
    departing: dict[str, list[str]] = {}
    for row in named:
        for departure in in_words(row.departures):
            departing.setdefault(departure, []).append(row.variant)
    found = []
    if departing:
        words = [
            departure + ("" if len(variants) == len(named) else f" ({', '.join(variants)})")
            for departure, variants in departing.items()
        ]
        found.append(f"† {NOT_TO_THE_LETTER}: {'; '.join(words)}.\n")
    if ablation.coseg_over_decode:
        ours = [f"{name} {_escaped(ablation.coseg_over_decode[name])}" for name in ("R1", "mAP")]
        paper = [published_metrics("coseg")[name] - published_metrics("decode")[name] for name in ("R1", "mAP")]
        found.append(
            f"CCWG, coseg over decode: {', '.join(ours)}; in the paper, on SYSU-MM01, R1 {paper[0]:+.2f}, "
            f"mAP {paper[1]:+.2f}.\n"
        )
    if any(row.method == "segment" for row in named):
        found.append(SAME_AS_ML)
    if any(row.method == "coseg" for row in named):
        found.append(R10_OF_TABLE_3)
    return found


def in_words(departures: Mapping[str, tuple[object, object]]) -> list[str]:
    """Say of each departure from the paper's letter what is set, and what the paper has."""
    return [f"{name} {_plain(value)} instead of {_plain(letter)}" for name, (value, letter) in departures.items()]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _table_4(rows: Sequence[VariantResult]) -> str:
    lines = [
        "| variant | parameters in training | in testing | paper, ResNet-50 | s/step | × first | memory | on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = rows[0].cost.seconds_a_step
    for row in rows:
        cost, published = row.cost, find_method(row.method).published
        paper = published.parameters if published else None
        lines.append(
            f"| {row.variant} | {cost.parameters_training / 1e6:.2f} M | {cost.parameters_testing / 1e6:.2f} M "
            f"| {f'{paper[0]} / {paper[1]} M' if paper else ''} | {cost.seconds_a_step:.3f} "
            f"| {cost.seconds_a_step / base:.2f} | {cost.bytes / 2**30:.2f} GiB | {cost.device} |"
        )
    return "\n".join(lines) + "\n"


def _tried(tried: Sequence[Tried]) -> str:
    lines = ["| variant | settings | val R1 | val mAP | |", "|---|---|---|---|---|"]
    for trial in tried:
        settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
        metrics = f"{100 * trial.R1:.1f} | {100 * trial.mAP:.1f}"
        lines.append(f"| {trial.variant} | {settings} | {metrics} | {'chosen' if trial.chosen else ''} |")
    return "\n".join(lines) + "\n"


def _settings(row: VariantResult) -> str:
    return f"{row.variant}: " + (", ".join(f"{name} {value}" for name, value in row.settings.items()) or "none")


def _where_unlike(what: str, of_variant: Mapping[str, str]) -> list[str]:
    """Say which variants have which value of a setting, unless all have the same."""
    variants: dict[str, list[str]] = {}
    for variant, value in of_variant.items():
        variants.setdefault(value or "no such setting", []).append(variant)
    found = [f"{value} ({', '.join(names)})" for value, names in variants.items()]
    return [f"{what}: {'; '.join(found)}.\n"] if len(found) > 1 else []
