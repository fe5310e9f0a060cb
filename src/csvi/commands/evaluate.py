"""`csvi evaluate`: one run or several, or embeddings from elsewhere, to tables, files and JSON."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.options import add_test_options, options_of, test_arguments
from csvi.commands.parser import Parser
from csvi.errors import CsviError
from csvi.paths import as_argument, check_each_once

if TYPE_CHECKING:
    from csvi.runs import Evaluation, Options

SUMMARY = "Evaluate runs on the test split under the dataset's protocols."


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs", nargs="*", help="run folders; of the same settings, as RegDB's ten, their mean is given"
    )
    parser.add_argument("--features", help="in place of runs, .npz of embedding (n, d) and path (n,)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--devices", type=int, default=1, help="accelerators of this machine that embed together; 1")
    add_test_options(parser)


def run(settings: Namespace) -> None:
    """Evaluate, save, then print, so that a closed pipe loses nothing; of several processes the first one does it."""
    from csvi.fabric import make_fabric
    from csvi.runs import Run
    from csvi.runs.evaluation import embed_share
    from csvi.train.processes import launched

    if bool(settings.runs) == bool(settings.features):
        raise CsviError("give what to evaluate: either run folders, or --features FILE with --data.root")
    check_each_once(settings.runs)
    if settings.devices < 1 or (settings.features and settings.devices > 1):
        raise CsviError(f"--devices {settings.devices}: it must be at least 1, and 1 with --features, already embedded")
    options = dataclasses.replace(options_of(settings), devices=settings.devices)
    if settings.features:
        return _evaluate(settings, options)
    fabric = make_fabric(devices=settings.devices)
    with launched(fabric):
        if fabric.is_global_zero:
            _evaluate(settings, options)
        else:
            for path in settings.runs:
                embed_share(Run.open(path, options))


def _evaluate(settings: Namespace, options: "Options") -> None:
    """Evaluate, save and print in the one process that does."""
    from csvi.analysis.tables import print_one_fold, print_summary
    from csvi.runs import Evaluation, Run, evaluate_features, evaluate_run
    from csvi.runs.evaluation import evaluation_file_of_features, save_evaluation
    from csvi.runs.statistics import differing_settings, summarize

    runs, quiet = settings.runs, settings.json
    evaluations, unsaved = list[Evaluation](), list[str]()
    if settings.features:
        file = Path(settings.features)
        evaluations.append(evaluate_features(file, options))
        write = partial(evaluations[0].save, evaluation_file_of_features(file, options))
        unsaved += _save_and_print(evaluations[0], write, quiet)
    for path in runs:
        opened = Run.open(path, options)
        evaluations.append(evaluate_run(opened))
        save = partial(save_evaluation, evaluations[-1], opened)
        following = " ".join(["csvi report", as_argument(path), *test_arguments(settings)])
        unsaved += _save_and_print(evaluations[-1], save, quiet, following)
    alone = [evaluation.model for evaluation in evaluations if not evaluation.settings]
    unfinished = [evaluation.model for evaluation in evaluations if evaluation.unfinished]
    differing = differing_settings(evaluations)
    summary = summarize(evaluations) if len(runs) > 1 and not (alone or differing or unfinished) else None
    if quiet:
        found = {"evaluations": evaluations, "summary": summary, "differing_settings": differing}
        print(json.dumps(found, indent=1, default=dataclasses.asdict))
    elif summary:
        print_summary(summary, evaluations[0])
    elif differing:
        print(f"no mean over these runs, as their settings differ: {', '.join(differing[:5])}")
    elif len(runs) > 1 and unfinished:
        print(f"no mean over these runs, as the training of {unfinished[0]} has not ended")
    elif len(runs) > 1:
        print(f"no mean over these runs, as {alone[0]} is a model alone, whose settings are not known")
    else:
        print_one_fold(evaluations[0])
    if unsaved:
        raise CsviError("; ".join(unsaved))


def _save_and_print(
    evaluation: "Evaluation", save: Callable[[], Path | None], quiet: bool, following: str | None = None
) -> list[str]:
    """Save and print; if saving fails, print all the same and return the reason."""
    from csvi.analysis.tables import print_evaluation

    lines, unsaved = [], []
    try:
        if file := save():
            lines = [f"saved: {file}"] + ([f"next: {following}"] if following else [])
    except (CsviError, OSError) as error:
        unsaved = [str(error)]
    if not quiet:
        print_evaluation(evaluation)
        print(*lines, sep="\n", end="\n" if lines else "")
    return unsaved
