"""`csvi report`: one page about one run."""

from jsonargparse import Namespace

from csvi.catalogue import FIGURES
from csvi.commands.options import add_test_options, options_of
from csvi.commands.parser import Parser

SUMMARY = "Write RUN/report.html, with the figures that RUN/figures holds; evaluates the run if need be."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--figures", nargs="*", default=[], choices=FIGURES, help="draw these before")
    add_test_options(parser)


def run(settings: Namespace) -> None:
    from csvi.analysis.make_figure import make_figure
    from csvi.analysis.report import write_report
    from csvi.runs import Run
    from csvi.runs.evaluation import evaluated

    opened = Run.open(settings.run, options_of(settings))
    if settings.figures:
        evaluated(opened)  # before they are drawn: its embeddings are theirs
    for name in settings.figures:
        make_figure(name, [opened])
    print(f"report: {write_report(opened)}")
