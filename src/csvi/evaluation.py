"""`csvi evaluate`: one run or several, or embeddings from elsewhere, to tables, files and JSON."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from csvi.analysis.tables import print_evaluation, print_one_split, print_summary
from csvi.config import Config
from csvi.errors import CsviError
from csvi.evaluate.runs import (
    Evaluation,
    EvaluationOptions,
    evaluate_features,
    evaluate_run,
    save_evaluation,
    write_evaluation,
)
from csvi.evaluate.summary import differing_settings, summarize_runs
from csvi.shell import as_argument


def evaluate_all(runs: Sequence[str], features: str | None, options: EvaluationOptions, as_json: bool) -> None:
    """Evaluate, save beside what was evaluated, then print: a pipe that nobody reads any more loses nothing.

    Args:
        runs: run folders, or models alone; or none.
        features: in their place a file of embeddings.
        options: on what, and how.
        as_json: print one JSON document and nothing else.

    Raises:
        CsviError: neither or both are given, or evaluation says so; or, when all is printed, something was not saved.
    """
    if bool(runs) == bool(features):
        raise CsviError("give what to evaluate: run folders, or --features FILE with --data.root")
    evaluations, configs, unsaved = list[Evaluation](), list[Config](), list[str]()
    if features:
        file = Path(features)
        evaluations.append(evaluate_features(file, options))
        write = partial(write_evaluation, evaluations[0], file.with_suffix(".evaluation.json"))
        unsaved += _save_and_print(evaluations[0], write, as_json)
    for run in runs:
        outcome = evaluate_run(run, options)
        evaluations.append(outcome.evaluation)
        configs.append(outcome.config)
        folder = Path(run)
        save = partial(save_evaluation, outcome.evaluation, folder, outcome.elsewhere) if folder.is_dir() else None
        unsaved += _save_and_print(outcome.evaluation, save, as_json, f"csvi report {as_argument(run)}")
    differing = differing_settings(configs) if len(runs) > 1 else []
    summary = summarize_runs(evaluations) if len(runs) > 1 and not differing else None
    if as_json:
        found = {"evaluations": evaluations, "summary": summary, "differing_settings": differing}
        print(json.dumps(found, indent=1, default=dataclasses.asdict))
    elif summary:
        print_summary(summary, evaluations[0])
    elif differing:
        print(f"no mean over these runs, as their settings differ: {', '.join(differing[:5])}")
    else:
        print_one_split(evaluations[0])
    if unsaved:
        raise CsviError("; ".join(unsaved))


def _save_and_print(
    evaluation: Evaluation, save: Callable[[], Path] | None, quiet: bool, following: str | None = None
) -> list[str]:
    """Both, or the one that can be done; returns why it was not saved, if it should have been and was not."""
    lines, unsaved = [], []
    try:
        if save:
            lines = [f"saved: {save()}"] + ([f"next: {following}"] if following else [])
    except (CsviError, OSError) as error:
        unsaved = [str(error)]
    if not quiet:
        print_evaluation(evaluation)
        print(*lines, sep="\n", end="\n" if lines else "")
    return unsaved
