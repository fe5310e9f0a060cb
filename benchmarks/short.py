"""Every benchmark in a short form, and one table of what was found: `make bench`. Under five minutes on two cores.

    python benchmarks/short.py [--only training embedding] [--long]

Each script has more to say, and steadier figures, when it is run alone and on a machine that does nothing else.
"""

import importlib
import sys
import time
from collections.abc import Sequence

from common import BenchmarkError, Finding, machine, make_console, parser_of, table_of

from csvi.errors import CsviError

SHORT = {
    "startup": "--repeats 2",
    "rendering": "--people 5",
    "loading": "--images 1920 --seconds 15",
    "evaluation": "",
    "embedding": "--pictures 384 --turns 1",
    "training": "--methods baseline coseg --steps 2",
}
"""Benchmark → its options."""
LONG = {"methods": ""}
"""What `--long` adds: hours on a CPU."""


def main(arguments: Sequence[str] | None = None, short: dict[str, str] = SHORT) -> int:
    """0 if everything that is compared computes the same; a missed target is no error."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=short, default=list(short))
    parser.add_argument("--long", action="store_true", help="and what every method costs on every trunk")
    options = parser.parse_args(arguments)
    asked = {name: short[name] for name in options.only} | (LONG if options.long else {})
    console = make_console()
    findings: list[Finding] = []
    wrong = False
    for name, text in asked.items():
        module = importlib.import_module(name)
        console.rule(f"benchmarks/{name}.py {text}")
        start = time.perf_counter()
        try:
            findings += module.measure(module.make_parser().parse_args(text.split()), console)
        except (BenchmarkError, CsviError) as error:
            console.print(f"[red]{error}[/red]")
            wrong = True
        console.print(f"{time.perf_counter() - start:.0f} s")
    console.rule()
    console.print(table_of(findings))
    console.print(machine())
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
