"""The main job from nothing to a report: synthetic benchmark, training, evaluation."""

import dataclasses
from pathlib import Path

from csvi.analysis.report import write_report
from csvi.analysis.tables import print_evaluation
from csvi.config import SynthConfig, load_config, shipped_config
from csvi.evaluate.runs import evaluate_run, save_evaluation
from csvi.model.weights import initial_weights
from csvi.synth import write_benchmark
from csvi.train.loop import train


def run_demo(out: Path, seed: int = 0) -> Path:
    """Write the benchmark to OUT/benchmark and the run to OUT/run; nothing is rendered or trained twice.

    Args:
        out: folder to write.
        seed: of the benchmark and of training.

    Returns:
        The report.

    Raises:
        CsviError: the seed is none, or weights are not installed, before anything is rendered; or what the steps say.
    """
    benchmark, run = out / "benchmark", out / "run"
    config = dataclasses.replace(load_config(shipped_config("demo")), seed=seed)
    config.data.root, config.data.cache = str(benchmark), str(out / "cache")
    initial_weights(config.model.backbone, config.model.weights)  # if they are not installed, say so now
    write_benchmark(benchmark, SynthConfig(preset="demo", seed=seed))
    train(config, run, resume="auto")
    outcome = evaluate_run(run)
    save_evaluation(outcome.evaluation, run)
    print_evaluation(outcome.evaluation)
    return write_report(run, outcome)
