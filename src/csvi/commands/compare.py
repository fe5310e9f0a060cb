"""`csvi compare`: evaluated runs side by side."""

from pathlib import Path

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.paths import check_each_once, expanded

SUMMARY = "Evaluated runs side by side, and their paired differences to the first."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", help="run folders, or evaluation files of them")
    parser.add_argument(
        "--against", nargs="+", help="runs whose mean (over seeds, folds) is the reference for the mean of RUNS"
    )
    parser.add_argument("--protocol", help="by name; by default the first of the dataset's")


def run(settings: Namespace) -> None:
    from csvi.analysis.tables import print_comparison
    from csvi.runs import Evaluation
    from csvi.runs.run import EVALUATION
    from csvi.runs.statistics import compare_groups

    given = map(expanded, [*settings.runs, *(settings.against or [])])
    check_each_once(path / EVALUATION if path.is_dir() else path for path in given)
    groups, names = [[run] for run in settings.runs], settings.runs
    if settings.against:
        groups = [settings.against, settings.runs]
        names = [f"{len(runs)} × {runs[0]}" for runs in groups]
    loaded = [[Evaluation.load(Path(run)) for run in runs] for runs in groups]
    print_comparison(compare_groups(loaded, names, settings.protocol))
