"""What every benchmark does: time by turns, say on which machine it ran, what it found, and whether that is enough."""

import argparse
import logging
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from csvi.config import Config, shipped_config
from csvi.errors import CsviError, StoppedError, TerminatedError
from csvi.runs.settings import load_config, with_settings
from csvi.signals import ENDING, handled, terminate
from csvi.synth import SynthConfig

Seconds = dict[str, list[float]]
"""Of each contestant, turn by turn."""
SEGMENTATION_WEIGHT = {"segment": "20", "decode": "60", "coseg": "60", "coseg+": "60"}
"""Method → its weight of the segmentation loss, as docs/results-tried.md chose it with exact masks."""


def machine() -> str:
    """Processor or accelerator, cores, versions, and how busy it is now."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name()]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, numpy {np.__version__}, load {load}"
    )


class Finding(NamedTuple):
    """What a benchmark answers, and what it should."""

    question: str
    found: str
    target: str
    met: bool


class BenchmarkError(Exception):
    """What is compared does not compute the same, or cannot be compared."""


def study_parser(doc: str | None, kinds: str) -> argparse.ArgumentParser:
    """A parser of a script that trains many runs on a synthetic benchmark, with what such scripts have in common.

    `kinds` says what is trained, for its help.
    """
    parser = parser_of(doc)
    parser.add_argument("out", type=Path, help="folder to write, and to resume in")
    parser.add_argument("--preset", default="study", help="of the synthetic benchmark")
    parser.add_argument("--benchmark-seed", type=int, default=0, help="of the synthetic benchmark")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of training")
    parser.add_argument("--config", type=Path, default=shipped_config("study"), help="settings that all runs share")
    parser.add_argument("--epochs", type=positive, help="by default those of the settings")
    parser.add_argument("--list", action="store_true", help=f"only list {kinds}")
    parser.add_argument("--summary-only", action="store_true", help="only summarise what is done")
    return parser


def study_settings(options: argparse.Namespace) -> tuple[SynthConfig, Config]:
    """The benchmark, and the settings that all runs share, of the options of a `study_parser`."""
    base = load_config(options.config)
    if options.epochs is not None:
        base = with_settings(base, {"train.epochs": str(options.epochs)})
    return SynthConfig("sysu", options.preset, options.benchmark_seed), base


def run_with_log(measure: "Measure", parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Do what `run` does, with the log of csvi on stderr."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("csvi").setLevel(logging.INFO)
    return run(measure, parser, arguments)


Measure = Callable[[argparse.Namespace, Console], list[Finding]]
"""Measures and prints, under the options of a script."""


def run(measure: Measure, parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """What a script does: measure, print; 0, or 1 if what is compared differs. A missed target is no error.

    75 if a signal such as SIGTERM stopped it.
    """
    options = parser.parse_args(arguments)
    console = make_console()
    try:
        with handled(terminate, *ENDING):
            findings = measure(options, console)
    except StoppedError as stopped:
        console.print(f"[red]{stopped}[/red]")
        return 75
    except TerminatedError as signalled:
        console.print(f"[red]ended by {signalled}, the same command resumes or begins anew[/red]")
        return 75
    except (BenchmarkError, CsviError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    if findings:
        console.print(table_of(findings))
    console.print(machine())
    return 0


def make_console() -> Console:
    """As wide as the tables need where nobody looks on."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def table_of(findings: Sequence[Finding]) -> Table:
    """A line for each."""
    table = Table("", "found", "target", "")
    for question, found, target, met in findings:
        table.add_row(question, found, target, "met" if met else "[red]not met[/red]")
    return table


def parser_of(script: str | None) -> argparse.ArgumentParser:
    """That shows what the script says of itself."""
    return argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)


def positive(text: str) -> int:
    """The type of an option that is a number of at least 1."""
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def take_turns(
    contestants: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 2, until: float = math.inf
) -> Seconds:
    """Seconds of every call, each contestant once a turn, so that what else the machine does hits them all alike.

    No turn but the first is begun after `until`, of `time.monotonic()`.
    """
    seconds: Seconds = {name: [] for name in contestants}
    for turn in range(warm_up + turns):
        if turn > warm_up and time.monotonic() > until:
            break
        for name, call in contestants.items():
            taken = time_call(call)
            if turn >= warm_up:
                seconds[name].append(taken)
    return seconds


def time_call(call: Callable[[], object]) -> float:
    """Seconds until the device has done all of it."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(seconds: Seconds, name: str, other: str) -> float:
    """How many times as long as another a contestant takes: the median over the turns."""
    return statistics.median(one / two for one, two in zip(seconds[name], seconds[other], strict=True))
