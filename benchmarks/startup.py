"""How long `csvi --help` takes, and that of every command, against starting Python alone.

python benchmarks/startup.py [--repeats 10]
"""

import argparse
import statistics
import subprocess
import sys
import time

from common import Finding, parser_of, positive, run
from rich.console import Console
from rich.table import Table

from csvi.cli import COMMANDS

TARGET_SECONDS = 0.5
CSVI = "import sys; from csvi.cli import main; sys.exit(main())"
"""What the installed script does."""


def seconds(repeats: int, *arguments: str) -> float:
    """Median time of a Python process with these arguments, the first, which reads files from the disk, left out."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=positive, default=10)
    parser.add_argument("--quick", action="store_true", help="once, and few commands, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    commands = ["", *COMMANDS]
    if options.quick:
        options.repeats, commands = 1, commands[:2]
    table = Table("", f"seconds, median of {options.repeats}")
    alone = seconds(options.repeats, "-c", "pass")
    table.add_row("python -c pass", f"{alone:.3f}")
    taken = {}
    for command in commands:
        name = f"csvi {command} --help".replace("  ", " ")
        taken[name] = seconds(options.repeats, "-c", CSVI, *command.split(), "--help")
        table.add_row(name, f"{taken[name]:.3f}")
    console.print(table)
    slowest = max(taken, key=taken.__getitem__)
    return [
        Finding(name, f"{taken[name]:.2f} s, {taken[name] / alone:.0f} × python -c pass",
                f"< {TARGET_SECONDS:g} s", taken[name] < TARGET_SECONDS)
        for name in dict.fromkeys(("csvi --help", slowest))
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
