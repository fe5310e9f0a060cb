"""`csvi evaluate`: one run or several, or embeddings from elsewhere, to tables, files and JSON."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from csvi.analysis.tables import print_evaluation, print_one_split, print_summary
from csvi.errors import CsviError
from csvi.evaluate.runs import (
    Evaluation,
    EvaluationOptions,
    evaluate_features,
    evaluate_run,
    save_evaluation,
    write_evaluation,
)
from csvi.evaluate.summary import Summary, differing_settings, summarize_runs


def evaluate_all(runs: Sequence[str], features: str | None, options: EvaluationOptions, as_json: bool) -> None:
    """Evaluate, save beside what was evaluated, and print.

    Args:
        runs: run folders, or models alone; or none.
        features: in their place a file of embeddings.
        options: on what, and how.
        as_json: print one JSON document and nothing else.

    Raises:
        CsviError: neither or both are given, or evaluation says so.
    """
    if bool(runs) == bool(features):
        raise CsviError("give what to evaluate: run folders, or --features FILE with --data.root")
    if features:
        evaluations = [evaluate_features(Path(features), options)]
        file = write_evaluation(evaluations[0], Path(features).with_suffix(".evaluation.json"))
        if not as_json:
            print_evaluation(evaluations[0])
            print(f"saved: {file}")
        summary, differing = None, list[str]()
    else:
        evaluations, summary, differing = _evaluate_runs(runs, options, as_json)
    if as_json:
        found = {"evaluations": evaluations, "summary": summary, "differing_settings": differing}
        print(json.dumps(found, indent=1, default=dataclasses.asdict))
    elif summary:
        print_summary(summary, evaluations[0])
    elif differing:
        print(f"no mean over these runs, as their settings differ: {', '.join(differing[:5])}")
    elif len(evaluations) == 1:
        print_one_split(evaluations[0])


def _evaluate_runs(
    runs: Sequence[str], options: EvaluationOptions, quiet: bool
) -> tuple[list[Evaluation], Summary | None, list[str]]:
    """Every run's evaluation; their mean, or the settings in which they differ."""
    evaluations, configs = [], []
    for run in runs:
        outcome = evaluate_run(run, options)
        evaluations.append(outcome.evaluation)
        configs.append(outcome.config)
        if not quiet:
            print_evaluation(outcome.evaluation)
        if Path(run).is_dir():
            file = save_evaluation(outcome.evaluation, Path(run), outcome.elsewhere)
            if not quiet:
                print(f"saved: {file}\nnext: csvi report {shlex.quote(run)}")
    if len(runs) == 1:
        return evaluations, None, []
    differing = differing_settings(configs)
    return evaluations, None if differing else summarize_runs(evaluations), differing
