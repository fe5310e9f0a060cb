"""`csvi demo`: the main job from nothing to a report."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import DataConfig, shipped_config
from csvi.paths import expanded
from csvi.synth import SynthConfig

if TYPE_CHECKING:
    from csvi.masks.segmenter import Segmenter

Masks = Literal["exact", "predicted"]

SUMMARY = "The main job at a small size: synthetic benchmark, training, evaluation, report."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--out", default="demo", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the benchmark and of training")
    kinds = "exact: those of the benchmark; predicted: those of csvi masks"
    parser.add_argument("--masks", type=Masks, default="exact", help=f"masks to train on; {kinds}")


def run(settings: Namespace) -> None:
    report = run_demo(expanded(settings.out), settings.seed, settings.masks)
    print(f"report: {report}\nnext: open it in a browser, or train at full size: csvi train --help")


def run_demo(out: Path, seed: int = 0, masks: Masks = "exact") -> Path:
    """Write OUT/benchmark and OUT/run, and return the report; nothing is rendered or trained twice.

    With `predicted` masks a segmenter that knows no image of the benchmark writes OUT/masks, and OUT/run-predicted is
    trained on them, as on images whose true masks nobody knows; it is evaluated against the exact ones all the same.

    Raises:
        CsviError: the seed is out of range or weights are not installed, before anything is rendered; or what the
            steps raise.
    """
    from csvi.analysis.report import write_report
    from csvi.analysis.tables import print_evaluation
    from csvi.masks.find import find_segmenter
    from csvi.methods import find_method
    from csvi.runs import Options, Run, load_config
    from csvi.runs.evaluation import evaluated
    from csvi.synth import write_benchmark
    from csvi.train.loop import train

    benchmark, run = out / "benchmark", out / "run"
    config = dataclasses.replace(load_config(shipped_config("demo")), seed=seed)
    config.data.root, config.data.cache = str(benchmark), str(out / "cache")
    find_method(config.method.name).pretrained(config.method)  # if weights are not installed, say so now
    segmenter = None if masks == "exact" else find_segmenter("embedded")
    write_benchmark(benchmark, SynthConfig(preset="demo", seed=seed))
    if segmenter:
        _predict_masks(config.data, out / "masks", segmenter)
        run, config.data.masks, config.data.without_mask = out / "run-predicted", str(out / "masks"), "train"
    train(config, run, resume="auto")
    opened = Run.open(run, Options(masks=str(benchmark / "masks")))
    print_evaluation(evaluated(opened))
    return write_report(opened)


def _predict_masks(data: DataConfig, out: Path, segmenter: "Segmenter") -> None:
    """Write the masks of all training images."""
    from csvi.data import read_benchmark
    from csvi.data.crops import Crops
    from csvi.data.training_set import training_records
    from csvi.masks.make import make_masks
    from csvi.masks.tables import print_made

    benchmark = read_benchmark(data)
    crops = Crops(benchmark.root, data.layout, training_records(benchmark, data), data)
    print_made(make_masks(crops, out, segmenter), segmenter)
