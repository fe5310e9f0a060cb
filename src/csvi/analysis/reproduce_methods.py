"""Methods of the field on its datasets, each as it was published, beside the figures that were published of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from csvi.analysis.ablate import Variant, run_once
from csvi.analysis.reproduce import check_to_train
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.config import Config, shipped_config
from csvi.data import find_layout, read_benchmark
from csvi.data.training_set import check_masks
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.methods.compared import METRICS
from csvi.runs import Evaluation, load_config
from csvi.runs.statistics import mean_of
from csvi.writing import replacing


def published_config(method: str, dataset: str) -> Config:
    """Read the settings that a method was published with on a dataset (`configs/methods`); csvi's own has the paper's.

    Raises:
        CsviError: there is no such method.
    """
    find_method(method)
    for name in (f"methods/{method}-{dataset}", f"methods/{method}"):
        if (file := shipped_config(name)).exists():
            return load_config(file)
    return Variant(method).applied(load_config(shipped_config(dataset)), 0)


def configs_of(methods: Sequence[str], dataset: str) -> dict[str, Config]:
    """Read the published settings of each of these methods; raises `CsviError` for one that stands twice."""
    if len(set(methods)) < len(methods):
        raise CsviError(f"a method stands twice among {', '.join(methods)}")
    return {method: published_config(method, dataset) for method in methods}


def reproduce_methods(
    dataset: str,
    configs: Mapping[str, Config],
    root: str,
    out: Path,
    masks: str | None = None,
    seeds: int = 1,
    anyway: bool = False,
) -> Path:
    """Train methods and write OUT/methods.md: ours beside the published; what is done already is not done again.

    Args:
        dataset: `sysu`, `regdb` or `llcm`.
        configs: method → settings, see `published_config`.
        root: folder of the dataset.
        out: folder to write; runs are OUT/METHOD/SEED or, of a dataset of several folds, OUT/METHOD-FOLD/SEED.
        masks: folder of masks, for the methods that learn from them.
        seeds: runs of each method, and fold.
        anyway: continue although the data have problems.

    Raises:
        CsviError: as training and evaluation do; nothing is trained if masks are missing for one of the methods.
    """
    of_data = {"root": root, "layout": dataset, "masks": masks}
    configs = {
        name: dataclasses.replace(config, data=dataclasses.replace(config.data, **of_data))  # type: ignore[arg-type]
        for name, config in configs.items()
    }
    first = next(iter(configs.values()))
    check_to_train(first, anyway)
    benchmark = read_benchmark(first.data)
    for name, config in configs.items():
        if find_method(name).needs_masks:
            check_masks(benchmark, config.data)
    evaluations = {name: _evaluations(name, config, out, seeds) for name, config in configs.items()}
    parts = [f"# {'Synthetic data, not a reproduction: ' if benchmark.synthetic else ''}{benchmark.name}\n"]
    if benchmark.synthetic:
        parts.append(f"{SYNTHETIC} The published figures stand beside them for their layout alone.\n")
    several = find_layout(dataset).folds > 1
    parts.append(
        f"Mean{' over folds' if several else ''} and {seeds} seed(s), of the last epoch; published figures are mostly "
        "of the epoch that was best on test.\n"
    )
    parts += [
        _table(dataset, p, result.protocol, evaluations)
        for p, result in enumerate(next(iter(evaluations.values()))[0].protocols)
    ]
    file = out / "methods.md"
    with replacing(file) as partial:
        partial.write_text("\n".join(parts))
    return file


def _evaluations(name: str, config: Config, out: Path, seeds: int) -> list[Evaluation]:
    """Train and evaluate a method on each fold, with each seed."""
    folds = find_layout(config.data.layout).folds
    runs = []
    for fold in range(1, folds + 1):
        for seed in range(seeds):
            of_fold = Variant(name).applied(config, seed)
            of_fold.data.fold = fold
            run = out / (f"{name}-{fold}" if folds > 1 else name) / str(seed)
            run_once(of_fold, run)
            runs.append(run)
    return [Evaluation.load(run) for run in runs]


def _table(dataset: str, number: int, protocol: str, evaluations: Mapping[str, Sequence[Evaluation]]) -> str:
    """Write ours, mean ± standard deviation, and the published figures of a protocol, method by method, in %."""
    lines = [
        f"## {protocol}\n",
        f"| method | {' | '.join(METRICS)} | published {' / '.join(METRICS)} | source |",
        "|---" * (3 + len(METRICS)) + "|",
    ]
    for name, runs in evaluations.items():
        means = [mean_of([run.protocols[number].metrics[metric].mean for run in runs]) for metric in METRICS]
        published = find_method(name).published
        theirs = published.metrics.get(dataset, {}).get(protocol, {}) if published else {}
        cells = [percent(mean, digits=2, sign=" ± ") for mean in means]
        said = " / ".join(f"{theirs[metric]:.2f}" if metric in theirs else "-" for metric in METRICS) if theirs else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {said} | {published.source if published and theirs else ''} |")
    return "\n".join(lines) + "\n"
