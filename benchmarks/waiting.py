"""How a training step of the demo fares alone and beside other work: threads that wait as csvi lets them, or as usual.

    python benchmarks/waiting.py [--steps 5] [--busy 2]

Each way has a fresh process, since how threads wait is decided when their library is loaded. `csvi` is what every
command does (`csvi.threads`); `as usual` is the library's own default. What the environment says of waiting is left out
of both. They take turns; the one whose turn it is not sleeps. The batch is noise, so that there is nothing to load.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

from common import BenchmarkError, Finding, machine, parser_of, positive, run
from rich.console import Console
from rich.table import Table

from csvi.threads import SPIN, WAITING

TARGET_ALONE, TARGET_BESIDE = 1.05, 4.0
"""How many times as long as usual a step may take alone, and how many times as fast it should be beside other work."""
IDENTITIES = 160
"""Classes of the demo."""
ROWS = {"csvi": f"csvi (GOMP_SPINCOUNT={SPIN})", "as usual": "as usual (the library's default)"}
"""Way to wait → its row."""

STEPS = """
import json, sys, time
from csvi.threads import let_threads_sleep

way, steps, seconds, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
if way == "csvi":
    let_threads_sleep()

import torch
from csvi.config import shipped_config
from csvi.runs import load_config
from csvi.train.cost import random_training

config = load_config(shipped_config("demo"))
config.precision = sys.argv[5]
for name, value in size.items():
    setattr(config.data, name, value)
_, step = random_training(config, IDENTITIES)
step()
for _ in sys.stdin:  # a line asks for a measurement
    taken, begun = [], time.perf_counter()
    while len(taken) <= steps and (len(taken) < 2 or time.perf_counter() - begun < seconds):
        start = time.perf_counter()
        float(torch.stack(list(step().values())).sum().detach())
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken[1:]), flush=True)
""".replace("IDENTITIES", str(IDENTITIES))
"""A process that trains on one batch and prints, each time it is asked, the seconds of every step but the first."""
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"
"""A process that keeps a core busy, until it is ended or whoever started it is gone."""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Let so many processes do nothing else than take processor time."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def training(way: str, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """Start a process whose threads wait in this way; yields what measures its median seconds a step."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment["OMP_NUM_THREADS"] = str(options.threads)
    size = json.dumps({"height": 48, "width": 24, "identities": 2, "images": 2} if options.quick else {})
    command = [sys.executable, "-c", STEPS, way, str(options.steps), str(options.seconds), size, options.precision]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def ask() -> float:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("\n")
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise BenchmarkError(f"a process of {way} failed: {process.stderr.read()[-500:]}")
            return statistics.median(json.loads(answer))

        yield ask


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=positive, default=5, help="in each process, after a first one")
    parser.add_argument("--seconds", type=float, default=15, help="after which a process begins no further step")
    parser.add_argument("--busy", type=int, default=2, help="processes that keep cores busy")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of a step")
    parser.add_argument("--precision", default="auto", help="auto asks the processor, also in a simulation of AVX2")
    parser.add_argument("--quick", action="store_true", help="one step of small images, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.quick:
        options.steps = 1
    console.print(f"a step of configs/demo.yaml in {options.threads} threads; {machine()}")
    with contextlib.ExitStack() as started:
        ask = {way: started.enter_context(training(way, options)) for way in ROWS}
        alone = {way: ask[way]() for way in ROWS}
        with busy(options.busy):
            beside = {way: ask[way]() for way in ROWS}
    table = Table("threads wait", "alone, s", f"beside {options.busy} busy processes, s", "× alone")
    for way, name in ROWS.items():
        table.add_row(name, f"{alone[way]:.2f}", f"{beside[way]:.2f}", f"{beside[way] / alone[way]:.1f}")
    console.print(table)
    longer, faster = alone["csvi"] / alone["as usual"], beside["as usual"] / beside["csvi"]
    return [
        Finding("a step alone", f"{longer:.2f} × as usual", f"≤ {TARGET_ALONE} ×", longer <= TARGET_ALONE),
        Finding(
            f"a step beside {options.busy} busy processes", f"{faster:.1f} × as fast as usual",
            f"≥ {TARGET_BESIDE:g} ×", faster >= TARGET_BESIDE,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
