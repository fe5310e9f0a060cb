"""The paper's Tables 1 to 3 for whoever has its datasets: data checked, models trained, figures beside the paper's."""

import copy
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from csvi.ablate import Variant, ablate, run_once
from csvi.analysis.ablation import PAPER
from csvi.analysis.tables import SYNTHETIC
from csvi.config import Config
from csvi.data import LAYOUTS, read_benchmark
from csvi.data.check import check_dataset
from csvi.errors import CsviError
from csvi.evaluate.compare import load_evaluation
from csvi.writing import replacing

log = logging.getLogger(__name__)

TABLES = {
    "sysu": {  # Table 1, row OUR
        "all-search single-shot": (70.13, 96.15, 98.79, 65.32),
        "all-search multi-shot": (77.06, 97.87, 99.28, 59.23),
        "indoor-search single-shot": (71.00, 96.96, 98.99, 75.21),
        "indoor-search multi-shot": (83.22, 98.99, 99.78, 70.20),
    },
    "regdb": {  # Table 2, row OUR
        "visible to thermal": (91.41, 97.72, 98.92, 85.14),
        "thermal to visible": (90.06, 97.46, 98.74, 83.86),
    },
}
"""Dataset → protocol → the paper's R1, R10, R20 and mAP in %."""
FIGURES = ("R1", "R10", "R20", "mAP")


def reproduce(dataset: str, config: Config, out: Path, seeds: int = 1, anyway: bool = False) -> Path:
    """Check the data, train, evaluate and write OUT/reproduction.md; what is done already is not done again.

    SYSU-MM01: all variants of Table 3, and the paper's model under the four settings of Table 1. RegDB: the paper's
    model on each of the ten splits, Table 2. Without masks for all training images only the Baseline is trained.

    Args:
        dataset: `sysu` or `regdb`.
        config: with the root of the dataset and the paper's settings.
        out: folder to write.
        seeds: runs of each variant, and split.
        anyway: go on although the data have problems.

    Raises:
        CsviError: the data have problems, or training or evaluation does.
    """
    if dataset not in TABLES:
        raise CsviError(f"the paper has no figures on {dataset!r}: choose {' or '.join(TABLES)}")
    config = copy.deepcopy(config)
    config.data.dataset = dataset  # type: ignore[assignment]
    masks = config.data.masks and Path(config.data.masks)
    check = check_dataset(Path(config.data.root), dataset, masks or None)
    if check.problems and not anyway:
        raise CsviError(
            f"{config.data.root} has {len(check.problems)} problems, such as: {check.problems[0].message} "
            f"(csvi check {shlex.quote(config.data.root)} names them all, --anyway goes on)"
        )
    benchmark = read_benchmark(config.data)
    masked = all(record.mask for record in [*benchmark.train, *benchmark.val])
    if not masked:
        log.warning(
            "not all training images have masks: only the Baseline can be trained, every other variant learns from them"
        )
    parts = [f"# {'Synthetic data, not a reproduction: ' if benchmark.synthetic else ''}{benchmark.name}\n"]
    if benchmark.synthetic:
        parts.append(f"{SYNTHETIC} The paper's figures stand beside them for their layout alone.\n")
    if not masked:
        parts.append("Without masks: the Baseline alone, beside the paper's co-segmentation model.\n")
    if dataset == "sysu":
        parts += _sysu(config, out, seeds, list(PAPER) if masked else ["none"])
    else:
        parts += _regdb(config, out, seeds, "coseg" if masked else "none")
    file = out / "reproduction.md"
    with replacing(file) as partial:
        partial.write_text("\n".join(parts))
    return file


def _sysu(config: Config, out: Path, seeds: int, variants: Sequence[str]) -> list[str]:
    table_3 = ablate(config, variants, seeds, out).read_text()
    model = variants[-1]
    evaluations = [load_evaluation(out / model / str(seed)) for seed in range(seeds)]
    heading = f"## Table 1: {PAPER[model][0]}, mean of {seeds} run(s)\n"
    return [heading, _beside_the_paper("sysu", evaluations), "## Tables 3 and 4\n", table_3]


def _regdb(config: Config, out: Path, seeds: int, variant: str) -> list[str]:
    evaluations = []
    for trial in range(1, LAYOUTS["regdb"].trials + 1):
        for seed in range(seeds):
            of_split = Variant(variant).applied(config, seed)
            of_split.data.trial = trial
            run = out / f"{variant}-{trial}" / str(seed)
            run_once(of_split, run)
            evaluations.append(load_evaluation(run))
    heading = (
        f"## Table 2: {PAPER[variant][0]}, mean ± standard deviation over {len(evaluations)} models of ten splits\n"
    )
    return [heading, _beside_the_paper("regdb", evaluations)]


def _beside_the_paper(dataset: str, evaluations: Sequence[dict[str, Any]]) -> str:
    names = [f"{name}{whose}" for name in FIGURES for whose in ("", " paper")]
    lines = [f"| setting | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for p, result in enumerate(evaluations[0]["protocols"]):
        cells = []
        for name, paper in zip(FIGURES, TABLES[dataset][result["protocol"]], strict=True):
            values = [100 * evaluation["protocols"][p]["figures"][name]["mean"] for evaluation in evaluations]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells += [f"{fmean(values):.2f}{spread}", f"{paper:.2f}"]
        lines.append(f"| {result['protocol']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
