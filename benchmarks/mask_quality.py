"""How much masks matter: methods trained on masks of every quality, from exact to another person's, and compared.

    python benchmarks/mask_quality.py OUT [--kinds exact predicted none] [--methods coseg] [--seeds 0 1 2] [--list]

The synthetic benchmark is rendered once, and each kind of mask is made of all of its training images; runs differ in
nothing else. They have the settings of docs/results.md, and are tested as `csvi evaluate` does it; what a method
predicts is compared with exact masks. The predicted kind is that of `csvi masks`, whose segmenter was trained on other
people; all of its masks are used, doubtful ones too, so that all runs see the same images.

Runs that are done are kept; one that was killed, or stopped by a signal (exit status 75), is resumed by the same
command. OUT gets benchmark, masks/KIND, runs/METHOD/KIND/SEED, and mask-quality.md, .json and .png of what is done. To
use every core with OMP_NUM_THREADS=1, start it again with other seeds once the first run trains, and at the end once
more with all seeds and --summary-only.
"""

import argparse
import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from statistics import fmean

import matplotlib
import numpy as np
import torch
from common import SEGMENTATION_WEIGHT, BenchmarkError, Finding, run_with_log, study_parser, study_settings
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from csvi.analysis.ablate import is_done, run_once
from csvi.analysis.canvas import STYLE
from csvi.analysis.tables import SYNTHETIC, difference_cell, percent
from csvi.config import Config, flatten
from csvi.data import ImageRecord, Modality, read_benchmark
from csvi.data.cache import cached_masks
from csvi.data.images import load_image
from csvi.data.masks import Mask
from csvi.data.training_set import training_records
from csvi.errors import CsviError
from csvi.evaluate.mask_iou import best_constant_mask, mask_iou
from csvi.masks.find import find_segmenter
from csvi.masks.quality import GOOD, predict
from csvi.masks.segmenter import Segmenter
from csvi.progress import progress
from csvi.runs import Evaluation, Options
from csvi.runs.settings import with_settings
from csvi.runs.statistics import Difference, Mean, difference_of_groups, mean_of
from csvi.synth import SynthConfig, write_benchmark
from csvi.synth.benchmark import plan_of
from csvi.train.cost import training_cost
from csvi.writing import replacing

MARGIN = 0.03
"""Pixels by which a person is eroded or dilated, in parts of the height."""
SHIFT = 4 / 144
"""Pixels by which a mask is shifted, in parts of the height."""
KINDS = {
    "exact": "as rendered",
    "predicted": "by a segmenter that never saw these people",
    "eroded": f"the person thinner by {100 * MARGIN:.0f} % of the height on every side",
    "dilated": "the person thicker by as much",
    "shifted": "4 pixels of 144 up, down, left or right, as is drawn for each image",
    "mean": "one shape for every image, the best there is",
    "box": "the rectangle around the person",
    "other": "that of an image of another person in the same spectrum",
    "none": "the Baseline, which learns from no mask",
}
"""Kind of mask → what it is."""
METRICS = ("R1", "mAP")
SEGMENTER = "segmenter.json"
BATCH = 64
FORWARD = 1 / 3
"""Time of a batch that is embedded, or whose masks are predicted, in parts of a training step."""


def eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Make the person thinner by so many pixels on every side; masks are (H, W) uint8, 255 = person, here and below."""
    return ndimage.grey_erosion(mask, footprint=_disc(pixels))


def dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Make the person thicker by so many pixels on every side."""
    return ndimage.grey_dilation(mask, footprint=_disc(pixels))


def _disc(radius: int) -> np.ndarray:
    down, right = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return down**2 + right**2 <= radius**2


