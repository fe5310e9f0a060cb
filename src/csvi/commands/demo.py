"""`csvi demo`: the main job from nothing to a report."""

import dataclasses
from pathlib import Path

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import SynthConfig, shipped_config
from csvi.paths import expanded

SUMMARY = "The main job at a small size: synthetic benchmark, training, evaluation, report."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--out", default="demo", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the benchmark and of training")


def run(settings: Namespace) -> None:
    report = run_demo(expanded(settings.out), settings.seed)
    print(f"report: {report}\nnext: open it in a browser, or train at full size: csvi train --help")


def run_demo(out: Path, seed: int = 0) -> Path:
    """Write OUT/benchmark and OUT/run, and return the report; nothing is rendered or trained twice.

    Raises:
        CsviError: the seed is out of range or weights are not installed, before anything is rendered; or what the
            steps raise.
    """
    from csvi.analysis.report import write_report
    from csvi.analysis.tables import print_evaluation
    from csvi.methods import find_method
    from csvi.runs import Run, load_config
    from csvi.runs.evaluation import evaluated
    from csvi.synth import write_benchmark
    from csvi.train.loop import train

    benchmark, run = out / "benchmark", out / "run"
    config = dataclasses.replace(load_config(shipped_config("demo")), seed=seed)
    config.data.root, config.data.cache = str(benchmark), str(out / "cache")
    find_method(config.method.name).pretrained(config.method)  # if weights are not installed, say so now
    write_benchmark(benchmark, SynthConfig(preset="demo", seed=seed))
    train(config, run, resume="auto")
    opened = Run.open(run)
    print_evaluation(evaluated(opened))
    return write_report(opened)
