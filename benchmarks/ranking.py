"""Does the synthetic benchmark rank methods as SYSU-MM01 does? Trains the field's methods on it, and compares orders.

    python benchmarks/ranking.py OUT [--methods agw hc coseg] [--seeds 0 1 2] [--benchmark-seed 0] [--list]

All methods have the same trunk, images, batches, optimiser and steps (configs/study.yaml), and their own network,
losses and weights of losses; those with views of their own have these too, the others that file's augmentation. The
learning rate of each is chosen on the val identities from the same few values. What they reach here is set beside what
was published of them on SYSU-MM01, all-search single-shot.

Runs that are done are kept; one that was killed, or stopped by a signal (exit status 75), is resumed by the same
command. OUT gets benchmark, runs/METHOD…/SEED, and ranking.md, .json and .png of what is done. To use every core with
OMP_NUM_THREADS=1, start it again with other methods once the first run trains, and at the end with --summary-only.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from common import SEGMENTATION_WEIGHT, Finding, run_with_log, study_parser, study_settings
from matplotlib.figure import Figure
from rich.console import Console

from csvi.analysis.ablate import Choice, Variant, choose, is_done, run_once
from csvi.analysis.canvas import STYLE
from csvi.analysis.ranking import FEWEST_METHODS, Agreement, Correlation, agreement
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.config import Config, SynthConfig
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.runs import Evaluation
from csvi.runs.settings import with_settings
from csvi.runs.statistics import mean_of
from csvi.synth import write_benchmark
from csvi.writing import replacing

METHODS = ("baseline", "select", "decode", "coseg", "agw", "hc", "hctri", "mtl", "caj", "ddag", "deen")
"""Methods with a figure of their own on SYSU-MM01, on a trunk that they can share. Seg_ReID's is that of `mtl`, PMT's
is of a transformer, and those of MPANet and CAJ+ have no source that we could read."""
RATES = ("0.001", "0.003", "0.006")
PROTOCOL = "all-search single-shot"
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
    """

    out: Path
    synth: SynthConfig
    base: Config
    methods: Sequence[str]
    seeds: Sequence[int]
    rates: Sequence[str]

    @property
    def config(self) -> Config:
        """The common settings, with the data of this folder."""
        data = {"data.root": str(self.out / "benchmark"), "data.cache": str(self.out / "cache")}
        return with_settings(self.base, data)

    def variant(self, method: str) -> Variant:
        """The method with its weight of the segmentation loss, where it has one."""
        weight = SEGMENTATION_WEIGHT.get(method)
        return Variant(method, (("method.segmentation_weight", weight),) if weight else ())

    def choice(self, method: str) -> Choice:
        """Choose the learning rate of a method on the val identities, with seed 0; trains what is not done."""
        return choose(self.config, self.variant(method), {"train.lr": self.rates}, self.out / "runs")

    def run(self, method: str) -> None:
        """Choose the learning rate, and train all seeds."""
        best = self.choice(method).best
        for seed in self.seeds:
            run_once(best.applied(self.config, seed), self.folder(best, seed))

    def folder(self, variant: Variant, seed: int) -> Path:
        """The folder of a run."""
        return self.out / "runs" / str(variant) / str(seed)

    def tried(self, method: str) -> list[Variant]:
        """The method with each of the learning rates."""
        variant = self.variant(method)
        rates = [(*variant.settings, ("train.lr", rate)) for rate in self.rates]
        return [Variant(method, settings) for settings in rates]

    def is_chosen(self, method: str) -> bool:
        """Whether the runs that the learning rate is chosen by are done."""
        return all(self.is_done(variant, 0) for variant in self.tried(method))

    def is_done(self, variant: Variant, seed: int) -> bool:
        """Whether a run was trained to its end and evaluated."""
        return is_done(variant.applied(self.config, seed), self.folder(variant, seed))

    def evaluations(self) -> dict[str, tuple[Choice, list[Evaluation]]]:
        """Method → its learning rate and evaluations, of the runs that are done."""
        found = {}
        for method in filter(self.is_chosen, self.methods):
            choice = self.choice(method)
            done = [seed for seed in self.seeds if self.is_done(choice.best, seed)]
            runs = [Evaluation.load(self.folder(choice.best, seed)) for seed in done]
            if runs:
                found[method] = choice, runs
        return found


