"""The main job from nothing to a report: synthetic benchmark, training, evaluation."""

from pathlib import Path

import csvi
from csvi.analysis.report import write_report
from csvi.analysis.tables import print_evaluation
from csvi.config import SynthConfig, load_config
from csvi.evaluate.runs import evaluate_run
from csvi.synth import write_benchmark
from csvi.train.loop import train


def run_demo(out: Path, seed: int = 0) -> Path:
    """Write the benchmark to OUT/benchmark and the run to OUT/run; what an earlier call did is not done again.

    Args:
        out: folder to write.
        seed: of the benchmark and of training.

    Returns:
        The report.
    """
    benchmark, run = out / "benchmark", out / "run"
    write_benchmark(benchmark, SynthConfig(preset="demo", seed=seed))
    config = load_config(shipped_config("demo"))
    config.data.root, config.seed = str(benchmark), seed
    train(config, run, resume="auto")
    outcome = evaluate_run(run)
    print_evaluation(outcome.evaluation)
    return write_report(run, outcome)


def shipped_config(name: str) -> Path:
    """The file of settings that comes with csvi: in the package once installed, in `configs/` of a checkout."""
    package = Path(csvi.__file__).parent
    installed = package / "configs" / f"{name}.yaml"
    return installed if installed.exists() else package.parents[1] / "configs" / f"{name}.yaml"
