"""`csvi methods`: what can be trained."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.errors import CsviError

SUMMARY = "List the methods: name, paper, whether it needs person masks, and parameters as published (configs/methods)."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--classes", type=int, default=395, help="identities; by default SYSU-MM01's train and val")


def run(settings: Namespace) -> None:
    from csvi.data.files import LARGEST_NUMBER

    if not 0 < settings.classes <= LARGEST_NUMBER:
        raise CsviError(f"--classes {settings.classes}: give a number from 1 to {LARGEST_NUMBER:,}")
    import torch
    from rich.table import Column

    from csvi.analysis.reproduce_methods import published_config
    from csvi.methods import METHODS, build_method
    from csvi.plain_table import plain_console, plain_table

    table = plain_table("method", "masks", "training (M)", "testing (M)", Column("paper", overflow="fold"))
    for name in METHODS:
        with torch.device("meta"):  # counts only
            method = build_method(published_config(name, "sysu"), settings.classes)
        counts = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (method, method.net)]
        masks = "needed" if method.needs_masks else ""
        table.add_row(name, masks, *(f"{count:.2f}" for count in counts), method.paper)
    console = plain_console()
    console.print(table)
    console.print(
        f"\nParameters with {settings.classes} classes, and the settings and image size published for SYSU-MM01, which "
        "are in configs/methods (csvi train --config). With --method NAME alone, training has csvi's own. Settings of "
        "a method: csvi train --method NAME --help"
    )
