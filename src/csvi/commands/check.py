"""`csvi check`: a dataset's health."""

import dataclasses
import json

from jsonargparse import Namespace

from csvi.commands.options import add_engine_options, add_mask_option, add_range_options, engine_of
from csvi.commands.parser import Parser
from csvi.config import RANGES, DataConfig

SUMMARY = "Look through a dataset: what it holds, and what is broken, missing or double."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("root", help="folder of the dataset")
    parser.add_argument(
        "--data.layout", help="its layout (sysu, regdb, llcm, folder); by default the one it looks like"
    )
    parser.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    add_mask_option(parser, "by default 255")
    add_range_options(parser, "by default measured")
    parser.add_argument("--decode", action="store_true", help="decode every image; by default headers are read")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_engine_options(parser, gpus=False)


def run(settings: Namespace) -> int:
    from csvi.analysis.dataset_table import print_check
    from csvi.data.check import check_dataset

    names = "masks", "mask_values", *RANGES
    data = DataConfig(settings.root, **{name: given for name in names if (given := settings.data[name]) is not None})
    found = check_dataset(data, settings.data.layout, settings.decode, engine_of(settings))
    if settings.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print_check(found)
    return 1 if found.problems else 0
