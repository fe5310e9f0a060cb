"""Does the synthetic benchmark rank methods as SYSU-MM01 does? Trains the field's methods on it, and compares orders.

    python benchmarks/ranking.py OUT [--methods agw hc coseg] [--seeds 0 1 2] [--benchmark-seed 0] [--list]

All methods have the same trunk, images, batches, optimiser and steps (configs/study.yaml), and their own network,
losses and weights of losses; those with views of their own have these too, the others that file's augmentation. The
learning rate of each is chosen on the val identities from the same few values. What they reach here is set beside what
was published of them on SYSU-MM01, single-shot.

Runs that are done are kept; one that was killed, or stopped by a signal (exit status 75), is resumed by the same
command. OUT gets benchmark, runs/METHOD…/SEED, and ranking.md, .json and .png of what is done. To use every core with
OMP_NUM_THREADS=1, start it again with other methods once the first run trains, and at the end with --summary-only.

What moves the order is asked by the same study under other conditions, with the learning rates chosen before:

    python benchmarks/ranking.py OTHER --like OUT --seeds 0 --epochs 24      # or --rho 0.8 1, --size 96 48,
                                                                             # --cameras 1 4 6, --people
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from agreement import FEWEST_METHODS, Agreement, Correlation, agreement
from common import SEGMENTATION_WEIGHT, Finding, run_with_log, study_parser, study_settings
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from csvi.analysis.ablate import Choice, Variant, choose, is_done, run_once
from csvi.analysis.canvas import STYLE
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.config import Config
from csvi.data.sysu import MODALITIES
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.progress import progress
from csvi.runs import Evaluation
from csvi.runs.settings import with_settings
from csvi.runs.statistics import mean_of
from csvi.synth import SynthConfig, write_benchmark
from csvi.writing import replacing

METHODS = ("baseline", "select", "decode", "coseg", "agw", "hc", "hctri", "mtl", "caj", "ddag", "deen")
"""Methods with a figure of their own on SYSU-MM01, on a trunk that they can share. Seg_ReID's is that of `mtl`, PMT's
is of a transformer, and those of MPANet and CAJ+ have no source that we could read."""
RATES = ("0.001", "0.003", "0.006")
PROTOCOLS = ("all-search single-shot", "indoor-search single-shot")
"""Of SYSU-MM01; the table is of the first. Indoors half of the gallery's cameras are left out."""
METRICS = ("R1", "mAP")


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs that are asked for, in one folder.

    Args:
        out: the folder.
        synth: the benchmark.
        base: the settings that all runs have in common.
        methods, seeds: every combination is one run.
        rates: learning rates to choose from.
        like: another study, whose learning rates are taken instead.
        people: leave nothing in the images but the people, see `write_people`.
        cameras: train and test on their images alone; empty for all.
    """

    out: Path
    synth: SynthConfig
    base: Config
    methods: Sequence[str]
    seeds: Sequence[int]
    rates: Sequence[str]
    like: "Study | None" = None
    people: bool = False
    cameras: Sequence[int] = ()

    @property
    def drawn(self) -> Path:
        """The folder of the images of all cameras."""
        return self.out / ("people" if self.people else "benchmark")

    @property
    def images(self) -> Path:
        """The folder of the images to train and test on."""
        return self.out / "-".join([self.drawn.name, *map(str, self.cameras)])

    def write_images(self) -> None:
        """Write the images that are not there yet."""
        write_benchmark(self.out / "benchmark", self.synth)
        if self.people:
            write_people(self.out / "benchmark", self.drawn)
        if self.cameras:
            link_cameras(self.drawn, self.images, self.cameras)

    @property
    def config(self) -> Config:
        """The common settings, with the data of this folder; the val identities are asked at the end alone."""
        data = {"data.root": str(self.images), "data.cache": str(self.out / "cache")}
        return with_settings(self.base, data | {"train.validate_every": str(self.base.train.epochs)})

    def variant(self, method: str) -> Variant:
        """The method with its weight of the segmentation loss, where it has one."""
        weight = SEGMENTATION_WEIGHT.get(method)
        return Variant.of(self.config, method, [("method.segmentation_weight", weight)] if weight else [])

    def choice(self, method: str, train: bool = True) -> Choice | None:
        """Choose the learning rate of a method on the val identities, with seed 0.

        While the least rate is best, or the greatest, a third of it is tried too, or twice as much. Returns None where
        a run is missing that may not be trained.
        """
        if self.like is not None:
            chosen = self.like.choice(method, train=False)
            if chosen is None and train:
                raise CsviError(f"the learning rate of {method} is not chosen in {self.like.out}: train it there first")
            return chosen and dataclasses.replace(chosen, best=self.tried(method, [rate_of(chosen.best)])[0])
        rates = sorted(self.rates, key=float)
        while train or all(self.is_done(tried, 0) for tried in self.tried(method, rates)):
            choice = choose(self.variant(method), {"train.lr": rates}, self.out / "runs")
            if len(rates) == 1 or (best := rate_of(choice.best)) not in (rates[0], rates[-1]):
                return choice
            further = float(best) / 3 if best == rates[0] else float(best) * 2
            rates = sorted([*rates, f"{further:.1g}"], key=float)
        return None

    def run(self, method: str) -> None:
        """Choose the learning rate, and train all seeds."""
        choice = self.choice(method)
        for seed in self.seeds:
            run_once(choice.best.with_seed(seed), self.folder(choice.best, seed))

    def folder(self, variant: Variant, seed: int) -> Path:
        """The folder of a run."""
        return self.out / "runs" / str(variant) / str(seed)

    def tried(self, method: str, rates: Sequence[str]) -> list[Variant]:
        """The method with each of these learning rates."""
        variant = self.variant(method)
        return [Variant.of(self.config, method, [*variant.settings, ("train.lr", rate)]) for rate in rates]

    def is_done(self, variant: Variant, seed: int) -> bool:
        """Whether a run was trained to its end and evaluated."""
        return is_done(variant.with_seed(seed), self.folder(variant, seed))

    def evaluations(self) -> dict[str, tuple[Choice, list[Evaluation]]]:
        """Method → its learning rate and evaluations, of the runs that are done."""
        found = {}
        for method in self.methods:
            choice = self.choice(method, train=False)
            if choice is None:
                continue
            done = [seed for seed in self.seeds if self.is_done(choice.best, seed)]
            runs = [Evaluation.load(self.folder(choice.best, seed)) for seed in done]
            if runs:
                found[method] = choice, runs
        return found


def rate_of(variant: Variant) -> str:
    """The learning rate among its settings."""
    return dict(variant.settings)["train.lr"]


def write_people(benchmark: Path, out: Path) -> None:
    """Copy a benchmark with everything but the people grey, by its exact masks; what is there already is kept."""
    images = sorted(benchmark.glob("cam*/*/*.jpg"))
    for image in progress(images, "leaving out what is behind people"):
        path = image.relative_to(benchmark)
        if (out / path).exists():
            continue
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as photo, Image.open(benchmark / "masks" / path.with_suffix(".png")) as mask:
            people = Image.composite(photo, Image.new(photo.mode, photo.size, "gray"), mask.convert("L"))
        with replacing(out / path) as partial:
            people.save(partial, format="jpeg", quality=95)
    link(benchmark, out, ("masks", "exp", "README", "counts.json"))


def link_cameras(benchmark: Path, out: Path, cameras: Sequence[int]) -> None:
    """Link to the images of these cameras, and leave the folders of the others empty: they saw nobody."""
    folders = {camera: f"cam{camera}" for camera in MODALITIES}
    for camera in folders.keys() - set(cameras):
        (out / folders[camera]).mkdir(parents=True, exist_ok=True)
    link(benchmark, out, [*(folders[camera] for camera in cameras), "masks", "exp", "README"])


def link(benchmark: Path, out: Path, names: Sequence[str]) -> None:
    """Link from `out` to what has these names in a benchmark."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (out / name).is_symlink():
            (out / name).symlink_to(benchmark / name)


