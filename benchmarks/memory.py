"""What the settings for small GPUs save of memory, and cost of time: micro-batches and recomputed activations.

    python benchmarks/memory.py [--method coseg] [--backbone resnet50] [--height 288 --width 144]

Noise takes the place of images. Every training is in a process of its own, so that memory is its alone: on a GPU what
PyTorch has allocated at most, on a CPU what was resident, PyTorch itself included.
"""

import argparse
import sys

from common import Finding, parser_of, positive, run
from rich.console import Console

from csvi.methods import METHODS
from csvi.plain_table import plain_table
from csvi.train.cost import Cost, training_cost
from methods import add_sizes, config_of, data_of

MICRO_BATCHES = (1, 2, 4)


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints; there are no targets."""
    config = config_of(options.method, options.backbone, data_of(options), options.precision)
    table = plain_table("", "memory (GiB)", "s/step", "× as it is")
    plain: Cost | None = None
    for micro_batches in MICRO_BATCHES:
        for recomputed in (False, True):
            config.train.accumulate, config.train.checkpoint_activations = micro_batches, recomputed
            cost = training_cost(config, options.classes, options.steps)
            plain = plain or cost
            set_to = [f"accumulate: {micro_batches}"] * (micro_batches > 1) + ["checkpoint_activations"] * recomputed
            table.add_row(
                " and ".join(set_to) or "as it is",
                f"{cost.bytes / 2**30:.2f}",
                f"{cost.seconds_a_step:.2f}",
                f"{cost.seconds_a_step / plain.seconds_a_step:.2f}",
            )
    console.print(table)
    return []


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--method", choices=METHODS, default="coseg", metavar="METHOD")
    parser.add_argument("--backbone", default="resnet50")
    add_sizes(parser)
    parser.add_argument("--steps", type=positive, default=3, help="measured after a warm-up")
    parser.add_argument("--precision", default="32-true")
    return parser


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
