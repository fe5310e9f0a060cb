"""Tables 3 and 4 from nothing: every variant, with settings chosen on val, trained with several seeds, and compared."""

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csvi.analysis.ablation_table import Ablation, Tried, VariantResult, papers_name, write_ablation
from csvi.config import Config, departures, flatten
from csvi.data import read_benchmark
from csvi.data.files import fingerprint, masks_folder
from csvi.data.training_set import training_records
from csvi.errors import CsviError
from csvi.methods import METHODS, find_method
from csvi.paths import expanded
from csvi.runs import Evaluation, Options, Run, evaluate_run, load_config
from csvi.runs.evaluation import evaluation_file, save_evaluation
from csvi.runs.folder import check_same_settings
from csvi.runs.metrics_log import read_metrics
from csvi.runs.network_files import other_code, read_classes
from csvi.runs.settings import with_settings
from csvi.runs.statistics import difference_of_groups, mean_of
from csvi.train.checkpoint import epochs_done
from csvi.train.cost import Cost, training_cost
from csvi.train.loop import train, validates
from csvi.writing import replacing

log = logging.getLogger(__name__)

CHOSEN_BY = "mAP"
"""The metric on the val identities that settings are chosen by: it varies less than R1."""
AS_USUAL = Options()
SET_HERE = {
    "seed": "each variant is trained with the seeds 0 to N - 1 of --seeds N",
    "method.name": "each variant begins with the name of its method",
}
"""Settings that no variant has of its own, and why."""