def published(method: str) -> tuple[dict[str, float], str]:
    """What was published of a method on SYSU-MM01, in %, and where; empty if nothing was."""
    known = find_method(method).published
    figures = dict(known.metrics.get("sysu", {}).get(PROTOCOL, {})) if known else {}
    return figures, known.source if known and figures else ""


def agreements(found: dict[str, tuple[Choice, list[Evaluation]]]) -> list[Agreement]:
    """Compare the orders by every metric, where there are methods enough."""
    runs = {method: evaluations for method, (_, evaluations) in found.items()}
    agreed = []
    for metric in METRICS:
        theirs = {method: figures[metric] for method in runs if metric in (figures := published(method)[0])}
        if len(theirs) >= FEWEST_METHODS:
            agreed.append(agreement(runs, theirs, metric, PROTOCOL))
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
        partial.write_text(text)
    return text


def markdown(study: Study, found: dict[str, tuple[Choice, list[Evaluation]]], agreed: Sequence[Agreement]) -> str:
    """Write the table of methods, in the order of ours, and how the orders agree."""
    lines = [
        f"# Methods on the synthetic benchmark, preset {study.synth.preset}, seed {study.synth.seed}\n",
        f"{SYNTHETIC} {PROTOCOL}, in %: mean ± standard deviation over seeds; beside it, what was published on "
        "SYSU-MM01.\n",
        "| method | learning rate | seeds | R1 | mAP | SYSU-MM01 R1 | mAP | source |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def mean(method: str, metric: str) -> float:
        return mean_of([run.protocols[0].metrics[metric].mean for run in found[method][1]]).mean

    for method in sorted(found, key=lambda method: mean(method, "R1"), reverse=True):
        choice, runs = found[method]
        means = [mean_of([run.protocols[0].metrics[metric].mean for run in runs]) for metric in METRICS]
        figures, source = published(method)
        cells = [method, dict(choice.best.settings)["train.lr"], str(len(runs))]
        cells += [percent(each, sign=" ± ") for each in means]
        cells += [f"{figures[metric]:.1f}" if metric in figures else "" for metric in METRICS]
        lines.append(f"| {' | '.join([*cells, source])} |")
    lines += ["", *map(sentence, agreed), "", "![ours beside the published](ranking.png)", ""]
    return "\n".join(lines)


def sentence(agreed: Agreement) -> str:
    """Say how two orders agree."""

    def written(correlation: Correlation) -> str:
        return f"{correlation.value:.2f} [{correlation.low:.2f}, {correlation.high:.2f}]"

    return (
        f"- {agreed.metric}, {len(agreed.methods)} methods: Kendall's tau {written(agreed.tau)}, Spearman's rho "
        f"{written(agreed.rho)}; 95 % intervals over people and, where there are several, seeds."
    )


def draw(agreed: Sequence[Agreement]) -> Figure:
    """Draw ours over the published figures, one plot for each metric."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(agreed), 3.9), layout="constrained")
        for axes, one in zip(figure.subplots(1, len(agreed), squeeze=False)[0], agreed, strict=True):
            axes.plot(one.published, [100 * value for value in one.ours], "o", ms=5)
            for method, theirs, ours in zip(one.methods, one.published, one.ours, strict=True):
                axes.annotate(method, (theirs, 100 * ours), xytext=(4, 3), textcoords="offset points", fontsize=8)
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
        done = [dict(v.settings)["train.lr"] for v in study.tried(method) if study.is_done(v, 0)]
        seeds = "not chosen yet"
        if study.is_chosen(method):
            best = study.choice(method).best
            seeds = f"{dict(best.settings)['train.lr']}, seeds {[s for s in study.seeds if study.is_done(best, s)]}"
        lines.append(f"{method}: learning rates {', '.join(done) or 'none'}; {seeds}")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """Of this script's options."""
    parser = study_parser(__doc__, "what is done")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--rates", nargs="+", default=list(RATES), help="learning rates to choose from")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Trains what is not done yet, writes and prints."""
    synth, base = study_settings(options)
    study = Study(options.out.absolute(), synth, base, options.methods, options.seeds, options.rates)
    for method in study.methods:
        find_method(method)  # what is no method is said first
    if options.list:
        console.print(plan(study), markup=False)
        return []
    if not options.summary_only:
        write_benchmark(study.out / "benchmark", synth)
        for method in study.methods:
            study.run(method)
    console.print(write(study), soft_wrap=True, markup=False)
    console.print(f"written: {study.out / 'ranking.md'}, .json and .png")
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 for an error; 75 if it was stopped, and the same command resumes it."""
    return run_with_log(measure, make_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
