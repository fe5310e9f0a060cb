"""How csvi's speed goes with sizes: of a batch and of an image in training and embedding, of a gallery in evaluation.

    python benchmarks/growth.py [--out docs/performance.png]

Training and embedding are of noise, one batch again and again, so that there is nothing to load. Evaluation is of
random embeddings as long as the paper's, as many queries as SYSU-MM01 has, ranked and scored under the rules of LLCM.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from common import Finding, machine, parser_of, positive, run, take_turns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from training import add_sizes, config_of, make_small, with_method

from csvi.analysis.canvas import STYLE
from csvi.config import Config
from csvi.data.llcm import LLCM
from csvi.evaluate.metrics import score_embeddings
from csvi.fabric import make_fabric
from csvi.methods import build_method
from csvi.runs.embeddings import embed
from csvi.train.cost import random_batch, training_cost

IDENTITIES = (2, 4, 8, 16)
"""Identities of a batch."""
HEIGHTS = (192, 288, 384, 480)
"""Of images that are half as wide."""
GALLERIES = (1_000, 4_000, 16_000, 64_000)
QUERIES, DIMENSIONS = 3803, 3072

Lines = dict[str, list[float]]
"""What is measured → its values, one for each size."""


def images_a_second(configs: Sequence[Config], classes: int, turns: int) -> tuple[Lines, Lines]:
    """Under each of the settings: of embedding a batch, folding included, and of training the Baseline and the paper's
    model in a process each; and GB that the latter took."""
    speed: Lines = {"embedding": [], "training, Baseline": [], "training, coseg": []}
    memory: Lines = {"training, Baseline": [], "training, coseg": []}
    for config in configs:
        batch = random_batch(config, classes)
        fabric, net = make_fabric(config.precision), build_method(with_method(config, "baseline"), classes).net
        net.to(fabric.device).to(memory_format=torch.channels_last)
        taken = take_turns({"": lambda: embed(net, [batch], fabric)}, turns, warm_up=1)[""]  # noqa: B023
        speed["embedding"].append(len(batch.image) / statistics.median(taken))
        for name, method in (("training, Baseline", "baseline"), ("training, coseg", "coseg")):
            cost = training_cost(with_method(config, method), classes, turns)
            speed[name].append(len(batch.image) / cost.seconds_a_step)
            memory[name].append(cost.bytes / 1e9)
    return speed, memory


def evaluation_seconds(galleries: Sequence[int], queries: int, dimensions: int, turns: int) -> Lines:
    """Of ranking and scoring all queries against each gallery, which has ten images of everybody in it."""
    random = torch.Generator().manual_seed(0)
    lines: Lines = {"evaluation": []}
    query = torch.randn(queries, dimensions, generator=random)
    for count in galleries:
        gallery = torch.randn(count, dimensions, generator=random)
        asked, shown = torch.arange(queries) % (count // 10), torch.arange(count) // 10

        def score() -> object:
            return score_embeddings(query, gallery, asked, shown, asked % 2, shown % 3 + 2, rules=LLCM.rules)  # noqa: B023

        lines["evaluation"].append(statistics.median(take_turns({"": score}, turns, warm_up=1)[""]))
    return lines


def draw(panels: Sequence[tuple[str, str, Sequence[str], Lines]], title: str, file: Path) -> None:
    """One panel for each (what x is, what y is, sizes, lines)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
        axes: Axes
        for axes, (x, y, sizes, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for name, values in lines.items():
                axes.plot(range(len(sizes)), values, marker="o", label=name)
            axes.set_xticks(range(len(sizes)), sizes)
            axes.set(xlabel=x, ylabel=y, ylim=(0, None))
            if len(lines) > 1:
                axes.legend(frameon=False, fontsize=9)
        figure.suptitle(title, fontsize=8, color="0.35")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150, metadata={"Software": None})


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add_sizes(parser)
    parser.add_argument("--turns", type=positive, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "performance.png")
    parser.add_argument("--quick", action="store_true", help="a small network and two sizes, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures, prints and draws; there are no targets."""
    identities, heights, galleries, queries = IDENTITIES, HEIGHTS, GALLERIES, QUERIES
    if options.quick:
        make_small(options)
        options.turns, identities, heights, galleries, queries = 1, (1, 2), (64, 96), (100, 200), 50

    def resized(**sizes: int) -> Config:
        return config_of(argparse.Namespace(**vars(options) | sizes))

    batches = [str(2 * count * options.images) for count in identities]
    sizes = [f"{height}×{height // 2}" for height in heights]
    of_batch = f"images a batch, {options.height}×{options.width}"
    of_size = f"image size, {2 * options.identities * options.images} a batch"
    by_batch, batch_memory = images_a_second(
        [resized(identities=count) for count in identities], options.classes, options.turns
    )
    by_size, size_memory = images_a_second(
        [resized(height=height, width=height // 2) for height in heights], options.classes, options.turns
    )
    panels = [
        (of_batch, "images/s", batches, by_batch),
        (of_size, "images/s", sizes, by_size),
        (
            f"gallery images, {queries:,} queries", "seconds", [f"{count:,}" for count in galleries],
            evaluation_seconds(galleries, queries, DIMENSIONS, options.turns),
        ),
    ]  # fmt: skip
    for x, y, names, lines in [*panels, (of_batch, "GB", batches, batch_memory), (of_size, "GB", sizes, size_memory)]:
        table = Table(x, *names, title=y)
        for name, values in lines.items():
            table.add_row(name, *(f"{value:.3g}" for value in values))
        console.print(table)
    draw(panels, f"{options.backbone}; {machine()}", options.out)
    console.print(f"drawn in {options.out}")
    return []


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
