"""The command line: one thin function a command. Heavy imports wait until a command runs."""

import dataclasses
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from csvi import __version__
from csvi.config import Config, SynthConfig, shipped_config
from csvi.errors import CsviError

Settings = TypeVar("Settings")


def synth(settings: Namespace) -> None:
    from csvi.synth import write_benchmark, write_sheet

    config = _settings(SynthConfig, settings)
    if settings.sheet:
        write_sheet(Path(settings.sheet), config)
        print(f"contact sheet: {settings.sheet}")
    if settings.out:
        write_benchmark(Path(settings.out), config)
        print(
            f"benchmark: {settings.out}\nnext: csvi train --config {shipped_config('demo')} --data.root {settings.out}"
        )
    if not settings.sheet and not settings.out:
        raise CsviError("nothing to write: give a folder for the benchmark, --sheet FILE, or both")


def train(settings: Namespace) -> None:
    from csvi.train.loop import train

    config = _settings(Config, settings)
    run = Path(
        settings.run or f"runs/{config.data.dataset}-{config.model.backbone}-{config.model.auxiliary}-{config.seed}"
    )
    train(config, run, settings.resume)
    print(f"run: {run}\nnext: csvi evaluate {run}")


def evaluate(settings: Namespace) -> None:
    from csvi.analysis.tables import print_evaluation
    from csvi.evaluate.runs import evaluate_run, save_evaluation

    for run in settings.runs:
        evaluation = evaluate_run(Path(run), settings.data.root, settings.data.masks, settings.gallery).evaluation
        print_evaluation(evaluation)
        print(f"saved: {save_evaluation(evaluation, Path(run))}\nnext: csvi report {run}")


def report(settings: Namespace) -> None:
    from csvi.analysis.report import write_report
    from csvi.evaluate.runs import evaluate_run

    run = Path(settings.run)
    outcome = evaluate_run(run, settings.data.root, settings.data.masks, settings.gallery)
    print(f"report: {write_report(run, outcome)}")


def demo(settings: Namespace) -> None:
    from csvi.demo import run_demo

    report = run_demo(Path(settings.out), settings.seed)
    print(f"report: {report}\nnext: open it in a browser, or train at full size: csvi train --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for what a CsviError says, 2 for wrong arguments."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("csvi").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended too
    parser, commands = _parser()
    settings = parser.parse_args(arguments)
    try:
        commands[settings.command](parser.instantiate(settings)[settings.command])
    except (CsviError, OSError) as error:  # an OSError is a full disk or a folder that cannot be written
        print(f"csvi {settings.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"csvi {settings.command}: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One sentence, not pages of usage."""
        command = self.prog.replace("[options] ", "")
        print(f"{command}: {' '.join(message.split())} (see {command} --help)", file=sys.stderr)
        sys.exit(2)


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], None]]]:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog="csvi", description="Visible-infrared person re-identification with co-segmentation.")
    parser.add_argument("--version", action="version", version=f"csvi {__version__}")
    subcommands = parser.add_subcommands(dest="command")
    commands: dict[str, Callable[[Namespace], None]] = {}

    def command(function: Callable[[Namespace], None], summary: str) -> ArgumentParser:
        commands[function.__name__] = function
        child = _Parser(prog=f"csvi {function.__name__}", description=summary)
        subcommands.add_subcommand(function.__name__, child, help=summary)
        return child

    child = command(synth, "Write the synthetic benchmark in a dataset's own layout.")
    child.add_argument("out", nargs="?", help="folder to write")
    child.add_argument("--sheet", help="PNG file of a contact sheet: visible, infrared and mask of several people")
    child.add_class_arguments(SynthConfig)

    child = command(train, "Train a model; leaves a run folder.")
    child.add_argument(
        "--config", action="config", help="YAML file of settings; give it first, options after it override it"
    )
    child.add_class_arguments(Config)
    child.add_argument("--run", help="folder of the run; by default runs/DATASET-BACKBONE-AUXILIARY-SEED")
    child.add_argument("--resume", help="auto: go on where RUN stopped; or the path of a checkpoint")

    child = command(evaluate, "Evaluate runs on the test split under the dataset's protocols.")
    child.add_argument("runs", nargs="+", help="run folders")
    _add_test_arguments(child)

    child = command(report, "Evaluate a run and write RUN/report.html.")
    child.add_argument("run", help="run folder")
    _add_test_arguments(child)

    child = command(demo, "The main job at a small size: synthetic benchmark, training, evaluation, report.")
    child.add_argument("--out", default="demo", help="folder to write")
    child.add_argument("--seed", type=int, default=0, help="of the benchmark and of training")
    return parser, commands


def _add_test_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    parser.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    parser.add_argument("--gallery", choices=["seeded", "official"], default="seeded", help="how galleries are drawn")


def _settings(kind: type[Settings], settings: Namespace) -> Settings:
    """The part of a command's settings that a dataclass holds."""
    return kind(**{field.name: settings[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
