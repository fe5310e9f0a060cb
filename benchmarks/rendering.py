"""How many images a second a core renders of the synthetic benchmark, masks and writing of files included.

    python benchmarks/rendering.py [--people 10] [--height 288]

One process renders people of the SYSU-MM01 layout with all six cameras. The first person, with whom the kernels are
compiled or loaded and the cameras' places are drawn, once a process, is measured apart.
"""

import argparse
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

from common import Finding, parser_of, positive, run
from rich.console import Console
from rich.table import Table

from csvi.synth import SynthConfig
from csvi.synth.benchmark import plan_of, render_person, resolve
from csvi.synth.plan import Shot
from csvi.synth.settings import SIZES

TARGET = 30
"""Images a second and core, at 288×144, at least."""


def render(out: Path, config: SynthConfig, people: list[list[Shot]]) -> tuple[int, float, float]:
    """Images, seconds, and seconds of processor time, which other programs do not lengthen much."""
    start, used = time.perf_counter(), time.process_time()
    for shots in people:
        render_person(out, resolve(config), shots)
    return sum(map(len, people)), time.perf_counter() - start, time.process_time() - used


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--people", type=positive, default=10, help="measured, after the first")
    parser.add_argument("--height", type=positive, default=SIZES["paper"][0], help="of an image; it is half as wide")
    parser.add_argument("--quick", action="store_true", help="one person, small, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.quick:
        options.people, options.height = 1, SIZES["tiny"][0]
    config = SynthConfig(height=options.height, width=options.height // 2)
    plan = plan_of("sysu", "demo", 0)
    first, *people = (list(shots) for _, shots in groupby(plan.shots, key=lambda shot: shot.identity))

    table = Table("", "images", "seconds", "images/s", "images/s of processor time")
    with tempfile.TemporaryDirectory() as folder:
        for name, group in (("first person", [first]), ("then", people[: options.people])):
            images, seconds, used = render(Path(folder), config, group)
            row = (f"{images}", f"{seconds:.2f}", f"{images / seconds:.1f}", f"{images / used:.1f}")
            table.add_row(name, *row)
    console.print(table)
    rate, question = images / used, f"rendering {config.height}×{config.width} with masks"
    return [Finding(question, f"{rate:.0f} images/s of a core's time", f"≥ {TARGET}", rate >= TARGET)]


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
