"""`csvi ablate`: several methods or settings with several seeds, compared."""

from typing import Any

from jsonargparse import Namespace

from csvi.catalogue import TABLE_3
from csvi.commands.parser import Parser, add_run_settings, picked
from csvi.config import Config
from csvi.paths import expanded

SUMMARY = "Train variants with several seeds, compare them: Tables 3 and 4. Stops and resumes."


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[*TABLE_3, "coseg+"],
        help="METHOD[:SETTING=VALUE,...]; the first is what others are compared with",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant")
    parser.add_argument(
        "--grid", type=dict[str, list[Any]], default={}, help="setting -> values to choose from on the val identities"
    )
    parser.add_argument("--out", default="runs/ablation", help="folder to write")
    add_run_settings(parser)


def run(settings: Namespace) -> None:
    from csvi.analysis.ablate import ablate

    file = ablate(picked(Config, settings), settings.variants, settings.seeds, expanded(settings.out), settings.grid)
    print(f"{file.read_text(encoding='utf-8')}\nwritten: {file}")
