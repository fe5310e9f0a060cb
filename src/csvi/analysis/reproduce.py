"""The paper's Tables 1 to 3 on its datasets: data checked, models trained, our metrics beside the paper's."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

from csvi.analysis.ablate import Variant, ablate, run_once
from csvi.analysis.tables import SYNTHETIC, percent
from csvi.config import Config
from csvi.data import find_layout, read_benchmark
from csvi.data.check import check_dataset
from csvi.data.training_set import check_masks
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.paths import as_argument
from csvi.runs import Evaluation
from csvi.runs.statistics import mean_of
from csvi.writing import replacing

log = logging.getLogger(__name__)

TABLE_3 = ("baseline", "select", "segment", "decode", "coseg")
METRICS = ("R1", "R10", "R20", "mAP")


def reproduce(dataset: str, config: Config, out: Path, seeds: int = 1, anyway: bool = False) -> Path:
    """Check the data, train, evaluate and write OUT/reproduction.md; what is done already is not done again.

    A dataset of one fold (SYSU-MM01): all variants of Table 3, and the paper's model beside Table 1. One of several
    (RegDB): the paper's model on each fold, Table 2. Without masks, see `check_masks`, only the Baseline is trained.

    Args:
        dataset: `sysu` or `regdb`.
        config: with the root of the dataset and the paper's settings.
        out: folder to write.
        seeds: runs of each variant, and fold.
        anyway: continue although the data have problems.
    """
    config = copy.deepcopy(config)
    config.data.layout = dataset
    masks = config.data.masks and Path(config.data.masks)
    check = check_dataset(Path(config.data.root), dataset, masks or None)
    if check.problems and not anyway:
        raise CsviError(
            f"{config.data.root} has {len(check.problems)} problems, such as: {check.problems[0].message} "
            f"(csvi check {as_argument(config.data.root)} names them all, --anyway continues)"
        )
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
    if find_layout(dataset).folds > 1:
        evaluations = _evaluate_folds(config, out, seeds, method)
        parts.append(f"## Table 2: {find_method(method).title}, over {len(evaluations)} models of ten folds\n")
        parts.append(_beside_the_paper(dataset, evaluations))
    else:
        table = ablate(config, TABLE_3 if masked else [method], seeds, out)
        evaluations = [Evaluation.load(out / method / str(seed)) for seed in range(seeds)]
        parts.append(f"## Table 1: {find_method(method).title}, mean of {seeds} run(s)\n")
        parts.append(_beside_the_paper(dataset, evaluations))
        parts += ["## Tables 3 and 4\n", table.read_text()]
    file = out / "reproduction.md"
    with replacing(file) as partial:
        partial.write_text("\n".join(parts))
    return file


def _evaluate_folds(config: Config, out: Path, seeds: int, method: str) -> list[Evaluation]:
    """Train and evaluate a model for each fold of the dataset and each seed."""
    evaluations = []
    for fold in range(1, find_layout(config.data.layout).folds + 1):
        for seed in range(seeds):
            of_fold = Variant(method).applied(config, seed)
            of_fold.data.fold = fold
            run = out / f"{method}-{fold}" / str(seed)
            run_once(of_fold, run)
            evaluations.append(Evaluation.load(run))
    return evaluations


def _beside_the_paper(dataset: str, evaluations: Sequence[Evaluation]) -> str:
    """Write a table of our metrics, mean ± standard deviation over the runs, and of the paper's."""
    published = find_method("coseg").published
    assert published is not None
    names = [f"{name}{whose}" for name in METRICS for whose in ("", " paper")]
    lines = [f"| setting | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for p, result in enumerate(evaluations[0].protocols):
        paper = published.metrics[dataset][result.protocol]
        cells = []
        for name in METRICS:
            ours = mean_of([evaluation.protocols[p].metrics[name].mean for evaluation in evaluations])
            cells += [percent(ours, digits=2, sign=" ± "), f"{paper[name]:.2f}"]
        lines.append(f"| {result.protocol} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
