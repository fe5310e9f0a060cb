"""`csvi synth`: the open synthetic benchmark."""

import dataclasses

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import shipped_config
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

    config = SynthConfig(**{field.name: settings[field.name] for field in dataclasses.fields(SynthConfig)})
    if settings.sheet:
        write_sheet(expanded(settings.sheet), config)
        print(f"contact sheet: {settings.sheet}")
    if settings.out:
        write_benchmark(expanded(settings.out), config)
        root = as_argument(settings.out)
        following = ["csvi", "train", "--config", as_argument(shipped_config("demo")), "--data.root", root]
        following += ["--data.layout", config.layout] if config.layout != "sysu" else []
        following += ["--data.identities", "4"] if config.preset == "tiny" else []
        print(f"benchmark: {settings.out}\nnext: {' '.join(following)}")
    if not settings.sheet and not settings.out:
        raise CsviError("nothing to write: give a folder for the benchmark, --sheet FILE, or both")
