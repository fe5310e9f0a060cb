"""Methods of the field on its datasets, each as it was published, beside the figures that were published of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from csvi.analysis.ablate import is_done, run_once
from csvi.analysis.reproduce import check_to_train, runs_of
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.config import Config, shipped_config
from csvi.data import find_layout, read_benchmark
from csvi.data.training_set import check_masks
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.methods.compared import METRICS
from csvi.runs import Evaluation, Options, load_config
from csvi.runs.settings import with_settings
from csvi.runs.statistics import mean_of
from csvi.writing import replacing


def published_file(method: str, dataset: str) -> Path:
    """Name the file of the settings that a method was published with on a dataset; that of csvi's own is the paper's.

    A method without settings for this dataset has those for SYSU-MM01. Raises `CsviError` if there is no such method.
    """
    find_method(method)
    files = (shipped_config(f"methods/{name}") for name in (f"{method}-{dataset}", method))
    return next((file for file in files if file.exists()), shipped_config(dataset))


def published_config(method: str, dataset: str) -> Config:
    """Read those settings, see `published_file`."""
    return with_settings(load_config(published_file(method, dataset)), {"method.name": method})


def configs_of(methods: Sequence[str], dataset: str, weights: Mapping[str, str] | None = None) -> dict[str, Config]:
    """Read the published settings of each of these methods.

    Args:
        methods: their names.
        dataset: `sysu`, `regdb` or `llcm`.
        weights: method → its initial weights, instead of those of the settings.

    Raises:
        CsviError: there is no such method, one stands twice, or weights are of one that is not trained.
    """
    if len(set(methods)) < len(methods):
        raise CsviError(f"a method stands twice among {', '.join(methods)}")
    weights = weights or {}
    if strange := sorted(weights.keys() - set(methods)):
        raise CsviError(f"weights are given of {strange[0]}, which is not among the methods: {', '.join(methods)}")
    configs = {method: published_config(method, dataset) for method in methods}
    return {
        name: with_settings(c, {"method.weights": weights[name]}) if name in weights else c
        for name, c in configs.items()
    }


def reproduce_methods(
    dataset: str,
    configs: Mapping[str, Config],
    root: str,
    out: Path,
    masks: str | None = None,
    seeds: int = 1,
    anyway: bool = False,
) -> Path:
    """Train methods and write OUT/methods-DATASET.md: ours beside the published. What is done is not done again.

    Args:
        dataset: `sysu`, `regdb` or `llcm`.
        configs: method → settings, see `published_config`.
        root: folder of the dataset.
        out: folder to write; runs are OUT/METHOD/SEED or, of a dataset of several folds, OUT/METHOD-FOLD/SEED.
        masks: folder of masks, for the methods that learn from them.
        seeds: runs of each method, and fold.
        anyway: continue although the data have problems.

    Raises:
        CsviError: as training and evaluation do; nothing is trained if masks or initial weights are missing for one of
            the methods.
    """
    of_data = {"root": root, "layout": dataset, "masks": masks}
    configs = {
        name: dataclasses.replace(config, data=dataclasses.replace(config.data, **of_data))  # type: ignore[arg-type]
        for name, config in configs.items()
    }
    runs = {name: runs_of(name, config, out, seeds) for name, config in configs.items()}
    first = next(iter(configs.values()))
    check_to_train(first, anyway)
    benchmark = read_benchmark(first.data)
    for name, config in configs.items():
        method = find_method(name)
        if method.needs_masks:
            check_masks(benchmark, config.data)
        if all(is_done(of_run, run, Options(flip=method.flip)) for run, of_run in runs[name].items()):
            continue  # it needs no initial weights any more
        try:
            method.pretrained(config.method)
        except CsviError as error:
            here = f" (method.weights is --weights {name}=PATH here)" if "method.weights" in str(error) else ""
            raise CsviError(f"{name}: {error}{here}") from error
    evaluations = {}
    for name, of_method in runs.items():
        options = Options(flip=find_method(name).flip)
        evaluations[name] = [run_once(of_run, run, options) for run, of_run in of_method.items()]
    parts = [f"# {'Synthetic data, not a reproduction: ' if benchmark.synthetic else ''}{benchmark.name}\n"]
    if benchmark.synthetic:
        parts.append(f"{SYNTHETIC} The published figures stand beside them for their layout alone.\n")
    several = find_layout(dataset).folds > 1
    parts.append(
        f"Mean{' over folds' if several else ''} and {seeds} seed(s), of the last epoch; published figures are mostly "
        "of the epoch that was best on test. A file of settings that names no dataset is for SYSU-MM01; some "
        "publications have the same on every dataset.\n"
    )
    parts += [f"- {name}: {_as_trained(name, dataset, config)}" for name, config in configs.items()]
    parts[-1] += "\n"
    asked = next(iter(evaluations.values()))[0].protocols
    parts += [_table(dataset, result.protocol, evaluations) for result in asked]
    file = out / f"methods-{dataset}.md"
    with replacing(file) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")
    return file


def _as_trained(name: str, dataset: str, config: Config) -> str:
    """Say which settings and weights a method was trained with, and how it was tested."""
    file = published_file(name, dataset)
    flip = "; each image with its mirror image" if find_method(name).flip else ""
    return f"{file.name}; weights {getattr(config.method, 'weights', 'of its own')}{flip}"


def _table(dataset: str, protocol: str, evaluations: Mapping[str, Sequence[Evaluation]]) -> str:
    """Write ours, mean ± standard deviation, and the published figures of a protocol, method by method, in %."""
    lines = [
        f"## {protocol}\n",
        f"| method | {' | '.join(METRICS)} | published {' / '.join(METRICS)} | source |",
        "|---" * (3 + len(METRICS)) + "|",
    ]
    for name, runs in evaluations.items():
        means = [mean_of([run.result(protocol).metrics[metric].mean for run in runs]) for metric in METRICS]
        published = find_method(name).published
        theirs = published.metrics.get(dataset, {}).get(protocol, {}) if published else {}
        cells = [percent(mean, digits=2, sign=" ± ") for mean in means]
        said = " / ".join(f"{theirs[metric]:.2f}" if metric in theirs else "-" for metric in METRICS) if theirs else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {said} | {published.source if published and theirs else ''} |")
    return "\n".join(lines) + "\n"