@dataclass(frozen=True)
class Variant:
    """A method, possibly with settings of its own, and all that its runs are trained with."""

    method: str
    settings: tuple[tuple[str, str], ...]
    """Names as on the command line, and values."""
    config: Config = field(repr=False)
    """Every setting of its run with seed 0."""

    @classmethod
    def of(cls, common: Config, method: str, settings: Iterable[tuple[str, str]] = ()) -> "Variant":
        """Apply a method, and settings of its own, to what variants have in common.

        Raises:
            CsviError: a setting does not exist, cannot be, or is among `SET_HERE`.
        """
        settings = tuple(settings)
        for name, _ in settings:
            if name in SET_HERE:
                raise CsviError(f"{name} can be set by no variant and no grid: {SET_HERE[name]}")
        return cls(method, settings, with_settings(common, {"method.name": method, "seed": "0", **dict(settings)}))

    @classmethod
    def parse(cls, text: str, common: Config) -> "Variant":
        """Parse `coseg`, `module:Class`, or `coseg:method.weights_from=leave-one-out,method.head=false`; see `of`."""
        name, _, rest = text.partition(":")
        if name not in METHODS and (kind := rest.partition(":")[0]).isidentifier():
            name, rest = f"{name}:{kind}", rest.partition(":")[2]
        find_method(name)
        pairs = [tuple(pair.split("=", 1)) for pair in rest.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise CsviError(f"the settings of {text!r} must be name=value, with commas between them")
        return cls.of(common, name, ((pair[0], pair[1]) for pair in pairs))

    def __str__(self) -> str:
        """The name of the variant, and of its folder."""
        method = self.method.replace(":", ".")
        named = (f"{name.split('.')[-1]}-{value}" for name, value in self.settings)
        return "_".join([method, *named]).replace("/", "-")  # a path among the values leads nowhere else

    def with_seed(self, seed: int) -> Config:
        """Every setting of its run with this seed."""
        return with_settings(self.config, {"seed": str(seed)})


def ablate(
    config: Config,
    variants: Sequence[str],
    seeds: int,
    out: Path,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Train, evaluate and compare variants, and write OUT/ablation.md; what is done already is not done again.

    Args:
        config: what they have in common.
        variants: see `Variant.parse`; the first is what the others are compared with.
        seeds: 0 … seeds - 1 for each variant.
        out: folder; each run is OUT/VARIANT/SEED.
        grid: setting → values to choose from, for each variant by the val identities with seed 0. A setting that a
            variant does not have is not varied.

    Raises:
        CsviError: as `Variant.of`, training and evaluation do; and a grid without val identities or validation to
            choose by, or of a setting that no variant has.
    """
    grid, parsed = grid or {}, [Variant.parse(text, config) for text in variants]
    _check_asked(parsed, seeds, grid)
    choices = [choose(variant, grid, out) for variant in parsed]
    runs = [[out / str(choice.best) / str(seed) for seed in range(seeds)] for choice in choices]
    for choice, of_variant in zip(choices, runs, strict=True):
        for seed, run in enumerate(of_variant):
            run_once(choice.best.with_seed(seed), run)
    groups = [[Evaluation.load(run) for run in of_variant] for of_variant in runs]
    first = groups[0][0]
    headline = first.result()
    rows = [
        VariantResult(
            variant=str(choice.variant),
            method=choice.best.method,
            settings=dict(choice.best.settings),
            backbone=str(getattr(choice.best.config.method, "backbone", "")),
            weights=str(getattr(choice.best.config.method, "weights", "")),
            departures=departures(choice.best.config),
            runs=[str(run) for run in of_variant],
            metrics={
                name: mean_of([e.result(headline.protocol).metrics[name].mean for e in evaluations])
                for name in ("R1", "R10", "mAP", "mINP")
            },
            differences={} if evaluations is groups[0] else difference_of_groups(groups[0], evaluations),
            masks=[evaluation.masks for evaluation in evaluations],
            validation=[read_metrics(run, "val/R1") for run in of_variant],
            cost=_cost(choice.best, out),
        )
        for choice, of_variant, evaluations in zip(choices, runs, groups, strict=True)
    ]
    named: dict[str, list[Evaluation]] = {}
    for row, group in zip(rows, groups, strict=True):
        if papers_name(row):
            named.setdefault(row.method, group)
    has_both = {"decode", "coseg"} <= named.keys()
    return write_ablation(
        out,
        Ablation(
            benchmark=first.benchmark,
            synthetic=first.synthetic,
            protocol=headline.protocol,
            gallery=headline.gallery,
            identities=len(headline.by_identity.identity),
            seeds=seeds,
            rows=rows,
            coseg_over_decode=difference_of_groups(named["decode"], named["coseg"]) if has_both else {},
            tried=[trial for choice in choices for trial in choice.tried],
        ),
    )


def _check_asked(variants: Sequence[Variant], seeds: int, grid: Mapping[str, Sequence[Any]]) -> None:
    if seeds < 1:
        raise CsviError(f"{seeds} seeds: at least one is needed")
    if empty := [name for name, values in grid.items() if not values]:
        raise CsviError(f"the grid has no values of {empty[0]} to choose from")
    if unknown := set(grid) - {name for variant in variants for name in flatten(variant.config)}:
        raise CsviError(f"unknown setting {min(unknown)!r} in the grid: no variant has it, see csvi train --help")
    candidates = [_candidates(variant, grid) for variant in variants]
    _check_validated([candidate.config for several in candidates if len(several) > 1 for candidate in several])


@dataclass(frozen=True)
class Choice:
    """A variant with the settings that were best on the val identities."""

    variant: Variant
    best: Variant
    tried: list[Tried]
    """Empty if there was nothing to choose."""


def choose(variant: Variant, grid: Mapping[str, Sequence[Any]], out: Path) -> Choice:
    """Train a variant with all settings of the grid that it has, with seed 0, and choose by the val identities."""
    candidates = _candidates(variant, grid)
    if len(candidates) == 1:
        return Choice(variant, candidates[0], [])
    found = []
    for candidate in candidates:
        run = out / str(candidate) / "0"
        run_once(candidate.config, run)
        found.append({name: _val(run, name) for name in ("R1", "mAP")})
    best = max(range(len(candidates)), key=lambda i: found[i][CHOSEN_BY])
    tried = [
        Tried(str(variant), dict(candidate.settings), **metrics, chosen=i == best)
        for i, (candidate, metrics) in enumerate(zip(candidates, found, strict=True))
    ]
    return Choice(variant, candidates[best], tried)


def run_once(config: Config, run: Path, options: Options = AS_USUAL) -> Evaluation:
    """Train and evaluate a run, or resume it, or find that it is done; options as of `Run.open`.

    Raises:
        CsviError: it is not done, and several processes would train it: each of them would go on to evaluate it.
    """
    if is_done(config, run, options):
        log.info("done already: %s", run)
        method = config.method.name
        if other_code(run, method):
            log.warning("%s is of other code of %s than there is now, and stays: remove it to train anew", run, method)
        return Evaluation.load(_evaluated(run, options))
    if config.devices * config.nodes > 1:
        raise CsviError(
            f"csvi ablate and csvi reproduce train in one process: leave devices and nodes at 1, or first train {run} "
            "with csvi train and evaluate it with csvi evaluate"
        )
    log.info("training %s", run)
    train(config, run, resume="auto")
    opened = Run.open(run, options)
    evaluation = evaluate_run(opened)
    save_evaluation(evaluation, opened)
    return evaluation


def is_done(config: Config, run: Path, options: Options = AS_USUAL) -> bool:
    """Whether the run was trained to its end and evaluated after that.

    Raises:
        CsviError: it has other settings; or images or masks in another folder, which are not the same.
    """
    model = run / "model.safetensors"
    if not model.is_file() or not (evaluated := _evaluated(run, options)).is_file():
        return False
    there = load_config(run / "config.yaml")
    check_same_settings(config, flatten(there), run)
    epochs = epochs_done(run)
    if epochs is None:  # last.ckpt was deleted
        epochs = there.train.epochs
    done = epochs == config.train.epochs and evaluated.stat().st_mtime_ns >= model.stat().st_mtime_ns
    if done and _folders(config) != _folders(there):
        images = read_benchmark(options.applied_to(config.data))
        if fingerprint(images.root, images.test) != Evaluation.load(evaluated).fingerprint:
            raise CsviError(f"{run} is of other images than {images.root}: name another folder with --out")
        if _has_other_masks(config, there):
            masks = masks_folder(images.root, config.data.masks)
            raise CsviError(f"{run} is of other masks than {masks}: name another folder with --out")
    return done


def _folders(config: Config) -> list[Path | None]:
    """List the folders of images and masks."""
    return [expanded(folder).resolve() if folder else None for folder in (config.data.root, config.data.masks)]


def _has_other_masks(config: Config, there: Config) -> bool:
    """Whether a run is known to have learned from masks of other lengths: not if they lie there no more."""
    if not find_method(config.method.name).needs_masks:
        return False
    try:
        before = _lengths_of_masks(there)
    except CsviError:
        return False
    return before != _lengths_of_masks(config)


def _lengths_of_masks(config: Config) -> dict[str, int]:
    """Length of the mask of each training image that has one, in bytes."""
    records = training_records(read_benchmark(config.data), config.data)
    return {record.path: record.mask.stat().st_size for record in records if record.mask}


def _check_validated(configs: Sequence[Config]) -> None:
    """Raises `CsviError` unless each training ends with a validation, which settings are chosen by."""
    for config in configs:
        if config.data.train_on != "train":
            raise CsviError("choosing settings takes val identities: leave them out of training, --data.train_on train")
        if not validates(config, config.train.epochs):
            raise CsviError("choosing settings takes a validation at the end: set --train.validate_every 1")
    for data in {str(config.data): config.data for config in configs}.values():  # each dataset is read once
        if not read_benchmark(data).val:
            raise CsviError(f"{data.root} has no val identities to choose settings on: leave the grid out")


def _evaluated(run: Path, options: Options) -> Path:
    """Name the file of the run's evaluation under these options."""
    file = evaluation_file(Run.open(run, options))
    assert file is not None  # as of a model of the Hub
    return file


def _candidates(variant: Variant, grid: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """List a variant with every combination of the grid's settings that it has."""
    has = flatten(variant.config)
    varied = {name: values for name, values in grid.items() if name in has}
    texts = ([value if isinstance(value, str) else json.dumps(value) for value in of] for of in varied.values())
    return [
        Variant.of(variant.config, variant.method, (*variant.settings, *zip(varied, values, strict=True)))
        for values in itertools.product(*texts)
    ]


def _val(run: Path, metric: str) -> float:
    """Read the last validation of a run."""
    _, values = read_metrics(run, f"val/{metric}")
    if not values:
        raise CsviError(f"{run} was trained without validation, and nothing can be chosen: delete it to train it again")
    return values[-1]


def _cost(variant: Variant, out: Path) -> Cost:
    """Read the cost of a variant, or measure it once: that takes a quiet machine."""
    file = out / str(variant) / "cost.json"
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # not there, or damaged
        return Cost(**json.loads(file.read_text()))
    classes = read_classes(out / str(variant) / "0")
    cost = training_cost(variant.config, len(classes))
    with replacing(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(cost)) + "\n")
    return cost
