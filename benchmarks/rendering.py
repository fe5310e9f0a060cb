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

from common import machine, met
from rich.console import Console
from rich.table import Table

from csvi.config import SynthConfig
from csvi.synth.benchmark import LAYOUTS, SIZES, render_person, resolve
from csvi.synth.plan import Shot

TARGET = 30
"""Images a second and core, at 288×144, at least."""


def render(out: Path, config: SynthConfig, people: list[list[Shot]]) -> tuple[int, float, float]:
    """Images, seconds, and seconds of processor time, which other programs do not lengthen much."""
    start, used = time.perf_counter(), time.process_time()
    images = sum(render_person(out, resolve(config), shots) for shots in people)
    return images, time.perf_counter() - start, time.process_time() - used


def main(arguments: list[str] | None = None) -> int:
    """0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=10, help="measured, after the first")
    parser.add_argument("--height", type=int, default=SIZES["paper"][0], help="of an image; it is half as wide")
    parser.add_argument("--quick", action="store_true", help="one person, small, to see that it runs")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.quick:
        options.people, options.height = 1, SIZES["tiny"][0]
    config = SynthConfig(height=options.height, width=options.height // 2)
    plan = LAYOUTS["sysu"]("demo", 0)
    first, *people = (list(shots) for _, shots in groupby(plan.shots, key=lambda shot: shot.identity))

    table = Table("", "images", "seconds", "images/s", "images/s of processor time")
    with tempfile.TemporaryDirectory() as folder:
        for name, group in (("first person", [first]), ("then", people[: options.people])):
            images, seconds, used = render(Path(folder), config, group)
            row = (f"{images}", f"{seconds:.2f}", f"{images / seconds:.1f}", f"{images / used:.1f}")
            table.add_row(name, *row)
    console.print(table)
    console.print(
        f"{config.height}×{config.width} with masks, one process; ≥ {TARGET} images/s of processor time: "
        f"{met(images / used >= TARGET)}; {machine()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
