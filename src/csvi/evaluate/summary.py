"""Several runs of the same settings: RegDB's ten models, or several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from csvi.config import Config, flatten
from csvi.errors import CsviError
from csvi.evaluate.runs import Evaluation

APART = {"seed", "precision", "devices", "nodes", "train.checkpoint_every", "train.compile"} | {
    f"data.{name}" for name in ("trial", "root", "masks", "workers", "cache")
}
"""Settings that runs may differ in and still be repetitions of each other."""


@dataclass(frozen=True)
class Mean:
    """A figure over several runs; fractions from 0 to 1."""

    mean: float
    std: float
    """Standard deviation of a sample (n - 1)."""
    runs: list[float]


@dataclass(frozen=True)
class Summary:
    """Several models of the same settings: RegDB's ten, or several seeds."""

    models: list[str]
    trials: list[int]
    """Which split of the dataset each of them was tested on, which is the one that it was trained on."""
    figures: dict[str, dict[str, Mean]]
    """Protocol → figure → its mean over the runs."""


def summarize_runs(evaluations: Sequence[Evaluation]) -> Summary:
    """Means over runs; that they are of the same settings is the caller's to know (`differing_settings`).

    Raises:
        CsviError: they were tested on different datasets or under different protocols, or one is there twice.
    """
    first = evaluations[0]
    models = [str(Path(evaluation.model).resolve()) for evaluation in evaluations]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice:
        raise CsviError(f"{twice} was given twice: a mean counts every run once")
    images: dict[int, set[str]] = {}
    for evaluation in evaluations:
        images.setdefault(evaluation.trial, set()).add(evaluation.fingerprint)
    if any(len(of_split) > 1 for of_split in images.values()):
        raise CsviError("these runs were tested on different images: a mean over them would mean nothing")

    def tested(evaluation: Evaluation) -> tuple[object, ...]:
        asked = [(result.protocol, result.gallery, result.refinements) for result in evaluation.protocols]
        return evaluation.benchmark, evaluation.dataset, evaluation.synthetic, asked

    if any(tested(evaluation) != tested(first) for evaluation in evaluations):
        raise CsviError("these runs were tested on different datasets: a mean over them would mean nothing")
    figures = {
        result.protocol: {
            name: _mean([evaluation.protocols[p].figures[name].mean for evaluation in evaluations])
            for name in result.figures
        }
        for p, result in enumerate(first.protocols)
    }
    return Summary([e.model for e in evaluations], [e.trial for e in evaluations], figures)


def differing_settings(configs: Sequence[Config]) -> list[str]:
    """Names of the settings, beside seed, split and machine, in which runs differ."""
    flat = [flatten(config) for config in configs]
    return [name for name in flat[0] if name not in APART and any(f[name] != flat[0][name] for f in flat)]


def _mean(values: list[float]) -> Mean:
    return Mean(fmean(values), stdev(values) if len(values) > 1 else 0.0, values)
