"""`csvi methods`: what can be trained."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser

SUMMARY = "List the methods: name, paper, whether it needs person masks, and parameters as published (configs/methods)."
CLASSES = 395
"""Identities of SYSU-MM01's train and val."""


def add_arguments(parser: Parser) -> None:
    """Add none."""


def run(settings: Namespace) -> None:
    import torch
    from rich.table import Column

    from csvi.analysis.reproduce_methods import published_config
    from csvi.methods import METHODS, build_method
    from csvi.plain_table import plain_console, plain_table

    table = plain_table("method", "masks", "training (M)", "testing (M)", Column("paper", overflow="fold"))
    for name in METHODS:
        with torch.device("meta"):  # counts only
            method = build_method(published_config(name, "sysu"), CLASSES)
        counts = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (method, method.net)]
        masks = "needed" if method.needs_masks else ""
        table.add_row(name, masks, *(f"{count:.2f}" for count in counts), method.paper)
    console = plain_console()
    console.print(table)
    console.print(
        f"\nParameters with {CLASSES} classes, and the settings and image size published for SYSU-MM01, which "
        "are in configs/methods (csvi train --config). With --method NAME alone, training has csvi's own. Settings of "
        "a method: csvi train --method NAME --help"
    )
