"""`csvi methods`: what can be trained."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser

SUMMARY = "List the methods: name, paper, whether it needs person masks, and parameters."


def add_arguments(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("--classes", type=int, default=395, help="identities; by default SYSU-MM01's train and val")


def run(settings: Namespace) -> None:
    from csvi.analysis.methods_table import print_methods

    print_methods(settings.classes)