def shifted(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move the person; what comes in from outside is background."""
    return ndimage.shift(mask, (down, right), order=0)


def boxed(mask: np.ndarray) -> np.ndarray:
    """Fill the rectangle around the person."""
    rows, columns = (np.flatnonzero((mask > 127).any(axis)) for axis in (1, 0))
    box = np.zeros_like(mask)
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 255
    return box


def mean_shape(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the one mask that has the greatest mean IoU with all of these."""
    best, _ = best_constant_mask(torch.from_numpy(np.stack(masks) > 127))
    return np.where(best.numpy(), np.uint8(255), np.uint8(0))


def of_others(records: Sequence[ImageRecord], rng: np.random.Generator) -> list[int]:
    """Draw for each image the number of one of another person in the same modality."""
    identity, modality = (np.array([getattr(r, name) for r in records]) for name in ("identity", "modality"))
    return [
        int(rng.choice(np.flatnonzero((modality == record.modality) & (identity != record.identity))))
        for record in records
    ]


def degraded(kind: str, exact: Sequence[np.ndarray], records: Sequence[ImageRecord]) -> list[np.ndarray]:
    """Make the masks of a kind from the exact ones of these images, which have one size."""
    rng = np.random.default_rng(0)
    pixels, far = (round(share * len(exact[0])) for share in (MARGIN, SHIFT))
    if kind == "eroded":
        return [eroded(mask, pixels) for mask in exact]
    if kind == "dilated":
        return [dilated(mask, pixels) for mask in exact]
    if kind == "shifted":
        moves = far * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
        return [shifted(mask, *moves[rng.integers(4)]) for mask in exact]
    if kind == "mean":
        return [mean_shape(exact)] * len(exact)
    if kind == "box":
        return [boxed(mask) for mask in exact]
    if kind == "other":
        return [exact[i] for i in of_others(records, rng)]
    raise BenchmarkError(f"no masks of the kind {kind!r} are made from exact ones")


def predicted(root: Path, records: Sequence[ImageRecord], segmenter: Segmenter) -> tuple[list[np.ndarray], int]:
    """Predict the masks of images as `csvi masks` does; returns them, and how many of them it would call doubtful."""
    masks, doubtful = [], 0
    for start in progress(range(0, len(records), BATCH), "Predicting masks"):
        images = [np.asarray(load_image(root / record.path)) for record in records[start : start + BATCH]]
        for prediction in predict(segmenter, images):
            masks.append((255 * prediction.probability + 0.5).astype(np.uint8))
            doubtful += prediction.verdict != GOOD
    return masks, doubtful


@dataclass(frozen=True)
class Trial:
    """One run."""

    method: str
    kind: str
    seed: int

    @classmethod
    def of(cls, method: str, kind: str, seed: int) -> "Trial":
        """The run of a method on a kind of masks; without masks it is the Baseline's, whatever the method."""
        return cls("baseline" if kind == "none" else method, kind, seed)


@dataclass(frozen=True)
class Row:
    """A method trained on masks of one kind, with several seeds; fractions from 0 to 1."""

    method: str
    kind: str
    protocol: str
    seeds: list[int]
    metrics: dict[str, Mean]
    """Over the seeds."""
    differences: dict[str, Difference]
    """To exact masks, of the seeds that both have; empty for those and without them."""
    iou: dict[str, float]
    """Mean IoU of the training masks with the exact ones, by modality; empty without masks."""
    learnt: float | None
    """Mean IoU of what the method predicts of the test images with the exact masks; None for the Baseline."""


@dataclass(frozen=True)
class Experiment:
    """The runs that are asked for, in one folder.

    Args:
        out: the folder.
        synth: the benchmark.
        base: the settings that all runs have in common; data and seed are set here.
        kinds, methods, seeds: every combination is one run.
        segmenter: who predicts masks, see `find_segmenter`.
    """

    out: Path
    synth: SynthConfig
    base: Config
    kinds: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    segmenter: str

    @property
    def root(self) -> Path:
        """The folder of the benchmark."""
        return self.out / "benchmark"

    def masks(self, kind: str) -> Path:
        """The folder of the masks of a kind."""
        return self.root / "masks" if kind == "exact" else self.out / "masks" / kind

    @property
    def trials(self) -> list[Trial]:
        """All runs; those of one seed are over before the next one begins."""
        return [
            trial
            for seed in self.seeds
            for trial in dict.fromkeys(Trial.of(method, kind, seed) for method in self.methods for kind in self.kinds)
        ]

    def folder(self, trial: Trial) -> Path:
        """The folder of a run."""
        return self.out / "runs" / trial.method / trial.kind / str(trial.seed)

    def config(self, trial: Trial) -> Config:
        """The settings of a run."""
        settings = {"method.name": trial.method, "seed": str(trial.seed)}
        if trial.method in SEGMENTATION_WEIGHT:
            settings["method.segmentation_weight"] = SEGMENTATION_WEIGHT[trial.method]
        config = with_settings(self.base, settings)
        config.data.root, config.data.cache = str(self.root), str(self.out / "cache")
        config.data.layout, config.data.masks = self.synth.layout, None
        if trial.kind != "none":
            config.data.masks = str(self.masks(trial.kind))
        return config

    def is_done(self, trial: Trial) -> bool:
        """Whether a run was trained to its end and evaluated."""
        return is_done(self.config(trial), self.folder(trial))

    @cached_property
    def records(self) -> list[ImageRecord]:
        """The training images, with exact masks."""
        data = self.config(Trial("baseline", "none", 0)).data
        return training_records(read_benchmark(data), data)

    def prepare(self) -> None:
        """Render the benchmark and make all kinds of masks, where they are not there."""
        segmenter = self._stranger() if "predicted" in self.kinds else None  # what is wrong with it is said first
        write_benchmark(self.root, self.synth)
        if segmenter:
            self._predict(segmenter)
        for kind in self.kinds:
            if kind not in ("exact", "predicted", "none") and not self.masks(kind).is_dir():
                exact = [Mask(record.mask).person(255) for record in self.records if record.mask]
                self._write(kind, degraded(kind, exact, self.records))

    def _stranger(self) -> Segmenter:
        """Build the segmenter; raises if it was trained or tested on people of the benchmark."""
        segmenter = find_segmenter(self.segmenter)
        seen = getattr(segmenter, "facts", {}).get("settings", {}).get("seed")
        if seen is not None and self.synth.seed in (seen, seen + 1):
            raise BenchmarkError(
                f"the segmenter was trained and tested on people of the seeds {seen} and {seen + 1}: give the "
                "benchmark another one, --benchmark-seed"
            )
        return segmenter

    def _predict(self, segmenter: Segmenter) -> None:
        folder = self.masks("predicted")
        made_by = {"name": segmenter.name, "facts": getattr(segmenter, "facts", {})}
        if folder.is_dir():
            there = json.loads((folder / SEGMENTER).read_text())
            if made_by != {name: there[name] for name in made_by}:
                raise BenchmarkError(
                    f"{folder} holds masks by another segmenter ({there['name']}): name another folder than {self.out}"
                )
            return
        masks, doubtful = predicted(self.root, self.records, segmenter)
        self._write("predicted", masks, made_by | {"doubtful": doubtful, "of": len(masks)})

    def _write(self, kind: str, masks: Sequence[np.ndarray], about: dict[str, object] | None = None) -> None:
        """Write the masks of the training images; their folder appears when all are there."""
        folder = self.masks(kind)
        partial = folder.with_name(f"{kind}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for record, mask in zip(self.records, masks, strict=True):
            file = partial / PurePosixPath(record.path).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(file)
        if about:
            (partial / SEGMENTER).write_text(json.dumps(about, indent=1) + "\n")
        partial.rename(folder)

    def run(self, trial: Trial) -> None:
        """Train and test one run, or find that it is done."""
        run_once(self.config(trial), self.folder(trial), Options(masks=str(self.masks("exact"))))

    def iou(self, kind: str) -> dict[str, float]:
        """Mean IoU of the training masks of a kind with the exact ones, by modality; empty without masks."""
        if kind == "none":
            return {}
        data = self.config(Trial("coseg", kind, 0)).data
        records = training_records(read_benchmark(data), data)
        mine, exact = (cached_masks(self.root, of, data) for of in (records, self.records))
        person = [[torch.from_numpy(masks[i] > 127)[None] for masks in (mine, exact)] for i in range(len(exact))]
        found = torch.cat([mask_iou(*both) for both in person])
        modality = torch.tensor([int(record.modality) for record in records])
        return {m.word: float(found[modality == m].nanmean()) for m in Modality}

    def rows(self) -> list[Row]:
        """Everything that is found, of the runs that are done."""
        found = {(method, kind): self.evaluations(method, kind) for method in self.methods for kind in KINDS}
        done = [(method, kind) for method in self.methods for kind in self.kinds if found[method, kind]]
        ious = {kind: self.iou(kind) for kind in dict.fromkeys(kind for _, kind in done)}
        return [row_of(method, kind, found[method, kind], found[method, "exact"], ious[kind]) for method, kind in done]

    def evaluations(self, method: str, kind: str) -> dict[int, Evaluation]:
        """Seed → evaluation, of the runs that are done."""
        trials = [Trial.of(method, kind, seed) for seed in self.seeds]
        return {trial.seed: Evaluation.load(self.folder(trial)) for trial in trials if self.is_done(trial)}

    def seconds(self, method: str) -> float:
        """Estimate the time of a run: a few steps are measured, on random images."""
        counts = plan_of(self.synth.layout, self.synth.preset, self.synth.seed).counts
        config, learnt, asked = self.config(Trial(method, "exact", 0)), counts["train"], counts["test"]
        drawn = config.data.identities * config.data.images
        steps = config.train.epochs * math.ceil(max(learnt.visible, learnt.infrared) / drawn)
        passes = (asked.visible + asked.infrared) / (2 * drawn) * (1 if method == "baseline" else 2)
        return training_cost(config, learnt.identities, 3).seconds_a_step * (steps + FORWARD * passes)


def row_of(
    method: str, kind: str, found: dict[int, Evaluation], exact: dict[int, Evaluation], iou: dict[str, float]
) -> Row:
    """Average evaluations over their seeds, and compare them with those of the same seeds on exact masks."""
    both = [seed for seed in found if seed in exact and kind != "exact"]
    metrics = [evaluation.protocols[0].metrics for evaluation in found.values()]
    learnt = [mask.iou for evaluation in found.values() for mask in evaluation.masks.values()]
    return Row(
        method=method,
        kind=kind,
        protocol=next(iter(found.values())).protocols[0].protocol,
        seeds=list(found),
        metrics={name: mean_of([of_run[name].mean for of_run in metrics]) for name in METRICS},
        differences=difference_of_groups([exact[s] for s in both], [found[s] for s in both]) if both else {},
        iou=iou,
        learnt=fmean(learnt) if learnt else None,
    )


def plan(experiment: Experiment) -> Table:
    """List the runs, which of them are done, and how long the others take."""
    trials = experiment.trials
    methods = list(dict.fromkeys(trial.method for trial in trials))
    table = Table("method", "masks", "runs", "done", "minutes a run, about", "minutes left, about")
    left = 0.0
    for method in methods:
        minutes = experiment.seconds(method) / 60
        of_method = [trial for trial in trials if trial.method == method]
        done = sum(map(experiment.is_done, of_method))
        kinds = ", ".join(dict.fromkeys(trial.kind for trial in of_method))
        remaining = minutes * (len(of_method) - done)
        table.add_row(method, kinds, str(len(of_method)), str(done), f"{minutes:.1f}", f"{remaining:.0f}")
        left += remaining
    table.add_row("", "", str(len(trials)), "", "", f"{left:.0f}")
    return table


def write(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Write OUT/mask-quality.json, .png and .md; returns the last."""
    segmenter = experiment.masks("predicted") / SEGMENTER
    results = {
        "synth": dataclasses.asdict(experiment.synth),
        "settings": flatten(experiment.base),
        "segmenter": json.loads(segmenter.read_text()) if segmenter.is_file() else None,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    text = markdown(experiment, rows)
    with replacing(experiment.out / "mask-quality.json") as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    with replacing(experiment.out / "mask-quality.png") as partial:
        draw(rows).savefig(partial, format="png", dpi=150, metadata={"Software": None})
    with replacing(experiment.out / "mask-quality.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def markdown(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Write the table, what its rows are, and what predicted masks cost beside the seeds."""
    lines = [
        f"# How much masks matter: preset {experiment.synth.preset}, seed {experiment.synth.seed}\n",
        f"{SYNTHETIC} {rows[0].protocol}, in %: mean ± standard deviation over seeds. Δ: paired "
        "difference to exact masks in points, with "
        "its 95 % interval over people; \\* excludes 0. IoU: of the training masks with the exact ones, and of what "
        "the method predicts of test images.\n",
        "| method | masks | IoU | seeds | R1 | mAP | Δ R1 | Δ mAP | IoU learnt |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        metrics = [percent(row.metrics[name], sign=" ± ") for name in METRICS]
        differences = [difference_cell(row.differences.get(n)).rstrip().replace("*", r"\*") for n in METRICS]
        iou = f"{fmean(row.iou.values()):.3f}" if row.iou else ""
        learnt = f"{row.learnt:.3f}" if row.learnt is not None else ""
        cells = [row.method, row.kind, iou, str(len(row.seeds)), *metrics, *differences, learnt]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {kind}: {KINDS[kind]}" for kind in dict.fromkeys(row.kind for row in rows)]
    lines.append("")
    lines += filter(None, (price_of_prediction(rows, method) for method in experiment.methods))
    return "\n".join([*lines, "", "![R1 by kind of mask](mask-quality.png)", ""])


def price_of_prediction(rows: Sequence[Row], method: str) -> str:
    """Say what predicted masks change, beside the spread over seeds; empty where there are not seeds enough."""
    of_method = {row.kind: row for row in rows if row.method == method}
    exact, other = of_method.get("exact"), of_method.get("predicted")
    if exact is None or other is None or len(exact.seeds) < 2 or not other.differences:
        return ""
    change, spread = other.differences["R1"].difference, exact.metrics["R1"].std
    verdict = "less than" if abs(change) < spread else "not less than"
    return (
        f"{method}: with predicted masks R1 changes by {100 * change:+.1f} points, {verdict} the standard deviation "
        f"of R1 over seeds with exact ones, {100 * spread:.1f}."
    )


def draw(rows: Sequence[Row]) -> Figure:
    """Draw R1 of each kind: seeds as small dots, their mean, and the interval of its difference to exact masks."""
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    methods = list(dict.fromkeys(row.method for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.0, 0.9 * len(kinds) + 1.2), 3.8), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(methods):
            color, beside = f"C{number}", 0.2 * (number - (len(methods) - 1) / 2)
            for row in (row for row in rows if row.method == method):
                at, r1 = kinds.index(row.kind) + beside, row.metrics["R1"]
                axes.plot([at + 0.07] * len(r1.runs), [100 * v for v in r1.runs], ".", color=color, alpha=0.4, ms=4)
                axes.plot(at, 100 * r1.mean, "o", color=color, label=method if row.kind == kinds[0] else None)
                if row.kind == "exact":
                    axes.axhline(100 * r1.mean, color=color, linewidth=0.8, linestyle=":")
                if change := row.differences.get("R1"):
                    ends = [100 * (r1.mean + end - change.difference) for end in (change.low, change.high)]
                    axes.plot([at, at], ends, color=color, linewidth=1.5)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set(xlabel="masks in training", ylabel="R1 (%), synthetic benchmark", xlim=(-0.5, len(kinds) - 0.5))
        axes.legend(frameon=False, fontsize=9)
        figure.supxlabel(
            "bars: 95 % interval of the difference to exact masks; small dots: seeds", fontsize=8, color="0.35"
        )
    return figure


def make_parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, "the runs, and how long they take")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--methods", nargs="+", choices=SEGMENTATION_WEIGHT, default=["coseg", "decode"])
    parser.add_argument("--segmenter", default="embedded", help="of the predicted masks, as csvi masks --segmenter")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Trains what is not done yet, writes and prints; there are no targets."""
    synth, base = study_settings(options)
    base = with_settings(base, {"train.validate_every": "0"})
    experiment = Experiment(
        options.out.absolute(), synth, base, options.kinds, options.methods, options.seeds, options.segmenter
    )
    if options.list:
        console.print(plan(experiment))
        return []
    if not options.summary_only:
        experiment.prepare()
        for trial in experiment.trials:
            experiment.run(trial)
    rows = experiment.rows()
    if not rows:
        raise CsviError(f"no run of these is done in {options.out}: start it without --summary-only")
    console.print(write(experiment, rows), soft_wrap=True, markup=False)
    console.print(f"written: {options.out / 'mask-quality.md'}, .json and .png")
    return []


if __name__ == "__main__":
    sys.exit(run_with_log(measure, make_parser()))
