"""`csvi synth`: the open synthetic benchmark."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser, picked
from csvi.errors import CsviError
from csvi.paths import as_argument, expanded
from csvi.synth import SynthConfig

SUMMARY = "Write the synthetic benchmark in a dataset's own layout."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out", nargs="?", help="folder to write")
    parser.add_argument("--sheet", help="PNG file of a contact sheet: visible, infrared and mask of several people")
    parser.add_class_arguments(SynthConfig)


def run(settings: Namespace) -> None:
    from csvi.synth import write_benchmark, write_sheet

    config = picked(SynthConfig, settings)
    if not settings.sheet and not settings.out:
        raise CsviError("nothing to write: give a folder for the benchmark, --sheet FILE, or both")
    if settings.sheet:
        write_sheet(expanded(settings.sheet), config)
        print(f"contact sheet: {settings.sheet}")
    if settings.out:
        write_benchmark(expanded(settings.out), config)
        following = ["csvi", "train", "--config", "demo", "--data.root", as_argument(settings.out)]
        following += ["--data.layout", config.layout] if config.layout != "sysu" else []
        following += ["--data.identities", "4"] if config.preset == "tiny" else []
        print(f"benchmark: {settings.out}\nnext: {' '.join(following)}")
