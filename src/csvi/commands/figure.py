"""`csvi figure`: the paper's figures, from trained runs."""

from jsonargparse import Namespace

from csvi.catalogue import FIGURES
from csvi.commands.options import add_data_options, options_of
from csvi.commands.parser import Parser
from csvi.paths import expanded

SUMMARY = "The paper's Figures 4, 5, 6, Eq. 20-24 measured, and how much identity leaks through w."


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "name",
        choices=FIGURES,
        help="cosegmentation: Figure 4; tsne: 5; heatmaps: 6; gradients: Eq. 20-24; leak: how far w names its owner",
    )
    parser.add_argument("runs", nargs="+", help="run folders, side by side")
    parser.add_argument("--out", help="folder to write; by default FIRST_RUN/figures")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw")
    add_data_options(parser)


def run(settings: Namespace) -> None:
    from csvi.analysis.make_figure import make_figure
    from csvi.runs import Run

    runs = [Run.open(path, options_of(settings)) for path in settings.runs]
    out = expanded(settings.out) if settings.out else None
    for file in make_figure(settings.name, runs, out, settings.seed):
        print(f"written: {file}")
