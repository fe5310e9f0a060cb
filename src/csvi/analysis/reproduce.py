"""The paper's Tables 1 to 4 on its datasets: data checked, models trained, our metrics beside the paper's."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from csvi.analysis.ablate import ablate, run_once
from csvi.analysis.ablation_table import NOT_TO_THE_LETTER, in_words
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.catalogue import TABLE_3
from csvi.config import RANGES, Config, DataConfig, departures
from csvi.data import find_layout, read_benchmark
from csvi.data.check import check_dataset
from csvi.data.training_set import check_masks
from csvi.errors import CsviError
from csvi.methods import build_method, find_method
from csvi.methods.compared import COMPARED, METRICS, PARAMETERS
from csvi.paths import as_argument
from csvi.runs import Evaluation
from csvi.runs.network_files import read_classes
from csvi.runs.settings import with_settings
from csvi.runs.statistics import mean_of
from csvi.writing import replacing

log = logging.getLogger(__name__)


def reproduce(dataset: str, config: Config, out: Path, seeds: int = 1, anyway: bool = False) -> Path:
    """Check the data, train, evaluate and write OUT/reproduction.md; what is done already is not done again.

    A dataset of one fold (SYSU-MM01): all variants of Table 3, and the paper's model in Table 1. One of several
    (RegDB): the paper's model on each fold, Table 2. Both: Table 4, the parameters. Without masks, see `check_masks`,
    only the Baseline is trained.

    Args:
        dataset: `sysu` or `regdb`.
        config: with the root of the dataset and the paper's settings.
        out: folder to write.
        seeds: runs of each variant, and fold.
        anyway: continue although the data have problems.
    """
    config = copy.deepcopy(config)
    config.data.layout = dataset
    check_to_train(config, anyway)
    benchmark = read_benchmark(config.data)
    masked = True
    try:
        check_masks(benchmark, config.data)
    except CsviError:
        masked = False
        log.warning(
            "only the Baseline can be trained, as every other variant learns from masks, which not all training images "
            "have: csvi masks %s --out MASKS makes them, --masks MASKS names their folder",
            as_argument(config.data.root),
        )
    parts = [f"# {'Synthetic data, not a reproduction: ' if benchmark.synthetic else ''}{benchmark.name}\n"]
    if benchmark.synthetic:
        parts.append(f"{SYNTHETIC} The paper's figures stand beside them for their layout alone.\n")
    if not masked:
        parts.append("Without masks: the Baseline alone, beside the paper's co-segmentation model.\n")
    method = "coseg" if masked else "baseline"
    ours, several_folds = with_settings(config, {"method.name": method}), find_layout(dataset).folds > 1
    if several_folds:
        planned = runs_of(method, config, out, seeds)
        for run, of_fold in planned.items():
            run_once(of_fold, run)
        runs = list(planned)
        parts.append(f"## Table 2: {find_method(method).title}, over {len(runs)} models of ten folds\n")
    else:
        table = ablate(config, TABLE_3 if masked else [method], seeds, out)
        runs = [out / method / str(seed) for seed in range(seeds)]
        parts.append(f"## Table 1: {find_method(method).title}, mean of {seeds} run(s)\n")
    if departing := departures(ours):
        parts.append(f"{NOT_TO_THE_LETTER}: {'; '.join(in_words(departing))}.\n")
    parts.append(_beside_the_paper(dataset, method, [Evaluation.load(run) for run in runs]))
    parts.append(_table_4(ours, len(read_classes(runs[0]))))
    if not several_folds:
        parts += ["## Table 3, and what each variant costs\n", table.read_text(encoding="utf-8")]
    file = out / "reproduction.md"
    with replacing(file) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")
    return file


def check_to_train(config: Config, anyway: bool) -> None:
    """Raises `CsviError` if the data of these settings have problems, unless they are to be used anyway."""
    data = config.data
    problems = check_dataset(data, data.layout).problems
    if problems and not anyway:
        given = {name: getattr(data, name) for name in ("masks", "mask_values", *RANGES)}
        options = [f" --data.{n} {as_argument(v)}" for n, v in given.items() if v != getattr(DataConfig, n)]
        raise CsviError(
            f"{data.root} has {len(problems)} problems, such as: {problems[0].message} "
            f"(csvi check {as_argument(data.root)}{''.join(options)} names them all, --anyway continues)"
        )


def runs_of(method: str, config: Config, out: Path, seeds: int) -> dict[Path, Config]:
    """Settings of every run of a method by its folder: each fold of the dataset with each seed, of which one at least.

    Raises:
        CsviError: there are no seeds.
    """
    if seeds < 1:
        raise CsviError(f"{seeds} seeds: at least one is needed")
    folds, runs = find_layout(config.data.layout).folds, {}
    for fold in range(1, folds + 1):
        for seed in range(seeds):
            own = {"method.name": method, "data.fold": str(fold), "seed": str(seed)}
            runs[out / (f"{method}-{fold}" if folds > 1 else method) / str(seed)] = with_settings(config, own)
    return runs


def _beside_the_paper(dataset: str, method: str, evaluations: Sequence[Evaluation]) -> str:
    """Write for each setting the rows of the paper's table, its model last, and ours: mean ± standard deviation."""
    published = find_method("coseg").published
    assert published is not None
    parts = []
    for result in evaluations[0].protocols:
        paper = published.metrics[dataset][result.protocol]
        of_runs = [evaluation.result(result.protocol) for evaluation in evaluations]
        means = [mean_of([of_run.metrics[metric].mean for of_run in of_runs]) for metric in METRICS]
        rows: dict[str, Sequence[str]] = {
            **COMPARED[dataset][result.protocol],
            "the paper's model": [f"{paper[m]:.2f}" for m in METRICS],
            f"ours, `{method}`": [percent(mean, digits=2, sign=" ± ") for mean in means],
        }
        lines = [f"### {result.protocol}\n", f"| method | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]
        lines += [f"| {name} | {' | '.join(figures)} |" for name, figures in rows.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _table_4(config: Config, identities: int) -> str:
    """Write the rows of Table 4, parameters in millions, and ours with so many identities to train on."""
    published = find_method("coseg").published
    assert published is not None
    assert published.parameters is not None
    with torch.device("meta"):  # counts only
        method = build_method(config, identities)
    counts = [sum(p.numel() for p in of.parameters()) / 1e6 for of in (method, method.net)]
    rows = {name: f"{value}" for name, value in PARAMETERS.items()}
    rows["the paper's model"] = "{} in training, {} in testing".format(*published.parameters)
    name = f"ours, `{config.method.name}`, {identities} identities"
    rows[name] = "{:.2f} in training, {:.2f} in testing".format(*counts)
    lines = ["## Table 4\n", "| method | parameters in millions |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {cell} |" for name, cell in rows.items())]) + "\n"