def published(method: str, protocol: str = PROTOCOLS[0]) -> tuple[dict[str, float], str]:
    """What was published of a method on SYSU-MM01, in %, and where; empty if nothing was."""
    known = find_method(method).published
    figures = dict(known.metrics.get("sysu", {}).get(protocol, {})) if known else {}
    return figures, known.source if known and figures else ""


def agreements(found: dict[str, tuple[Choice, list[Evaluation]]]) -> list[Agreement]:
    """Compare the orders by every protocol and metric, where there are methods enough."""
    runs = {method: evaluations for method, (_, evaluations) in found.items()}
    agreed = []
    for protocol, metric in itertools.product(PROTOCOLS, METRICS):
        theirs = {method: figures[metric] for method in runs if metric in (figures := published(method, protocol)[0])}
        if len(theirs) >= FEWEST_METHODS:
            agreed.append(agreement(runs, theirs, metric, protocol))
    return agreed


def write(study: Study) -> str:
    """Write OUT/ranking.json, .png and .md; returns the last.

    Raises:
        CsviError: no method is done.
    """
    found = study.evaluations()
    if not found:
        raise CsviError(f"no method is done in {study.out}: start it without --summary-only")
    agreed = agreements(found)
    text = markdown(study, found, agreed)
    results = {"synth": dataclasses.asdict(study.synth), "agreements": [dataclasses.asdict(one) for one in agreed]}
    with replacing(study.out / "ranking.json") as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    if agreed:
        with replacing(study.out / "ranking.png") as partial:
            draw(agreed).savefig(partial, format="png", dpi=150, metadata={"Software": None})
    with replacing(study.out / "ranking.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def markdown(study: Study, found: dict[str, tuple[Choice, list[Evaluation]]], agreed: Sequence[Agreement]) -> str:
    """Write the table of methods, in the order of ours, and how the orders agree."""
    lines = [
        f"# Methods on the synthetic benchmark, preset {study.synth.preset}, seed {study.synth.seed}\n",
        f"{SYNTHETIC} {PROTOCOLS[0]}, in %: mean ± standard deviation over seeds; beside it, what was published on "
        "SYSU-MM01.\n",
        "| method | learning rate | seeds | R1 | mAP | SYSU-MM01 R1 | mAP | source |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def mean(method: str, metric: str) -> float:
        return mean_of([run.result(PROTOCOLS[0]).metrics[metric].mean for run in found[method][1]]).mean

    for method in sorted(found, key=lambda method: mean(method, "R1"), reverse=True):
        choice, runs = found[method]
        means = [mean_of([run.result(PROTOCOLS[0]).metrics[metric].mean for run in runs]) for metric in METRICS]
        figures, source = published(method)
        cells = [method, rate_of(choice.best), str(len(runs))]
        cells += [percent(each, sign=" ± ") for each in means]
        cells += [f"{figures[metric]:g}" if metric in figures else "" for metric in METRICS]
        lines.append(f"| {' | '.join([*cells, source])} |")
    lines += ["", *map(sentence, agreed), "", "![ours beside the published](ranking.png)", ""]
    return "\n".join(lines)


def sentence(agreed: Agreement) -> str:
    """Say how two orders agree."""

    def written(correlation: Correlation) -> str:
        return f"{correlation.value:.2f} [{correlation.low:.2f}, {correlation.high:.2f}]"

    return (
        f"- {agreed.protocol}, {agreed.metric}, {len(agreed.methods)} methods: Kendall's tau {written(agreed.tau)}, "
        f"Spearman's rho {written(agreed.rho)}; 95 % intervals over people and, where there are several, seeds."
    )


def draw(agreed: Sequence[Agreement]) -> Figure:
    """Draw ours over the published figures, one plot for each metric."""
    shown = [one for one in agreed if one.protocol == PROTOCOLS[0]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(shown), 3.9), layout="constrained")
        for axes, one in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            points = [(theirs, 100 * ours) for theirs, ours in zip(one.published, one.ours, strict=True)]
            axes.plot(*zip(*points, strict=True), "o", ms=5)
            for method, (x, y) in zip(one.methods, points, strict=True):
                crowded = any(0 < right - x < 6 and abs(up - y) < 3 for right, up in points)  # in percent, both
                offset, side = (-4, "right") if crowded else (4, "left")
                axes.annotate(method, (x, y), (offset, 3), textcoords="offset points", ha=side, fontsize=8)
            axes.set(
                xlabel=f"published {one.metric} on SYSU-MM01 (%)",
                ylabel=f"{one.metric} on the synthetic benchmark (%)",
                title=f"Kendall's tau {one.tau.value:.2f} [{one.tau.low:.2f}, {one.tau.high:.2f}]",
            )  # fmt: skip
            axes.margins(x=0.15)
    return figure


def plan(study: Study) -> str:
    """List for each method which learning rates and seeds are done."""
    lines = []
    for method in study.methods:
        choice = study.choice(method, train=False)
        if choice is None:
            done = [rate_of(v) for v in study.tried(method, study.rates) if study.is_done(v, 0)]
            lines.append(f"{method}: learning rate not chosen yet; done {', '.join(done) or 'none'}")
        else:
            done = [str(seed) for seed in study.seeds if study.is_done(choice.best, seed)]
            lines.append(f"{method}: learning rate {rate_of(choice.best)}; seeds done {', '.join(done) or 'none'}")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, "what is done")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument(
        "--rates", nargs="+", default=list(RATES), help="learning rates to choose from; one is taken as it is"
    )
    parser.add_argument("--like", type=Path, metavar="OUT", help="take the learning rates chosen there")
    parser.add_argument(
        "--rho", nargs=2, type=float, metavar=("LEAST", "MOST"), default=(SynthConfig.rho_min, SynthConfig.rho_max),
        help="share of an infrared reflectance that comes from its visible luminance",
    )  # fmt: skip
    parser.add_argument("--size", nargs=2, metavar=("HEIGHT", "WIDTH"), help="pixels; by default those of the settings")
    parser.add_argument("--people", action="store_true", help="people before plain grey, in training and test")
    parser.add_argument(
        "--cameras", nargs="+", type=int, choices=MODALITIES, default=(), metavar="CAMERA",
        help="of SYSU-MM01's 1 to 6, of which 3 and 6 are infrared: train and test on the images of these alone",
    )  # fmt: skip
    return parser


def study_of(options: argparse.Namespace) -> Study:
    """The study that is asked for."""
    methods, seeds, rates = options.methods, options.seeds, options.rates
    like = None
    if options.like:
        as_chosen = argparse.Namespace(**vars(options) | {"epochs": None})
        like = Study(options.like.absolute(), *study_settings(as_chosen), methods, seeds, rates)
    synth, base = study_settings(options)
    synth = dataclasses.replace(synth, rho_min=options.rho[0], rho_max=options.rho[1])
    if options.size:
        base = with_settings(base, dict(zip(("data.height", "data.width"), options.size, strict=True)))
    return Study(options.out.absolute(), synth, base, methods, seeds, rates, like, options.people, options.cameras)


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Trains what is not done yet, writes and prints."""
    study = study_of(options)
    for method in study.methods:
        find_method(method)  # what is no method is said first
    if options.list:
        console.print(plan(study), markup=False)
        return []
    if not options.summary_only:
        study.write_images()
        for method in study.methods:
            study.run(method)
    console.print(write(study), soft_wrap=True, markup=False)
    console.print(f"written: {study.out / 'ranking.md'}, .json and .png")
    return []


if __name__ == "__main__":
    sys.exit(run_with_log(measure, make_parser()))
