"""`csvi methods`: what can be trained."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser

SUMMARY = "List the methods: name, paper, whether it needs person masks, and parameters."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--classes", type=int, default=395, help="identities; by default SYSU-MM01's train and val")


def run(settings: Namespace) -> None:
    import torch
    from rich.table import Column

    from csvi.analysis.plain_table import plain_console, plain_table
    from csvi.config import DataConfig
    from csvi.methods import METHODS, find_method

    table = plain_table("method", "masks", "training (M)", "testing (M)", Column("paper", overflow="fold"))
    data, classes = DataConfig(), settings.classes
    for name in METHODS:
        kind = find_method(name)
        with torch.device("meta"):  # counts only
            method = kind(kind.Settings(), classes, data.height, data.width)
        counts = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (method, method.net)]
        masks = "needed" if kind.needs_masks else ""
        table.add_row(name, masks, *(f"{count:.2f}" for count in counts), kind.paper)
    console = plain_console()
    console.print(table)
    console.print(f"\nParameters at default settings and {classes} classes. Settings: csvi train --method NAME --help")
