"""How long `csvi --help` takes, and that of every command, against starting Python alone.

python benchmarks/startup.py [--repeats 10]
"""

import argparse
import statistics
import subprocess
import sys
import time

from common import machine, met
from rich.console import Console
from rich.table import Table

from csvi.cli import _parser

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


def main(arguments: list[str] | None = None) -> int:
    """0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="once, and few commands, to see that it runs")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    commands = ["", *_parser()[1]]
    if options.quick:
        options.repeats, commands = 1, commands[:2]
    table = Table("", "seconds", f"< {TARGET_SECONDS:g} s")
    table.add_row("python -c pass", f"{seconds(options.repeats, '-c', 'pass'):.3f}", "")
    for command in commands:
        taken = seconds(options.repeats, "-c", CSVI, *command.split(), "--help")
        table.add_row(f"csvi {command} --help".replace("  ", " "), f"{taken:.3f}", met(taken < TARGET_SECONDS))
    console.print(table)
    console.print(f"median of {options.repeats}; {machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
