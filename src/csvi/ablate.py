"""Tables 3 and 4 from nothing: every variant, with settings chosen on val, trained with several seeds, and compared."""

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csvi.analysis.ablation import Ablation, Row, write_ablation
from csvi.analysis.curves import read_metrics
from csvi.config import Config, flatten, load_config, with_settings
from csvi.errors import CsviError
from csvi.evaluate.compare import difference_of_groups, load_evaluation
from csvi.evaluate.runs import evaluate_run, save_evaluation
from csvi.model.network import AUXILIARIES
from csvi.train.checkpoint import epochs_done
from csvi.train.cost import Cost, training_cost
from csvi.train.loop import train
from csvi.train.run_folder import check_same_settings
from csvi.writing import replacing

log = logging.getLogger(__name__)

CHOSEN_BY = "mAP"
"""The figure on the val identities that settings are chosen by: it varies less than R1."""


@dataclass(frozen=True)
class Variant:
    """A row of Table 3, possibly with settings of its own."""

    auxiliary: str
    settings: tuple[tuple[str, str], ...] = ()
    """Names as on the command line, and values."""

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """`coseg`, or `coseg:coseg.weights_from=leave-one-out,coseg.head=false`.

        Raises:
            CsviError: no such auxiliary, or settings that are not name=value.
        """
        auxiliary, _, rest = text.partition(":")
        if auxiliary not in AUXILIARIES:
            raise CsviError(f"unknown variant {auxiliary!r}: choose one of {', '.join(AUXILIARIES)}")
        pairs = [tuple(pair.split("=", 1)) for pair in rest.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise CsviError(f"the settings of {text!r} must be name=value, with commas between them")
        return cls(auxiliary, tuple((pair[0], pair[1]) for pair in pairs))

    def __str__(self) -> str:
        """Also the name of its folder."""
        return "_".join([self.auxiliary, *(f"{name.split('.')[-1]}-{value}" for name, value in self.settings)])

    def applied(self, config: Config, seed: int) -> Config:
        """The settings of one of its runs.

        Raises:
            CsviError: a setting does not exist or cannot have the value.
        """
        return with_settings(config, {"model.auxiliary": self.auxiliary, "seed": str(seed), **dict(self.settings)})


def ablate(
    config: Config,
    variants: Sequence[str],
    seeds: int,
    out: Path,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Train, evaluate and compare variants; what is done already is not done again.

    Args:
        config: what they have in common.
        variants: see `Variant.parse`; the first is what the others are compared with.
        seeds: 0 … seeds - 1 for each variant.
        out: folder; each run is OUT/VARIANT/SEED.
        grid: setting → values to choose from, for each variant by the val identities with seed 0. A setting that a
            variant does not read is not varied.

    Returns:
        The written table, OUT/ablation.md; ablation.json and figures are beside it.

    Raises:
        CsviError: as training and evaluation do; and a grid without val identities to choose on.
    """
    if seeds < 1:
        raise CsviError(f"{seeds} seeds: at least one is needed")
    if empty := [name for name, values in (grid or {}).items() if not values]:
        raise CsviError(f"the grid has no values of {empty[0]} to choose from")
    if grid and config.data.train_on != "train":
        raise CsviError("choosing settings takes val identities: leave them out of training, --data.train_on train")
    parsed = [Variant.parse(text) for text in variants]
    chosen = [choose(config, variant, grid or {}, out) for variant in parsed]
    for variant, seed in itertools.product(chosen, range(seeds)):
        run_once(variant.applied(config, seed), out / str(variant) / str(seed))
    rows: list[Row] = []
    baseline: list[dict[str, Any]] = []
    for original, variant in zip(parsed, chosen, strict=True):
        runs = [out / str(variant) / str(seed) for seed in range(seeds)]
        evaluations = [load_evaluation(run) for run in runs]
        baseline = baseline or evaluations
        rows.append(
            Row(
                variant=str(original),
                auxiliary=variant.auxiliary,
                settings=dict(variant.settings),
                runs=[str(run) for run in runs],
                figures={
                    name: [evaluation["protocols"][0]["figures"][name]["mean"] for evaluation in evaluations]
                    for name in ("R1", "R10", "mAP", "mINP")
                },
                differences=difference_of_groups(baseline, evaluations) if rows else {},
                masks=[evaluation["masks"] for evaluation in evaluations],
                validation=[read_metrics(run, "val/R1") for run in runs],
                cost=_cost(variant, config, out),
            )
        )
    result = baseline[0]["protocols"][0]
    return write_ablation(
        out,
        Ablation(
            benchmark=baseline[0]["benchmark"],
            synthetic=baseline[0]["synthetic"],
            protocol=result["protocol"],
            gallery=result["gallery"],
            identities=len(result["by_identity"]["identity"]),
            seeds=seeds,
            backbone=config.model.backbone,
            rows=rows,
            tried=[dataclasses.asdict(trial) for trial in _tried(config, parsed, grid or {}, out)],
        ),
    )


@dataclass(frozen=True)
class Tried:
    """Settings that were tried on the val identities."""

    variant: str
    settings: dict[str, str]
    R1: float
    mAP: float
    chosen: bool


def choose(config: Config, variant: Variant, grid: Mapping[str, Sequence[Any]], out: Path) -> Variant:
    """The variant with the settings of the grid that are best on the val identities, with seed 0."""
    candidates = _candidates(config, variant, grid)
    if len(candidates) == 1:
        return candidates[0]
    for candidate in candidates:
        run_once(candidate.applied(config, 0), out / str(candidate) / "0")
    return max(candidates, key=lambda candidate: _val(out / str(candidate) / "0", CHOSEN_BY))


def run_once(config: Config, run: Path) -> None:
    """Train and evaluate a run, or go on with it, or find that it is done."""
    if _is_done(config, run):
        log.info("done already: %s", run)
        return
    log.info("training %s", run)
    train(config, run, resume="auto")
    outcome = evaluate_run(run)
    save_evaluation(outcome.evaluation, run)


def _is_done(config: Config, run: Path) -> bool:
    """Whether the run was trained to its end, and evaluated after that: anyone may have evaluated it before.

    Raises:
        CsviError: it was trained with other settings.
    """
    evaluated, model = run / "evaluation.json", run / "model.safetensors"
    if not (evaluated.is_file() and model.is_file()):
        return False
    there = load_config(run / "config.yaml")
    check_same_settings(config, flatten(there), run)
    epochs = epochs_done(run)
    if epochs is None:  # somebody needed the room
        epochs = there.train.epochs
    return epochs == config.train.epochs and evaluated.stat().st_mtime_ns >= model.stat().st_mtime_ns


def _candidates(config: Config, variant: Variant, grid: Mapping[str, Sequence[Any]]) -> list[Variant]:
    auxiliary = AUXILIARIES[variant.auxiliary]
    reads = {
        name: values
        for name, values in grid.items()
        if not name.startswith(("coseg.", "loss.segmentation"))
        or (auxiliary is not None and name.startswith(auxiliary.settings))
    }
    return [
        Variant(variant.auxiliary, (*variant.settings, *zip(reads, map(str, values), strict=True)))
        for values in itertools.product(*reads.values())
    ]


def _tried(config: Config, variants: Sequence[Variant], grid: Mapping[str, Sequence[Any]], out: Path) -> list[Tried]:
    tried = []
    for variant in variants:
        candidates = _candidates(config, variant, grid)
        if len(candidates) > 1:
            best = choose(config, variant, grid, out)
            for candidate in candidates:
                run = out / str(candidate) / "0"
                tried.append(
                    Tried(
                        variant=str(variant),
                        settings=dict(candidate.settings),
                        R1=_val(run, "R1"),
                        mAP=_val(run, "mAP"),
                        chosen=candidate == best,
                    )
                )
    return tried


def _val(run: Path, figure: str) -> float:
    """The last validation of a run."""
    _, values = read_metrics(run, f"val/{figure}")
    if not values:
        raise CsviError(f"{run} was never validated: set --train.validate_every, and --data.train_on train")
    return values[-1]


def _cost(variant: Variant, config: Config, out: Path) -> Cost:
    """Measured once, as it takes a quiet machine."""
    file = out / str(variant) / "cost.json"
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # not there, or damaged
        return Cost(**json.loads(file.read_text()))
    identities = json.loads((out / str(variant) / "0" / "config.json").read_text())["identities"]
    cost = training_cost(variant.applied(config, 0), identities)
    with replacing(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(cost)) + "\n")
    return cost
