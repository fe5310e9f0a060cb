"""`csvi train`: one method on one dataset, to a run folder."""

import math
import time

from jsonargparse import Namespace

from csvi.commands.parser import Parser, add_run_settings, picked
from csvi.config import Config
from csvi.paths import as_argument, expanded

SUMMARY = "Train a method; leaves a run folder."


def add_arguments(parser: Parser) -> None:
    add_run_settings(parser)
    parser.add_argument("--run", help="folder of the run; by default runs/DATASET-BACKBONE-METHOD-SEED")
    parser.add_argument("--resume", help="auto: resume where RUN stopped; or the path of a checkpoint")
    parser.add_argument(
        "--max_time", help="stop before so long (90s, 30m, 2h, 1h30m), all of it saved, with exit status 75"
    )


def run(settings: Namespace) -> None:
    from csvi.train.stopping import seconds

    until = time.monotonic() + (math.inf if settings.max_time is None else seconds(settings.max_time))
    from csvi.train.loop import train

    config = picked(Config, settings)
    folder = expanded(settings.run or f"runs/{name_of(config)}")
    if train(config, folder, settings.resume, until):
        print(f"run: {folder}\nnext: csvi evaluate {as_argument(folder)}")


def name_of(config: Config) -> str:
    """Name a run by dataset, with its fold if there are several, backbone, method and seed."""
    from csvi.data import find_layout

    fold = str(config.data.fold) if find_layout(config.data.layout).folds > 1 else None
    parts = [config.data.layout, fold, getattr(config.method, "backbone", None), config.method.name, str(config.seed)]
    return "-".join(filter(None, parts)).replace(":", ".")
